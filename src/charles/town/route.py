"""Lanes, how they join through junctions, and routes along them.

A lane graph is computed from a :class:`~charles.town.layout.TownMap`: lanes beside the streets'
centre lines, and connectors, smooth arcs through the junctions. Both are :class:`Lane`. A route is
one long line of points along lanes and connectors, about 1 m apart.
"""

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from charles.town.geometry import arc_length, bezier, offset_line, resample, tangents, unit, wrap
from charles.town.layout import TownMap
from charles.town.map import nearest_road

MARKER_M = 15.0
"""How far ahead on the route the target marker stands: far enough to brake for the turn that it
shows, near enough to say where in a wide junction the way lies."""
_PAST_JUNCTION_M = 8.0
"""How far behind a junction's rim a route may end."""
SPEED_MPS = (7.5, 8.5)
"""Cruising speed on streets with one and with two lanes per direction."""
JUNCTION_SPEED_MPS = 5.5
LATERAL_MPS2 = 2.2
"""Lateral acceleration that a driver likes in bends."""
COMFORT_MPS2 = 2.0
"""Deceleration that a driver plans with."""
AHEAD_M = 120.0
"""An endless route reaches at least this far ahead."""

Turn = Literal["", "left", "straight", "right"]


@dataclass(kw_only=True, eq=False)
class Lane:
    """A lane of a street, or a connector through a junction. Points are about 1 m apart, evenly."""

    x: list[float]
    y: list[float]
    heading: list[float]
    """Unwrapped, so that it can be interpolated."""
    point_speed_mps: list[float]
    """How fast the ego may pass each point, on account of the bend there."""
    length_m: float
    junction: int
    """The junction that it leads to or, for a connector, crosses."""
    road: int
    """The street; -1 for connectors."""
    turn: Turn
    """What a connector does; empty for lanes of streets."""
    speed_mps: float
    """How fast all of it can be driven in comfort."""
    successors: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    """The lanes that lead to it."""
    conflicts: frozenset[int] = frozenset()
    """Connectors that this connector crosses or joins."""
    crosswalks: list[tuple[int, float]] = field(default_factory=list)
    """Crosswalks over it, by number, and where along it they are; nearest first."""

    def pose(self, place_m: float) -> tuple[float, float, float]:
        """Position and heading at ``place_m`` along it; beyond its ends, straight on."""
        last = len(self.x) - 1
        at = place_m / self.length_m * last
        i = 0 if at <= 0.0 else last - 1 if at >= last else int(at)
        f = at - i
        x, y, h = self.x, self.y, self.heading
        return (
            x[i] + f * (x[i + 1] - x[i]),
            y[i] + f * (y[i + 1] - y[i]),
            h[i] + f * (h[i + 1] - h[i]),
        )


class LaneGraph:
    """All lanes of a town; lanes are known by their number."""

    def __init__(self, town: TownMap) -> None:
        self.lanes: list[Lane] = []
        self._ends: dict[tuple[int, int, bool], list[int]] = {}  # junction, road, is leaving
        for number, _ in enumerate(town.roads):
            self._add_road(town, number)
        self.num_street_lanes = len(self.lanes)
        for junction in range(len(town.junctions)):
            self._add_connectors(town, junction)
        self._add_crosswalks(town)
        self._points = np.concatenate([np.stack([a.x, a.y], axis=1) for a in self.lanes])
        self._headings = np.concatenate([a.heading for a in self.lanes])
        self._owner = np.repeat(np.arange(len(self.lanes)), [len(a.x) for a in self.lanes])
        self._first = np.searchsorted(self._owner, np.arange(len(self.lanes)))

    def nearest(self, x: float, y: float, heading: float | None = None) -> tuple[int, float, float]:
        """Lane nearest to a place: its number, the place along it, the distance to it.

        Args:
            x: Metres east.
            y: Metres north.
            heading: Lanes that lead elsewhere count as farther away; ``None`` for streets only.
        """
        distance = np.hypot(*(self._points - (x, y)).T)
        if heading is None:
            cost = distance[self._owner < self.num_street_lanes]
        else:
            cost = distance + 6.0 * (1.0 - np.cos(self._headings - heading))
        best = int(cost.argmin())
        number = int(self._owner[best])
        lane = self.lanes[number]
        place = (best - self._first[number]) / (len(lane.x) - 1) * lane.length_m
        return number, float(place), float(distance[best])

    def choose_next(self, number: int, rng: np.random.Generator) -> int:
        """One of a lane's successors at random; left, straight and right are equally likely."""
        successors = self.lanes[number].successors
        if len(successors) == 1:
            return successors[0]
        turns = sorted({self.lanes[s].turn for s in successors})
        turn = turns[int(rng.integers(len(turns)))]
        same = [s for s in successors if self.lanes[s].turn == turn]
        return same[int(rng.integers(len(same)))]

    def siblings(self, number: int) -> list[int]:
        """The connectors that begin where a connector does, itself among them."""
        return self.lanes[self.lanes[number].sources[0]].successors

    def _add_road(self, town: TownMap, number: int) -> None:
        road = town.roads[number]
        start, end = road.junctions
        speed = SPEED_MPS[road.lanes_per_direction - 1]
        for line, origin, goal in ((road.centre, start, end), (road.centre[::-1], end, start)):
            for k in range(road.lanes_per_direction):
                points = offset_line(line, -(k + 0.5) * road.lane_width_m)
                self._ends.setdefault((origin, number, True), []).append(len(self.lanes))
                self._ends.setdefault((goal, number, False), []).append(len(self.lanes))
                self.lanes.append(_make_lane(points, goal, number, "", speed))

    def _add_connectors(self, town: TownMap, junction: int) -> None:
        first = len(self.lanes)
        for entry, leave in itertools.permutations(town.junctions[junction].roads, 2):
            entries, leaves = self._ends[junction, entry, False], self._ends[junction, leave, True]
            for source, successor, turn in self._pairs(entries, leaves):
                number = len(self.lanes)
                points = _connect(self.lanes[source], self.lanes[successor])
                connector = _make_lane(points, junction, -1, turn, JUNCTION_SPEED_MPS)
                connector.sources.append(source)
                connector.successors.append(successor)
                self.lanes[source].successors.append(number)
                self.lanes[successor].sources.append(number)
                self.lanes.append(connector)
        self._find_conflicts(range(first, len(self.lanes)))

    def _pairs(self, entries: list[int], leaves: list[int]) -> list[tuple[int, int, Turn]]:
        """Which lanes of an entering street lead to which of a leaving one; innermost is first."""
        bend = wrap(self.lanes[leaves[0]].heading[0] - self.lanes[entries[0]].heading[-1])
        if bend > math.pi / 4.0:
            return [(entries[0], leave, "left") for leave in leaves]
        if bend < -math.pi / 4.0:
            return [(entries[-1], leave, "right") for leave in leaves]
        same = zip(entries, leaves, strict=False)
        return [(entry, leave, "straight") for entry, leave in same]

    def _find_conflicts(self, connectors: range) -> None:
        """Note conflicts among the connectors of one junction."""
        samples = []
        for number in connectors:
            lane = self.lanes[number]
            at = np.linspace(0, len(lane.x) - 1, 12).round().astype(int)
            samples.append(np.array([lane.x, lane.y])[:, at])
        line = np.array(samples)
        gap = np.hypot(
            *(line[:, None, :, :, None] - line[None, :, :, None, :]).transpose(2, 0, 1, 3, 4)
        )
        is_near = gap.min(axis=(2, 3)) < 2.7
        for one, near in zip(connectors, is_near, strict=True):
            others = {other for other, n in zip(connectors, near, strict=True) if n}
            self.lanes[one].conflicts = frozenset(others.difference(self.siblings(one)))

    def _add_crosswalks(self, town: TownMap) -> None:
        for number, crosswalk in enumerate(town.crosswalks):
            (x, y), road = crosswalk.middle, nearest_road(town, crosswalk.middle)
            for lane in self.lanes[: self.num_street_lanes]:
                if lane.road == road:
                    nearest = int(np.hypot(lane.x - x, lane.y - y).argmin())
                    place = nearest / (len(lane.x) - 1) * lane.length_m
                    lane.crosswalks.append((number, place))
        for lane in self.lanes:
            lane.crosswalks.sort(key=lambda pair: pair[1])


def _make_lane(points: np.ndarray, junction: int, road: int, turn: Turn, speed: float) -> Lane:
    along = arc_length(points)
    line = resample(points, along, np.linspace(0.0, along[-1], max(3, round(along[-1]) + 1)))
    spacing = along[-1] / (len(line) - 1)
    step = tangents(line)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    bend = np.abs(np.gradient(heading)) / spacing
    top = SPEED_MPS[-1] if road >= 0 else JUNCTION_SPEED_MPS
    sharpest = float(np.abs(np.diff(heading)).max()) / spacing
    return Lane(
        x=line[:, 0].tolist(),
        y=line[:, 1].tolist(),
        heading=heading.tolist(),
        point_speed_mps=np.minimum(top, _comfortable_speed(bend)).tolist(),
        length_m=float(along[-1]),
        junction=junction,
        road=road,
        turn=turn,
        speed_mps=min(speed, float(_comfortable_speed(sharpest))),
    )


def _comfortable_speed(bend: np.ndarray | float) -> np.ndarray:
    """Speed for bends of so many radians per metre."""
    return np.sqrt(LATERAL_MPS2 / np.maximum(bend, 1e-3))


def _connect(entry: Lane, leave: Lane) -> np.ndarray:
    """A smooth arc from the end of one lane to the start of another, float64 ``[N, 2]``."""
    a, b = np.array([entry.x[-1], entry.y[-1]]), np.array([leave.x[0], leave.y[0]])
    out, into = unit(entry.heading[-1]), unit(leave.heading[0])
    bend = abs(wrap(leave.heading[0] - entry.heading[-1]))
    if bend > 0.6:
        # Control points on the two tangents, as for a circular arc if they are equally long.
        share = 4.0 / 3.0 * math.tan(bend / 4.0) / math.tan(bend / 2.0)
        first, second = np.linalg.solve(np.stack([out, into], axis=1), b - a) * share
    else:
        first = second = float(np.hypot(*(b - a))) / 2.7
    return bezier(a, a + first * out, b - second * into, b, 60)


class Leg(NamedTuple):
    """A junction that a route crosses, by distances along the route."""

    entry_m: float
    """The rim where the route enters it."""
    exit_m: float
    """The rim where it leaves it."""
    connector: int


class Located(NamedTuple):
    """A place relative to a route."""

    nearest: int
    """Number of the nearest point of the route."""
    along_m: float
    right_m: float
    """Cross-track error, positive to the right of the route."""


class Route:
    """A line to follow. It can be extended, never shortened."""

    def __init__(
        self, graph: LaneGraph, lane: int, place_m: float, rng: np.random.Generator
    ) -> None:
        """Begin on ``lane``, ``place_m`` along it; turns are drawn from ``rng``."""
        self._graph, self._rng = graph, rng
        self.x: list[float] = []
        self.y: list[float] = []
        self.along_m: list[float] = []
        self.speed_mps: list[float] = []
        """How fast each point may be passed, with braking for what follows planned in."""
        self.lanes: list[int] = []
        self.lane_starts_m: list[float] = []
        self.legs: list[Leg] = []
        self.end_m = math.inf
        self._append(lane, place_m)

    def extend(self, length_m: float) -> None:
        """Make it at least ``length_m`` long."""
        while self.along_m[-1] < length_m or self._graph.lanes[self.lanes[-1]].road < 0:
            self._append(self._graph.choose_next(self.lanes[-1], self._rng), 0.0)

    def finish(self, length_m: float) -> None:
        """Set its goal ``length_m`` from its start, or just behind a junction if it lies in one."""
        self.extend(length_m + AHEAD_M)
        self.end_m = length_m
        for leg in self.legs:
            if leg.entry_m - 2.0 < length_m < leg.exit_m + _PAST_JUNCTION_M:
                self.end_m = leg.exit_m + _PAST_JUNCTION_M

    def locate(self, x: float, y: float, near: int) -> Located:
        """Project a place onto the part of the route around point ``near``."""
        best = self.nearest(x, y, max(near - 10, 0), min(near + 25, len(self.x)))
        i = min(max(best, 1), len(self.x) - 2)
        tx, ty = self.x[i + 1] - self.x[i - 1], self.y[i + 1] - self.y[i - 1]
        norm = math.hypot(tx, ty)
        tx, ty = tx / norm, ty / norm
        dx, dy = x - self.x[i], y - self.y[i]
        step = min(max(dx * tx + dy * ty, -1.0), 1.0)
        return Located(best, self.along_m[i] + step, dx * ty - dy * tx)

    def nearest(self, x: float, y: float, first: int, last: int) -> int:
        """The point nearest to a place among those from ``first`` to before ``last``."""
        xs, ys = self.x, self.y
        best, least = first, math.inf
        for i in range(first, last):
            dx, dy = xs[i] - x, ys[i] - y
            d = dx * dx + dy * dy
            if d < least:
                best, least = i, d
        return best

    def point(self, along_m: float) -> tuple[float, float]:
        """The point ``along_m`` from the start, held at both ends."""
        i, f = self._between(along_m)
        return (
            self.x[i] + f * (self.x[i + 1] - self.x[i]),
            self.y[i] + f * (self.y[i + 1] - self.y[i]),
        )

    def speed_at(self, along_m: float) -> float:
        """How fast to drive ``along_m`` from the start, m/s."""
        i, f = self._between(along_m)
        return self.speed_mps[i] + f * (self.speed_mps[i + 1] - self.speed_mps[i])

    def leg_after(self, along_m: float, past_m: float) -> Leg | None:
        """The first junction whose far rim is not yet ``past_m`` behind."""
        for i in range(max(bisect_right(self.legs, (along_m,)) - 1, 0), len(self.legs)):
            if self.legs[i].exit_m + past_m > along_m:
                return self.legs[i]
        return None

    def marker(self, along_m: float) -> tuple[float, float]:
        """Where the target marker stands for a car ``along_m`` from the start."""
        return self.point(min(along_m + MARKER_M, self.end_m))

    def lanes_at(self, along_m: float) -> list[int]:
        """The lanes of the route around ``along_m`` from its start."""
        starts = self.lane_starts_m
        first = max(bisect_right(starts, along_m - 12.0) - 1, 0)
        return self.lanes[first : bisect_right(starts, along_m + 12.0)]

    def _between(self, along_m: float) -> tuple[int, float]:
        line = self.along_m
        i = min(max(bisect_right(line, along_m) - 1, 0), len(line) - 2)
        f = (along_m - line[i]) / (line[i + 1] - line[i])
        return i, min(max(f, 0.0), 1.0)

    def _append(self, number: int, place_m: float) -> None:
        lane = self._graph.lanes[number]
        spacing = lane.length_m / (len(lane.x) - 1)
        first = self.along_m[-1] if self.along_m else 0.0
        along = first if self.along_m else -spacing
        # The point where two lanes meet belongs to both.
        skip = int(place_m / spacing) + bool(self.along_m)
        self.lanes.append(number)
        self.lane_starts_m.append(first)
        for i in range(min(skip, len(lane.x) - 2), len(lane.x)):
            along += spacing
            self.along_m.append(along)
            self.x.append(lane.x[i])
            self.y.append(lane.y[i])
            self.speed_mps.append(lane.point_speed_mps[i])
        if lane.road < 0:
            self.legs.append(Leg(first, self.along_m[-1], number))
        self._plan_braking(len(self.along_m) - 2)

    def _plan_braking(self, last: int) -> None:
        """Lower the speeds before slow points, so that comfortable braking suffices."""
        for i in range(last, -1, -1):
            step = self.along_m[i + 1] - self.along_m[i]
            allowed = math.sqrt(self.speed_mps[i + 1] ** 2 + 2.0 * COMFORT_MPS2 * step)
            if allowed < self.speed_mps[i]:
                self.speed_mps[i] = allowed
            elif last - i > 60:
                break
