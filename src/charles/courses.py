"""Where a run can be scored: from its config and a seed to a drive, whatever its game.

Town has a course of its own (:mod:`charles.routes`). Any other game can be scored that tells, while
it is driven as a :class:`charles.io.game.Game`, how much of its task is done and whether it is over
(:class:`ScoredGame`): CarRacing's share of the track, MetaDrive's share of the route. Imports no
jax, nor any game before it is driven.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from charles.config import TrainConfig
from charles.drivers import Clone, DriverSpec, load_policy, make_driver
from charles.errors import ConfigError
from charles.io.game import Game, Progress, Scene, Telemetry
from charles.io.games import make_game
from charles.routes import (
    Driver,
    Route,
    RouteResult,
    Straight,
    check_unseen,
    drive_route,
    make_routes,
)
from charles.unstuck import Unstuck

PLACES = {"town": "towns", "gymnasium": "tracks", "metadrive": "maps"}
"""What the worlds of a game are called, by the game's name."""

SLOWEST_MPS = 3.0
"""A drive that would take longer than at this speed has run out of time."""

COLLISION = "something"
"""What was hit, where a game does not say."""


class Course(Protocol):
    """Routes through a game's worlds, and drives on them. Used from one thread."""

    def make_routes(self, num: int, *, first_seed: int) -> tuple[Route, ...]:
        """Routes through worlds that were never trained on; the same ones under a seed.

        Raises:
            ConfigError: A world was trained on, or ``num`` is not positive.
        """
        ...

    def drive(self, spec: DriverSpec, route: Route) -> RouteResult:
        """Let a driver drive a route to its end, the same way twice. Blocks.

        Raises:
            CheckpointError: The driver's checkpoint is missing or of another network.
        """
        ...


@runtime_checkable
class ScoredGame(Game, Protocol):
    """A game with a task, which begins at every ``reset``."""

    def progress(self) -> Progress:
        """How far it is."""
        ...


def make_course(config: TrainConfig) -> Course:
    """The course of a run's game; no game is started before the first drive.

    Raises:
        ConfigError: A run of this game cannot be scored.
    """
    game = config.game
    if game.name == "town":
        return TownCourse(config)
    env = f":{game.gymnasium.env}" if game.name == "gymnasium" else ""
    if game.name not in PLACES or (env and not env.startswith(":CarRacing")):
        raise ConfigError(
            f"A run must be of town, CarRacing or metadrive to be scored, got {game.name + env!r}: "
            "it has no task that tells how much of it is done. Watch it drive instead: "
            "bin/play --checkpoint RUN."
        )
    return GameCourse(config)


class TownCourse:
    """Routes in towns; a :class:`Course`.

    Args:
        config: The run's settings.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._drivers: dict[DriverSpec, Driver] = {}

    def make_routes(self, num: int, *, first_seed: int) -> tuple[Route, ...]:
        """See :class:`Course`."""
        return make_routes(num, first_seed=first_seed, game=self._config.game)

    def drive(self, spec: DriverSpec, route: Route) -> RouteResult:
        """See :class:`Course`."""
        if spec not in self._drivers:
            self._drivers[spec] = make_driver(spec, self._config)
        game, unstuck = self._config.game, self._config.play.unstuck
        return drive_route(spec.name, self._drivers[spec], route, game=game, unstuck=unstuck)


class GameCourse:
    """A game's own tasks, one in each world; a :class:`Course`. Keeps one game.

    Args:
        config: The run's settings.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._game: ScoredGame | None = None
        self._clones: dict[DriverSpec, Clone] = {}

    def make_routes(self, num: int, *, first_seed: int) -> tuple[Route, ...]:
        """See :class:`Course`. How long they are is known when they are driven."""
        game = self._config.game
        check_unseen(num, first_seed=first_seed, game=game, places=PLACES[game.name])
        return tuple(
            Route(index=index, seed=first_seed + index, weather="clear", time_of_day_h=12.0,
                  length_m=0.0)
            for index in range(num)
        )  # fmt: skip

    def drive(self, spec: DriverSpec, route: Route) -> RouteResult:
        """See :class:`Course`."""
        game = self._game = self._game or self._make_game()
        game.reset(Scene(seed=route.seed, weather=route.weather, time_of_day_h=route.time_of_day_h))
        if spec.kind != "npc":
            game.set_npc(False)
        if spec.kind == "policy":
            self._clone(spec).start()
        return self._drive(spec, replace(route, length_m=game.progress().length_m), game)

    def close(self) -> None:
        """End the game, if one was started."""
        if self._game is not None:
            self._game.close()

    def _drive(self, spec: DriverSpec, route: Route, game: ScoredGame) -> RouteResult:
        rate_hz = self._config.collect.rate_hz
        unstuck = Unstuck(self._config.play.unstuck, rate_hz)
        most = round(route.length_m / SLOWEST_MPS * rate_hz)
        instants = off_road = collisions = 0
        distance_m, ended, progress = 0.0, "", game.progress()
        while not ended:
            told = game.tick()
            instants += 1
            distance_m += told.shown_speed_mps / rate_hz
            off_road += told.is_off_road
            progress = game.progress()
            collisions += told.is_collision and progress.ended != "off_route"
            is_stuck = unstuck.add(told.speed_mps)
            ended = progress.ended or ("stuck" if is_stuck else "time" if instants >= most else "")
            if spec.kind != "npc":
                game.act(self._controls(spec, told, game))
        return RouteResult(
            driver=spec.name, route=route, ended=ended, completion=progress.completion,
            distance_m=distance_m, time_s=instants / rate_hz, off_road_s=off_road / rate_hz,
            collisions={COLLISION: collisions} if collisions else {},
        )  # fmt: skip

    def _controls(self, spec: DriverSpec, told: Telemetry, game: Game) -> np.ndarray:
        """What a driver that is not the game's own does at an instant, float32 ``[A]``."""
        if spec.kind == "straight":
            return Straight.controls(told.shown_speed_mps)
        clone = self._clone(spec)
        game.grab(clone.frame)
        return clone.decide(told)

    def _clone(self, spec: DriverSpec) -> Clone:
        if spec not in self._clones:
            self._clones[spec] = Clone(*load_policy(spec, self._config))
        return self._clones[spec]

    def _make_game(self) -> ScoredGame:
        """The game, stepped, with the expert that it is scored against whoever taught."""
        config = self._config
        gymnasium = replace(config.game.gymnasium, expert="auto")
        stepped = replace(config.game, is_realtime=False, gymnasium=gymnasium)
        game = make_game(stepped, config.frame, seed=0)
        assert isinstance(game, ScoredGame), "every game in PLACES is one"
        return game
