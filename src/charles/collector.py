"""The collector: watches a game played by its expert and writes balanced samples.

Its way with one instant: ask the game for it, let the balancing say from the label alone whether
the sample is wanted, and only then capture the pixels, straight into a slot of the shared pool.
A balanced set is published when it is complete. Everything it needs to know comes from the server.

Who drives: the expert; the expert with a push on the wheel (:mod:`charles.perturb`); or the network
that is being trained (:mod:`charles.dagger`). The label is the expert's whoever drives.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from charles.config import ServerConfig, TrainConfig
from charles.connection import Connection
from charles.data.balancing import make_balancer
from charles.data.pool import Lane
from charles.errors import ConfigError, WireError
from charles.human_config import HumanConfig
from charles.io.game import WEATHERS, Game, Scene, Telemetry
from charles.io.games import make_game as make_known_game
from charles.io.human.driven import DrivenGame
from charles.io.human.make import make_human
from charles.messages import Checkpoint, Demand, Welcome
from charles.observer import Observer
from charles.perturb import Perturber
from charles.process import stop_on_signals
from charles.sample import SampleFlag, is_held_out
from charles.timing import Cadence
from charles.ui.console import CollectConsole, CollectView
from charles.ui.plots import KeptPlot
from charles.unstuck import Unstuck

if TYPE_CHECKING:  # needs jax, which a collector without a pupil does without
    from charles.dagger import Pupil

GameMaker = Callable[[TrainConfig, int], Game]
"""Makes the game of a run from its config and a seed."""

REPORT_S = 0.5
"""Between two reports to the server, and two looks at what it says."""

STARVED_S = 0.5
"""How long a stepped game stands still for a free slot, before the server is listened to again."""

STARVED_SLEEP_S = 0.005

WORLD_TRIES = 64
"""Most worlds that are passed over because they are held out."""


@dataclass
class Tally:
    """What a collector counted."""

    instants: int = 0
    samples: int = 0
    starved: int = 0
    unlabelled: int = 0
    scenes: int = 0
    unstucks: int = 0
    collisions: int = 0


class Collector:
    """Turns a game's instants into balanced samples in the shared pool. One thread only.

    ``pupil`` is the network that drives in turns with the expert; ``None`` until somebody sets it.

    Args:
        game: The game; the caller closes it.
        config: The run's settings.
        lane: This collector's way into the pool; the caller closes it.
        collector_id: Its number, from the server.
        seed: Of its scenes, pushes and balancing, from the server.
        stop: Set to leave a wait for free slots.
        on_kept: Called with the labels, float32 ``[N, A]``, of every set that is published.
    """

    def __init__(
        self,
        game: Game,
        config: TrainConfig,
        lane: Lane,
        *,
        collector_id: int,
        seed: int,
        stop: threading.Event,
        on_kept: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        collect = config.collect
        rng = np.random.default_rng(seed)
        spec = lane.spec.pool.sample
        if tuple(game.controls) != spec.controls:
            raise ConfigError(
                f"game controls must be {spec.controls} as the trainer expects, got "
                f"{tuple(game.controls)}. Start the trainer with the same game."
            )
        self.tally = Tally()
        self.cadence = Cadence(collect.rate_hz if game.is_realtime else 0.0)
        self.balancer = make_balancer(
            config.data.balancing, config.outputs, spec.controls,
            seed=int(rng.integers(2**31)), slots_per_collector=lane.spec.quota,
        )  # fmt: skip
        self._game, self._config, self._lane, self._stop = game, config, lane, stop
        self._id, self._on_kept = collector_id, on_kept
        self._spec = spec
        self._rng = rng
        perturb = collect.perturb if game.is_advising else replace(collect.perturb, every_s=0.0)
        self._perturber = Perturber(perturb, spec.controls, rate_hz=collect.rate_hz, rng=rng)
        self._unstuck = Unstuck(collect.unstuck, collect.rate_hz)
        self.takes_pupil = game.is_advising and collect.dagger.share > 0.0
        """Whether the network may drive: its expert must advise whoever drives."""
        self.pupil: Pupil | None = None
        self._observer = Observer(spec)
        self._has_frame = False
        self._scene_ticks = round(collect.scene_s * collect.rate_hz)
        self._ticks_left = 0
        self._episode = 0
        self._is_npc_driving = True
        self._wanted_weather: str | None = None
        self._is_held_out = False
        self._is_validation_full = False

    def heed(self, demand: Demand) -> None:
        """Go and find what the trainer is short of, and leave what it has enough of."""
        self._wanted_weather = str(demand.short.get("weather", "")) or None
        self.balancer.unwanted = frozenset(
            number
            for number, output in enumerate(self._config.outputs)
            if output.name in demand.full
        )
        self._is_validation_full = demand.is_validation_full

    def step(self) -> None:
        """Handle one instant: change the scene if it is time, observe, sample, push, remember."""
        if self._ticks_left <= 0:
            self._change_scene()
        self._ticks_left -= 1
        telemetry = self._game.tick()
        self.tally.instants += 1
        self.cadence.add(telemetry.captured_ns)
        if telemetry.is_collision or self._unstuck.add(telemetry.speed_mps):
            self._put_elsewhere(telemetry)
            return
        self._has_frame = False
        if self._observer.needs_every_frame:
            self._see()
        flag = self._take_turns()
        if telemetry.label is None or not np.isfinite(telemetry.label).all():
            self.tally.unlabelled += 1
        else:
            self._consider(telemetry, telemetry.label, flag)
        self._drive(telemetry, flag)
        self._observer.remember(telemetry)

    def _change_scene(self) -> None:
        seed = self._choose_world()
        weather, self._wanted_weather = self._wanted_weather, None
        scene = Scene(
            seed=seed,
            weather=weather,
            traffic=self._rng.uniform(*self._config.collect.traffic),
        )
        self._game.reset(scene)
        self._ticks_left = self._scene_ticks
        self.tally.scenes += 1
        self._is_held_out = is_held_out(seed, self._config.data.validation_share)
        self._begin_episode()

    def _choose_world(self) -> int:
        """The seed of the next world; none that is held out once there are samples enough of them.

        At least half of all worlds are for training, so that one is soon found; where a narrow
        range of seeds has hardly any, the last one tried will do, and its samples are dropped.
        """
        share, seed = self._config.data.validation_share, 0
        for _ in range(1 + WORLD_TRIES):
            seed = int(self._rng.integers(*self._config.game.seeds))
            if not self._is_validation_full or not is_held_out(seed, share):
                break
        return seed

    def _put_elsewhere(self, telemetry: Telemetry) -> None:
        self.tally.collisions += telemetry.is_collision
        self.tally.unstucks += not telemetry.is_collision
        self._game.teleport()
        self._begin_episode()

    def _begin_episode(self) -> None:
        self._episode += 1
        self._observer.restart()
        self._perturber.reset()
        if self.pupil is not None:
            self.pupil.reset()
        self._unstuck.reset()
        self.cadence.pause()
        if not self._is_npc_driving:
            self._let_npc_drive(True)

    def _take_turns(self) -> SampleFlag:
        """Decide who drives at this instant: what a sample of it is to be marked as."""
        if self.pupil is not None and self.pupil.step():
            self._perturber.reset()
            return SampleFlag.ON_POLICY
        self._perturber.step()
        return self._perturber.flag

    def _drive(self, telemetry: Telemetry, flag: SampleFlag) -> None:
        """Let the expert drive, or take the wheel from it for a push or for the pupil."""
        is_expert = flag not in (SampleFlag.PERTURBED, SampleFlag.ON_POLICY)
        if is_expert != self._is_npc_driving:
            self._let_npc_drive(is_expert)
        if flag == SampleFlag.PERTURBED:
            assert telemetry.label is not None  # an advising game always has one
            self._game.act(self._perturber.apply(telemetry.label))
        elif self.pupil is not None and self.pupil.is_due:
            self._see()
            self._game.act(self.pupil.act(self._observer, telemetry))

    def _let_npc_drive(self, is_driving: bool) -> None:
        self._game.set_npc(is_driving)
        self._is_npc_driving = is_driving

    def _consider(self, telemetry: Telemetry, label: np.ndarray, flag: SampleFlag) -> None:
        """Capture the sample if an output's set wants it, and publish the sets it completes."""
        current = self._observer.current
        output = self.balancer.wants(label, current)
        if output is None:
            return
        slot = self._claim()
        if slot is None:
            self.tally.starved += 1
            return
        self._write(slot, telemetry, label, output, flag)
        self.tally.samples += 1
        for unwanted in self.balancer.add(output, label, current, slot):
            self._lane.give_back(unwanted)
        for _, slots in self.balancer.take_completed():
            if self._on_kept is not None:
                self._on_kept(self._lane.pool.headers["label"][slots])
            self._lane.publish(slots)

    def _claim(self) -> int | None:
        """A free slot. A stepped game can wait a moment for one; a real-time game loses it."""
        slot = self._lane.claim()
        deadline_s = time.monotonic() + STARVED_S
        while slot is None and not self._game.is_realtime and time.monotonic() < deadline_s:
            if self._stop.wait(STARVED_SLEEP_S):
                return None
            slot = self._lane.claim()
        return slot

    def _see(self) -> None:
        """Capture this instant's frame, once however often it is asked for."""
        if not self._has_frame:
            self._game.grab(self._observer.frame)
            self._has_frame = True

    def _flags(self, telemetry: Telemetry, flag: SampleFlag) -> SampleFlag:
        """All that is special about a sample of this instant."""
        if telemetry.is_human:
            flag |= SampleFlag.HUMAN
        return flag | SampleFlag.HELD_OUT if self._is_held_out else flag

    def _write(
        self,
        slot: int,
        telemetry: Telemetry,
        label: np.ndarray,
        output: int,
        flag: SampleFlag,
    ) -> None:
        with self._lane.writing(slot) as (header, pixels):
            is_plain = self._spec.pixel_format == "rgb" and self._spec.num_frames == 1
            if is_plain and flag != SampleFlag.ON_POLICY:
                self._game.grab(pixels)
            else:
                self._see()
                self._observer.write_pixels(pixels)
            header["captured_ns"] = telemetry.captured_ns
            header["applied_ns"] = time.monotonic_ns()
            header["episode"] = (self._id << 32) | self._episode
            header["frame_index"] = self.tally.instants
            header["collector"] = self._id
            header["flags"] = self._flags(telemetry, flag)
            header["picked_for"] = output
            header["weather"] = WEATHERS.index(telemetry.weather)
            header["time_of_day_h"] = telemetry.time_of_day_h
            header["speed_mps"] = telemetry.shown_speed_mps
            header["controls"] = telemetry.controls
            header["label"] = label
            header["purpose"] = telemetry.purpose
            self._observer.write_history(header["history"])


def collect(
    server: ServerConfig,
    make_game: GameMaker | None = None,
    *,
    stop: threading.Event | None = None,
    has_console: bool = True,
    plot: Path | None = None,
    restart_command: str = "",
    human: HumanConfig | None = None,
) -> None:
    """Collect for the server until told to stop. Blocks; survives restarts of the server.

    Args:
        server: Where the server is.
        make_game: Makes the game, for games that Charles does not know; by default the game that
            the server's config names.
        stop: Set it to stop; by default SIGINT and SIGTERM do.
        has_console: Whether to show what is being collected.
        plot: A PNG of how balanced the samples are that were kept from the server's run; none by
            default.
        restart_command: Command line that restarts the game, if it is one that needs it.
        human: The pad of a person who drives instead of the game's own driver, in a game that
            Charles knows.

    Raises:
        CharlesError: The game cannot be started, the server refused this collector, or the plot
            cannot be written.
    """
    stop = stop or stop_on_signals()
    maker = make_game or (
        lambda config, seed: _make_known_game(
            config, seed, restart_command=restart_command, human=human or HumanConfig()
        )
    )
    with closing(Connection(server, "collector")) as connection:
        while not stop.is_set():
            welcome = connection.wait_welcome(stop=stop)
            if welcome is not None:
                _collect_session(
                    connection, welcome, maker, stop, has_console=has_console, plot=plot
                )


def _make_known_game(
    config: TrainConfig, seed: int, *, restart_command: str, human: HumanConfig
) -> Game:
    """The game that the config names, driven by a person if there is a pad."""
    game = config.game
    if human.kind == "none":
        return make_known_game(game, config.frame, seed=seed, restart_command=restart_command)
    if game.name == "window":
        game = replace(game, window=replace(game.window, human=human))
        return make_known_game(game, config.frame, seed=seed)
    person = make_human(human)
    assert person is not None
    try:
        made = make_known_game(
            replace(game, is_realtime=True), config.frame, seed=seed,
            restart_command=restart_command,
        )  # fmt: skip
        return DrivenGame(made, person)
    except BaseException:
        person.close()
        raise


def _collect_session(
    connection: Connection,
    welcome: Welcome,
    make_game: GameMaker,
    stop: threading.Event,
    *,
    has_console: bool,
    plot: Path | None,
) -> None:
    """Collect until the server is lost or ``stop`` is set."""
    if welcome.lane is None:
        raise WireError("The server sent a collector no lane into the frame pool. Restart it.")
    config = welcome.config
    seeds = np.random.SeedSequence(welcome.seed).generate_state(3)
    game_seed, collector_seed, pupil_seed = (int(seed) for seed in seeds)
    with ExitStack() as stack:
        console = stack.enter_context(closing(CollectConsole(is_enabled=has_console)))
        lane = stack.enter_context(closing(Lane(welcome.lane)))
        game = stack.enter_context(closing(make_game(config, game_seed)))
        kept = plot and stack.enter_context(closing(KeptPlot(plot, game.controls)))
        collector = Collector(
            game, config, lane, collector_id=welcome.peer_id, seed=collector_seed, stop=stop,
            on_kept=kept.add if kept else None,
        )  # fmt: skip
        started_s = reported_s = time.monotonic()
        while not stop.is_set() and not connection.is_lost:
            collector.step()
            if time.monotonic() - reported_s > REPORT_S:
                reported_s = time.monotonic()
                _report(connection, collector, console, started_s)
                if _hear(connection, collector):
                    collector.pupil = _make_pupil(welcome, pupil_seed, stack)


def _make_pupil(welcome: Welcome, seed: int, stack: ExitStack) -> "Pupil":
    """The network of the run that is being trained, until ``stack`` ends. Compiles for seconds."""
    from charles.dagger import Pupil
    from charles.policy import Policy
    from charles.staging import Stager

    policy = Policy(welcome.config)
    policy.warm_up()
    stager = stack.enter_context(Stager(policy, welcome.run_dir / "checkpoints"))
    return Pupil(policy, stager, rng=np.random.default_rng(seed))


def _hear(connection: Connection, collector: Collector) -> bool:
    """Hear what the trainer says: what it is short of, and whether it has a network to drive.

    Returns:
        Whether the collector's pupil is now due to come.
    """
    is_pupil_due = False
    for message in connection.poll():
        if isinstance(message, Demand):
            collector.heed(message)
        elif isinstance(message, Checkpoint):
            is_pupil_due = collector.pupil is None and collector.takes_pupil
    return is_pupil_due


def _report(
    connection: Connection, collector: Collector, console: CollectConsole, started_s: float
) -> None:
    """Tell the server and the console how it goes."""
    tally, cadence = collector.tally, collector.cadence.report()
    rate_hz = tally.instants / max(time.monotonic() - started_s, 1e-9)
    bins = collector.balancer.report()
    connection.status(
        state="collecting",
        rate_hz=rate_hz,
        detail={
            "samples": tally.samples,
            "collisions": tally.collisions,
            "unstucks": tally.unstucks,
            "starved": tally.starved,
        },
        bins=bins,
    )
    console.show(CollectView(rate_hz=rate_hz, tally=vars(tally), cadence=cadence, bins=bins))
