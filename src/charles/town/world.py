"""A town that lives: the ego, its route and its teacher, the other cars, the pedestrians.

A world is a deterministic function of its config and of the controls given to it; it knows no
wall clock. It is stepped from one thread, 30 steps per simulated second.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from charles.errors import require
from charles.town import npc
from charles.town.geometry import wrap
from charles.town.ground import BUILDING, ROAD, TREE, Ground
from charles.town.layout import Body, Point, Pose, TownMap, WorldView
from charles.town.map import make_map
from charles.town.physics import LENGTH_M, STEP_S, WHEELBASE_M, WIDTH_M, CarState, reaches, step_car
from charles.town.route import AHEAD_M, LaneGraph, Leg, Located, Route
from charles.town.traffic import EgoPlan, Traffic
from charles.town.walkers import Walkers

Cause = Literal["vehicle", "pedestrian", "building"]

_ASTRAY_M = 3.0
"""Farther than this from its route, the car may be on another lane altogether."""
_LOST_M = 9.0
_PEDESTRIAN_M = 0.35
_CONTACT_S = 1.0
"""Touching the same kind of thing again within this time is still the same collision."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """One world and how to start in it."""

    seed: int
    """Which town; also seeds everything that happens in it."""
    vehicles: int = 14
    """Other cars around the ego."""
    pedestrians: int = 14
    """Pedestrians around the ego."""
    weather: str = "clear"
    """``clear``, ``overcast``, ``rain`` or ``fog``; changes the picture only."""
    time_of_day_h: float = 12.0
    """Hour, 0 to 24; changes the picture only."""
    place: Point | None = None
    """Start on the street nearest to this place, metres; ``None`` for anywhere."""
    route_length_m: float | None = None
    """Length of the route; ``None`` for one without an end."""
    route_seed: int = 0
    """Which route, and where it starts if ``place`` does not say."""

    def __post_init__(self) -> None:
        for name in ("seed", "route_seed", "vehicles", "pedestrians"):
            require(getattr(self, name) >= 0, name, "be 0 or more", getattr(self, name))
        length = self.route_length_m
        is_long = length is None or 10.0 <= length < math.inf
        require(is_long, "route_length_m", "be 10 or more", length)


class World:
    """One town with everybody in it.

    Attributes:
        map: Everything that stands still.
        time_s: Simulated time since the start.
        controls: What was applied in the last step, float32 ``[2]``: acceleration/braking and
            steering, both as commands in [-1, 1]; the front wheels lag behind the command.
        collided: What a collision began with in the last step, or ``None``.
        replans: How often the ego left its route and got a new one (endless routes only).
        yaw_rate: How fast the ego turns, rad/s, positive counter-clockwise.
        route_progress_m: How far along its route the ego has come; never falls.
    """

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.map: TownMap = make_map(config.seed)
        self.time_s = 0.0
        self.controls = np.zeros(2, dtype=np.float32)
        self.collided: Cause | None = None
        self.replans = 0
        self._ground = Ground(self.map)
        self._graph = LaneGraph(self.map)
        self._rng = np.random.default_rng([config.seed, 2])
        self._route_rng = np.random.default_rng([config.seed, config.route_seed, 3])
        rng = np.random.default_rng([config.seed, 4])
        self._traffic = Traffic(self._graph, rng, config.vehicles)
        rng = np.random.default_rng([config.seed, 5])
        self._walkers = Walkers(self.map, rng, config.pedestrians)
        self._junctions = [(*j.position.tolist(), j.radius_m) for j in self.map.junctions]
        self._steps = 0
        self._place(config.place, self._route_rng)

    @property
    def speed_mps(self) -> float:
        """Speed over ground of the ego, 0 or more."""
        return self._car.speed_mps

    @property
    def steering(self) -> float:
        """The ego's front wheels: angle over 40 degrees, in [-1, 1], positive right."""
        return self._car.steering

    @property
    def heading(self) -> float:
        """Where the ego points, radians counter-clockwise from east."""
        return self._car.heading

    @property
    def location(self) -> tuple[float, float, float]:
        """The ego's centre, metres."""
        return (self._car.x, self._car.y, 0.0)

    @property
    def route_length_m(self) -> float:
        """Length of the route, infinite for one without an end."""
        return self._route.end_m

    @property
    def is_route_done(self) -> bool:
        """Whether the goal is reached."""
        return self.route_progress_m >= self._route.end_m - 1.0

    @property
    def cross_track_m(self) -> float:
        """Distance from the route, positive to its right."""
        return self._located.right_m

    @property
    def is_off_road(self) -> bool:
        """Whether a wheel of the ego is beyond the kerb."""
        half, side = WHEELBASE_M / 2.0, WIDTH_M / 2.0 - 0.1
        return any(
            self._ground.at(x, y) != ROAD for x, y in _box_points(self._car, (-half, half), side)
        )

    def step(self, controls: np.ndarray | None = None) -> None:
        """Let 1/30 s pass.

        Args:
            controls: Acceleration/braking and steering, float32 ``[2]`` in [-1, 1]; values beyond
                are clipped. ``None`` lets the NPC drive.

        Raises:
            ConfigError: A value is not finite.
        """
        pedal, steering = (float(v) for v in (self.label() if controls is None else controls))
        is_finite = math.isfinite(pedal) and math.isfinite(steering)
        require(is_finite, "controls", "be finite", (pedal, steering))
        pedal, steering = min(max(pedal, -1.0), 1.0), min(max(steering, -1.0), 1.0)
        self.controls = np.array([pedal, steering], dtype=np.float32)
        before = self._car
        self._car = step_car(before, pedal, steering)
        self._step_others()
        self._collide(before)
        self._follow_route()
        self.yaw_rate = wrap(self._car.heading - before.heading) / STEP_S
        self._idle_s = self._idle_s + STEP_S if self._car.speed_mps < 0.3 else 0.0
        self._steps += 1
        self.time_s = self._steps * STEP_S
        self._label = None

    def label(self) -> np.ndarray:
        """What the NPC would do at this instant, whoever drives: commands, float32 ``[2]``."""
        if self._label is None:
            leg = self._leg()
            pedestrians = npc.see(self._ground, self._car, self._walkers.bodies())
            sight = npc.Sight(
                car=self._car,
                route=self._route,
                located=self._located,
                vehicles=tuple(npc.see(self._ground, self._car, self._traffic.bodies())),
                pedestrians=tuple(p for p in pedestrians if npc.is_stepping_out(self._ground, p)),
                junction=leg and self._junctions[self._graph.lanes[leg.connector].junction],
            )
            self._label = npc.act(sight)
        return self._label.copy()

    def purpose(self) -> np.ndarray:
        """Direction (radians, positive right) and distance (m) of the marker, float32 ``[2]``."""
        x, y = self._route.marker(self._along_m)
        dx, dy = x - self._car.x, y - self._car.y
        direction = -wrap(math.atan2(dy, dx) - self._car.heading)
        return np.array([direction, math.hypot(dx, dy)], dtype=np.float32)

    def view(self) -> WorldView:
        """All that a camera needs to know about this instant."""
        return WorldView(
            map=self.map,
            ego=self._body(),
            vehicles=self._traffic.bodies(),
            pedestrians=self._walkers.bodies(),
            marker=self._route.marker(self._along_m),
            weather=self.config.weather,
            time_of_day_h=self.config.time_of_day_h,
            time_s=self.time_s,
        )

    def _body(self) -> Body:
        """The ego as others see it."""
        return Body(*self._car, is_braking=bool(self.controls[0] < -0.05), style=0)

    def place_ego(
        self,
        place: Point | None = None,
        lateral_m: float = 0.0,
        heading_error: float = 0.0,
        speed_mps: float = 0.0,
    ) -> None:
        """Put the ego on a street with a new route, and everybody else around it.

        Args:
            place: Take the nearest place on a street, metres; ``None`` for anywhere.
            lateral_m: How far to the right of the lane.
            heading_error: How far it points to the left of the lane's direction, radians.
            speed_mps: Its speed.
        """
        self._place(place, self._rng, lateral_m, heading_error, speed_mps)

    def _place(
        self,
        place: Point | None,
        rng: np.random.Generator,
        lateral_m: float = 0.0,
        heading_error: float = 0.0,
        speed_mps: float = 0.0,
    ) -> None:
        if place is None:
            number = int(rng.integers(self._graph.num_street_lanes))
            along = float(rng.uniform(0.1, 0.6)) * self._graph.lanes[number].length_m
        else:
            number, along, _ = self._graph.nearest(*place)
        x, y, heading = self._graph.lanes[number].pose(along)
        x += lateral_m * math.sin(heading)
        y -= lateral_m * math.cos(heading)
        self._car = CarState(x, y, wrap(heading + heading_error), speed_mps, 0.0)
        self.controls = np.zeros(2, dtype=np.float32)
        self.collided = None
        self.yaw_rate = self._idle_s = 0.0
        self._contact_s: dict[Cause, float] = {}
        self._begin_route(number, along)
        self._traffic.populate((x, y))
        self._walkers.populate((x, y))
        self._label: np.ndarray | None = None

    def _begin_route(self, lane: int, along_m: float) -> None:
        self._route = Route(self._graph, lane, along_m, self._route_rng)
        if self.config.route_length_m is None:
            self._route.extend(2.0 * AHEAD_M)
        else:
            self._route.finish(self.config.route_length_m)
        self._located: Located = self._route.locate(self._car.x, self._car.y, 0)
        self._along_m = self.route_progress_m = max(self._located.along_m, 0.0)

    def _leg(self) -> Leg | None:
        """The junction that the ego is in or comes to next."""
        return self._route.leg_after(self._along_m, LENGTH_M / 2.0)

    def _step_others(self) -> None:
        leg = self._leg()
        to_rim = leg.entry_m - self._along_m - LENGTH_M / 2.0 if leg is not None else math.inf
        plan = EgoPlan(self._car, leg, to_rim, self._idle_s)
        self._traffic.step(plan, self._walkers.crossing())
        self._walkers.step((self._body(), *self._traffic.bodies()))
        if self._steps % 15 == 0:
            self._traffic.recycle(self._car[:2], self._is_seen)
            self._walkers.recycle(self._car[:2], self._is_seen)

    def _is_seen(self, place: Point) -> bool:
        """Whether something that appears at a place would be noticed."""
        car = self._car
        dx, dy = place[0] - car.x, place[1] - car.y
        if math.hypot(dx, dy) > 75.0:
            return False
        bearing = abs(wrap(math.atan2(dy, dx) - car.heading))
        return bearing < 0.9 and not self._ground.is_hidden(car.x, car.y, *place)

    def _follow_route(self) -> None:
        """Find the ego on its route; extend an endless route, or begin another if it is astray."""
        car, is_endless = self._car, self.config.route_length_m is None
        self._located = self._route.locate(car.x, car.y, self._located.nearest)
        x, y = self._route.point(self._located.along_m)
        astray = math.hypot(car.x - x, car.y - y)
        if is_endless and astray > _ASTRAY_M and self._steps % 10 == 0:
            number, along, distance = self._graph.nearest(car.x, car.y, car.heading)
            expected = self._route.lanes_at(self._located.along_m)
            if (distance < 2.5 and number not in expected) or astray > _LOST_M:
                self.replans += 1
                self._begin_route(number, along)
        self._along_m = self._located.along_m
        self.route_progress_m = max(self.route_progress_m, self._along_m)
        if self._route.along_m[-1] - self._along_m < AHEAD_M:
            self._route.extend(self._along_m + 2.0 * AHEAD_M)

    def _collide(self, before: CarState) -> None:
        """Find what the ego touches, stop it, and part the two."""
        self.collided = None
        touched: list[Cause] = []
        if self._hits_building():
            touched.append("building")
            self._car = before._replace(speed_mps=0.0)
        for vehicle in self._traffic.vehicles:
            push = _overlap(self._car, vehicle.pose)
            if push is not None:
                touched.append("vehicle")
                vehicle.wreck_s = vehicle.wreck_s or STEP_S
                x, y = self._car.x + push[0], self._car.y + push[1]
                self._car = self._car._replace(x=x, y=y, speed_mps=0.0)
        for number, pedestrian in enumerate(self._walkers.pedestrians):
            if _is_touching(self._car, pedestrian.x, pedestrian.y):
                touched.append("pedestrian")
                self._walkers.remove(number, self._car[:2])
                self._car = self._car._replace(speed_mps=0.0)
        for cause in touched:
            if self.time_s - self._contact_s.get(cause, -math.inf) > _CONTACT_S:
                self.collided = cause
            self._contact_s[cause] = self.time_s

    def _hits_building(self) -> bool:
        half, side = LENGTH_M / 2.0, WIDTH_M / 2.0
        points = _box_points(self._car, (-half, 0.0, half), side)
        return any(self._ground.at(x, y) in (BUILDING, TREE) for x, y in points)


def _box_points(car: CarState, places: tuple[float, ...], side: float) -> list[Point]:
    cos, sin = math.cos(car.heading), math.sin(car.heading)
    return [
        (car.x + a * cos - b * sin, car.y + a * sin + b * cos)
        for a in places
        for b in (-side, side)
    ]


def _overlap(car: CarState, other: Pose) -> Point | None:
    """How to move a car so that it no longer overlaps another, or ``None`` if it does not."""
    x, y, heading = other
    dx, dy = car.x - x, car.y - y
    if dx * dx + dy * dy > LENGTH_M * LENGTH_M + WIDTH_M * WIDTH_M:
        return None
    long, wide = reaches(car.heading - heading)
    least, push = math.inf, None
    for axis in (car.heading, heading):
        for reach, angle in ((long, axis), (wide, axis + math.pi / 2.0)):
            ax, ay = math.cos(angle), math.sin(angle)
            along = dx * ax + dy * ay
            depth = reach - abs(along)
            if depth <= 0.0:
                return None
            if depth < least:
                step = math.copysign(depth + 0.05, along)
                least, push = depth, (ax * step, ay * step)
    return push


def _is_touching(car: CarState, x: float, y: float) -> bool:
    """Whether a car touches a pedestrian."""
    dx, dy = x - car.x, y - car.y
    if dx * dx + dy * dy > LENGTH_M * LENGTH_M:
        return False
    cos, sin = math.cos(car.heading), math.sin(car.heading)
    ahead = abs(dx * cos + dy * sin) - LENGTH_M / 2.0
    across = abs(dy * cos - dx * sin) - WIDTH_M / 2.0
    return math.hypot(max(ahead, 0.0), max(across, 0.0)) < _PEDESTRIAN_M
