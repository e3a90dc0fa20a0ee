"""Shapes of everything in a town, as triangles with a colour per corner. NumPy and plain Python.

Cars and pedestrians face +x and stand on z = 0. What is flat on the ground has alpha 0 and all else
alpha 255: alpha reaches the picture as a mark of what is ground, which weather needs to know.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from charles.town.geometry import arc_length
from charles.town.layout import Building, Junction, Road, TownMap
from charles.town.map import PAVEMENT_M

Colour = tuple[int, int, int]
Point = Sequence[float] | np.ndarray
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

    def flat(self, points: Iterable[Point], colour: Colour) -> None:
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

    def box(self, low: Point, high: Point, colour: Colour, *, lean_m: float = 0.0) -> None:
        """Add a box, open below, shaded by side; its bottom is moved by ``lean_m`` along x."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        bottom = [(x + lean_m, y, z0) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        top = [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)]
        sides = [shade(colour, s) for s in (0.72, 0.9, 0.82, 0.9)]
        self.prism(bottom, top, sides, colour)


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` made darker or brighter."""
    red, green, blue = (min(255, round(c * factor)) for c in colour)
    return (red, green, blue)


def cell_of(point: Point) -> Cell:
    """The cell that a point on the ground lies in."""
    return (int(point[0] // CELL_M), int(point[1] // CELL_M))


def make_ground(town: TownMap) -> dict[str, dict[Cell, Mesh]]:
    """Streets, pavements and their markings, by layer and cell."""
    layers: dict[str, dict[Cell, Mesh]] = {name: defaultdict(Mesh) for name in LAYERS}
    rng = np.random.default_rng([town.seed, 7])
    for junction in town.junctions:
        _add_junction(layers, junction)
    for road in town.roads:
        _add_road(layers, road)
        _add_patches(layers["asphalt"], road, rng)
        _add_stop_lines(layers["marking"], road, town)
    for crosswalk in town.crosswalks:
        _add_zebra(layers["marking"], crosswalk.start, crosswalk.end, crosswalk.width_m)
    return layers


def _add_junction(layers: dict[str, dict[Cell, Mesh]], junction: Junction) -> None:
    outline = junction.outline
    tangent = np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    outward /= np.maximum(np.hypot(*outward.T), 1e-9)[:, None]
    cell = cell_of(junction.position)
    rims = (("pavement", PAVEMENT_M, _PAVEMENT), ("kerb", 0.3, _KERB), ("asphalt", 0.0, _ASPHALT))
    for layer, reach, colour in rims:
        rim = outline + reach * outward
        for a, b in zip(rim, np.roll(rim, -1, axis=0), strict=True):
            layers[layer][cell].flat((junction.position, a, b), colour)


def _parallels(road: Road) -> tuple[np.ndarray, np.ndarray]:
    """Centre line, and the unit vectors to its left, both ``[N, 2]``: few points where straight."""
    step = np.gradient(road.centre, axis=0)
    step /= np.hypot(*step.T)[:, None]
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    along = arc_length(road.centre)
    kept = [0]
    for i in range(1, len(along) - 1):
        length, turn = along[i + 1] - along[kept[-1]], abs(heading[i + 1] - heading[kept[-1]])
        if length * turn / 8.0 > _SAGITTA_M or length > 16.0:
            kept.append(i)
    kept.append(len(along) - 1)
    return road.centre[kept], np.stack([-step[kept, 1], step[kept, 0]], axis=1)


def _add_road(layers: dict[str, dict[Cell, Mesh]], road: Road) -> None:
    line, left = _parallels(road)
    half = road.half_width_m

    def strip(layer: str, right_m: float, left_m: float, colour: Colour) -> None:
        a, b = line + right_m * left, line + left_m * left
        for i in range(len(line) - 1):
            mesh = layers[layer][cell_of(line[i])]
            mesh.flat((a[i], a[i + 1], b[i + 1], b[i]), colour)

    strip("pavement", -half - PAVEMENT_M, half + PAVEMENT_M, _PAVEMENT)
    strip("kerb", -half - 0.3, half + 0.3, _KERB)
    strip("asphalt", -half, half, _ASPHALT)
    for side in (-1.0, 1.0):
        middle = side * (half - 0.3)
        strip("marking", middle - _LINE_M / 2, middle + _LINE_M / 2, _WHITE)
        middle = side * 0.16
        strip("marking", middle - _LINE_M / 2, middle + _LINE_M / 2, _YELLOW)
        for lane in range(1, road.lanes_per_direction):
            _add_dashes(layers["marking"], road, side * lane * road.lane_width_m)


def _add_dashes(marking: dict[Cell, Mesh], road: Road, offset_m: float) -> None:
    """Dashes of 3 m every 8 m, ``offset_m`` to the left of the centre."""
    along = arc_length(road.centre)
    for start in np.arange(2.0, along[-1] - 5.0, 8.0):
        a, left = _frame_at(road, along, start)
        b, left_b = _frame_at(road, along, start + 3.0)
        near, far = offset_m - _LINE_M / 2, offset_m + _LINE_M / 2
        corners = (a + near * left, b + near * left_b, b + far * left_b, a + far * left)
        marking[cell_of(a)].flat(corners, _WHITE)


def _frame_at(road: Road, along: np.ndarray, place_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Point on the centre line and the unit vector to its left, ``place_m`` along the road."""
    last = len(along) - 1
    index = int(np.clip(np.searchsorted(along, place_m), 1, last))
    step = road.centre[index] - road.centre[index - 1]
    step = step / np.hypot(*step)
    point = road.centre[index - 1] + (place_m - along[index - 1]) * step
    return point, np.array([-step[1], step[0]])


def _add_patches(asphalt: dict[Cell, Mesh], road: Road, rng: np.random.Generator) -> None:
    """Mended places: without them nothing on an empty street would show how fast one drives."""
    along = arc_length(road.centre)
    for place in np.arange(3.0, along[-1] - 4.0, 6.0):
        point, left = _frame_at(road, along, place + rng.uniform(-2.0, 2.0))
        ahead = np.array([left[1], -left[0]])
        length, width = rng.uniform(0.6, 2.4), rng.uniform(0.5, 1.4)
        reach = road.half_width_m - 1.2
        corner = point + rng.uniform(-reach, reach - width) * left
        quad = (corner, corner + length * ahead)
        quad = (*quad, quad[1] + width * left, corner + width * left)
        asphalt[cell_of(point)].flat(quad, _PATCHES[int(rng.integers(len(_PATCHES)))])


def _add_stop_lines(marking: dict[Cell, Mesh], road: Road, town: TownMap) -> None:
    """A bar across the lanes that enter a junction, before its crosswalk where there is one."""
    along = arc_length(road.centre)
    middles = [((c.start + c.end) / 2.0, c.width_m) for c in town.crosswalks]
    for is_last in (False, True):
        end = road.centre[-1 if is_last else 0]
        gaps = [float(np.hypot(*(m - end))) + w / 2.0 for m, w in middles]
        back = max([0.3] + [gap + 0.7 for gap in gaps if gap < 9.0])
        place = along[-1] - back if is_last else back
        point, left = _frame_at(road, along, place)
        # Traffic keeps right: towards the last point the lanes are on the right of the centre.
        ahead = np.array([left[1], -left[0]]) * 0.4
        kerb = point + left * (road.half_width_m - 0.3) * (-1.0 if is_last else 1.0)
        corners = (point, kerb, kerb + ahead, point + ahead)
        marking[cell_of(point)].flat(corners if is_last else corners[::-1], _WHITE)


def _add_zebra(
    marking: dict[Cell, Mesh], start: np.ndarray, end: np.ndarray, width_m: float
) -> None:
    span = float(np.hypot(*(end - start)))
    across = (end - start) / span
    ahead = np.array([-across[1], across[0]]) * width_m / 2.0
    mesh = marking[cell_of(start)]
    # The asphalt under the stripes hides the lines that would run through them.
    mesh.flat((start - ahead, end - ahead, end + ahead, start + ahead), _ASPHALT)
    count = max(2, round(span / 1.0))
    for i in range(count):
        a = start + across * span * (i + 0.22) / count
        b = start + across * span * (i + 0.78) / count
        mesh.flat((a - ahead, b - ahead, b + ahead, a + ahead), _WHITE)


def make_building(building: Building, *, num_strips: int, bay_m: float, strip_m: float) -> Mesh:
    """A building in world coordinates, with texture coordinates into the façade atlas.

    The atlas has ``num_strips`` façades, each lit and shaded, one above the other. A façade repeats
    sideways every ``bay_m`` and is ``strip_m`` high.
    """
    width, depth, height = building.size_m
    c, s = math.cos(building.heading), math.sin(building.heading)
    x, y = building.position
    plan = [
        (x + c * u - s * v, y + s * u + c * v)
        for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        for u, v in ((u * width / 2.0, v * depth / 2.0),)
    ]
    mesh = Mesh()
    strip = building.style % num_strips
    for side in range(4):
        (ax, ay), (bx, by) = plan[side], plan[(side + 1) % 4]
        normal = building.heading + (side - 1) * math.pi / 2.0
        is_shaded = math.cos(normal - 0.9) < 0.0
        base = (2 * strip + is_shaded) / (2.0 * num_strips)
        top = base + 0.985 * min(height / strip_m, 1.0) / (2.0 * num_strips)
        across = max(1, round((width, depth)[side % 2] / bay_m)) / 16.0
        shift = building.style % 16 / 16.0
        mesh.polygon(
            ((ax, ay, 0), (bx, by, 0), (bx, by, height), (ax, ay, height)), (255, 255, 255)
        )
        mesh.uvs += [(shift, base), (shift + across, base), (shift + across, top), (shift, top)]
    mesh.polygon([(px, py, height) for px, py in plan], (255, 255, 255))
    # A wall's own top edge has no window in it: the roof takes its colour.
    mesh.uvs += [(0.0, (2 * strip + 0.995) / (2.0 * num_strips))] * 4
    return mesh


def make_tree(seed: int) -> Mesh:
    """A tree 1 m high, to be scaled."""
    rng = np.random.default_rng([seed, 11])
    green = [(58, 104, 44), (74, 122, 50), (46, 92, 52), (96, 118, 48)][seed % 4]
    mesh = Mesh()
    mesh.box((-0.03, -0.03, 0.0), (0.03, 0.03, 0.4), (92, 70, 50))
    rings = ((0.30, 0.16), (0.52, 0.30), (0.78, 0.22))
    turn = rng.uniform(0.0, 1.0, 5)
    loops = []
    for height, radius in rings:
        angles = (np.arange(5) + 0.3 * turn) * 2.0 * math.pi / 5.0
        reach = radius * rng.uniform(0.85, 1.15, 5)
        loops.append(
            [(r * math.cos(a), r * math.sin(a), height) for a, r in zip(angles, reach, strict=True)]
        )
    for light, (low, high) in zip((0.62, 0.86), itertools.pairwise(loops), strict=True):
        turns = [2.0 * math.pi * i / 5.0 - 0.9 for i in range(5)]
        sides = [shade(green, light * (1.0 + 0.16 * math.cos(t))) for t in turns]
        mesh.prism(low, high, sides, green)
    for a, b in itertools.pairwise([*loops[-1], loops[-1][0]]):
        mesh.polygon((a, b, (0.0, 0.0, 0.98)), shade(green, 1.1))
    return mesh


def make_car(style: int) -> tuple[Mesh, Mesh, Mesh]:
    """A car: its body, its lamps while it brakes, and its lamps at night."""
    paint = PAINTS[style % len(PAINTS)]
    length, width, height, bonnet, boot = _MODELS[style // len(PAINTS) % len(_MODELS)]
    x0, x1, y = -length / 2.0, length / 2.0, width / 2.0
    belt = 0.36 + 0.36 * height
    mesh = Mesh()
    mesh.polygon(_quad_at(x0 - 0.15, x1 + 0.1, y + 0.18), _SHADOW)
    for wx in (x0 + 0.8, x1 - 0.8):
        _add_wheels(mesh, wx, y)
    _add_hull(mesh, (x0, x1, y), belt, paint)
    cabin = (x0 + boot * length, x1 - bonnet * length)
    _add_cabin(mesh, cabin, y, (belt, height), paint)
    _add_rear(mesh, x0 - 0.01, y, belt)
    return mesh, _make_brake_lamps(x0, y, belt, height), _make_night_lamps(x0, x1, y, belt)


def _quad_at(x0: float, x1: float, y: float) -> list[Point]:
    return [(x0, -y, 0.02), (x1, -y, 0.02), (x1, y, 0.02), (x0, y, 0.02)]


def _add_wheels(mesh: Mesh, x: float, y: float) -> None:
    mesh.box((x - 0.3, -y + 0.02, 0.0), (x + 0.3, y - 0.02, 0.4), _TYRE)
    turns = np.linspace(0.0, 2.0 * math.pi, 8, endpoint=False) + 0.39
    for side in (-1.0, 1.0):
        for radius, out, colour in ((0.34, 0.02, _TYRE), (0.2, 0.03, (150, 152, 156))):
            at = side * (y + out)
            disc = [(x + radius * math.cos(t), at, 0.34 + radius * math.sin(t)) for t in turns]
            mesh.polygon(disc if side < 0 else disc[::-1], colour)


def _add_hull(mesh: Mesh, size: tuple[float, float, float], belt: float, paint: Colour) -> None:
    x0, x1, y = size
    low = [(x0 + 0.05, -y, 0.28), (x1 - 0.1, -y, 0.28), (x1 - 0.1, y, 0.28), (x0 + 0.05, y, 0.28)]
    high = [(x0, -y, belt), (x1, -y, belt - 0.12), (x1, y, belt - 0.12), (x0, y, belt)]
    sides = [shade(paint, s) for s in (0.78, 0.86, 0.88, 0.86)]
    mesh.prism(low, high, sides, paint)


def _add_cabin(
    mesh: Mesh, cabin: tuple[float, float], y: float, heights: tuple[float, float], paint: Colour
) -> None:
    (x0, x1), (z0, z1) = cabin, heights
    rise = z1 - z0
    low = [(x0, -y + 0.04, z0), (x1, -y + 0.04, z0 - 0.06), (x1, y - 0.04, z0 - 0.06),
           (x0, y - 0.04, z0)]  # fmt: skip
    inset = y - 0.22
    roof = [(x0 + 0.35 * rise, -inset, z1), (x1 - 0.9 * rise, -inset, z1),
            (x1 - 0.9 * rise, inset, z1), (x0 + 0.35 * rise, inset, z1)]  # fmt: skip
    mesh.prism(low, roof, [_GLASS, shade(_GLASS, 1.5), _GLASS, _GLASS], shade(paint, 1.08))
    for side in (-1.0, 1.0):  # door pillar
        a, b = (x0 + x1) / 2.0 - 0.1, (x0 + x1) / 2.0 + 0.02
        out, up = side * (y - 0.03), side * (inset + 0.01)
        pillar = [(a, out, z0), (b, out, z0), (b, up, z1), (a, up, z1)]
        mesh.polygon(pillar if side < 0 else pillar[::-1], shade(paint, 0.8))


def _rear_quad(x: float, y0: float, y1: float, z0: float, z1: float) -> list[Point]:
    """An upright rectangle that faces backwards."""
    return [(x, y1, z0), (x, y0, z0), (x, y0, z1), (x, y1, z1)]


def _add_rear(mesh: Mesh, x: float, y: float, belt: float) -> None:
    mesh.polygon(_rear_quad(x + 0.03, -y, y, 0.28, 0.46), (34, 34, 38))  # bumper
    mesh.polygon(_rear_quad(x - 0.01, -0.27, 0.27, 0.52, 0.66), (240, 238, 214))  # number plate
    for side in (-1.0, 1.0):
        y0, y1 = sorted((side * (y - 0.42), side * (y - 0.02)))
        mesh.polygon(_rear_quad(x, y0, y1, belt - 0.26, belt - 0.06), (120, 14, 16))


def _make_brake_lamps(x0: float, y: float, belt: float, height: float) -> Mesh:
    mesh = Mesh()
    for side in (-1.0, 1.0):
        y0, y1 = sorted((side * (y - 0.5), side * y))
        mesh.polygon(_rear_quad(x0 - 0.03, y0, y1, belt - 0.32, belt - 0.02), (255, 24, 20))
    rise = height - belt
    x = x0 + 0.2 * rise
    mesh.polygon(_rear_quad(x, -0.3, 0.3, height - 0.14, height - 0.04), (255, 40, 30))
    return mesh


def _make_night_lamps(x0: float, x1: float, y: float, belt: float) -> Mesh:
    mesh = Mesh()
    for side in (-1.0, 1.0):
        y0, y1 = sorted((side * (y - 0.4), side * (y - 0.04)))
        mesh.polygon(_rear_quad(x0 - 0.02, y0, y1, belt - 0.24, belt - 0.08), (190, 20, 18))
        front = [(x1 + 0.02, y0, 0.52), (x1 + 0.02, y1, 0.52), (x1 + 0.04, y1, 0.74),
                 (x1 + 0.04, y0, 0.74)]  # fmt: skip
        mesh.polygon(front, (255, 250, 220))
    return mesh


def make_pedestrian(style: int, stride: int) -> Mesh:
    """A pedestrian in one of :data:`NUM_STRIDES` moments of a step; a higher one stands still."""
    shirt, trousers = _CLOTHES[style % len(_CLOTHES)]
    skin, hair = ((224, 178, 146), (60, 40, 26)) if style % 3 else ((122, 84, 60), (22, 18, 18))
    phase = 2.0 * math.pi * stride / NUM_STRIDES
    swing = 0.34 * math.sin(phase) if stride < NUM_STRIDES else 0.0
    mesh = Mesh()
    mesh.polygon(_quad_at(-0.3, 0.3, 0.3), _SHADOW)
    for side, lean in ((-1.0, swing), (1.0, -swing)):
        low, high = sorted((side * 0.03, side * 0.2))
        mesh.box((-0.1, low, 0.03), (0.1, high, 0.88), trousers, lean_m=lean)
        low, high = sorted((side * 0.25, side * 0.36))
        mesh.box((-0.07, low, 0.82), (0.07, high, 1.42), shade(shirt, 0.85), lean_m=-lean * 0.8)
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
            side = 1.0 if i % 2 else -1.0
            point, left = _frame_at(road, along, place)
            x, y = point + side * (road.half_width_m + 0.7) * left
            places.append((float(x), float(y), math.atan2(-side * left[1], -side * left[0])))
    return places


def make_lamp_post() -> tuple[Mesh, Mesh, Mesh]:
    """A street lamp with its arm along +x: the post, the lamp, and its light on the ground."""
    post, lamp, glow = Mesh(), Mesh(), Mesh()
    grey = (84, 88, 92)
    post.box((-0.07, -0.07, 0.0), (0.07, 0.07, 5.5), grey)
    arm = [(0.0, 0.0, 5.3), (1.5, 0.0, 5.5), (1.5, 0.0, 5.6), (0.0, 0.0, 5.45)]
    post.polygon(arm, grey)
    post.polygon(arm[::-1], grey)
    lamp.box((1.1, -0.22, 5.38), (1.7, 0.22, 5.52), (255, 236, 190))
    lamp.polygon([(1.1, -0.22, 5.38), (1.1, 0.22, 5.38), (1.7, 0.22, 5.38), (1.7, -0.22, 5.38)],
                 (255, 236, 190))  # fmt: skip
    warm = (255, 226, 170)
    turns = np.linspace(0.0, 2.0 * math.pi, 14)
    rim = [(1.4 + 7.0 * math.cos(t), 7.0 * math.sin(t), 0.0) for t in turns]
    for a, b in itertools.pairwise(rim):
        glow.polygon(((1.4, 0.0, 0.0), a, b), warm)
        glow.colours[-3:] = [(*warm, 90), (*warm, 0), (*warm, 0)]
    return post, lamp, glow


def make_bonnet(paint: Colour) -> Mesh:
    """What the hood camera sees of its own car, in the camera's axes: x right, y ahead, z up."""
    mesh = Mesh()
    # The front edge from left to right: how far out, how far below the camera, both 0.9 m ahead.
    edge = ((-0.95, -0.43), (-0.72, -0.375), (-0.35, -0.35), (0.35, -0.35), (0.72, -0.375),
            (0.95, -0.43))  # fmt: skip
    lights = (0.55, 0.72, 0.86, 0.72, 0.55)
    for (x0, z0), (x1, z1), light in zip(edge, edge[1:], lights, strict=False):
        near = ((0.9 * x0, 0.6, z0 + 0.03), (0.9 * x1, 0.6, z1 + 0.03))
        mesh.polygon((*near, (x1, 0.86, z1), (x0, 0.86, z0)), shade(paint, light))
        lip = ((x1, 0.9, z1 - 0.004), (x0, 0.9, z0 - 0.004))
        mesh.polygon(((x0, 0.86, z0), (x1, 0.86, z1), *lip), shade(paint, 0.45 * light))
    return mesh


def make_marker() -> tuple[Mesh, Mesh]:
    """The target: a ring on the ground, and a column of light that begins above head height."""
    ring, column = Mesh(), Mesh()
    angles = np.linspace(0.0, 2.0 * math.pi, 17)
    for a, b in itertools.pairwise(angles):
        corners = [(r * math.cos(t), r * math.sin(t)) for r, t in ((2.2, a), (2.2, b))]
        corners += [(r * math.cos(t), r * math.sin(t)) for r, t in ((1.6, b), (1.6, a))]
        ring.flat(corners, MARKER)
    column.box((-0.18, -0.18, 6.0), (0.18, 0.18, 40.0), MARKER)
    tip, rim = (
        (0.0, 0.0, 3.0),
        [(0.9, 0.0, 5.2), (0.0, 0.9, 5.2), (-0.9, 0.0, 5.2), (0.0, -0.9, 5.2)],
    )
    for i in range(4):
        column.polygon((tip, rim[(i + 1) % 4], rim[i]), shade(MARKER, 0.75 + 0.08 * i))
        column.polygon((rim[i], rim[(i + 1) % 4], (0.0, 0.0, 6.0)), shade(MARKER, 0.9))
    return ring, column
