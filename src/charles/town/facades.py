"""The façades of the buildings: one picture for all, and how each building is wrapped in it."""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from charles.town.geometry import box_corners
from charles.town.layout import Building
from charles.town.meshes import Mesh
from charles.town.sky import Light


@dataclass(frozen=True)
class _Style:
    """How one façade is built: colours, and the window in a bay of 16 x 16 texels."""

    wall: tuple[int, int, int]
    trim: tuple[int, int, int]
    window: tuple[int, int, int, int]
    """Left, right, bottom, top."""
    is_shop: bool = False


_STYLES = (
    _Style((186, 92, 72), (222, 210, 190), (4, 12, 4, 13)),  # brick
    _Style((214, 200, 168), (160, 140, 110), (4, 12, 3, 13), True),  # sandstone
    _Style((142, 150, 160), (96, 104, 114), (1, 15, 5, 13)),  # office
    _Style((228, 222, 212), (120, 70, 58), (5, 11, 4, 13)),  # white plaster
    _Style((206, 158, 92), (240, 232, 214), (3, 13, 4, 12), True),  # ochre
    _Style((104, 118, 128), (60, 68, 78), (1, 15, 2, 15), True),  # glass
    _Style((160, 120, 104), (230, 222, 206), (5, 12, 4, 13)),  # old brick
    _Style((148, 172, 160), (236, 236, 228), (4, 12, 4, 13), True),  # green plaster
)
NUM_FACADES = len(_STYLES)
BAYS, FLOORS = 16, 8
BAY_M, FLOOR_M = 3.0, 3.2
_TEXELS = 16
_SHADED = 0.74
_WHITE = (255, 255, 255)


@lru_cache(maxsize=1)
def _facade_layers() -> tuple[np.ndarray, np.ndarray]:
    """Façades by daylight, and what their windows shed at night.

    Returns:
        ``(albedo, lit)``, uint8 BGR ``[H, W, 3]``, first row at the bottom.
    """
    rng = np.random.default_rng(5)
    height, width = FLOORS * _TEXELS, BAYS * _TEXELS
    albedo = np.zeros((NUM_FACADES, 2, height, width, 3), np.float32)
    lit = np.zeros_like(albedo)
    for style, both_walls, glow in zip(_STYLES, albedo, lit, strict=True):
        wall = both_walls[0]
        wall[:] = style.wall
        wall *= rng.uniform(0.95, 1.05, (height, width, 1))
        wall[::_TEXELS] = style.trim
        for floor, bay in itertools.product(range(FLOORS), range(BAYS)):
            at = np.s_[floor * _TEXELS : (floor + 1) * _TEXELS, bay * _TEXELS : (bay + 1) * _TEXELS]
            _add_window(wall[at], glow[0][at], style, (floor, bay), rng)
        wall[-3:] = style.trim
        both_walls[1] = wall * _SHADED
        glow[1] = glow[0]
    layers = (layer.reshape(-1, width, 3)[..., ::-1] for layer in (albedo, lit))
    albedo, lit = (np.ascontiguousarray(layer.clip(0, 255).astype(np.uint8)) for layer in layers)
    return albedo, lit


def _add_window(
    wall: np.ndarray,
    glow: np.ndarray,
    style: _Style,
    place: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    """Draw the window, shop window or door at a floor and bay into that bay's texels."""
    floor, bay = place
    is_shop = floor == 0 and style.is_shop
    left, right, bottom, top = style.window
    if is_shop:
        left, right, bottom, top = 1, 15, 1, 12
    elif floor == 0 and bay % 5 == 2:
        left, right, bottom, top = 5, 11, 0, 12
    wall[max(bottom - 1, 0) : top + 1, left - 1 : right + 1] = style.trim
    pane = np.s_[bottom:top, left:right]
    rise = np.linspace(0.75, 1.3, top - bottom)[:, None, None]
    wall[pane] = rise * np.array((64, 82, 104)) * rng.uniform(0.75, 1.15)
    is_lit = rng.random() < (0.8 if is_shop else 0.38)
    glow[pane] = np.array((255, 206, 120)) * rng.uniform(0.65, 1.0) * is_lit
    mullion = np.s_[bottom:top, (left + right) // 2]
    wall[mullion], glow[mullion] = style.trim, 0.0


def facade_atlas(light: Light) -> np.ndarray:
    """All façades in ``light``, uint8 BGRA ``[H, W, 4]``, first row at the bottom."""
    albedo, lit = _facade_layers()
    by_day = cv2.multiply(albedo, np.array([*light.tint[::-1], 0.0]))
    shed = cv2.convertScaleAbs(lit, alpha=min(1.0, 1.3 * light.lamps))
    return cv2.cvtColor(cv2.max(by_day, shed), cv2.COLOR_BGR2BGRA)


def make_building(building: Building) -> Mesh:
    """A building in world coordinates, with texture coordinates into the façade atlas.

    The atlas has all façades, each lit and shaded, one above the other. A façade repeats sideways
    every :data:`BAY_M` and is ``FLOORS * FLOOR_M`` high.
    """
    width, depth, height = building.size_m
    plan = box_corners(building.position, building.size_m, building.heading).tolist()
    mesh = Mesh()
    strip, shift = building.style % NUM_FACADES, building.style % BAYS / BAYS
    for side, ((ax, ay), (bx, by)) in enumerate(zip(plan, plan[1:] + plan[:1], strict=True)):
        normal = building.heading + (side - 1) * math.pi / 2.0
        is_shaded = math.cos(normal - 0.9) < 0.0
        base = (2 * strip + is_shaded) / (2.0 * NUM_FACADES)
        top = base + 0.985 * min(height / (FLOORS * FLOOR_M), 1.0) / (2.0 * NUM_FACADES)
        end = shift + max(1, round((width, depth)[side % 2] / BAY_M)) / BAYS
        wall = ((ax, ay, 0.0), (bx, by, 0.0), (bx, by, height), (ax, ay, height))
        mesh.polygon(wall, _WHITE)
        mesh.uvs += [(shift, base), (end, base), (end, top), (shift, top)]
    mesh.polygon([(x, y, height) for x, y in plan], _WHITE)
    # A wall's own top edge has no window in it: the roof takes its colour.
    mesh.uvs += [(0.0, (2 * strip + 0.995) / (2.0 * NUM_FACADES))] * 4
    return mesh
