"""CarRacing: where its track lies, what its car does, and an expert that follows the track.

Lengths are the simulation's own, taken as metres: the car is 5 m long, the road 13 m wide. The
expert knows no more than a picture shows: the road as far as 35 m ahead of the car.

References:
    Coulter, R. C. (1992). Implementation of the Pure Pursuit Path Tracking Algorithm.
    https://www.ri.cmu.edu/publications/implementation-of-the-pure-pursuit-path-tracking-algorithm/
"""

import math
from typing import Any, NamedTuple

import numpy as np

from charles.io.game import Progress
from charles.io.gym.roles import Sight

CRUISE_MPS = 22.0
"""Where the road is straight."""
SIDEWAYS_MPS2 = 16.0
"""Acceleration in curves; the tyres hold several times that."""
BRAKING_MPS2 = 12.0
LOST_MPS = 8.0
"""Off the road, or turned away from it."""
VIEW_M = 35.0
PURPOSE_M = 15.0
OFF_ROUTE_M = 25.0
"""Distance from the middle of the road at which a drive has failed; its edge is at 6.7 m."""

_WHEELBASE_M, _REAR_M = 3.24, 1.64
_LOCK = 0.4
"""Largest angle of the wheels, radians: what the steering 1 asks for."""
_PEDAL_PER_MPS = 0.2
_BEND_TILES = 2


class Track(NamedTuple):
    """The middle of the road, in driving order; a closed line."""

    points: np.ndarray
    """float64 ``[N, 2]``."""
    bends: np.ndarray
    """Curvature at each point, 1/m, float64 ``[N]``, 0 or more."""
    spacing_m: float

    @property
    def length_m(self) -> float:
        """Once around."""
        return self.spacing_m * len(self.points)

    def nearest(self, place: np.ndarray) -> tuple[float, float]:
        """Where on the line ``place`` ``[2]`` lies, in points from the first, and its distance."""
        index = int(np.argmin(np.square(self.points - place).sum(axis=1)))
        found = []
        for first in (index - 1, index):
            start, end = self.points[first], self.points[(first + 1) % len(self.points)]
            way = end - start
            share = min(max(float(way @ (place - start)) / float(way @ way), 0.0), 1.0)
            distance_m = float(np.linalg.norm(start + share * way - place))
            found.append((distance_m, (first + share) % len(self.points)))
        distance_m, position = min(found)
        return position, distance_m

    def ahead(self, position: float, distance_m: float) -> np.ndarray:
        """The place ``distance_m`` further than ``position`` in driving order, ``[2]``."""
        steps = position + distance_m / self.spacing_m
        first = math.floor(steps) % len(self.points)
        share = steps - math.floor(steps)
        after = self.points[(first + 1) % len(self.points)]
        return (1.0 - share) * self.points[first] + share * after


def track_of(env: Any) -> Track:
    """The track of the environment's last reset."""
    rows = np.array(env.unwrapped.track, np.float64)
    points, headings = rows[:, 2:], rows[:, 1]
    spacing_m = float(np.median(np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)))
    turned = np.roll(headings, -_BEND_TILES) - np.roll(headings, _BEND_TILES)
    turned = np.abs((turned + math.pi) % (2 * math.pi) - math.pi)
    return Track(points, turned / (2 * _BEND_TILES * spacing_m), spacing_m)


def _toward(hull: Any, target: np.ndarray, behind_m: float = 0.0) -> tuple[float, float]:
    """Direction (radians, positive right) and distance of ``target`` from the car.

    Args:
        hull: The car's body.
        target: A place ``[2]``.
        behind_m: How far behind the car's middle to look from.
    """
    right, forward = hull.GetLocalVector((target[0] - hull.position[0],
                                          target[1] - hull.position[1]))  # fmt: skip
    forward += behind_m
    return math.atan2(right, forward), math.hypot(right, forward)


class CarRacingExpert:
    """Follows the middle of the road from wherever the car is: pure pursuit, slower in curves.

    An :class:`charles.io.gym.roles.Expert`. Its action follows from position, heading and speed.
    """

    is_advising = True

    def __init__(self) -> None:
        self._track: Track | None = None

    def start(self, env: Any) -> None:
        """See :class:`charles.io.gym.roles.Expert`."""
        self._track = track_of(env)

    def advise(self, env: Any) -> np.ndarray:
        """See :class:`charles.io.gym.roles.Expert`."""
        assert self._track is not None, "start comes first"
        track, hull = self._track, env.unwrapped.car.hull
        place = np.array(tuple(hull.position))
        speed_mps, (position, off_m) = hull.linearVelocity.length, track.nearest(place)
        lookahead_m = min(max(0.45 * speed_mps, 5.0), 12.0)
        direction, distance_m = _toward(hull, track.ahead(position, lookahead_m), _REAR_M)
        wheels = math.atan2(2 * _WHEELBASE_M * math.sin(direction), max(distance_m, 1.0))
        if abs(direction) > math.pi / 2:
            wheels = math.copysign(_LOCK, direction)
        is_lost = off_m > 8.0 or abs(direction) > 1.0
        wanted_mps = LOST_MPS if is_lost else _fitting_speed(track, round(position))
        pedal = _PEDAL_PER_MPS * (wanted_mps - speed_mps)
        return np.clip([pedal, wheels / _LOCK], -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        """See :class:`charles.io.gym.roles.Expert`."""


def _fitting_speed(track: Track, index: int) -> float:
    """How fast to be at a point, so that every curve in view is met at its own speed."""
    steps = np.arange(round(VIEW_M / track.spacing_m))
    bends = np.maximum(track.bends[(index + steps) % len(track.bends)], 1e-6)
    squares = SIDEWAYS_MPS2 / bends + 2 * BRAKING_MPS2 * steps * track.spacing_m
    return float(min(CRUISE_MPS, math.sqrt(squares.min())))


class CarRacingWorld:
    """What is known of CarRacing; a :class:`charles.io.gym.roles.World`.

    The environment draws a picture at every step, which takes a hundred times as long as the step:
    here nothing is drawn before :meth:`picture` asks.
    """

    goes_on = True

    def __init__(self) -> None:
        self._track: Track | None = None

    def start(self, env: Any, observation: Any) -> None:
        """See :class:`charles.io.gym.roles.World`."""
        self._track = track_of(env)
        env.unwrapped.t = 1.0  # the first second of an episode zooms in from far above
        env.unwrapped._render = _draw_nothing

    def sight(self, env: Any) -> Sight:
        """See :class:`charles.io.gym.roles.World`."""
        assert self._track is not None, "start comes first"
        world, track = env.unwrapped, self._track
        hull = world.car.hull
        place = np.array(tuple(hull.position))
        position, off_m = track.nearest(place)
        is_lap_done = bool(world.new_lap) or world.tile_visited_count == len(world.track)
        return Sight(
            speed_mps=float(hull.linearVelocity.length),
            purpose=_toward(hull, track.ahead(position, PURPOSE_M)),
            location=(float(place[0]), float(place[1]), 0.0),
            is_off_road=not any(wheel.tiles for wheel in world.car.wheels),
            progress=Progress(
                length_m=track.length_m,
                completion=world.tile_visited_count / len(world.track),
                ended="done" if is_lap_done else "off_route" if off_m > OFF_ROUTE_M else "",
            ),
        )

    def step(self, env: Any, action: np.ndarray) -> bool:
        """See :class:`charles.io.gym.roles.World`."""
        _, _, is_terminated, is_truncated, _ = env.step(action)
        return bool(is_terminated or is_truncated)

    def picture(self, env: Any, camera: str) -> np.ndarray:
        """See :class:`charles.io.gym.roles.World`."""
        world = env.unwrapped
        return type(world)._render(world, "rgb_array" if camera == "render" else "state_pixels")

    def put(self, env: Any, place: tuple[float, float] | None, rng: np.random.Generator) -> bool:
        """See :class:`charles.io.gym.roles.World`: onto the road, standing still, facing along."""
        assert self._track is not None, "start comes first"
        world, track = env.unwrapped, self._track
        index = int(rng.integers(len(track.points)))
        if place is not None:
            index = round(track.nearest(np.array(place))[0]) % len(track.points)
        make_car = type(world.car)
        world.car.destroy()
        world.car = make_car(world.world, *world.track[index][1:4])
        return True


def _draw_nothing(_mode: str) -> None:
    """In place of the environment's own drawing at every step."""
