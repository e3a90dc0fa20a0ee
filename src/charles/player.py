"""The player: drives a game with a network that is still learning.

One loop on absolute deadlines: take the game's instant, predict, put the controls on the pad. New
parameters are staged in the background and swapped in between two ticks. The pad is touched only
after everything is compiled, and it is neutral whenever the network does not drive: before the
first checkpoint, without frames, without a finite prediction, and on every way out.
"""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from charles.config import PlayOptions, TrainConfig
from charles.errors import CheckpointError
from charles.evaluate import find_run
from charles.io.game import Game, Scene, Telemetry
from charles.io.games import make_game as make_known_game
from charles.io.pads.make import make_pad as make_known_pad
from charles.io.pads.pad import Pad
from charles.link import Link
from charles.observer import Observer
from charles.outputs import control_of
from charles.policy import ControlFilter, Policy
from charles.process import stop_on_signals
from charles.run import read_run
from charles.staging import Refusal, Staged, Stager
from charles.timing import NS_PER_S, Cadence, CadenceReport, JitterBuffer, Quantiles, RateKeeper
from charles.ui.console import PlayConsole, PlayView
from charles.unstuck import Unstuck

STAGES = ("tick", "grab", "preprocess", "predict", "translate", "hold", "act")
"""Parts of one tick: the game's next instant, its pixels, the network's inputs, and so on; ``hold``
is time that is waited so that the pad is updated evenly."""

LOST_S = 0.5
"""Age of an instant from which on its pixels count as lost: a car at 15 m/s is 7 m further."""

SWITCH_INTERVAL_S = 0.0005
"""How long another thread of this process may keep the interpreter while a tick is due; Python's
own 5 ms, several times a tick, would cost the deadline while parameters are being restored."""

VIEW_S = 1.0
"""Between two notes to the server."""

WAIT_S = 0.2
"""Between two looks while there is nothing to drive with."""

GameMaker = Callable[[TrainConfig, int], Game]
"""Makes the game of a run from its config and a seed."""

PadMaker = Callable[[Game], Pad]
"""Makes the pad that a game is driven with."""


class StageLog:
    """Durations of the newest ticks' stages, in memory that is allocated once.

    Args:
        capacity: Ticks remembered.
    """

    def __init__(self, capacity: int = 36_000) -> None:
        self._stages_ns = np.zeros((capacity, len(STAGES)), np.int64)
        self._latency_ns = np.zeros(capacity, np.int64)
        self._acted_ns = np.zeros(capacity, np.int64)
        self._row = self._stage = self._mark_ns = 0
        self.ticks = 0

    def begin(self) -> None:
        """A tick begins."""
        self._row = self.ticks % len(self._stages_ns)
        self._stage = 0
        self._mark_ns = time.perf_counter_ns()

    def mark(self) -> None:
        """The tick's next stage is over."""
        now_ns = time.perf_counter_ns()
        self._stages_ns[self._row, self._stage] = now_ns - self._mark_ns
        self._stage += 1
        self._mark_ns = now_ns

    def end(self, captured_ns: int) -> None:
        """The tick's controls are on the pad; ``captured_ns`` is its instant, monotonic clock."""
        now_ns = time.monotonic_ns()
        self._latency_ns[self._row] = now_ns - captured_ns
        self._acted_ns[self._row] = now_ns
        self.ticks += 1

    def stages_ms(self) -> dict[str, Quantiles]:
        """Duration of each stage."""
        stages_ms = self._stages_ns[: self._filled] / 1e6
        return {name: Quantiles.of(stages_ms[:, index]) for index, name in enumerate(STAGES)}

    def latency_ms(self) -> Quantiles:
        """From the capture of an instant to its controls on the pad."""
        return Quantiles.of(self._latency_ns[: self._filled] / 1e6)

    @property
    def _filled(self) -> int:
        return min(self.ticks, len(self._stages_ns))


@dataclass
class Tally:
    """What a player counted."""

    ticks: int = 0
    swaps: int = 0
    unstucks: int = 0
    collisions: int = 0
    lost: int = 0
    """Instants too old to drive by."""
    not_finite: int = 0
    """Predictions that were no numbers."""


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """How a session of driving went."""

    tally: Tally = field(default_factory=Tally)
    step: int = -1
    """Step of the parameters that drove last; -1 if none ever did."""
    missed: int = 0
    """Deadlines that were missed."""
    cadence: CadenceReport
    """Of the pad's updates."""
    frames: CadenceReport
    """Of the game's instants."""
    stages_ms: dict[str, Quantiles]
    latency_ms: Quantiles
    """Capture to pad."""
    refusals: tuple[Refusal, ...] = ()
    compilations: int = 0


class Player:
    """Drives one game with one policy. One thread only.

    Args:
        game: The game; the caller closes it.
        pad: What the controls go to; the caller closes it.
        policy: The network; warmed up by the caller.
        stager: Where new parameters come from.
    """

    def __init__(self, game: Game, pad: Pad, policy: Policy, stager: Stager) -> None:
        play = policy.config.play
        self.tally = Tally()
        self.log = StageLog()
        self.keeper = RateKeeper(play.rate_hz)
        self._jitter = JitterBuffer(round(play.longest_hold * self.keeper.period_ns))
        self.cadence = Cadence(play.rate_hz)
        """Of the pad's updates."""
        self.frames = Cadence(play.rate_hz)
        """Of the game's instants."""
        self.step = -1
        self.predictions: dict[str, float] = {}
        self.controls = np.zeros(len(policy.spec.controls), np.float32)
        self.policy = policy
        self._game, self._pad, self._stager = game, pad, stager
        self._observer = Observer(policy.spec)
        outputs, controls = policy.config.outputs, policy.spec.controls
        self._filter = ControlFilter(outputs, controls, play.smoothing)
        self._unstuck = Unstuck(play.unstuck, play.rate_hz)
        self._swap_at_unstuck = play.swap_at == "unstuck"
        self._see_every = max(1, round(play.rate_hz))

    def begin(self, scene: Scene) -> None:
        """Build the scene, rehearse one tick while the game's own driver drives, take over."""
        self._swap(self._stager.newest)
        self._game.reset(scene)
        self._see_and_predict()  # the first picture of a scene is slow, and so is a cold network
        self._game.set_npc(False)
        self._game.tick()  # a real-time game's instants and our deadlines now keep step
        self._restart()

    def tick(self) -> None:
        """Wait for the deadline, then see, predict and act once, at an even time."""
        self.keeper.wait()
        telemetry, captured_ns = self._see_and_predict()
        self._jitter.wait(self.keeper.deadline_ns)
        self.log.mark()
        self._act(captured_ns)
        self.log.mark()
        self.log.end(captured_ns)
        self.cadence.add(time.monotonic_ns())
        self.frames.add(captured_ns)
        self._after(telemetry)

    def _see_and_predict(self) -> tuple[Telemetry, int]:
        """From the game's next instant to controls; returns the instant and its capture time."""
        log = self.log
        log.begin()
        telemetry = self._game.tick()
        captured_ns = telemetry.captured_ns if self._game.is_realtime else time.monotonic_ns()
        log.mark()
        self._game.grab(self._observer.frame)
        log.mark()
        inputs = self._observer.observe(telemetry)
        log.mark()
        self.predictions = self.policy.predict(inputs)
        log.mark()
        self.controls = self._filter.apply(self.predictions)
        log.mark()
        return telemetry, captured_ns

    def _act(self, captured_ns: int) -> None:
        """Put the controls on the pad, or let go of it where they cannot be trusted."""
        is_lost = time.monotonic_ns() - captured_ns > LOST_S * NS_PER_S
        is_finite = bool(np.isfinite(self.controls).all())
        self.tally.lost += is_lost
        self.tally.not_finite += not is_finite
        if is_lost or not is_finite:
            self._pad.neutral()
        else:
            self._pad.update(self.controls)

    def _after(self, telemetry: Telemetry) -> None:
        """What has time until the next deadline: history, unstuck, new parameters."""
        self.tally.ticks += 1
        self.tally.collisions += telemetry.is_collision
        self._observer.remember(telemetry)
        if self.tally.ticks % self._see_every == 0:
            self._stager.see(self._observer.inputs)
        is_stuck = self._unstuck.add(telemetry.speed_mps)
        if is_stuck:
            self._put_elsewhere()
        if is_stuck or not self._swap_at_unstuck:
            self._swap(self._stager.newest)

    def _swap(self, newest: Staged | None) -> None:
        """Drive with other parameters from the next tick on, if there are any."""
        if newest is not None and newest.step != self.step:
            self.policy.variables = newest.variables
            self.step = newest.step
            self.tally.swaps += 1

    def _put_elsewhere(self) -> None:
        self.tally.unstucks += 1
        self._pad.neutral()
        self._game.teleport()
        self._restart()

    def _restart(self) -> None:
        """A wanted pause is over: forget what was before it."""
        self._observer.restart()
        self._filter.restart()
        self._unstuck.reset()
        self.cadence.pause()
        self.frames.pause()
        self.keeper.restart()

    def report(self) -> PlayReport:
        """How it went so far."""
        return PlayReport(
            tally=replace(self.tally),
            step=self.step,
            missed=self.keeper.missed,
            cadence=self.cadence.report(),
            frames=self.frames.report(),
            stages_ms=self.log.stages_ms(),
            latency_ms=self.log.latency_ms(),
            refusals=self._stager.refusals,
            compilations=self.policy.num_compilations(),
        )


def play(
    options: PlayOptions,
    *,
    stop: threading.Event | None = None,
    make_game: GameMaker | None = None,
    make_pad: PadMaker | None = None,
) -> PlayReport | None:
    """Drive until told to stop, for a server or, with ``options.checkpoint``, alone. Blocks.

    Waits, touching neither game nor pad, until there is a checkpoint. A server that goes away is
    not missed: driving goes on with the parameters at hand, and the server is joined again when it
    is back. If it then trains another run, driving starts anew with that one.

    Args:
        options: Where to drive, and with what.
        stop: Set it to stop; by default SIGINT and SIGTERM do.
        make_game: Makes the game; by default the one that the run's config names.
        make_pad: Makes the pad; by default the one that ``options.pad`` names.

    Returns:
        How the last session went; ``None`` if nothing was driven.

    Raises:
        CharlesError: The game, the pad or the run cannot be used, or the server refused.
    """
    stop = stop or stop_on_signals()
    ends_s = time.monotonic() + options.seconds if options.seconds else float("inf")
    known_game = partial(_make_known_game, restart_command=options.restart_command)
    known_pad = partial(make_known_pad, options.pad)
    makers = (make_game or known_game, make_pad or known_pad)

    def is_over() -> bool:
        return stop.is_set() or time.monotonic() >= ends_s

    if options.checkpoint is not None:
        run_dir, _ = find_run(options.checkpoint)
        run = Run(read_run(run_dir), run_dir)
        return _play_run(run, options, makers, is_over=is_over, link=None)
    return _play_attached(options, makers, is_over=is_over)


def describe(report: PlayReport) -> str:
    """What a person wants to know about a session of driving, in a few lines."""
    tally, period = report.tally, report.cadence.period_ms
    stages = ", ".join(f"{name} {ms.p50:.1f}/{ms.p99:.1f}" for name, ms in report.stages_ms.items())
    lines = [
        f"drove {tally.ticks} ticks with checkpoint {report.step}: {tally.swaps} swaps, "
        f"{len(report.refusals)} refused, {tally.unstucks} unstucks, {tally.collisions} collisions",
        f"period p50 {period.p50:.1f}, p99 {period.p99:.1f}, max {period.max:.1f} ms; "
        f"{report.missed} deadlines missed, {tally.lost} frames lost, "
        f"{tally.not_finite} predictions not finite",
        f"capture to pad p50 {report.latency_ms.p50:.1f}, p99 {report.latency_ms.p99:.1f} ms; "
        f"stages p50/p99 ms: {stages}",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Run:
    """What is driven: a run's settings, and where its checkpoints appear."""

    config: TrainConfig
    directory: Path


def _make_known_game(config: TrainConfig, seed: int, *, restart_command: str) -> Game:
    """The game that the config names, by the wall clock."""
    game = replace(config.game, is_realtime=True)
    return make_known_game(game, config.frame, seed=seed, restart_command=restart_command)


def _run_of(link: Link) -> Run | None:
    """The run that the server trains; ``None`` before it let the player in."""
    link.check()
    welcome = link.welcome
    return None if welcome is None else Run(welcome.config, welcome.run_dir)


def _play_attached(
    options: PlayOptions, makers: tuple[GameMaker, PadMaker], *, is_over: Callable[[], bool]
) -> PlayReport | None:
    """Drive whatever the server trains, one run after the other; the last report."""
    report = None
    with Link(options.server) as link:
        while not is_over():
            run = _run_of(link)
            if run is None:
                time.sleep(WAIT_S)
            else:
                report = _play_run(run, options, makers, is_over=is_over, link=link) or report
    return report


def _play_run(
    run: Run,
    options: PlayOptions,
    makers: tuple[GameMaker, PadMaker],
    *,
    is_over: Callable[[], bool],
    link: Link | None,
) -> PlayReport | None:
    """Compile, wait for parameters, drive; until it is over or the server trains another run."""
    policy = Policy(run.config, backend=options.backend)
    policy.warm_up()

    def is_left() -> bool:
        return is_over() or (link is not None and _run_of(link) != run)

    scene = Scene(weather=options.weather, time_of_day_h=options.time_of_day_h, seed=options.seed)
    with (
        closing(PlayConsole(is_enabled=options.console)) as console,
        Stager(policy, run.directory / "checkpoints") as stager,
    ):
        view = _Viewer(console, link, stager)
        while stager.newest is None:
            if link is None and stager.refusals:  # nobody trains who could write a better one
                raise CheckpointError(stager.refusals[-1].reason)
            if is_left():
                return None
            view.show_waiting()
            time.sleep(WAIT_S)
        with (
            closing(makers[0](run.config, options.seed)) as game,
            closing(makers[1](game)) as pad,
            undisturbed(),
        ):
            player = Player(game, pad, policy, stager)
            player.begin(scene)
            while not is_left():
                player.tick()
                view.show(player)
            report = player.report()
    if options.console:  # the pad is closed by now, which makes it neutral, on every way out
        print(describe(report))
    return report


class _Viewer:
    """Tells the console and the server how the driving goes, without holding it up."""

    def __init__(self, console: PlayConsole, link: Link | None, stager: Stager) -> None:
        self._console, self._link, self._stager = console, link, stager
        self._told_s = time.monotonic()
        self._told_ticks = 0
        self._pps = 0.0

    def show_waiting(self) -> None:
        """There is nothing to drive with yet."""
        self._console.show(PlayView(state=self._note() or "waiting for a checkpoint"))
        if self._link is not None:
            self._link.tell("waiting", rate_hz=0.0, detail={})

    def show(self, player: Player) -> None:
        """After every tick; does something about once a second."""
        now_s = time.monotonic()
        if now_s - self._told_s >= VIEW_S:
            ticks = player.tally.ticks
            self._pps = (ticks - self._told_ticks) / (now_s - self._told_s)
            self._told_s, self._told_ticks = now_s, ticks
            self._tell(player)
        self._console.show(lambda: self._view(player))

    def _tell(self, player: Player) -> None:
        if self._link is not None:
            detail = {
                "step": float(player.step),
                "missed": float(player.keeper.missed),
                "swaps": float(player.tally.swaps),
                "refused": float(len(self._stager.refusals)),
            }
            self._link.tell("driving", rate_hz=self._pps, detail=detail)

    def _view(self, player: Player) -> PlayView:
        names = player.policy.spec.controls
        return PlayView(
            predictions=player.predictions,
            translated={
                name: float(control_of(player.controls, names, name)) for name in player.predictions
            },
            fps=player.frames.report().rate_hz,
            pps=self._pps,
            note=self._note(),
        )

    def _note(self) -> str:
        """Why the newest parameters were refused, if they were."""
        refusals, newest = self._stager.refusals, self._stager.newest
        if not refusals or (newest is not None and newest.step > refusals[-1].step):
            return ""
        first_line = refusals[-1].reason.partition("\n")[0]
        return f"refused checkpoint {refusals[-1].step}: {first_line}"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the interpreter's own pauses short while a loop has deadlines."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what lives until now is not looked at again by every full collection
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval_s)
