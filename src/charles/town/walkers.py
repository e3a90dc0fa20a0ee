"""The pedestrians. They walk on the pavements and cross at crosswalks, after they have looked."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from charles.town.geometry import offset_line, wrap
from charles.town.layout import Body, TownMap
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

Point = tuple[float, float]


class _Side:
    """One pavement of one street."""

    def __init__(self, line: np.ndarray) -> None:
        self.points: list[Point] = [(float(x), float(y)) for x, y in line]
        self.ends: list[tuple[int, int]] = [(0, 0), (0, 0)]
        """Where its first and its last point lead around the corner: side and end there."""
        self.crossings: list[tuple[int, int, int, int]] = []
        """Crosswalk, point here, side and point over there."""

    def nearest(self, place: np.ndarray) -> int:
        """Number of the point nearest to a place, float64 ``[2]``."""
        return int(np.hypot(*(np.array(self.points) - place).T).argmin())


class Pedestrian:
    """One pedestrian on its way along a list of points."""

    __slots__ = ("direction", "heading", "mode", "pace_mps", "plan", "side", "speed_mps",
                 "style", "waited_s", "way", "x", "y")  # fmt: skip

    def __init__(self, style: int, pace_mps: float) -> None:
        self.style, self.pace_mps = style, pace_mps
        self.x = self.y = self.heading = self.speed_mps = self.waited_s = 0.0
        self.mode = _WALKING
        self.side, self.direction = 0, 1
        self.way: list[Point] = []
        """Points still to reach, last one first."""
        self.plan: tuple[int, int, int, int] | None = None
        """The crossing that it walks to, waits at or uses."""


class Walkers:
    """All pedestrians; a deterministic function of its generator and of what the cars do."""

    def __init__(self, town: TownMap, rng: np.random.Generator, num_pedestrians: int) -> None:
        self._rng, self._num = rng, num_pedestrians
        self._town = town
        self._sides = _make_sides(town)
        self._tick = 0
        self.pedestrians: list[Pedestrian] = []
        self._bodies: tuple[Body, ...] | None = None

    def bodies(self) -> tuple[Body, ...]:
        """All pedestrians as they can be seen."""
        if self._bodies is None:
            self._bodies = tuple(
                Body(p.x, p.y, p.heading, p.speed_mps, 0.0, False, p.style)
                for p in self.pedestrians
            )
        return self._bodies

    def populate(self, x: float, y: float) -> None:
        """Spread all pedestrians anew around a place; for when nobody has seen them yet."""
        self.pedestrians, self._bodies = [], None
        for _ in range(self._num):
            pace = float(self._rng.uniform(1.1, 1.6))
            pedestrian = Pedestrian(int(self._rng.integers(1000)), pace)
            if self._settle(pedestrian, x, y, None):
                self.pedestrians.append(pedestrian)

    def recycle(self, x: float, y: float, is_seen: Callable[[float, float], bool]) -> None:
        """Move pedestrians that are far away to where they are not seen to appear."""
        for pedestrian in self.pedestrians:
            if math.hypot(pedestrian.x - x, pedestrian.y - y) > FAR_M + 20.0:
                self._settle(pedestrian, x, y, is_seen)

    def remove(self, number: int, x: float, y: float) -> None:
        """Take a pedestrian that was hit off the road."""
        self._settle(self.pedestrians[number], x, y, lambda px, py: math.hypot(px - x, py - y) < 30)

    def crossing(self) -> dict[int, list[Point]]:
        """Crosswalks in use: where their pedestrians are and will be in the next seconds."""
        used: dict[int, list[Point]] = {}
        for p in self.pedestrians:
            if p.mode == _CROSSING and p.plan is not None:
                places = used.setdefault(p.plan[0], [])
                cos, sin = math.cos(p.heading), math.sin(p.heading)
                reach = math.hypot(p.way[0][0] - p.x, p.way[0][1] - p.y)
                for ahead in (0.0, 2.0, 4.0):
                    if ahead <= reach:
                        places.append((p.x + ahead * cos, p.y + ahead * sin))
        return used

    def step(self, cars: Sequence[Body]) -> None:
        """Move every pedestrian by one step; ``cars`` are all that they must look out for."""
        self._tick += 1
        self._bodies = None
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
        if p.mode == _CROSSING and p.plan is not None:
            _, _, side, point = p.plan
            self._walk_along(p, side, point, 1 if self._rng.random() < 0.5 else -1)
        elif p.plan is not None:
            _, _, side, point = p.plan
            to_x, to_y = self._sides[side].points[point]
            p.mode, p.speed_mps, p.waited_s = _WAITING, 0.0, 0.0
            p.heading = math.atan2(to_y - p.y, to_x - p.x)
        else:
            side, end = self._sides[p.side].ends[1 if p.direction > 0 else 0]
            point = 0 if end == 0 else len(self._sides[side].points) - 1
            self._walk_along(p, side, point, 1 if end == 0 else -1)

    def _walk_along(self, p: Pedestrian, number: int, point: int, direction: int) -> None:
        """Walk along a pavement from one of its points, to a crossing or to its end."""
        side = self._sides[number]
        p.side, p.direction, p.mode, p.plan = number, direction, _WALKING, None
        goal = len(side.points) - 1 if direction > 0 else 0
        reachable = [c for c in side.crossings if (c[1] - point) * direction > 2]
        if reachable and self._rng.random() < 0.85:
            p.plan = reachable[int(self._rng.integers(len(reachable)))]
            goal = p.plan[1]
        numbers = range(goal, point - direction, -direction)
        p.way = [side.points[i] for i in numbers] or [side.points[goal]]

    def _look(self, p: Pedestrian, cars: Sequence[Body]) -> None:
        """Step out if every car can stop in comfort; after a while, give up and walk on."""
        plan = p.plan
        if plan is None:
            return
        to_x, to_y = self._sides[plan[2]].points[plan[3]]
        if all(_leaves_time(car, p.x, p.y, to_x, to_y) for car in cars):
            p.mode = _CROSSING
            p.way = [(to_x, to_y)]
        elif p.waited_s > _PATIENCE_S:
            p.plan = None
            self._walk_along(p, p.side, plan[1], p.direction)

    def _settle(
        self, p: Pedestrian, x: float, y: float, is_seen: Callable[[float, float], bool] | None
    ) -> bool:
        for _ in range(20):
            number = int(self._rng.integers(len(self._sides)))
            points = self._sides[number].points
            point = int(self._rng.integers(1, len(points) - 1))
            px, py = points[point]
            away = math.hypot(px - x, py - y)
            if NEAR_M < away < FAR_M and (is_seen is None or not is_seen(px, py)):
                p.x, p.y, self._bodies = px, py, None
                direction = 1 if self._rng.random() < 0.5 else -1
                self._walk_along(p, number, point, direction)
                p.heading = math.atan2(p.way[-1][1] - py, p.way[-1][0] - px)
                return True
        return False


def _leaves_time(car: Body, x: float, y: float, to_x: float, to_y: float) -> bool:
    """Whether a car lets somebody cross from one place to the other."""
    dx, dy = (x + to_x) / 2.0 - car.x, (y + to_y) / 2.0 - car.y
    span = math.hypot(to_x - x, to_y - y) / 2.0
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
        middle = (crosswalk.start + crosswalk.end) / 2.0
        left = 2 * nearest_road(town, middle)
        one, other = sides[left].nearest(middle), sides[left + 1].nearest(middle)
        sides[left].crossings.append((number, one, left + 1, other))
        sides[left + 1].crossings.append((number, other, left, one))
    return sides


def _turn_to(heading: float, goal: float) -> float:
    """Turn towards ``goal``, at most 0.15 rad."""
    error = wrap(goal - heading)
    return heading + min(max(error, -0.15), 0.15)
