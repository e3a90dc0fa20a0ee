"""Seeded towns: a bent grid of streets, with buildings, trees and crosswalks along them.

The grid's corners are rounded off into long bends, so every junction has three or four arms and no
street ends nowhere. A junction's arms cross at nearly right angles but are turned together by a
random angle; a street leaves one junction and reaches the next along their arms, so it curves.
Some inner grid lines are avenues with two lanes per direction.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from charles.town.geometry import (
    arc_length,
    bezier,
    offset_line,
    point_at,
    resample,
    rotation,
    unit,
    wrap,
)
from charles.town.layout import Building, Crosswalk, Junction, Road, TownMap, Tree

LANE_WIDTH_M = 3.5
PAVEMENT_M = 3.0
"""Width of the pavement between a kerb and the buildings."""
KERB_RADIUS_M = 6.0
"""Radius of the kerb at a junction's corners."""
_EAST, _NORTH, _WEST, _SOUTH = range(4)
_COLUMNS, _ROWS = 5, 4
_SPACING_M = (82.0, 108.0)
_JITTER_M = 9.0
_TURN = 0.38
_SKEW = 0.08

Cell = tuple[int, int]
Arm = tuple[Cell, int]
"""One side of a junction: its cell, and ``_EAST`` to ``_SOUTH``."""


class _Edge(NamedTuple):
    """A street to be: the arms that it joins, and its lanes per direction."""

    arms: tuple[Arm, Arm]
    lanes: int


class _Plan(NamedTuple):
    """The bent grid, before there is any asphalt."""

    position: dict[Cell, np.ndarray]
    angle: dict[Arm, float]
    edges: list[_Edge]

    def arms_of(self, cell: Cell) -> list[tuple[Arm, int]]:
        """Arms of a junction that have a street, and its number, counter-clockwise."""
        return sorted(
            (arm, i) for i, edge in enumerate(self.edges) for arm in edge.arms if arm[0] == cell
        )


def make_map(seed: int) -> TownMap:
    """Build the town of ``seed``; the same seed always gives the same town.

    Args:
        seed: 0 or more.

    Returns:
        The town; about 16 junctions, 25 streets and 400 m across.
    """
    rng = np.random.default_rng([seed, 1])
    plan = _make_plan(rng)
    cells = list(plan.position)
    rim = _rim_distances(plan)
    roads = tuple(_make_road(plan, edge, cells, rim) for edge in plan.edges)
    junctions = tuple(_make_junction(plan, cell, roads, cells) for cell in cells)
    crosswalks = _make_crosswalks(roads, rng)
    paved = _pave(roads, junctions)
    buildings = _make_buildings(roads, paved, rng)
    trees = _make_trees(roads, buildings, paved, rng)
    west, south = (paved.points.min(axis=0) - 40.0).tolist()
    east, north = (paved.points.max(axis=0) + 40.0).tolist()
    return TownMap(
        seed=seed,
        roads=roads,
        junctions=junctions,
        crosswalks=crosswalks,
        buildings=buildings,
        trees=trees,
        extent_m=(west, south, east, north),
    )


def _make_plan(rng: np.random.Generator) -> _Plan:
    xs = np.cumsum(rng.uniform(*_SPACING_M, _COLUMNS))
    ys = np.cumsum(rng.uniform(*_SPACING_M, _ROWS))
    middle = np.array([xs.mean(), ys.mean()])
    spin = rng.uniform(0.0, 2.0 * math.pi)
    position: dict[Cell, np.ndarray] = {}
    angle: dict[Arm, float] = {}
    for cell in itertools.product(range(_COLUMNS), range(_ROWS)):
        column, row = cell
        if column in (0, _COLUMNS - 1) and row in (0, _ROWS - 1):
            continue
        jitter = rng.uniform(-_JITTER_M, _JITTER_M, 2)
        position[cell] = (np.array([xs[column], ys[row]]) + jitter - middle) @ rotation(-spin)
        turn = spin + rng.uniform(-_TURN, _TURN)
        for arm in range(4):
            angle[cell, arm] = turn + arm * math.pi / 2.0 + rng.uniform(-_SKEW, _SKEW)
    avenues = {(_NORTH, c) for c in range(1, _COLUMNS - 1) if rng.random() < 0.4}
    avenues |= {(_EAST, r) for r in range(1, _ROWS - 1) if rng.random() < 0.4}
    return _Plan(position, angle, _make_edges(list(position), avenues, rng))


def _make_edges(
    cells: list[Cell], avenues: set[tuple[int, int]], rng: np.random.Generator
) -> list[_Edge]:
    """Streets between neighbours; ``avenues`` are grid lines: where they lead, and their number."""
    edges = []
    for cell in cells:
        column, row = cell
        for arm, line, neighbour in (
            (_EAST, row, (column + 1, row)),
            (_NORTH, column, (column, row + 1)),
        ):
            if neighbour in cells:
                opposite = (neighbour, arm + 2)
                edges.append(_Edge(((cell, arm), opposite), 1 + ((arm, line) in avenues)))
    # Streets may only go missing between junctions of four arms: each keeps at least three.
    full = {cell for cell in cells if 0 < cell[0] < _COLUMNS - 1 and 0 < cell[1] < _ROWS - 1}
    missing = int(rng.integers(1, 4))
    gone = set()
    for index in rng.permutation(len(edges)):
        ends = {cell for cell, _ in edges[index].arms}
        if len(gone) < missing and ends <= full:
            full -= ends
            gone.add(index)
    right, top = _COLUMNS - 1, _ROWS - 1
    return [edge for i, edge in enumerate(edges) if i not in gone] + [
        _Edge((((1, 0), _WEST), ((0, 1), _SOUTH)), 1),
        _Edge((((right - 1, 0), _EAST), ((right, 1), _SOUTH)), 1),
        _Edge((((right - 1, top), _EAST), ((right, top - 1), _NORTH)), 1),
        _Edge((((1, top), _WEST), ((0, top - 1), _NORTH)), 1),
    ]


def _rim_distances(plan: _Plan) -> dict[Arm, float]:
    """How far from a junction's centre each arm's street begins, so that the kerbs can bend."""
    rim = {}
    for cell in plan.position:
        width = {arm: plan.edges[i].lanes * LANE_WIDTH_M for arm, i in plan.arms_of(cell)}
        for arm in width:
            rim[arm] = KERB_RADIUS_M
            for other in width:
                between = abs(wrap(plan.angle[other] - plan.angle[arm]))
                if 0.5 < between < 2.4:
                    crossing = width[other] + width[arm] * math.cos(between)
                    rim[arm] = max(rim[arm], crossing / math.sin(between) + KERB_RADIUS_M)
    return rim


def _make_road(plan: _Plan, edge: _Edge, cells: list[Cell], rim: dict[Arm, float]) -> Road:
    """A cubic Hermite curve that leaves one junction and reaches the other along their arms."""
    leaves, reaches = edge.arms
    start, end = plan.position[leaves[0]], plan.position[reaches[0]]
    pull = 1.1 * float(np.hypot(*(end - start)))
    t = np.linspace(0.0, 1.0, 160)[:, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * (pull * unit(plan.angle[leaves]))
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * (-pull * unit(plan.angle[reaches]))
    )
    along = arc_length(curve)
    first, last = rim[leaves], along[-1] - rim[reaches]
    stations = np.linspace(first, last, max(2, round((last - first) / 2.0) + 1))
    return Road(
        centre=resample(curve, along, stations),
        lanes_per_direction=edge.lanes,
        lane_width_m=LANE_WIDTH_M,
        junctions=(cells.index(leaves[0]), cells.index(reaches[0])),
    )


def _make_junction(plan: _Plan, cell: Cell, roads: tuple[Road, ...], cells: list[Cell]) -> Junction:
    numbers = tuple(edge for _, edge in plan.arms_of(cell))
    ends = [_road_end(roads[number], cells.index(cell)) for number in numbers]
    outline = []
    for (a, _, out), (_, b, next_out) in zip(ends, ends[1:] + ends[:1], strict=True):
        pull = 0.4 * float(np.hypot(*(b - a)))
        outline.append(bezier(a, a - out * pull, b - next_out * pull, b, 9))
    return Junction(position=plan.position[cell], outline=np.concatenate(outline), roads=numbers)


def _road_end(road: Road, junction: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left and right kerb where a road leaves a junction, and its direction out of there."""
    centre = road.centre if road.junctions[0] == junction else road.centre[::-1]
    out = centre[1] - centre[0]
    out = out / np.hypot(*out)
    left = np.array([-out[1], out[0]]) * road.half_width_m
    return centre[0] + left, centre[0] - left, out


def _make_crosswalks(roads: tuple[Road, ...], rng: np.random.Generator) -> tuple[Crosswalk, ...]:
    crosswalks = []
    for road in roads:
        last = len(road.centre) - 1
        places = [2] if rng.random() < 0.6 else []
        places += [last - 2] if rng.random() < 0.6 else []
        places += [last // 2] if last > 22 and rng.random() < 0.5 else []
        side = offset_line(road.centre, road.half_width_m)
        other = offset_line(road.centre, -road.half_width_m)
        crosswalks += [Crosswalk(start=other[i], end=side[i], width_m=3.5) for i in places]
    return tuple(crosswalks)


class _Paved(NamedTuple):
    """Asphalt as a cloud of points with radii, to keep buildings and trees away from it."""

    points: np.ndarray
    radii: np.ndarray

    def near(self, line: np.ndarray) -> "_Paved":
        """The part of it that something beside ``line`` can touch."""
        low, high = line.min(axis=0) - 35.0, line.max(axis=0) + 35.0
        chosen = ((self.points > low) & (self.points < high)).all(axis=1)
        return _Paved(self.points[chosen], self.radii[chosen])

    def is_clear(self, centre: np.ndarray, half: np.ndarray, heading: float) -> bool:
        """Whether a box with half sizes ``half`` leaves room for the pavement."""
        local = np.abs((self.points - centre) @ rotation(heading)) - half
        gap = np.hypot(np.maximum(local[:, 0], 0.0), np.maximum(local[:, 1], 0.0))
        return bool((gap - self.radii).min() > PAVEMENT_M - 0.2)


def _pave(roads: tuple[Road, ...], junctions: tuple[Junction, ...]) -> _Paved:
    outlines = [np.concatenate([j.outline, j.position[None]]) for j in junctions]
    points = np.concatenate([road.centre for road in roads] + outlines)
    widths = [np.full(len(road.centre), road.half_width_m) for road in roads]
    return _Paved(points, np.concatenate(widths + [np.full(len(o), 0.5) for o in outlines]))


def _make_buildings(
    roads: tuple[Road, ...], paved: _Paved, rng: np.random.Generator
) -> tuple[Building, ...]:
    buildings: list[Building] = []
    boxes = np.zeros((0, 5))  # x, y, heading, half width, half depth
    for road in roads:
        near = paved.near(road.centre)
        along = arc_length(road.centre)
        for side in (-1.0, 1.0):
            tallness = rng.uniform(0.7, 1.6)
            place = rng.uniform(0.0, 4.0)
            while place < along[-1] - 6.0:
                width, depth = rng.uniform(9.0, 18.0), rng.uniform(8.0, 14.0)
                height = tallness * rng.uniform(6.0, 13.0)
                setback = PAVEMENT_M + rng.uniform(0.2, 1.5)
                style, gap = int(rng.integers(0, 1000)), rng.uniform(0.5, 9.0)
                point, heading = point_at(road.centre, along, place + width / 2.0)
                out = side * unit(heading + math.pi / 2.0)
                half = np.array([width, depth]) / 2.0
                # On the inside of a bend the front's ends come closer to the road than its middle.
                for extra in (0.0, 1.0, 2.0):
                    centre = point + out * (road.half_width_m + setback + extra + depth / 2.0)
                    box = np.array([*centre, heading, *half])
                    if near.is_clear(centre, half, heading) and not _hits_any(box, boxes):
                        boxes = np.vstack([boxes, box])
                        size = (width, depth, height)
                        buildings.append(
                            Building(position=centre, size_m=size, heading=heading, style=style)
                        )
                        break
                place += width + gap
    return tuple(buildings)


def _hits_any(box: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether ``box`` comes within 0.5 m of one of ``boxes`` (separating axes)."""
    close = boxes[np.hypot(*(boxes[:, :2] - box[:2]).T) < 30.0]
    return not all(_separates(box, other) or _separates(other, box) for other in close)


def _separates(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether one of the axes of ``box`` shows that the two are 0.5 m apart."""
    offset = (other[:2] - box[:2]) @ rotation(box[2])
    extent = box[3:] + np.abs(rotation(other[2] - box[2])) @ other[3:] + 0.5
    return bool((np.abs(offset) > extent).any())


def _make_trees(
    roads: tuple[Road, ...],
    buildings: tuple[Building, ...],
    paved: _Paved,
    rng: np.random.Generator,
) -> tuple[Tree, ...]:
    feet = []
    for road in roads:
        along = arc_length(road.centre)
        for place, side in itertools.product(np.arange(4.0, along[-1] - 4.0, 6.0), (-1.0, 1.0)):
            point, heading = point_at(road.centre, along, place + rng.uniform(-2.0, 2.0))
            offset = road.half_width_m + PAVEMENT_M + rng.uniform(0.6, 7.0)
            feet.append(point + side * offset * unit(heading + math.pi / 2.0))
    foot = np.array(feet)
    height = rng.uniform(4.0, 9.0, len(foot))
    is_free = np.ones(len(foot), dtype=bool)
    for building in buildings:
        half = np.array(building.size_m[:2]) / 2.0
        local = np.abs((foot - building.position) @ rotation(building.heading)) - half
        is_free &= local.max(axis=1) > 1.2
    foot, height = foot[is_free], height[is_free]
    gap = np.hypot(*(foot[:, None] - paved.points[None]).transpose(2, 0, 1)) - paved.radii
    is_free = gap.min(axis=1) > PAVEMENT_M
    pairs = zip(foot[is_free], height[is_free].tolist(), strict=True)
    return tuple(Tree(position=point, height_m=tall) for point, tall in pairs)


def nearest_road(town: TownMap, place: np.ndarray) -> int:
    """Number of the road whose centre line passes nearest to a place, float64 ``[2]``."""
    return int(np.argmin([np.hypot(*(road.centre - place).T).min() for road in town.roads]))
