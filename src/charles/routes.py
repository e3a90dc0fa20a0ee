"""Routes in towns: where they start and end, who drives them, and how a drive went.

Everything about a drive follows from the route and the driver, so two drivers on the same route
start in the same scene among the same traffic, and the same driver drives it the same way twice.
Imports no jax: the NPC and the floor need none.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from charles.config import GameConfig
from charles.errors import require
from charles.io.game import Telemetry
from charles.play_config import UnstuckConfig
from charles.town.world import World, WorldConfig
from charles.unstuck import Unstuck

RATE_HZ = 30.0
"""Instants per second of a town's time."""

OFF_ROUTE_M = 8.0
"""Distance from the route at which a drive ends. Lanes are 3.5 m wide: from its lane a car must
cross two more, or the pavement, to get there, and at a junction it has taken another street."""

SLOWEST_MPS = 2.0
"""A drive that would take longer than at this speed has run out of time."""

HOURS = (1.0, 8.0, 13.0, 19.0)
"""Times of day that routes go through: night, morning, noon, evening."""

LENGTHS_M = (300.0, 400.0)
"""Shortest and longest route."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One drive to be made: a town, its weather and hour, and how far to go."""

    index: int
    seed: int
    """Of the town, its traffic, and the route through it."""
    weather: str
    time_of_day_h: float
    length_m: float


@dataclass(frozen=True, kw_only=True)
class RouteResult:
    """How one drive went."""

    driver: str
    route: Route
    ended: str
    """``done``, ``off_route``, ``stuck`` or ``time``."""
    completion: float
    """Share of the route that was driven, 0 to 1."""
    distance_m: float
    """Distance travelled."""
    time_s: float
    off_road_s: float
    collisions: dict[str, int]
    """Collisions by what was hit."""

    def as_json(self) -> dict[str, object]:
        """One flat row."""
        row = asdict(self)
        return {"driver": row.pop("driver"), **row.pop("route"), **row}


class Driver(Protocol):
    """Who is at the wheel. Used from one thread."""

    def start(self) -> None:
        """A new drive begins; nothing of the one before is remembered."""
        ...

    def drive(self, world: World) -> np.ndarray | None:
        """Controls, float32 ``[A]``, for the world's present instant; ``None`` for the NPC's."""
        ...


class Npc:
    """The town's own driver: what the network learns from."""

    def start(self) -> None:
        """See :class:`Driver`."""

    def drive(self, world: World) -> None:
        """See :class:`Driver`."""


class Straight:
    """Straight ahead at a moderate speed: how far one comes without seeing anything."""

    speed_mps = 8.0

    def start(self) -> None:
        """See :class:`Driver`."""

    def drive(self, world: World) -> np.ndarray:
        """See :class:`Driver`."""
        return self.controls(world.speed_mps)

    @classmethod
    def controls(cls, speed_mps: float) -> np.ndarray:
        """What it does at a speed, float32 ``[2]``."""
        throttle = 0.3 * (cls.speed_mps - speed_mps)
        return np.array([min(max(throttle, -0.5), 0.5), 0.0], np.float32)


def make_routes(
    num: int, *, first_seed: int, game: GameConfig, hours: Sequence[float] = HOURS
) -> tuple[Route, ...]:
    """Routes through every combination of weather and hour in turn, each in a town of its own.

    Any run of neighbours is balanced: four neighbouring routes have four weathers and four hours.

    Args:
        num: How many.
        first_seed: Seed of the first town; the others follow.
        game: The weathers and hours that were trained on, and the seeds that must not be used.
        hours: Times of day to go through; those outside the trained ones are left out.

    Raises:
        ConfigError: A town was trained on, or ``num`` is not positive.
    """
    check_unseen(num, first_seed=first_seed, game=game, places="towns")
    first_h, last_h = game.hours
    known = [hour for hour in hours if first_h <= hour <= last_h] or [(first_h + last_h) / 2]
    combinations = _all_combinations(game.weathers, known)
    rng = np.random.default_rng(first_seed)
    lengths = rng.uniform(*LENGTHS_M, num).round(1)
    return tuple(
        Route(index=index, seed=first_seed + index, weather=weather, time_of_day_h=hour,
              length_m=float(length))
        for index, (length, (weather, hour)) in enumerate(
            zip(lengths, itertools.cycle(combinations), strict=False))
    )  # fmt: skip


def check_unseen(num: int, *, first_seed: int, game: GameConfig, places: str) -> None:
    """Refuse routes through worlds that were trained on.

    Args:
        num: How many worlds.
        first_seed: Seed of the first; the others follow.
        game: The seeds that must not be used.
        places: What these worlds are called.

    Raises:
        ConfigError: A world was trained on, or ``num`` is not positive.
    """
    require(num > 0, "routes", "be positive", num)
    low, high = game.seeds
    is_unseen = first_seed >= high or first_seed + num <= low
    rule = f"give {places} that were never trained on (those are {low} to {high - 1})"
    require(is_unseen, "first_seed", rule, first_seed, f"Take {max(high, 100_000)}.")


def _all_combinations(weathers: Sequence[str], hours: Sequence[float]) -> list[tuple[str, float]]:
    """Every pair once, in the order of diagonals, so that neighbours differ in both."""
    rows, columns = len(weathers), len(hours)
    pairs = [(i % rows, (i + shift) % columns) for shift in range(columns) for i in range(rows)]
    pairs += itertools.product(range(rows), range(columns))
    return [(weathers[row], hours[column]) for row, column in dict.fromkeys(pairs)]


def make_world(route: Route, game: GameConfig) -> World:
    """The town of a route, with the car at its start."""
    return World(
        WorldConfig(
            seed=route.seed,
            vehicles=game.vehicles,
            pedestrians=game.pedestrians,
            weather=route.weather,
            time_of_day_h=route.time_of_day_h,
            route_length_m=route.length_m,
            route_seed=route.seed,
        )
    )


def telemetry_of(world: World) -> Telemetry:
    """What the game would tell about the world's present instant."""
    return Telemetry(
        captured_ns=round(world.time_s * 1e9),
        controls=world.controls,
        label=None,
        speed_mps=world.speed_mps,
        purpose=world.purpose(),
        location=world.location,
        is_collision=world.collided is not None,
        is_off_road=world.is_off_road,
    )


class Drive:
    """One driver on one route, instant by instant. Use from one thread.

    Args:
        name: The driver's name in the result.
        driver: Who drives.
        route: Where.
        game: Traffic and pedestrians.
        unstuck: When the car counts as stuck.
    """

    def __init__(
        self, name: str, driver: Driver, route: Route, *, game: GameConfig, unstuck: UnstuckConfig
    ) -> None:
        self.world = make_world(route, game)
        self.ended = ""
        """Why the drive is over: ``done``, ``off_route``, ``stuck`` or ``time``."""
        self.instants = 0
        self._name, self._driver, self._route = name, driver, route
        self._unstuck = Unstuck(unstuck, RATE_HZ)
        self._limit = round(route.length_m / SLOWEST_MPS * RATE_HZ)
        self._collisions: Counter[str] = Counter()
        self._furthest_m = self._distance_m = 0.0
        self._off_road = 0
        driver.start()

    def step(self) -> None:
        """Let the driver act at the present instant, and move to the next."""
        world = self.world
        world.step(self._driver.drive(world))
        self.instants += 1
        self._distance_m += world.speed_mps / RATE_HZ
        self._furthest_m = max(self._furthest_m, world.route_progress_m)
        self._off_road += world.is_off_road
        if world.collided is not None:
            self._collisions[world.collided] += 1
        is_stuck = self._unstuck.add(world.speed_mps)
        self.ended = _ending(world, is_stuck=is_stuck, is_late=self.instants >= self._limit)

    @property
    def completion(self) -> float:
        """Share of the route driven so far, 0 to 1."""
        if self.ended == "done":
            return 1.0
        return min(max(self._furthest_m / self.world.route_length_m, 0.0), 1.0)

    def result(self) -> RouteResult:
        """How it went so far."""
        return RouteResult(
            driver=self._name,
            route=self._route,
            ended=self.ended,
            completion=self.completion,
            distance_m=self._distance_m,
            time_s=self.instants / RATE_HZ,
            off_road_s=self._off_road / RATE_HZ,
            collisions=dict(sorted(self._collisions.items())),
        )


def drive_route(
    name: str, driver: Driver, route: Route, *, game: GameConfig, unstuck: UnstuckConfig
) -> RouteResult:
    """Drive a route to its end, as :class:`Drive` does. Blocks while it is simulated."""
    drive = Drive(name, driver, route, game=game, unstuck=unstuck)
    while not drive.ended:
        drive.step()
    return drive.result()


def _ending(world: World, *, is_stuck: bool, is_late: bool) -> str:
    """Why the drive is over; empty while it is not."""
    if world.is_route_done:
        return "done"
    if abs(world.cross_track_m) > OFF_ROUTE_M:
        return "off_route"
    if is_stuck:
        return "stuck"
    return "time" if is_late else ""
