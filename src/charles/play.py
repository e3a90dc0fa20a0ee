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
from charles.contract import (
    CaptureContract,
    contract_of_capture,
    from_data,
    read_contract,
    require_same,
)
from charles.errors import CheckpointError
from charles.evaluate import find_run
from charles.human_config import HumanConfig
from charles.human_samples import HumanSamples
from charles.io.capture import capture_of
from charles.io.game import Game, Scene
from charles.io.games import make_game as make_known_game
from charles.io.pads.make import make_pad as make_known_pad
from charles.io.pads.make import zones_of
from charles.io.pads.pad import Pad
from charles.link import Link
from charles.options import PlayOptions
from charles.outputs import control_of
from charles.player import Player, PlayReport, Predictor, Source
from charles.process import stop_on_signals
from charles.remote import RemoteLink, RemotePolicy
from charles.run import read_run
from charles.spectators import Spectators
from charles.takeover import HumanMaker, Takeover, make_human, make_takeover, world_to_learn_in
from charles.timing import NS_PER_S
from charles.ui.cadence import cadence_text
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
        if options.backend == "remote":
            return _play_remote(options, makers, is_over=is_over, takeover=takeover)
        if options.checkpoint is not None:
            run_dir, _ = find_run(options.checkpoint)
            run = Run(read_run(run_dir), run_dir)
            return _play_run(run, options, makers, is_over=is_over, link=None, takeover=takeover)
        return _play_attached(options, makers, is_over=is_over, takeover=takeover)


def describe(report: PlayReport) -> str:
    """What a person wants to know about a session of driving, in a few lines."""
    tally = report.tally
    stages = ", ".join(f"{name} {ms.p50:.1f}/{ms.p99:.1f}" for name, ms in report.stages_ms.items())
    cameras = {"frames": report.frames, **report.cameras}
    lines = [
        f"drove {tally.ticks} ticks with checkpoint {report.step}: {tally.swaps} swaps, "
        f"{len(report.refusals)} refused, {len(report.rollbacks)} rolled back, "
        f"{tally.unstucks} unstucks, {tally.collisions} collisions",
        *(str(rollback) for rollback in report.rollbacks),
        f"pad: {cadence_text(report.cadence)}; {report.missed} deadlines missed, "
        f"{tally.lost} frames lost, {tally.stalls} stalls, {tally.not_finite} predictions not "
        "finite",
        *(f"{name}: {cadence_text(cadence)}" for name, cadence in cameras.items()),
        *([f"{report.unshown} pictures for spectators dropped"] if report.cameras else []),
        f"capture to pad p50 {report.latency_ms.p50:.1f}, p99 {report.latency_ms.p99:.1f} ms; "
        f"stages p50/p99 ms: {stages}",
    ]
    lines += [note for note in (report.note, report.response) if note]
    if report.remote is not None:
        remote = report.remote
        parts = {"network": remote.network_ms, "queue": remote.queued_ms,
                 "server's prediction": remote.predict_ms}  # fmt: skip
        split = ", ".join(f"{name} {ms.p50:.1f}/{ms.p99:.1f}" for name, ms in parts.items())
        lines.append(
            f"{remote.answered} answers in time, {remote.unanswered} not ({remote.late} came "
            f"late), {remote.lost} connections lost; p50/p99 ms: {split}"
        )
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
class Hands:
    """A person who may take the wheel, and where what they show goes; by default nobody."""

    takeover: Takeover | None = None
    human: HumanSamples | None = None


@dataclass(frozen=True)
class Run:
    """What is driven: a run's settings, and where its checkpoints appear."""

    config: TrainConfig
    directory: Path


def _make_known_game(config: TrainConfig, seed: int, *, restart_command: str) -> Game:
    """The game that the config names, by the wall clock, without the person that collectors watch:
    the network is to drive, and whoever takes the wheel from it has a setting of their own."""
    window, gymnasium = replace(config.game.window, human=HumanConfig()), config.game.gymnasium
    if gymnasium.expert == "human":
        gymnasium = replace(gymnasium, expert="none")
    game = replace(config.game, is_realtime=True, window=window, gymnasium=gymnasium)
    return make_known_game(game, config.frame, seed=seed, restart_command=restart_command,
                           needs_labels=False)  # fmt: skip


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
    # Both need JAX, which a player whose network is elsewhere does without.
    from charles.policy import Policy
    from charles.staging import Stager

    assert options.backend != "remote"
    policy = Policy(run.config, backend=options.backend)
    policy.warm_up()

    def is_left() -> bool:
        return is_over() or (link is not None and _run_of(link) != run)

    human = None
    if takeover is not None and link is not None:
        human = HumanSamples(link.berth, policy.spec)
    with (
        closing(PlayConsole(is_enabled=options.console)) as console,
        Stager(
            policy, run.directory / "checkpoints", accepts_contract=options.accept_contract
        ) as stager,
    ):
        view = _Viewer(console, link, stager)
        while stager.newest is None:
            if link is None and stager.refusals:  # nobody trains who could write a better one
                raise CheckpointError(stager.refusals[-1].reason)
            if is_left():
                return None
            view.show_waiting()
            time.sleep(WAIT_S)
        expected = _captured(run, stager.newest.step)
        report = _drive(
            options, makers, policy, stager, expected=expected, hands=Hands(takeover, human),
            view=view, is_left=is_left,
        )  # fmt: skip
    report = replace(report, note=policy.note())
    if options.console:  # the pad is closed by now, which makes it neutral, on every way out
        print(describe(report))
    return report


def _captured(run: Run, step: int) -> CaptureContract | None:
    """How the pictures were captured that a checkpoint has learned from; ``None`` if unknown."""
    from charles.checkpoint import Checkpoints  # needs JAX

    checkpoints = Checkpoints(run.directory / "checkpoints")
    kept = checkpoints.contract(step).get("capture")
    return from_data(kept, str(checkpoints.directory)) or read_contract(run.directory)


def _drive(
    options: PlayOptions,
    makers: tuple[GameMaker, PadMaker],
    policy: Predictor,
    stager: Source,
    *,
    expected: CaptureContract | None,
    hands: Hands,
    view: "_Viewer",
    is_left: Callable[[], bool],
) -> PlayReport:
    """Drive with what is ready to, until it is left; touches no pad of another contract."""
    scene = _make_scene(options, policy.config, is_learned_from=hands.human is not None)
    with closing(makers[0](policy.config, options.seed)) as game:
        _require_captured(expected, policy.config, game, options)
        with closing(makers[1](game)) as pad, undisturbed():
            cameras = options.cameras
            player = _make_player(game, pad, policy, stager, cameras=cameras, hands=hands)
            player.begin(scene)
            while not is_left():
                player.tick()
                view.show(player)
            return player.report()


def _require_captured(
    expected: CaptureContract | None, config: TrainConfig, game: Game, options: PlayOptions
) -> None:
    """Be sure that the game is captured as what drives has learned it.

    Raises:
        ContractError: It is captured otherwise, and that is not accepted.
    """
    if expected is None:
        print("note: this run has no capture contract to compare with", file=sys.stderr)
        return
    ours = contract_of_capture(config, capture_of(game), pad=zones_of(options.pad))
    require_same(expected, ours, who="this player", is_accepted=options.accept_contract)
    if options.console:
        print(f"driving under capture contract {expected.fingerprint}")


def _play_remote(
    options: PlayOptions,
    makers: tuple[GameMaker, PadMaker],
    *,
    is_over: Callable[[], bool],
    takeover: Takeover | None,
) -> PlayReport | None:
    """Drive with a network on a server, whatever it serves; the last report."""
    report = None
    with closing(RemoteLink(options.server, options.remote)) as link:
        while (joined := link.join(is_over)) is not None:
            policy = RemotePolicy(link, joined)
            expected = from_data(joined.capture, link.where)

            def is_left(policy: RemotePolicy = policy) -> bool:
                return is_over() or policy.is_moved

            with closing(PlayConsole(is_enabled=options.console)) as console:
                view = _Viewer(console, None, policy)
                report = _drive(
                    options, makers, policy, policy, expected=expected, hands=Hands(takeover),
                    view=view, is_left=is_left,
                )  # fmt: skip
            report = replace(report, remote=policy.report())
            if options.console:
                print(describe(report))
    return report


def _make_scene(options: PlayOptions, config: TrainConfig, *, is_learned_from: bool) -> Scene:
    """Where to drive."""
    seed = world_to_learn_in(options.seed, config) if is_learned_from else options.seed
    return Scene(weather=options.weather, time_of_day_h=options.time_of_day_h, seed=seed)


def _make_player(
    game: Game, pad: Pad, policy: Predictor, stager: Source, *, cameras: int, hands: Hands
) -> Player:
    """The player, with spectators where other cameras than the network's are asked for."""
    rate_hz = policy.config.play.rate_hz
    spectators = Spectators(game, rate_hz) if cameras > 1 else None
    return Player(game, pad, policy, stager, spectators=spectators, takeover=hands.takeover,
                  human=hands.human)  # fmt: skip


class _Viewer:
    """Tells the console and the server how the driving goes, without holding it up."""

    def __init__(self, console: PlayConsole, link: Link | None, stager: Source) -> None:
        self._console, self._link, self._stager = console, link, stager
        self._told_s = time.monotonic()
        self._told_ticks = self._told_passed = self._told_frames = 0
        self._pps = self._fps = 0.0

    def show_waiting(self) -> None:
        """There is nothing to drive with yet."""
        self._console.show(PlayView(state=self._note() or "waiting for a checkpoint"))
        if self._link is not None:
            self._link.tell("waiting", rate_hz=0.0, detail={})

    def show(self, player: Player) -> None:
        """After every tick; does something about once a second."""
        now_s = time.monotonic()
        if now_s - self._told_s >= VIEW_S:
            self._measure(player, now_s)
            self._tell(player)
        self._console.show(lambda: self._view(player))

    def _measure(self, player: Player, now_s: float) -> None:
        """Predictions and new frames per second of the time in which they were wanted."""
        ticks, passed, frames = player.tally.ticks, player.tally.passed, player.frames.fresh
        faded_s = (passed - self._told_passed) * player.keeper.period_ns / NS_PER_S
        driven_s = now_s - self._told_s - faded_s
        if driven_s > VIEW_S / 2:  # of less, a rate says little
            self._pps = (ticks - self._told_ticks) / driven_s
            self._fps = (frames - self._told_frames) / driven_s
        self._told_s, self._told_ticks = now_s, ticks
        self._told_passed, self._told_frames = passed, frames

    def _tell(self, player: Player) -> None:
        if self._link is None:
            return
        detail: dict[str, str | float] = {
            "step": float(player.step),
            "ticks": float(player.tally.ticks),
            "missed": float(player.keeper.missed),
            "fps": round(self._fps, 1),
            "swaps": float(player.tally.swaps),
            "refused": float(len(self._stager.refusals)),
        }
        if player.rollback.rollbacks:
            detail["back"] = str(player.rollback.rollbacks[-1])
        human = player.human_tally()
        if human is not None:
            detail["human"] = float(human.sent)
        self._link.tell(player.state, rate_hz=self._pps, detail=detail)

    def _view(self, player: Player) -> PlayView:
        names = player.policy.spec.controls
        back = map(str, player.rollback.rollbacks[-1:])
        notes = (
            player.sight_note(),
            player.response.text(),
            *_person_notes(player),
            self._note(),
            *back,
        )
        return PlayView(
            predictions=player.predictions,
            translated={
                name: float(control_of(player.controls, names, name)) for name in player.predictions
            },
            fps=self._fps,
            pps=self._pps,
            state="unstuck" if player.state == "unstuck" else "",
            note=", ".join(note for note in notes if note),
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
