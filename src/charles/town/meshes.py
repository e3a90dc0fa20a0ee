"""Shapes of everything in a town, as triangles with a colour per corner. NumPy and plain Python.

Cars and pedestrians face +x and stand on z = 0. What is flat on the ground has alpha 0 and all else
alpha 255: alpha reaches the picture as a mark of what is ground, which weather needs to know.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from charles.town.geometry import arc_length, point_at, resample, unit
from charles.town.layout import Crosswalk, Junction, Road, TownMap
from charles.town.map import PAVEMENT_M

Colour = tuple[int, int, int]
Point = Sequence[float] | np.ndarray
Points = Sequence[Point] | np.ndarray
Cell = tuple[int, int]

CELL_M = 64.0
"""Side of the square cells in which flat ground is merged, and culled as one."""
LAYERS = ("pavement", "kerb", "asphalt", "marking")
"""Flat ground, in the order it is painted: each covers the one before."""

GRASS: Colour = (92, 124, 66)
_PAVEMENT: Colour = (158, 154, 148)
_KERB: Colour = (206, 204, 198)
_ASPHALT: Colour = (70, 72, 77)
_PATCHES: tuple[Colour, ...] = ((61, 63, 68), (78, 80, 84), (64, 66, 70))
_WHITE: Colour = (236, 236, 230)
_YELLOW: Colour = (242, 190, 40)
_RIMS = (("pavement", PAVEMENT_M, _PAVEMENT), ("kerb", 0.3, _KERB), ("asphalt", 0.0, _ASPHALT))
"""What covers the ground on and along a street: how far it reaches past the asphalt, and colour."""
_PRIMER: Colour = (255, 255, 255)
"""Of what is painted by its node."""
_SHADOW: Colour = (30, 31, 34)
_TYRE: Colour = (20, 20, 22)
_GLASS: Colour = (28, 36, 46)
MARKER: Colour = (255, 40, 200)
_LINE_M = 0.18
_SAGITTA_M = 0.07
"""How far a straight piece of kerb may stray from a curve."""

PAINTS: tuple[Colour, ...] = (
    (196, 30, 34), (232, 232, 228), (34, 84, 172), (30, 32, 36), (238, 180, 30),
    (150, 156, 162), (24, 120, 76), (226, 106, 30), (120, 40, 110), (104, 172, 208),
)  # fmt: skip
# Length, width, height, share of the length that is bonnet, share that is boot.
_MODELS = (
    (4.4, 1.84, 1.45, 0.28, 0.16),  # saloon
    (4.1, 1.80, 1.50, 0.26, 0.02),  # hatchback
    (4.5, 1.90, 1.95, 0.16, 0.00),  # van
    (4.4, 1.88, 1.70, 0.26, 0.04),  # off-roader
)
NUM_CAR_STYLES = len(PAINTS) * len(_MODELS)
_CLOTHES: tuple[tuple[Colour, Colour], ...] = (
    ((222, 60, 50), (36, 42, 70)), ((245, 245, 240), (44, 60, 110)),
    ((250, 200, 50), (40, 40, 44)), ((60, 140, 220), (196, 180, 150)),
    ((230, 110, 170), (60, 62, 66)), ((40, 160, 110), (28, 30, 36)),
    ((255, 140, 40), (70, 90, 140)), ((150, 90, 200), (225, 222, 214)),
)  # fmt: skip
NUM_PEDESTRIAN_STYLES = len(_CLOTHES)
NUM_STRIDES = 8
"""Pictures of a walking pedestrian; one more stands still."""


class Mesh:
    """Triangles under construction."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.colours: list[tuple[int, int, int, int]] = []
        self.triangles: list[tuple[int, int, int]] = []
        self.uvs: list[tuple[float, float]] = []

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: int = 255) -> None:
        """Add a convex polygon, counter-clockwise as seen."""
        first = len(self.points)
        self.points.extend(points)
        self.colours.extend([(*colour, alpha)] * len(points))
        self.triangles.extend((first, first + i, first + i + 1) for i in range(1, len(points) - 1))

    def flat(self, points: Points, colour: Colour) -> None:
        """Add a convex polygon ``[N, 2]`` on the ground."""
        self.polygon([(x, y, 0.0) for x, y in points], colour, alpha=0)

    def prism(
        self, bottom: Sequence[Point], top: Sequence[Point], sides: Sequence[Colour], lid: Colour
    ) -> None:
        """Add a solid between two polygons of ``N`` points, open below; ``sides`` has ``N``."""
        for i, colour in enumerate(sides):
            j = (i + 1) % len(bottom)
            self.polygon((bottom[i], bottom[j], top[j], top[i]), colour)
        self.polygon(top, lid)

    def cone(self, rim: Sequence[Point], tip: Point, sides: Sequence[Colour]) -> None:
        """Add a cone on a rim of ``N`` points, counter-clockwise from its tip, open below."""
        for i, colour in enumerate(sides):
            self.polygon((rim[i], rim[(i + 1) % len(rim)], tip), colour)

    def box(self, low: Point, high: Point, colour: Colour, *, lean_m: float = 0.0) -> None:
        """Add a box, open below, shaded by side; its bottom is moved by ``lean_m`` along x."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        bottom = [(x + lean_m, y, z0) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        top = [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)]
        sides = [shade(colour, s) for s in (0.72, 0.9, 0.82, 0.9)]
        self.prism(bottom, top, sides, colour)


Layers = dict[str, dict[Cell, Mesh]]


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` made darker or brighter."""
    red, green, blue = (min(255, round(c * factor)) for c in colour)
    return (red, green, blue)


def cell_of(point: Point) -> Cell:
    """The cell that a point on the ground lies in."""
    return (int(point[0] // CELL_M), int(point[1] // CELL_M))


def circle(radius: float, num: int, start: float = 0.0) -> list[tuple[float, float]]:
    """``num`` points around the origin, counter-clockwise from the angle ``start``."""
    turns = start + np.arange(num) * 2.0 * math.pi / num
    return [(radius * math.cos(t), radius * math.sin(t)) for t in turns]


def make_ground(town: TownMap) -> Layers:
    """Streets, pavements and their markings, by layer and cell."""
    layers: Layers = {name: defaultdict(Mesh) for name in LAYERS}
    rng = np.random.default_rng([town.seed, 7])
    for junction in town.junctions:
        _add_junction(layers, junction)
    for road in town.roads:
        street = _Street(road)
        _add_road(layers, street, rng)
        _add_stop_lines(layers, street, town)
    for crosswalk in town.crosswalks:
        _add_zebra(layers, crosswalk)
    return layers


def _paint(layers: Layers, name: str, polygons: Iterable[Points], colour: Colour) -> None:
    """Paint convex polygons, each in the cell of its first corner."""
    for polygon in polygons:
        layers[name][cell_of(polygon[0])].flat(polygon, colour)


class _Street:
    """A road by coordinates: metres along it, and metres to the left of its centre line."""

    def __init__(self, road: Road) -> None:
        self.road, self.half_m = road, road.half_width_m
        self.along = arc_length(road.centre)
        self.length_m = float(self.along[-1])
        step = np.diff(road.centre, axis=0)
        step /= np.hypot(*step.T)[:, None]
        self._left = np.stack([-step[:, 1], step[:, 0]], axis=1)

    def strips(
        self, start: ArrayLike, end: ArrayLike, right_m: ArrayLike, left_m: ArrayLike
    ) -> np.ndarray:
        """Pieces between two places along it and two beside it, each ``[N]``: ``[N, 4, 2]``."""
        along = np.stack([start, end, end, start], axis=-1)
        beside = np.stack([right_m, right_m, left_m, left_m], axis=-1)
        piece = np.searchsorted(self.along, along).clip(1, len(self._left)) - 1
        middle = resample(self.road.centre, self.along, along)
        return middle + beside[..., None] * self._left[piece]

    def stations(self) -> np.ndarray:
        """Where to bend the straight pieces that stand for its curve: few where it is straight."""
        heading = np.unwrap(np.arctan2(self._left[:, 1], self._left[:, 0]))
        kept = [0]
        for i in range(1, len(heading)):
            length, turn = self.along[i + 1] - self.along[kept[-1]], heading[i] - heading[kept[-1]]
            if length * abs(turn) / 8.0 > _SAGITTA_M or length > 16.0:
                kept.append(i)
        return self.along[[*kept, -1]]


def _add_junction(layers: Layers, junction: Junction) -> None:
    outline = junction.outline
    tangent = np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    outward /= np.maximum(np.hypot(*outward.T), 1e-9)[:, None]
    for name, reach, colour in _RIMS:
        rim = outline + reach * outward
        pieces = zip(rim, np.roll(rim, -1, axis=0), strict=True)
        _paint(layers, name, ((junction.position, *piece) for piece in pieces), colour)


def _add_road(layers: Layers, street: _Street, rng: np.random.Generator) -> None:
    half, stations = street.half_m, street.stations()
    for name, reach, colour in _RIMS:
        strips = street.strips(stations[:-1], stations[1:], -half - reach, half + reach)
        _paint(layers, name, strips, colour)
    _add_patches(layers, street, rng)
    dashes = np.arange(2.0, street.length_m - 5.0, 8.0)
    lines = [(stations[:-1], stations[1:], half - 0.3, _WHITE)]
    lines += [(stations[:-1], stations[1:], 0.16, _YELLOW)]
    for lane in range(1, street.road.lanes_per_direction):
        lines.append((dashes, dashes + 3.0, lane * street.road.lane_width_m, _WHITE))
    for (start, end, offset, colour), side in itertools.product(lines, (-1.0, 1.0)):
        middle = side * offset
        strips = street.strips(start, end, middle - _LINE_M / 2, middle + _LINE_M / 2)
        _paint(layers, "marking", strips, colour)


def _add_patches(layers: Layers, street: _Street, rng: np.random.Generator) -> None:
    """Mended places: without them nothing on an empty street would show how fast one drives."""
    reach = street.half_m - 1.2
    patches, colours = [], []
    for place in np.arange(3.0, street.length_m - 4.0, 6.0):
        start = place + rng.uniform(-2.0, 2.0)
        length, width = rng.uniform(0.6, 2.4), rng.uniform(0.5, 1.4)
        right = rng.uniform(-reach, reach - width)
        patches.append((start, start + length, right, right + width))
        colours.append(_PATCHES[int(rng.integers(len(_PATCHES)))])
    for patch, colour in zip(street.strips(*np.array(patches).T), colours, strict=True):
        _paint(layers, "asphalt", [patch], colour)


def _add_stop_lines(layers: Layers, street: _Street, town: TownMap) -> None:
    """A bar across the lanes that enter a junction, before its crosswalk where there is one."""
    kerb = street.half_m - 0.3
    for end in (0, -1):
        back = 0.4
        for crosswalk in town.crosswalks:
            gap = math.dist(crosswalk.middle, street.road.centre[end]) + crosswalk.width_m / 2.0
            back = max(back, gap + 0.7) if gap < 9.0 else back
        # Traffic keeps right: towards the last point the lanes are on the right of the centre.
        place, right, left = (back, 0.0, kerb) if end == 0 else (street.length_m - back, -kerb, 0.0)
        _paint(layers, "marking", [street.strips(place, place + 0.4, right, left)], _WHITE)


def _add_zebra(layers: Layers, crosswalk: Crosswalk) -> None:
    across = crosswalk.end - crosswalk.start
    span = float(np.hypot(*across))
    ahead = np.array([-across[1], across[0]]) / span * crosswalk.width_m / 2.0
    num = max(2, round(span))
    stripes = [((i + 0.22) / num, (i + 0.78) / num, _WHITE) for i in range(num)]
    # The asphalt under the stripes hides the lines that would run through them.
    for start, end, colour in [(0.0, 1.0, _ASPHALT), *stripes]:
        a, b = crosswalk.start + start * across, crosswalk.start + end * across
        layers["marking"][cell_of(crosswalk.start)].flat(
            (a - ahead, b - ahead, b + ahead, a + ahead), colour
        )


def make_tree(seed: int) -> Mesh:
    """A tree 1 m high, to be scaled."""
    rng = np.random.default_rng([seed, 11])
    green = [(58, 104, 44), (74, 122, 50), (46, 92, 52), (96, 118, 48)][seed % 4]
    mesh = Mesh()
    mesh.box((-0.03, -0.03, 0.0), (0.03, 0.03, 0.4), (92, 70, 50))
    angles = (np.arange(5) + 0.3 * rng.uniform(0.0, 1.0, 5)) * 2.0 * math.pi / 5.0
    rings = []
    for height, radius in ((0.30, 0.16), (0.52, 0.30), (0.78, 0.22)):
        reach = radius * rng.uniform(0.85, 1.15, 5)
        ring = np.stack([reach * np.cos(angles), reach * np.sin(angles), np.full(5, height)])
        rings.append(ring.T.tolist())
    lights = [1.0 + 0.16 * math.cos(2.0 * math.pi * i / 5.0 - 0.9) for i in range(5)]
    mesh.prism(rings[0], rings[1], [shade(green, 0.62 * light) for light in lights], green)
    mesh.prism(rings[1], rings[2], [shade(green, 0.86 * light) for light in lights], green)
    mesh.cone(rings[2], (0.0, 0.0, 0.98), [shade(green, 1.1)] * 5)
    return mesh


def make_car(style: int) -> tuple[Mesh, Mesh, Mesh]:
    """A car: its body, its lamps while it brakes, and its lamps at night."""
    paint = PAINTS[style % len(PAINTS)]
    length, width, height, bonnet, boot = _MODELS[style // len(PAINTS) % len(_MODELS)]
    x0, x1, y = -length / 2.0, length / 2.0, width / 2.0
    belt = 0.36 + 0.36 * height
    body, brakes, lamps = Mesh(), Mesh(), Mesh()
    body.polygon(_level(x0 - 0.15, x1 + 0.1, y + 0.18, 0.02), _SHADOW)
    for x in (x0 + 0.8, x1 - 0.8):
        _add_wheels(body, x, y)
    sides = [shade(paint, s) for s in (0.78, 0.86, 0.88, 0.86)]
    low, high = _level(x0 + 0.05, x1 - 0.1, y, 0.28), _level(x0, x1, y, belt, belt - 0.12)
    body.prism(low, high, sides, paint)
    cabin = (x0 + boot * length, x1 - bonnet * length)
    _add_cabin(body, cabin, y, (belt, height), paint)
    rise = height - belt
    for mesh, x, (inner, outer), (low, high), colour in (
        (body, x0 - 0.01, (y - 0.42, y - 0.02), (belt - 0.26, belt - 0.06), (120, 14, 16)),
        (body, x0 + 0.02, (0.0, y), (0.28, 0.46), (34, 34, 38)),  # bumper
        (body, x0 - 0.02, (0.0, 0.27), (0.52, 0.66), (240, 238, 214)),  # number plate
        (brakes, x0 - 0.03, (y - 0.5, y), (belt - 0.32, belt - 0.02), (255, 24, 20)),
        (brakes, x0 + 0.2 * rise, (0.0, 0.3), (height - 0.14, height - 0.04), (255, 40, 30)),
        (lamps, x0 - 0.02, (y - 0.4, y - 0.04), (belt - 0.24, belt - 0.08), (190, 20, 18)),
    ):
        for right, left in _mirrored(inner, outer):
            rear = [(x, left, low), (x, right, low), (x, right, high), (x, left, high)]
            mesh.polygon(rear, colour)
    for right, left in _mirrored(y - 0.4, y - 0.04):
        near, far = x1 + 0.02, x1 + 0.04
        front = [(near, right, 0.52), (near, left, 0.52), (far, left, 0.74), (far, right, 0.74)]
        lamps.polygon(front, (255, 250, 220))
    return body, brakes, lamps


def _level(x0: float, x1: float, y: float, rear: float, front: float | None = None) -> list[Point]:
    """A rectangle from ``x0`` to ``x1``, ``y`` to either side, so high in the rear and in front."""
    front = rear if front is None else front
    return [(x0, -y, rear), (x1, -y, front), (x1, y, front), (x0, y, rear)]


def _mirrored(inner: float, outer: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """An interval on the left, as (right, left) ends, and its mirror image."""
    return (inner, outer), (-outer, -inner)


def _add_wheels(mesh: Mesh, x: float, y: float) -> None:
    mesh.box((x - 0.3, -y + 0.02, 0.0), (x + 0.3, y - 0.02, 0.4), _TYRE)
    for side in (-1, 1):
        for radius, out, colour in ((0.34, 0.02, _TYRE), (0.2, 0.03, (150, 152, 156))):
            disc = [(x + u, side * (y + out), 0.34 + v) for u, v in circle(radius, 8, 0.39)]
            mesh.polygon(disc[::-side], colour)


def _add_cabin(
    mesh: Mesh, cabin: tuple[float, float], y: float, heights: tuple[float, float], paint: Colour
) -> None:
    (x0, x1), (z0, z1) = cabin, heights
    rise, inset = z1 - z0, y - 0.22
    low = _level(x0, x1, y - 0.04, z0, z0 - 0.06)
    roof = _level(x0 + 0.35 * rise, x1 - 0.9 * rise, inset, z1)
    mesh.prism(low, roof, [_GLASS, shade(_GLASS, 1.5), _GLASS, _GLASS], shade(paint, 1.08))
    for side in (-1, 1):  # door pillar
        a, b = (x0 + x1) / 2.0 - 0.1, (x0 + x1) / 2.0 + 0.02
        out, up = side * (y - 0.03), side * (inset + 0.01)
        pillar = [(a, out, z0), (b, out, z0), (b, up, z1), (a, up, z1)]
        mesh.polygon(pillar[::-side], shade(paint, 0.8))


def make_pedestrian(style: int, stride: int) -> Mesh:
    """A pedestrian in one of :data:`NUM_STRIDES` moments of a step; a higher one stands still."""
    shirt, trousers = _CLOTHES[style % len(_CLOTHES)]
    skin, hair = ((224, 178, 146), (60, 40, 26)) if style % 3 else ((122, 84, 60), (22, 18, 18))
    phase = 2.0 * math.pi * stride / NUM_STRIDES
    swing = 0.34 * math.sin(phase) if stride < NUM_STRIDES else 0.0
    mesh = Mesh()
    mesh.polygon(_level(-0.3, 0.3, 0.3, 0.02), _SHADOW)
    for lean, leg, arm in zip(
        (-swing, swing), _mirrored(0.03, 0.2), _mirrored(0.25, 0.36), strict=True
    ):
        mesh.box((-0.1, leg[0], 0.03), (0.1, leg[1], 0.88), trousers, lean_m=lean)
        sleeve = shade(shirt, 0.85)
        mesh.box((-0.07, arm[0], 0.82), (0.07, arm[1], 1.42), sleeve, lean_m=-lean * 0.8)
    mesh.box((-0.14, -0.25, 0.84), (0.14, 0.25, 1.46), shirt)
    mesh.box((-0.11, -0.1, 1.48), (0.11, 0.1, 1.7), skin)
    mesh.box((-0.13, -0.12, 1.64), (0.1, 0.12, 1.78), hair)
    return mesh


def lamp_post_places(town: TownMap) -> list[tuple[float, float, float]]:
    """Street lamps on alternating pavements: x, y and the heading of their arm."""
    places = []
    for road in town.roads:
        along = arc_length(road.centre)
        for i, place in enumerate(np.arange(9.0, along[-1] - 6.0, 24.0)):
            point, heading = point_at(road.centre, along, place)
            arm = heading + (-math.pi / 2.0 if i % 2 else math.pi / 2.0)
            x, y = point - (road.half_width_m + 0.7) * unit(arm)
            places.append((float(x), float(y), arm))
    return places


def make_lamp_post() -> tuple[Mesh, Mesh, Mesh]:
    """A street lamp with its arm along +x: the post, the lamp, and its light on the ground."""
    post, lamp, glow = Mesh(), Mesh(), Mesh()
    post.box((-0.07, -0.07, 0.0), (0.07, 0.07, 5.5), (84, 88, 92))
    arm = [(0.0, 0.0, 5.3), (1.5, 0.0, 5.5), (1.5, 0.0, 5.6), (0.0, 0.0, 5.45)]
    for side in (arm, arm[::-1]):
        post.polygon(side, (84, 88, 92))
    lamp.box((1.1, -0.22, 5.38), (1.7, 0.22, 5.52), (255, 236, 190))
    lamp.polygon([(1.1, -0.22, 5.38), (1.1, 0.22, 5.38), (1.7, 0.22, 5.38), (1.7, -0.22, 5.38)],
                 (255, 236, 190))  # fmt: skip
    rim = [(1.4 + x, y, 0.0) for x, y in circle(7.0, 13)]
    glow.cone(rim, (1.4, 0.0, 0.0), [(255, 226, 170)] * 13)
    glow.colours = [(*colour[:3], 0 if i % 3 < 2 else 90) for i, colour in enumerate(glow.colours)]
    return post, lamp, glow


def make_bonnet() -> Mesh:
    """A white bonnet as the hood camera sees it, in its own axes: x right, y ahead, z up."""
    mesh = Mesh()
    # The front edge from left to right: how far out, how far below the camera, both 0.9 m ahead.
    edge = ((-0.95, -0.43), (-0.72, -0.375), (-0.35, -0.35), (0.35, -0.35), (0.72, -0.375),
            (0.95, -0.43))  # fmt: skip
    lights = (0.55, 0.72, 0.86, 0.72, 0.55)
    for ((x0, z0), (x1, z1)), light in zip(itertools.pairwise(edge), lights, strict=True):
        near = ((0.9 * x0, 0.6, z0 + 0.03), (0.9 * x1, 0.6, z1 + 0.03))
        mesh.polygon((*near, (x1, 0.86, z1), (x0, 0.86, z0)), shade(_PRIMER, light))
        lip = ((x1, 0.9, z1 - 0.004), (x0, 0.9, z0 - 0.004))
        mesh.polygon(((x0, 0.86, z0), (x1, 0.86, z1), *lip), shade(_PRIMER, 0.45 * light))
    return mesh


def make_marker() -> tuple[Mesh, Mesh]:
    """The target: a ring on the ground, and a column of light that begins above head height."""
    ring, column = Mesh(), Mesh()
    outer, inner = circle(2.2, 16), circle(1.6, 16)
    for i in range(16):
        ring.flat((outer[i - 1], outer[i], inner[i], inner[i - 1]), MARKER)
    column.box((-0.18, -0.18, 6.0), (0.18, 0.18, 40.0), MARKER)
    rim = [(x, y, 5.2) for x, y in circle(0.9, 4)]
    column.cone(rim[::-1], (0.0, 0.0, 3.0), [shade(MARKER, 0.75 + 0.08 * i) for i in range(4)])
    column.cone(rim, (0.0, 0.0, 6.0), [shade(MARKER, 0.9)] * 4)
    return ring, column
