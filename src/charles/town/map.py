"""Seeded towns: a bent grid of streets, with buildings, trees and crosswalks along them.

The grid's corners are rounded off into long bends, so every junction has three or four arms and no
street ends nowhere. A junction's arms cross at nearly right angles but are turned together by a
random angle; a street leaves one junction and reaches the next along their arms, so it curves.
Some inner grid lines are avenues with two lanes per direction.
"""

import math
from typing import NamedTuple

import numpy as np

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


class _Edge(NamedTuple):
    """A street to be: the cells it joins, the arms it uses there, and its lanes."""

    start: Cell
    start_arm: int
    end: Cell
    end_arm: int
    lanes: int


class _Plan(NamedTuple):
    """The bent grid, before there is any asphalt."""

    position: dict[Cell, np.ndarray]
    arm_angle: dict[tuple[Cell, int], float]
    edges: list[_Edge]


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
    low = paved.points.min(axis=0) - 40.0
    high = paved.points.max(axis=0) + 40.0
    return TownMap(
        seed=seed,
        roads=roads,
        junctions=junctions,
        crosswalks=crosswalks,
        buildings=buildings,
        trees=trees,
        extent_m=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
    )


def _make_plan(rng: np.random.Generator) -> _Plan:
    xs = np.cumsum(rng.uniform(*_SPACING_M, _COLUMNS))
    ys = np.cumsum(rng.uniform(*_SPACING_M, _ROWS))
    middle = np.array([xs.mean(), ys.mean()])
    spin = rng.uniform(0.0, 2.0 * math.pi)
    turn_all = np.array([[math.cos(spin), math.sin(spin)], [-math.sin(spin), math.cos(spin)]])
    position: dict[Cell, np.ndarray] = {}
    arm_angle: dict[tuple[Cell, int], float] = {}
    for column in range(_COLUMNS):
        for row in range(_ROWS):
            if column in (0, _COLUMNS - 1) and row in (0, _ROWS - 1):
                continue
            cell = (column, row)
            jitter = rng.uniform(-_JITTER_M, _JITTER_M, 2)
            position[cell] = (np.array([xs[column], ys[row]]) + jitter - middle) @ turn_all
            turn = spin + rng.uniform(-_TURN, _TURN)
            for arm in range(4):
                skew = rng.uniform(-_SKEW, _SKEW)
                arm_angle[cell, arm] = turn + arm * math.pi / 2.0 + skew
    avenues = {("column", c) for c in range(1, _COLUMNS - 1) if rng.random() < 0.4}
    avenues |= {("row", r) for r in range(1, _ROWS - 1) if rng.random() < 0.4}
    return _Plan(position, arm_angle, _make_edges(position, avenues, rng))


def _make_edges(
    position: dict[Cell, np.ndarray], avenues: set[tuple[str, int]], rng: np.random.Generator
) -> list[_Edge]:
    edges = []
    for column, row in position:
        east, north = (column + 1, row), (column, row + 1)
        if east in position:
            lanes = 2 if ("row", row) in avenues else 1
            edges.append(_Edge((column, row), _EAST, east, _WEST, lanes))
        if north in position:
            lanes = 2 if ("column", column) in avenues else 1
            edges.append(_Edge((column, row), _NORTH, north, _SOUTH, lanes))
    # Streets may only go missing between junctions of four arms: each keeps at least three.
    arms = {cell: 4 for cell in position if 0 < cell[0] < _COLUMNS - 1 and 0 < cell[1] < _ROWS - 1}
    missing = int(rng.integers(1, 4))
    for index in rng.permutation(len(edges)):
        edge = edges[index]
        if missing and arms.get(edge.start) == 4 and arms.get(edge.end) == 4:
            arms[edge.start] = arms[edge.end] = 3
            edges[index] = edge._replace(lanes=0)
            missing -= 1
    edges = [edge for edge in edges if edge.lanes]
    right, top = _COLUMNS - 1, _ROWS - 1
    edges.append(_Edge((1, 0), _WEST, (0, 1), _SOUTH, 1))
    edges.append(_Edge((right - 1, 0), _EAST, (right, 1), _SOUTH, 1))
    edges.append(_Edge((right - 1, top), _EAST, (right, top - 1), _NORTH, 1))
    edges.append(_Edge((1, top), _WEST, (0, top - 1), _NORTH, 1))
    return edges


def _arms(plan: _Plan, cell: Cell) -> list[tuple[int, int]]:
    """Arms of a junction as (arm, edge index), counter-clockwise."""
    arms = [(e.start_arm, i) for i, e in enumerate(plan.edges) if e.start == cell]
    arms += [(e.end_arm, i) for i, e in enumerate(plan.edges) if e.end == cell]
    return sorted(arms)


def _rim_distances(plan: _Plan) -> dict[tuple[Cell, int], float]:
    """How far from a junction's centre each arm's street begins, so that the kerbs can bend."""
    rim = {}
    for cell in plan.position:
        arms = _arms(plan, cell)
        width = {arm: plan.edges[edge].lanes * LANE_WIDTH_M for arm, edge in arms}
        for arm, _ in arms:
            need = 0.0
            for other, _ in arms:
                between = abs(_wrap(plan.arm_angle[cell, other] - plan.arm_angle[cell, arm]))
                if 0.5 < between < 2.4:
                    crossing = width[other] + width[arm] * math.cos(between)
                    need = max(need, crossing / math.sin(between))
            rim[cell, arm] = need + KERB_RADIUS_M
    return rim


def _make_road(
    plan: _Plan, edge: _Edge, cells: list[Cell], rim: dict[tuple[Cell, int], float]
) -> Road:
    start, end = plan.position[edge.start], plan.position[edge.end]
    pull = 1.1 * float(np.hypot(*(end - start)))
    leave = pull * _unit(plan.arm_angle[edge.start, edge.start_arm])
    reach = -pull * _unit(plan.arm_angle[edge.end, edge.end_arm])
    t = np.linspace(0.0, 1.0, 160)[:, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leave
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * reach
    )
    along = arc_length(curve)
    first = rim[edge.start, edge.start_arm]
    last = along[-1] - rim[edge.end, edge.end_arm]
    stations = np.linspace(first, last, max(2, round((last - first) / 2.0) + 1))
    centre = np.stack([np.interp(stations, along, curve[:, k]) for k in (0, 1)], axis=1)
    return Road(
        centre=centre,
        lanes_per_direction=edge.lanes,
        lane_width_m=LANE_WIDTH_M,
        junctions=(cells.index(edge.start), cells.index(edge.end)),
    )


def _make_junction(plan: _Plan, cell: Cell, roads: tuple[Road, ...], cells: list[Cell]) -> Junction:
    index = cells.index(cell)
    arms = _arms(plan, cell)
    ends = [_road_end(roads[edge], index) for _, edge in arms]
    outline = []
    for i, (point, out, half_width) in enumerate(ends):
        left = np.array([-out[1], out[0]])
        next_point, next_out, next_half_width = ends[(i + 1) % len(ends)]
        next_left = np.array([-next_out[1], next_out[0]])
        a, b = point + left * half_width, next_point - next_left * next_half_width
        pull = 0.4 * float(np.hypot(*(b - a)))
        t = np.linspace(0.0, 1.0, 9)[:, None]
        corner = (
            (1 - t) ** 3 * a
            + 3 * (1 - t) ** 2 * t * (a - out * pull)
            + 3 * (1 - t) * t**2 * (b - next_out * pull)
            + t**3 * b
        )
        outline.append(corner)
    return Junction(
        position=plan.position[cell],
        outline=np.concatenate(outline),
        roads=tuple(edge for _, edge in arms),
    )


def _road_end(road: Road, junction: int) -> tuple[np.ndarray, np.ndarray, float]:
    """A road's last point at a junction, its direction out of the junction, and half its width."""
    centre = road.centre if road.junctions[0] == junction else road.centre[::-1]
    out = centre[1] - centre[0]
    return centre[0], out / np.hypot(*out), road.half_width_m


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
        local = np.abs((self.points - centre) @ _rotation(heading)) - half
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
                out = side * _unit(heading + math.pi / 2.0)
                half = np.array([width, depth]) / 2.0
                # On the inside of a bend the front's ends come closer to the road than its middle.
                for extra in (0.0, 1.0, 2.0):
                    centre = point + out * (road.half_width_m + setback + extra + depth / 2.0)
                    box = np.array([*centre, heading, *half])
                    if near.is_clear(centre, half, heading) and not _hits_any(box, boxes):
                        boxes = np.vstack([boxes, box])
                        size = (float(width), float(depth), float(height))
                        buildings.append(
                            Building(position=centre, size_m=size, heading=heading, style=style)
                        )
                        break
                place += width + gap
    return tuple(buildings)


def _hits_any(box: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether ``box`` comes within 0.5 m of one of ``boxes`` (separating axes)."""
    close = np.hypot(*(boxes[:, :2] - box[:2]).T) < 30.0
    for other in boxes[close]:
        apart = False
        for first, second in ((box, other), (other, box)):
            offset = (second[:2] - first[:2]) @ _rotation(first[2])
            turn = np.abs(_rotation(second[2] - first[2]))
            extent = first[3:] + turn @ second[3:] + 0.5
            apart = apart or bool((np.abs(offset) > extent).any())
        if not apart:
            return True
    return False


def _make_trees(
    roads: tuple[Road, ...],
    buildings: tuple[Building, ...],
    paved: _Paved,
    rng: np.random.Generator,
) -> tuple[Tree, ...]:
    feet = []
    for road in roads:
        along = arc_length(road.centre)
        for place in np.arange(4.0, along[-1] - 4.0, 6.0):
            for side in (-1.0, 1.0):
                point, heading = point_at(road.centre, along, place + rng.uniform(-2.0, 2.0))
                offset = road.half_width_m + PAVEMENT_M + rng.uniform(0.6, 7.0)
                feet.append(point + side * offset * _unit(heading + math.pi / 2.0))
    foot = np.array(feet)
    height = rng.uniform(4.0, 9.0, len(foot))
    is_free = np.ones(len(foot), dtype=bool)
    for building in buildings:
        half = np.array(building.size_m[:2]) / 2.0
        local = np.abs((foot - building.position) @ _rotation(building.heading)) - half
        is_free &= local.max(axis=1) > 1.2
    foot, height = foot[is_free], height[is_free]
    gap = np.hypot(*(foot[:, None] - paved.points[None]).transpose(2, 0, 1)) - paved.radii
    is_free = gap.min(axis=1) > PAVEMENT_M
    return tuple(
        Tree(position=point, height_m=float(tall))
        for point, tall in zip(foot[is_free], height[is_free], strict=True)
    )


def arc_length(line: np.ndarray) -> np.ndarray:
    """Distance along a polyline ``[N, 2]`` at each of its points, float64 ``[N]``."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def point_at(line: np.ndarray, along: np.ndarray, place_m: float) -> tuple[np.ndarray, float]:
    """Point of a polyline at ``place_m`` along it, and the heading there."""
    point = np.array([np.interp(place_m, along, line[:, k]) for k in (0, 1)])
    index = min(max(int(np.searchsorted(along, place_m)), 1), len(line) - 1)
    step = line[index] - line[index - 1]
    return point, math.atan2(step[1], step[0])


def offset_line(line: np.ndarray, offset_m: float) -> np.ndarray:
    """The parallel of a polyline ``[N, 2]``, ``offset_m`` to its left."""
    step = tangents(line)
    return line + offset_m * np.stack([-step[:, 1], step[:, 0]], axis=1)


def tangents(line: np.ndarray) -> np.ndarray:
    """Unit vectors along a polyline ``[N, 2]`` at its points, float64 ``[N, 2]``."""
    step = np.empty_like(line)
    step[1:-1] = line[2:] - line[:-2]
    step[0], step[-1] = line[1] - line[0], line[-1] - line[-2]
    return step / np.hypot(step[:, 0], step[:, 1])[:, None]


def _unit(angle: float) -> np.ndarray:
    return np.array([math.cos(angle), math.sin(angle)])


def _rotation(heading: float) -> np.ndarray:
    """Matrix that takes world vectors (rows) into the frame of ``heading``: ``v @ matrix``."""
    c, s = math.cos(heading), math.sin(heading)
    return np.array([[c, -s], [s, c]])


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
