"""The other cars. They run along their lanes as on rails, and decide only how fast.

A car may enter a junction when nobody is in it on a path that crosses its own, the road behind it
has room, and the ego is not about to need it: among the rest, whoever came first goes first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from charles.town.layout import Body, Crossing, IsSeen, Point, Pose
from charles.town.physics import LENGTH_M, MAX_WHEEL, STEP_S, WHEELBASE_M, CarState
from charles.town.route import Lane, LaneGraph, Leg

NEAR_M, FAR_M = 30.0, 95.0
"""Cars appear between these distances from the ego, and are moved when farther."""
_BRAKING_MPS2, _HARDEST_MPS2, _ACCELERATION_MPS2 = 2.5, 7.0, 2.5
_GAP_M = 2.5
_CLAIM_M = 24.0
"""The ego has a junction to itself from this far before its rim on."""
_WATCH_M = 18.0
_WRECK_S = 4.0
_PATIENCE_S = 20.0


class EgoPlan(NamedTuple):
    """What the other cars know of the ego."""

    car: CarState
    leg: Leg | None
    """The junction that it is in or comes to next."""
    to_rim_m: float
    """How far it is from entering that; negative once inside."""
    idle_s: float
    """How long it has been standing."""


@dataclass(slots=True, kw_only=True, eq=False)
class Vehicle:
    """One car on its rails."""

    style: int
    zest: float
    """Its cruising speed relative to others'."""
    path: list[int] = field(default_factory=list)
    """The lane it is on, and at least two more."""
    place_m: float = 0.0
    pose: Pose = (0.0, 0.0, 0.0)
    speed_mps: float = 0.0
    waited_s: float = 0.0
    wreck_s: float = 0.0
    has_priority: bool = False
    is_braking: bool = False


class Traffic:
    """All other cars; a deterministic function of its generator and of what the ego does."""

    def __init__(self, graph: LaneGraph, rng: np.random.Generator, num_vehicles: int) -> None:
        self._graph, self._rng = graph, rng
        self._num = num_vehicles
        self.vehicles: list[Vehicle] = []

    def bodies(self) -> tuple[Body, ...]:
        """All cars as they can be seen."""
        return tuple(Body(*v.pose, v.speed_mps, 0.0, v.is_braking, v.style) for v in self.vehicles)

    def populate(self, ego: Point) -> None:
        """Spread all cars anew around the ego; for when nobody has seen them yet."""
        self.vehicles = []
        for _ in range(self._num):
            place = self._find_place(ego, lambda _: False)
            if place is not None:
                style, zest = int(self._rng.integers(1000)), float(self._rng.uniform(0.8, 1.0))
                self.vehicles.append(Vehicle(style=style, zest=zest))
                self._settle(self.vehicles[-1], *place)

    def recycle(self, ego: Point, is_seen: IsSeen) -> None:
        """Move cars that are far away, wrecked or stuck to where the ego will not see them come."""
        for vehicle in self.vehicles:
            place = vehicle.pose[:2]
            is_lost = math.dist(place, ego) > FAR_M + 20.0 or vehicle.wreck_s > _WRECK_S
            is_stuck = vehicle.waited_s > _PATIENCE_S
            is_stuck = is_stuck and (vehicle.waited_s > 30.0 or not is_seen(place))
            if is_lost or is_stuck:
                found = self._find_place(ego, is_seen)
                if found is not None:
                    self._settle(vehicle, *found)

    def step(self, ego: EgoPlan, crossing: Crossing) -> None:
        """Move every car by one step.

        Args:
            ego: The ego.
            crossing: Crosswalks in use.
        """
        on_lane: dict[int, list[Vehicle]] = {}
        for vehicle in self.vehicles:
            on_lane.setdefault(vehicle.path[0], []).append(vehicle)
        self._grant_junctions(ego, on_lane)
        leaders = self._with_siblings(on_lane)
        ego_places = _footprint(ego.car)
        for vehicle in self.vehicles:
            target = self._target_speed(vehicle, leaders, crossing)
            gap = self._gap_to_ego(vehicle, ego.car, ego_places)
            target = min(target, _safe_speed(gap, 0.0))
            self._advance(vehicle, target)

    def _grant_junctions(self, ego: EgoPlan, on_lane: dict[int, list[Vehicle]]) -> None:
        """Decide who may enter the junctions; first come, first served."""
        lanes = self._graph.lanes
        inside = {c for c in on_lane if lanes[c].road < 0}
        waiting = []
        for vehicle in self.vehicles:
            lane = lanes[vehicle.path[0]]
            to_rim = lane.length_m - vehicle.place_m
            if lane.road >= 0 and to_rim < _WATCH_M:
                waiting.append((-vehicle.waited_s, to_rim, vehicle))
                if vehicle.has_priority and not _can_stop(vehicle, to_rim):
                    inside.add(vehicle.path[1])
            elif lane.road >= 0:
                vehicle.has_priority = False
                if vehicle.place_m < LENGTH_M:
                    # Its tail is still in the junction behind it.
                    inside.update(lanes[vehicle.path[0]].sources)
        waiting.sort(key=lambda entry: entry[:2])
        for _, to_rim, vehicle in waiting:
            if vehicle.has_priority and not _can_stop(vehicle, to_rim):
                continue
            connector = lanes[vehicle.path[1]]
            vehicle.has_priority = (
                connector.conflicts.isdisjoint(inside)
                and self._has_room(vehicle.path[2], on_lane)
                and not self._ego_needs(ego, vehicle.path[1])
            )
            if vehicle.has_priority:
                inside.add(vehicle.path[1])

    def _has_room(self, lane: int, on_lane: dict[int, list[Vehicle]]) -> bool:
        room = LENGTH_M * 1.5 + 5.0
        return all(v.place_m > room or v.speed_mps > 4.0 for v in on_lane.get(lane, ()))

    def _ego_needs(self, ego: EgoPlan, connector: int) -> bool:
        """Whether the ego is about to cross the way through a junction."""
        is_waiting = ego.to_rim_m > 0.0 and ego.idle_s > 3.0
        if ego.leg is None or ego.to_rim_m > _CLAIM_M or is_waiting:
            return False
        return ego.leg.connector in self._graph.lanes[connector].conflicts

    def _with_siblings(self, on_lane: dict[int, list[Vehicle]]) -> dict[int, list[Vehicle]]:
        """Cars by lane; where paths part, whoever is ahead on one of them is ahead on all."""
        leaders = {number: list(vehicles) for number, vehicles in on_lane.items()}
        for number, vehicles in on_lane.items():
            if self._graph.lanes[number].road < 0:
                for sibling in self._graph.siblings(number):
                    if sibling != number:
                        leaders.setdefault(sibling, []).extend(vehicles)
        return leaders

    def _target_speed(
        self, vehicle: Vehicle, leaders: dict[int, list[Vehicle]], crossing: Crossing
    ) -> float:
        lanes = self._graph.lanes
        lane = lanes[vehicle.path[0]]
        target = lane.speed_mps * vehicle.zest
        reach = -vehicle.place_m  # from the car to the start of the lane under review
        horizon = 8.0 + vehicle.speed_mps * 2.5
        for depth, number in enumerate(vehicle.path):
            lane = lanes[number]
            if reach > horizon:
                break
            if depth and lane.road < 0:
                slow = lane.speed_mps
                target = min(target, math.sqrt(slow * slow + 2.0 * _BRAKING_MPS2 * reach))
                if not vehicle.has_priority:
                    target = min(target, _safe_speed(reach - self._stop_m(vehicle), 0.0))
            for other in leaders.get(number, ()):
                gap = reach + other.place_m
                if other is not vehicle and gap > 0.0:
                    limit = _safe_speed(gap - LENGTH_M - _GAP_M, other.speed_mps)
                    target = min(target, limit)
            if crossing:
                target = min(target, _crosswalk_speed(lane, reach, crossing))
            reach += lane.length_m
        return target

    def _stop_m(self, vehicle: Vehicle) -> float:
        """Where to wait for a junction: before the crosswalk there, if the car still can."""
        lane = self._graph.lanes[vehicle.path[0]]
        for _, place in lane.crosswalks:
            before = lane.length_m - place
            if before < 10.0 and vehicle.place_m < place - LENGTH_M / 2.0 - 1.0:
                return before + LENGTH_M / 2.0 + 2.0
        return LENGTH_M / 2.0 + 0.5

    def _gap_to_ego(self, vehicle: Vehicle, car: CarState, places: list[Point]) -> float:
        """Free way before the ego's present or near-future footprint."""
        x, y, heading = vehicle.pose
        dx, dy = car.x - x, car.y - y
        if dx * dx + dy * dy > 900.0 or dx * math.cos(heading) + dy * math.sin(heading) < -3.0:
            return math.inf
        reach = 6.0 + vehicle.speed_mps**2 / (2.0 * _BRAKING_MPS2)
        ahead = 0.5
        while ahead < reach:
            x, y, _ = self._pose_ahead(vehicle, ahead)
            if _is_near(x, y, places, 4.6):
                return ahead - LENGTH_M / 2.0 - 1.5
            ahead += 1.5
        return math.inf

    def _pose_ahead(self, vehicle: Vehicle, ahead_m: float) -> Pose:
        place, depth = vehicle.place_m + ahead_m, 0
        lane = self._graph.lanes[vehicle.path[0]]
        while place > lane.length_m and depth + 1 < len(vehicle.path):
            place, depth = place - lane.length_m, depth + 1
            lane = self._graph.lanes[vehicle.path[depth]]
        return lane.pose(place)

    def _advance(self, vehicle: Vehicle, target: float) -> None:
        before = vehicle.speed_mps
        change = 3.0 * (target - before)
        change = min(max(change, -_HARDEST_MPS2), _ACCELERATION_MPS2)
        if vehicle.wreck_s > 0.0:
            vehicle.wreck_s += STEP_S
            change = -30.0
        vehicle.speed_mps = max(before + change * STEP_S, 0.0)
        vehicle.is_braking = change < -0.5 or vehicle.speed_mps < 0.1
        vehicle.waited_s = vehicle.waited_s + STEP_S if vehicle.speed_mps < 0.5 else 0.0
        vehicle.place_m += 0.5 * (before + vehicle.speed_mps) * STEP_S
        lane = self._graph.lanes[vehicle.path[0]]
        if vehicle.place_m > lane.length_m:
            vehicle.place_m -= lane.length_m
            vehicle.path.pop(0)
            self._plan(vehicle.path)
            lane = self._graph.lanes[vehicle.path[0]]
        vehicle.pose = lane.pose(vehicle.place_m)

    def _plan(self, path: list[int]) -> None:
        """Choose turns until a street lane lies beyond the next connector."""
        while len(path) < 3:
            path.append(self._graph.choose_next(path[-1], self._rng))

    def _find_place(self, ego: Point, is_seen: IsSeen) -> tuple[int, float] | None:
        """A free place on a street in the ring around the ego, or ``None`` after some tries."""
        for tries in range(80):
            number = int(self._rng.integers(self._graph.num_street_lanes))
            lane = self._graph.lanes[number]
            place = float(self._rng.uniform(2.0, lane.length_m - 8.0))
            x, y, _ = lane.pose(place)
            if any(-5.0 < crosswalk - place < 12.0 for _, crosswalk in lane.crosswalks):
                continue  # it could not stop for somebody who is crossing already
            is_in_ring = NEAR_M < math.dist((x, y), ego) < FAR_M * (1.0 + tries / 80.0)
            if not is_in_ring or is_seen((x, y)):
                continue
            if not _is_near(x, y, (v.pose[:2] for v in self.vehicles), 144.0):
                return number, place
        return None

    def _settle(self, vehicle: Vehicle, number: int, place_m: float) -> None:
        vehicle.path = [number]
        self._plan(vehicle.path)
        vehicle.place_m = place_m
        vehicle.pose = self._graph.lanes[number].pose(place_m)
        vehicle.speed_mps = 5.0
        vehicle.waited_s = vehicle.wreck_s = 0.0
        vehicle.has_priority = False


def _footprint(car: CarState) -> list[Point]:
    """Centres of circles that cover a car now and shortly ahead."""
    turn = -car.speed_mps * math.tan(car.steering * MAX_WHEEL) / WHEELBASE_M
    places = []
    for time_s in (0.0, 0.4, 0.8):
        course = car.heading + 0.5 * turn * time_s
        x = car.x + car.speed_mps * time_s * math.cos(course)
        y = car.y + car.speed_mps * time_s * math.sin(course)
        heading = car.heading + turn * time_s
        for offset in (-1.3, 0.0, 1.3):
            places.append((x + offset * math.cos(heading), y + offset * math.sin(heading)))
    return places


def _crosswalk_speed(lane: Lane, reach: float, crossing: Crossing) -> float:
    target = math.inf
    for number, place in lane.crosswalks:
        ahead = reach + place
        if ahead > 1.0 and number in crossing:
            x, y, _ = lane.pose(place)
            if _is_near(x, y, crossing[number], 6.0):
                target = min(target, _safe_speed(ahead - LENGTH_M / 2.0 - 2.5, 0.0))
    return target


def _is_near(x: float, y: float, places: Iterable[Point], area_m2: float) -> bool:
    """Whether one of ``places`` is nearer than the root of ``area_m2``."""
    return any((px - x) ** 2 + (py - y) ** 2 < area_m2 for px, py in places)


def _can_stop(vehicle: Vehicle, to_rim_m: float) -> bool:
    return to_rim_m - LENGTH_M / 2.0 > vehicle.speed_mps**2 / (2.0 * 3.5)


def _safe_speed(gap_m: float, lead_mps: float) -> float:
    if gap_m <= 0.0:
        return min(lead_mps + gap_m, 0.0) if lead_mps < 0.5 else max(lead_mps + gap_m, 0.0)
    return min(math.sqrt(lead_mps**2 + 2.0 * _BRAKING_MPS2 * gap_m), lead_mps + gap_m)
