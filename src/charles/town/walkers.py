"""The pedestrians. They walk on the pavements and cross at crosswalks, after they have looked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from charles.town.geometry import offset_line, wrap
from charles.town.layout import Body, Crossing, IsSeen, Point, TownMap
from charles.town.map import nearest_road
from charles.town.physics import STEP_S

NEAR_M, FAR_M = 12.0, 70.0
_KERB_M = 1.5
"""How far from the kerb they walk."""
_PATIENCE_S = 12.0
_OTHERS_BRAKING_MPS2 = 2.2
"""How hard they expect a car to brake for them."""
_LOOK_EVERY = 5
_WALKING, _WAITING, _CROSSING = range(3)


class _Crossing(NamedTuple):
    """A way over a street, as seen from one of its sides."""

    crosswalk: int
    here: int
    """Number of the point where it begins."""
    side: int
    """The pavement that it leads to."""
    there: int
    """Number of the point there."""


class _Side:
    """One pavement of one street."""

    def __init__(self, line: np.ndarray) -> None:
        self.points: list[Point] = [(float(x), float(y)) for x, y in line]
        self.ends: list[tuple[int, int]] = [(0, 0), (0, 0)]
        """Where its first and its last point lead around the corner: side and end there."""
        self.crossings: list[_Crossing] = []

    def nearest(self, place: np.ndarray) -> int:
        """Number of the point nearest to a place, float64 ``[2]``."""
        return int(np.hypot(*(np.array(self.points) - place).T).argmin())


@dataclass(slots=True, kw_only=True, eq=False)
class Pedestrian:
    """One pedestrian on its way along a list of points."""

    pace_mps: float
    style: int
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    speed_mps: float = 0.0
    waited_s: float = 0.0
    mode: int = _WALKING
    side: int = 0
    direction: int = 1
    way: list[Point] = field(default_factory=list)
    """Points still to reach, last one first."""
    plan: _Crossing | None = None
    """The crossing that it walks to, waits at or uses."""


class Walkers:
    """All pedestrians; a deterministic function of its generator and of what the cars do."""

    def __init__(self, town: TownMap, rng: np.random.Generator, num_pedestrians: int) -> None:
        self._rng, self._num = rng, num_pedestrians
        self._sides = _make_sides(town)
        self._tick = 0
        self.pedestrians: list[Pedestrian] = []

    def bodies(self) -> tuple[Body, ...]:
        """All pedestrians as they can be seen."""
        return tuple(
            Body(p.x, p.y, p.heading, p.speed_mps, 0.0, False, p.style) for p in self.pedestrians
        )

    def populate(self, ego: Point) -> None:
        """Spread all pedestrians anew around the ego; for when nobody has seen them yet."""
        self.pedestrians = []
        for _ in range(self._num):
            pace = float(self._rng.uniform(1.1, 1.6))
            pedestrian = Pedestrian(pace_mps=pace, style=int(self._rng.integers(1000)))
            if self._settle(pedestrian, ego, lambda _: False):
                self.pedestrians.append(pedestrian)

    def recycle(self, ego: Point, is_seen: IsSeen) -> None:
        """Move pedestrians that are far away to where they are not seen to appear."""
        for pedestrian in self.pedestrians:
            if math.dist((pedestrian.x, pedestrian.y), ego) > FAR_M + 20.0:
                self._settle(pedestrian, ego, is_seen)

    def remove(self, number: int, ego: Point) -> None:
        """Take a pedestrian that was hit off the road."""
        self._settle(self.pedestrians[number], ego, lambda place: math.dist(place, ego) < 30.0)

    def crossing(self) -> Crossing:
        """Crosswalks in use: where their pedestrians are and will be in the next seconds."""
        used: Crossing = {}
        for p in self.pedestrians:
            if p.mode == _CROSSING and p.plan is not None:
                places = used.setdefault(p.plan.crosswalk, [])
                cos, sin = math.cos(p.heading), math.sin(p.heading)
                reach = math.dist(p.way[0], (p.x, p.y))
                for ahead in (0.0, 2.0, 4.0):
                    if ahead <= reach:
                        places.append((p.x + ahead * cos, p.y + ahead * sin))
        return used

    def step(self, cars: Sequence[Body]) -> None:
        """Move every pedestrian by one step; ``cars`` are all that they must look out for."""
        self._tick += 1
        for number, pedestrian in enumerate(self.pedestrians):
            if pedestrian.mode == _WAITING:
                if (self._tick + number) % _LOOK_EVERY == 0:
                    self._look(pedestrian, cars)
                pedestrian.waited_s += STEP_S
            else:
                self._walk(pedestrian)

    def _walk(self, p: Pedestrian) -> None:
        to_x, to_y = p.way[-1]
        dx, dy = to_x - p.x, to_y - p.y
        distance = math.hypot(dx, dy)
        pace = p.pace_mps * (1.15 if p.mode == _CROSSING else 1.0)
        reach = pace * STEP_S
        if distance > 1e-6:
            p.heading = _turn_to(p.heading, math.atan2(dy, dx))
        p.speed_mps = pace
        if distance > reach:
            p.x += dx / distance * reach
            p.y += dy / distance * reach
            return
        p.x, p.y = to_x, to_y
        p.way.pop()
        if not p.way:
            self._arrive(p)

    def _arrive(self, p: Pedestrian) -> None:
        if p.plan is None:
            side, end = self._sides[p.side].ends[1 if p.direction > 0 else 0]
            point = 0 if end == 0 else len(self._sides[side].points) - 1
            self._walk_along(p, side, point, 1 if end == 0 else -1)
        elif p.mode == _CROSSING:
            self._walk_along(p, p.plan.side, p.plan.there, self._either_way())
        else:
            to_x, to_y = self._sides[p.plan.side].points[p.plan.there]
            p.mode, p.speed_mps, p.waited_s = _WAITING, 0.0, 0.0
            p.heading = math.atan2(to_y - p.y, to_x - p.x)

    def _either_way(self) -> int:
        return 1 if self._rng.random() < 0.5 else -1

    def _walk_along(self, p: Pedestrian, number: int, point: int, direction: int) -> None:
        """Walk along a pavement from one of its points, to a crossing or to its end."""
        side = self._sides[number]
        p.side, p.direction, p.mode, p.plan = number, direction, _WALKING, None
        goal = len(side.points) - 1 if direction > 0 else 0
        reachable = [c for c in side.crossings if (c.here - point) * direction > 2]
        if reachable and self._rng.random() < 0.85:
            p.plan = reachable[int(self._rng.integers(len(reachable)))]
            goal = p.plan.here
        numbers = range(goal, point - direction, -direction)
        p.way = [side.points[i] for i in numbers] or [side.points[goal]]

    def _look(self, p: Pedestrian, cars: Sequence[Body]) -> None:
        """Step out if every car can stop in comfort; after a while, give up and walk on."""
        if p.plan is None:
            return
        goal = self._sides[p.plan.side].points[p.plan.there]
        if all(_leaves_time(car, (p.x, p.y), goal) for car in cars):
            p.mode = _CROSSING
            p.way = [goal]
        elif p.waited_s > _PATIENCE_S:
            self._walk_along(p, p.side, p.plan.here, p.direction)

    def _settle(self, p: Pedestrian, ego: Point, is_seen: IsSeen) -> bool:
        for _ in range(20):
            number = int(self._rng.integers(len(self._sides)))
            points = self._sides[number].points
            point = int(self._rng.integers(1, len(points) - 1))
            place = points[point]
            if NEAR_M < math.dist(place, ego) < FAR_M and not is_seen(place):
                p.x, p.y = place
                self._walk_along(p, number, point, self._either_way())
                p.heading = math.atan2(p.way[-1][1] - p.y, p.way[-1][0] - p.x)
                return True
        return False


def _leaves_time(car: Body, start: Point, goal: Point) -> bool:
    """Whether a car lets somebody cross from one place to the other."""
    dx, dy = (start[0] + goal[0]) / 2.0 - car.x, (start[1] + goal[1]) / 2.0 - car.y
    span = math.dist(start, goal) / 2.0
    distance = math.hypot(dx, dy)
    if distance < span + 2.5:
        return False
    if dx * math.cos(car.heading) + dy * math.sin(car.heading) < -2.0 or car.speed_mps < 0.3:
        return True
    stopping = 0.7 * car.speed_mps + car.speed_mps**2 / (2.0 * _OTHERS_BRAKING_MPS2)
    return distance > stopping + 5.0


def _make_sides(town: TownMap) -> list[_Side]:
    """Both pavements of every street: ``2 * road`` on its left, ``2 * road + 1`` on its right."""
    sides = []
    for road in town.roads:
        reach = road.half_width_m + _KERB_M
        sides += [_Side(offset_line(road.centre, reach)), _Side(offset_line(road.centre, -reach))]
    for index, junction in enumerate(town.junctions):
        ends = []
        for number in junction.roads:
            is_start = town.roads[number].junctions[0] == index
            left, right = (0, 1) if is_start else (1, 0)
            end = 0 if is_start else 1
            ends.append(((2 * number + left, end), (2 * number + right, end)))
        for (left, _), (_, right) in zip(ends, ends[1:] + ends[:1], strict=True):
            sides[left[0]].ends[left[1]] = right
            sides[right[0]].ends[right[1]] = left
    for number, crosswalk in enumerate(town.crosswalks):
        left = 2 * nearest_road(town, crosswalk.middle)
        one, other = (side.nearest(crosswalk.middle) for side in sides[left : left + 2])
        sides[left].crossings.append(_Crossing(number, one, left + 1, other))
        sides[left + 1].crossings.append(_Crossing(number, other, left, one))
    return sides


def _turn_to(heading: float, goal: float) -> float:
    """Turn towards ``goal``, at most 0.15 rad."""
    error = wrap(goal - heading)
    return heading + min(max(error, -0.15), 0.15)
