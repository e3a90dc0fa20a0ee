"""A session of driving: a run's network, its parameters, the game and the pad, put together.

With a server, a session lasts until another run is trained there; alone, it drives with what a
run's directory holds.
"""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from charles.config import TrainConfig
from charles.errors import CheckpointError
from charles.evaluate import find_run
from charles.human_config import HumanConfig
from charles.human_samples import HumanSamples
from charles.io.game import Game, Scene
from charles.io.games import make_game as make_known_game
from charles.io.pads.make import make_pad as make_known_pad
from charles.io.pads.pad import Pad
from charles.link import Link
from charles.options import PlayOptions
from charles.outputs import control_of
from charles.player import Player, PlayReport
from charles.policy import Policy
from charles.process import stop_on_signals
from charles.run import read_run
from charles.staging import Stager
from charles.takeover import HumanMaker, Takeover, make_human, make_takeover, world_to_learn_in
from charles.ui.console import PlayConsole, PlayView

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


def play(
    options: PlayOptions,
    *,
    stop: threading.Event | None = None,
    make_game: GameMaker | None = None,
    make_pad: PadMaker | None = None,
    make_person: HumanMaker = make_human,
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
        make_person: Opens the pad of a person who may take the wheel; by default the one that
            ``options.takeover`` names.

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

    # Before the player's own pad is there, which would be taken for a person's.
    with make_takeover(options.takeover, make_person) or nullcontext() as takeover:
        if options.checkpoint is not None:
            run_dir, _ = find_run(options.checkpoint)
            run = Run(read_run(run_dir), run_dir)
            return _play_run(run, options, makers, is_over=is_over, link=None, takeover=takeover)
        return _play_attached(options, makers, is_over=is_over, takeover=takeover)


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
    return "\n".join([*lines, *_person_lines(report)])


def _person_lines(report: PlayReport) -> list[str]:
    """What is to be said of a person who may take the wheel."""
    if report.takeover is None:
        return []
    text = f"a person took the wheel {report.takeover.takeovers} times, for "
    text += f"{report.takeover.ticks} ticks"
    human = report.human
    if human is not None:
        text += (
            f": {human.sent} samples sent; dropped {human.let_go} of letting go, {human.starved} "
            f"for lack of a slot, {human.without_server} for lack of a server"
        )
    return [text]


@dataclass(frozen=True)
class Run:
    """What is driven: a run's settings, and where its checkpoints appear."""

    config: TrainConfig
    directory: Path


def _make_known_game(config: TrainConfig, seed: int, *, restart_command: str) -> Game:
    """The game that the config names, by the wall clock, without the person that collectors watch:
    the network is to drive, and whoever takes the wheel from it has a setting of their own."""
    window = replace(config.game.window, human=HumanConfig())
    game = replace(config.game, is_realtime=True, window=window)
    return make_known_game(game, config.frame, seed=seed, restart_command=restart_command)


def _run_of(link: Link) -> Run | None:
    """The run that the server trains; ``None`` before it let the player in."""
    link.check()
    welcome = link.welcome
    return None if welcome is None else Run(welcome.config, welcome.run_dir)


def _play_attached(
    options: PlayOptions,
    makers: tuple[GameMaker, PadMaker],
    *,
    is_over: Callable[[], bool],
    takeover: Takeover | None,
) -> PlayReport | None:
    """Drive whatever the server trains, one run after the other; the last report."""
    report = None
    with Link(options.server, wants_lane=takeover is not None) as link:
        while not is_over():
            run = _run_of(link)
            if run is None:
                time.sleep(WAIT_S)
            else:
                report = (
                    _play_run(run, options, makers, is_over=is_over, link=link, takeover=takeover)
                    or report
                )
    return report


def _play_run(
    run: Run,
    options: PlayOptions,
    makers: tuple[GameMaker, PadMaker],
    *,
    is_over: Callable[[], bool],
    link: Link | None,
    takeover: Takeover | None,
) -> PlayReport | None:
    """Compile, wait for parameters, drive; until it is over or the server trains another run."""
    policy = Policy(run.config, backend=options.backend)
    policy.warm_up()

    def is_left() -> bool:
        return is_over() or (link is not None and _run_of(link) != run)

    human = None
    if takeover is not None and link is not None:
        human = HumanSamples(link.berth, policy.spec)
    scene = _make_scene(options, run.config, is_learned_from=human is not None)
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
            player = Player(game, pad, policy, stager, takeover=takeover, human=human)
            player.begin(scene)
            while not is_left():
                player.tick()
                view.show(player)
            report = player.report()
    if options.console:  # the pad is closed by now, which makes it neutral, on every way out
        print(describe(report))
    return report


def _make_scene(options: PlayOptions, config: TrainConfig, *, is_learned_from: bool) -> Scene:
    """Where to drive."""
    seed = world_to_learn_in(options.seed, config) if is_learned_from else options.seed
    return Scene(weather=options.weather, time_of_day_h=options.time_of_day_h, seed=seed)


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
            detail: dict[str, str | float] = {
                "step": float(player.step),
                "missed": float(player.keeper.missed),
                "swaps": float(player.tally.swaps),
                "refused": float(len(self._stager.refusals)),
            }
            human = player.human_tally()
            if human is not None:
                detail["human"] = float(human.sent)
            state = "person drives" if player.is_human_driving else "driving"
            self._link.tell(state, rate_hz=self._pps, detail=detail)

    def _view(self, player: Player) -> PlayView:
        names = player.policy.spec.controls
        return PlayView(
            predictions=player.predictions,
            translated={
                name: float(control_of(player.controls, names, name)) for name in player.predictions
            },
            fps=player.frames.report().rate_hz,
            pps=self._pps,
            note=", ".join(filter(None, (*_person_notes(player), self._note()))),
        )

    def _note(self) -> str:
        """Why the newest parameters were refused, if they were."""
        refusals, newest = self._stager.refusals, self._stager.newest
        if not refusals or (newest is not None and newest.step > refusals[-1].step):
            return ""
        first_line = refusals[-1].reason.partition("\n")[0]
        return f"refused checkpoint {refusals[-1].step}: {first_line}"


def _person_notes(player: Player) -> tuple[str, ...]:
    """What the console says of a person who may take the wheel."""
    human = player.human_tally()
    sent = "" if human is None else f", {human.sent} samples sent"
    return (f"a person drives{sent}" if player.is_human_driving else "", player.person_note())


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
