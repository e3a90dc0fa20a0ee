"""Light by weather and time of day, and the sky in it.

Colours here are float64 RGB in 0..255; a tint is a factor per channel in 0..1.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from charles.town.meshes import Colour, Mesh, circle

HOUR_STEP = 0.25
"""Light changes in steps of this many hours."""

# hour, sky at the top, sky at the horizon, tint of everything, share of lamps lit
_DAY = (
    (4.5, (10, 13, 34), (34, 38, 62), (0.25, 0.28, 0.42), 1.0),
    (6.0, (70, 88, 146), (238, 158, 110), (0.62, 0.54, 0.58), 0.6),
    (7.5, (84, 138, 214), (232, 214, 190), (0.92, 0.86, 0.80), 0.0),
    (10.0, (62, 124, 216), (188, 214, 238), (1.0, 1.0, 1.0), 0.0),
    (16.0, (62, 124, 216), (188, 214, 238), (1.0, 1.0, 1.0), 0.0),
    (18.0, (80, 112, 190), (246, 196, 138), (0.94, 0.81, 0.68), 0.1),
    (19.0, (52, 60, 122), (242, 124, 72), (0.64, 0.50, 0.48), 0.7),
    (20.5, (16, 20, 48), (74, 62, 86), (0.32, 0.32, 0.44), 1.0),
    (22.0, (10, 13, 34), (34, 38, 62), (0.25, 0.28, 0.42), 1.0),
)
# How grey the sky turns, how bright it stays, how bright all else stays,
# distance at which a third of the contrast is left (m).
_WEATHERS = {
    "clear": (0.0, 1.0, 1.0, math.inf),
    "overcast": (0.85, 0.86, 0.84, math.inf),
    "rain": (1.0, 0.74, 0.80, 110.0),
    "fog": (1.0, 0.94, 0.82, 30.0),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """What weather and time of day mean for the picture."""

    weather: str
    """``clear``, ``overcast``, ``rain`` or ``fog``."""
    top: np.ndarray
    """Sky overhead, ``[3]``."""
    horizon: np.ndarray
    """Sky at the horizon, and what distance fades to, ``[3]``."""
    tint: np.ndarray
    """Factor on everything that does not shine, ``[3]``."""
    lamps: float
    """Share of windows and lamps that are lit, 0 to 1."""
    haze_m: float
    """Distance at which 1/e of the contrast is left; infinite where the air is clear."""
    sun: tuple[float, float] | None
    """Azimuth (radians from east) and elevation of the sun or the moon, where it shows."""

    @property
    def is_dark(self) -> bool:
        """Whether cars drive with their lights on."""
        return self.lamps > 0.3


@lru_cache(maxsize=256)
def light_at(weather: str, hour: float) -> Light:
    """The light in ``weather`` at ``hour``, a multiple of :data:`HOUR_STEP`."""
    hours, *columns = np.array([np.hstack(row) for row in _DAY]).T
    values = np.array([np.interp(hour, hours, column, period=24.0) for column in columns])
    top, horizon, tint, lamps = values[:3], values[3:6], values[6:9], float(values[9])
    grey, sky_share, tint_share, haze_m = _WEATHERS[weather]
    middle = np.full(3, (0.35 * top + 0.65 * horizon).mean())
    spread = 0.08 if weather == "fog" else 0.16
    top = sky_share * ((1 - grey) * top + grey * middle * (1.0 - spread))
    horizon = sky_share * ((1 - grey) * horizon + grey * middle)
    tint = tint_share * ((1 - 0.6 * grey) * tint + 0.6 * grey * tint.mean())
    return Light(
        weather=weather,
        top=top,
        horizon=horizon,
        tint=tint,
        lamps=lamps,
        haze_m=haze_m,
        sun=_sun_at(hour % 24.0) if weather == "clear" else None,
    )


def _sun_at(hour: float) -> tuple[float, float]:
    """The sun rises in the east at six and sets in the west at half past seven; then the moon."""
    if 5.5 <= hour <= 19.75:
        share = (hour - 5.5) / 14.25
        return -math.pi * share, 0.95 * math.sin(math.pi * share) + 0.03
    return 1.1, 0.45


def make_sky(light: Light, seed: int) -> Mesh:
    """A dome around the camera, with the far skyline of the town before it."""
    mesh = Mesh()
    turns = np.linspace(0.0, 2.0 * math.pi, 13).tolist()
    for a, b in itertools.pairwise(turns):
        for low, high in itertools.pairwise(_RISES):
            _add_shaded(mesh, light, ((a, low), (b, low), (b, high), (a, high)))
    if light.sun is not None:
        _add_sun(mesh, light, *light.sun)
    _add_skyline(mesh, light, seed)
    return mesh


_RISES = (-0.02, 0.07, 0.25, 0.7, 1.5)
"""Elevations between which the sky's colour runs evenly."""


def _sky_at(light: Light, elevation: float) -> np.ndarray:
    share = float(np.interp(elevation, _RISES, (0.0, 0.12, 0.5, 1.0, 1.0)))
    return (1.0 - share) * light.horizon + share * light.top


def _add_shaded(mesh: Mesh, light: Light, corners: Sequence[tuple[float, float]]) -> None:
    """Add a polygon, given by azimuths and elevations, in the colours of the sky."""
    mesh.polygon([_on_dome(*corner) for corner in corners], (0, 0, 0))
    colours = [(*_rgb(_sky_at(light, elevation)), 0) for _, elevation in corners]
    mesh.colours[-len(corners) :] = colours


def _rgb(colour: np.ndarray) -> Colour:
    red, green, blue = np.clip(np.round(colour), 0, 255).astype(int).tolist()
    return (red, green, blue)


def _on_dome(azimuth: float, elevation: float) -> tuple[float, float, float]:
    reach = 100.0 * math.cos(elevation)
    return reach * math.cos(azimuth), reach * math.sin(azimuth), 100.0 * math.sin(elevation)


def _add_sun(mesh: Mesh, light: Light, azimuth: float, elevation: float) -> None:
    """A disc, and a glow that runs out into the sky."""
    is_moon = light.tint.mean() < 0.4
    disc = np.array((226.0, 230.0, 240.0) if is_moon else (255.0, 244.0, 214.0))
    size = 0.035 if is_moon or elevation > 0.35 else 0.07
    halo = _rgb(0.4 * disc + 0.6 * _sky_at(light, elevation))
    inner, outer = (
        [(azimuth + u / math.cos(elevation), elevation + v) for u, v in circle(radius, 16)]
        for radius in (size, 3.5 * size)
    )
    for i in range(16):
        _add_shaded(mesh, light, (inner[i - 1], inner[i], outer[i], outer[i - 1]))
        mesh.colours[-4:-2] = [(*halo, 0)] * 2
    mesh.polygon([_on_dome(*place) for place in inner], _rgb(disc), alpha=0)


def _add_skyline(mesh: Mesh, light: Light, seed: int) -> None:
    """Roofs and trees far away hide where the drawn world ends."""
    rng = np.random.default_rng([seed, 3])
    edges = np.linspace(0.0, 2.0 * math.pi, 97)
    for a, b in itertools.pairwise(edges):
        far = 0.45 * light.horizon + 0.55 * light.tint * rng.uniform(80.0, 130.0)
        top = math.radians(rng.uniform(0.6, 2.6))
        corners = [_on_dome(t, e) for t, e in ((b, -0.02), (a, -0.02), (a, top), (b, top))]
        mesh.polygon(corners, _rgb(far), alpha=0)
