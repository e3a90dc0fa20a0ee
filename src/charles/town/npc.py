"""The driver that teaches: what it can see, and the action it takes there.

The teacher knows only what its pupil can know: what one frame of the hood camera shows (80 degrees
wide, 45 m far, nothing behind buildings), its own motion, and where the target marker a little
ahead on its route leads. One frame shows where others are and where they point, not how fast they
move: so the teacher keeps a distance that is safe whatever they do. Its action is a function of
that state alone, without memory, defined everywhere and, where nothing appears or disappears,
continuous: so it can be asked anywhere and imitated.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from charles.town.geometry import wrap
from charles.town.ground import ROAD, Ground
from charles.town.layout import Body
from charles.town.physics import LENGTH_M, MAX_WHEEL, WHEELBASE_M, CarState, reaches
from charles.town.route import Located, Route

VIEW_M = 45.0
HALF_VIEW = math.radians(40.0)
_AHEAD_POINTS = 36
"""How much of the path is watched for others; about 1 m each, so nothing that is out of view."""
_BRAKING_MPS2 = 2.5
_CROSSING_MPS = 4.0
"""Others in a junction are taken to move on at this speed, straight ahead."""


class Sight(NamedTuple):
    """Everything that the teacher acts on."""

    car: CarState
    route: Route
    located: Located
    vehicles: tuple[Body, ...]
    """Those that can be seen."""
    pedestrians: tuple[Body, ...]
    """Those that can be seen on the road or stepping on to it."""
    junction: tuple[float, float, float] | None
    """Centre and radius of the next junction, or of the one it is in."""


class _Ahead(NamedTuple):
    """A place relative to the path ahead."""

    ahead_m: float
    right_m: float
    heading: float
    """The path's heading there."""


def see(ground: Ground, car: CarState, bodies: Sequence[Body]) -> list[Body]:
    """Those of ``bodies`` that the hood camera shows."""
    seen = []
    for body in bodies:
        dx, dy = body.x - car.x, body.y - car.y
        if dx * dx + dy * dy > VIEW_M * VIEW_M:
            continue
        if abs(wrap(math.atan2(dy, dx) - car.heading)) > HALF_VIEW:
            continue
        if not ground.is_hidden(car.x, car.y, body.x, body.y):
            seen.append(body)
    return seen


def is_stepping_out(ground: Ground, body: Body) -> bool:
    """Whether a pedestrian is on the road, or about to be."""
    if ground.at(body.x, body.y) == ROAD:
        return True
    reach = 0.7 * body.speed_mps
    x = body.x + reach * math.cos(body.heading)
    y = body.y + reach * math.sin(body.heading)
    return ground.at(x, y) == ROAD


def act(sight: Sight) -> np.ndarray:
    """The teacher's action, float32 ``[2]``: acceleration/braking and steering in [-1, 1]."""
    steering, bearing = _steer(sight)
    target = _free_speed(sight, bearing)
    for body in sight.vehicles:
        target = _yield_to_vehicle(sight, body, target)
    for body in sight.pedestrians:
        target = _yield_to_pedestrian(sight, body, target)
    pedal = (max(target, -0.5) - sight.car.speed_mps) / 2.0
    return np.array([min(max(pedal, -1.0), 1.0), steering], dtype=np.float32)


def _steer(sight: Sight) -> tuple[float, float]:
    """Pure pursuit from the rear axle: steering, and the bearing of the pursued point.

    References:
        Coulter, 1992. Implementation of the Pure Pursuit Path Tracking Algorithm.
        https://www.ri.cmu.edu/publications/implementation-of-the-pure-pursuit-path-tracking-algorithm/
    """
    car = sight.car
    reach = min(max(2.5 + 0.55 * car.speed_mps, 4.5), 9.0)
    rear = WHEELBASE_M / 2.0
    x = car.x - rear * math.cos(car.heading)
    y = car.y - rear * math.sin(car.heading)
    to_x, to_y = sight.route.point(sight.located.along_m - rear + reach)
    bearing = wrap(math.atan2(to_y - y, to_x - x) - car.heading)
    if abs(bearing) >= math.pi / 2.0:
        return -math.copysign(1.0, bearing), bearing
    distance = max(math.hypot(to_x - x, to_y - y), 1.0)
    angle = math.atan(WHEELBASE_M * 2.0 * math.sin(bearing) / distance)
    return min(max(-angle / MAX_WHEEL, -1.0), 1.0), bearing


def _free_speed(sight: Sight, bearing: float) -> float:
    """Speed on an empty road: for the bends ahead, and slower while off the lane."""
    target = sight.route.speed_at(sight.located.along_m + 0.2 * sight.car.speed_mps)
    astray = max(abs(sight.located.right_m) - 1.0, 0.0) / 1.5
    calm = math.exp(-((bearing / 0.45) ** 2) - astray**2)
    return min(target, 3.5 + 6.5 * calm)


def _yield_to_vehicle(sight: Sight, body: Body, target: float) -> float:
    target = _keep_off(sight, body, _keep_behind(sight, body, target))
    if sight.junction is None:
        return target
    x, y, radius = sight.junction
    if math.hypot(body.x - x, body.y - y) > radius:
        return target
    # Whoever is in the junction goes first: keep clear of where it is about to be.
    for time_s in (0.6, 1.2, 1.8):
        target = _keep_behind(sight, _predict(body, time_s), target)
    return target


def _keep_behind(sight: Sight, body: Body, target: float) -> float:
    """Lower ``target`` as far as a body that stands or moves in the path demands."""
    at = _look_ahead(sight, body.x, body.y)
    if at.ahead_m < 0.5:
        return target
    long, wide = reaches(body.heading - at.heading)
    gap, across = at.ahead_m - long, abs(at.right_m) - wide
    weight = _fade(across, 0.25, 0.75)
    return _blend(target, _safe_speed(gap - 3.0), weight)


def _keep_off(sight: Sight, body: Body, target: float) -> float:
    """While off the path, lower ``target`` for what is in front of the bonnet instead."""
    car = sight.car
    cos, sin = math.cos(car.heading), math.sin(car.heading)
    dx, dy = body.x - car.x, body.y - car.y
    long, wide = reaches(body.heading - car.heading)
    gap, across = dx * cos + dy * sin - long, abs(dx * sin - dy * cos) - wide
    astray = 1.0 - _fade(abs(sight.located.right_m), 0.8, 1.6)
    return _blend(target, _safe_speed(gap - 1.5), astray * _fade(across, 0.0, 0.4))


def _yield_to_pedestrian(sight: Sight, body: Body, target: float) -> float:
    at = _look_ahead(sight, body.x, body.y)
    if at.ahead_m < -LENGTH_M / 2.0:
        return target
    to_right = -body.speed_mps * math.sin(body.heading - at.heading)
    later = at.right_m + 3.0 * to_right
    nearest = 0.0 if at.right_m * later < 0.0 else min(abs(at.right_m), abs(later))
    weight = _fade(nearest, 1.6, 2.4)
    return _blend(target, _safe_speed(at.ahead_m - LENGTH_M / 2.0 - 0.4 - 2.0), weight)


def _safe_speed(gap_m: float) -> float:
    """Speed from which the car stops within ``gap_m``; negative if that is negative."""
    return min(math.sqrt(2.0 * _BRAKING_MPS2 * max(gap_m, 0.0)), 0.7 * gap_m)


def _look_ahead(sight: Sight, x: float, y: float) -> _Ahead:
    route, located = sight.route, sight.located
    xs, ys = route.x, route.y
    last = min(located.nearest + _AHEAD_POINTS, len(xs) - 1)
    best = route.nearest(x, y, located.nearest, last)
    tx, ty = xs[best + 1] - xs[best], ys[best + 1] - ys[best]
    norm = math.hypot(tx, ty)
    tx, ty = tx / norm, ty / norm
    dx, dy = x - xs[best], y - ys[best]
    ahead = route.along_m[best] - located.along_m + dx * tx + dy * ty
    return _Ahead(ahead, dx * ty - dy * tx, math.atan2(ty, tx))


def _predict(body: Body, time_s: float) -> Body:
    """Where a vehicle will be if it goes where it points."""
    reach = _CROSSING_MPS * time_s
    x, y = body.x + reach * math.cos(body.heading), body.y + reach * math.sin(body.heading)
    return body._replace(x=x, y=y)


def _blend(target: float, limit: float, weight: float) -> float:
    return target + weight * (min(target, limit) - target)


def _fade(value: float, full: float, none: float) -> float:
    """1 up to ``full``, 0 from ``none`` on, smooth between."""
    t = min(max((none - value) / (none - full), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)
