"""A collector at work: joins a server, collects for it until it is gone, and joins the next.

It makes the game, holds it to how the run is captured, and carries what collector and trainer say
to each other.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from charles.collector import Collector
from charles.config import ServerConfig, TrainConfig
from charles.connection import Connection
from charles.contract import contract_of_capture
from charles.data.pool import Lane
from charles.errors import WireError
from charles.human_config import HumanConfig
from charles.io.calibration import with_calibration
from charles.io.capture import capture_of
from charles.io.game import Game
from charles.io.games import make_game as make_known_game
from charles.io.human.driven import DrivenGame
from charles.io.human.make import make_human
from charles.messages import Checkpoint, Demand, Welcome
from charles.process import stop_on_signals
from charles.ui.collect_report import describe
from charles.ui.console import CollectConsole, CollectView
from charles.ui.plots import KeptPlot

if TYPE_CHECKING:  # needs jax, which a collector without a pupil does without
    from charles.dagger import Pupil

GameMaker = Callable[[TrainConfig, int], Game]
"""Makes the game of a run from its config and a seed."""

REPORT_S = 0.5
"""Between two reports to the server, and two looks at what it says."""


def collect(
    server: ServerConfig,
    make_game: GameMaker | None = None,
    *,
    stop: threading.Event | None = None,
    has_console: bool = True,
    plot: Path | None = None,
    restart_command: str = "",
    accept_contract: bool = False,
    calibration: Path | None = None,
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
        calibration: File whose dead zones a person's pad is read with.
        accept_contract: Whether this game may be captured otherwise than the run's was.
        human: The pad of a person who drives instead of the game's own driver, in a game that
            Charles knows.

    Raises:
        CharlesError: The game cannot be started, the server refused this collector, or the plot
            cannot be written.
    """
    stop = stop or stop_on_signals()
    human = human or HumanConfig()
    maker = make_game or (
        lambda config, seed: make_driven_game(
            config, seed, restart_command=restart_command, is_by_person=human.kind != "none"
        )
    )
    with closing(Connection(server, "collector")) as connection:
        while not stop.is_set():
            welcome = connection.wait_welcome(stop=stop)
            if welcome is not None:
                _collect_session(
                    connection, welcome, maker, stop, has_console=has_console, plot=plot,
                    accept_contract=accept_contract, calibration=calibration, human=human,
                )  # fmt: skip


def with_human(config: TrainConfig, human: HumanConfig) -> TrainConfig:
    """``config`` with a person's pad of this host, if there is one, in place of the run's."""
    if human.kind == "none":
        return config
    game = config.game.with_human(human)
    if game.name == "gymnasium":
        game = replace(game, gymnasium=replace(game.gymnasium, expert="human"))
    return replace(config, game=game)


def make_driven_game(
    config: TrainConfig, seed: int, *, restart_command: str, is_by_person: bool
) -> Game:
    """The game that ``config`` names, driven by a person or by its own driver.

    Some games have a place for a person; any other is told what the person does, in real time.

    Raises:
        CharlesError: The game cannot be made, or the person's pad is not there.
    """
    game, frame = config.game, config.frame
    if not is_by_person or game.name in ("window", "gymnasium"):
        return make_known_game(game, frame, seed=seed, restart_command=restart_command)
    person = make_human(game.human)
    assert person is not None
    try:
        game = replace(game, is_realtime=True)
        made = make_known_game(game, frame, seed=seed, restart_command=restart_command,
                               needs_labels=False)  # fmt: skip
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
    accept_contract: bool,
    calibration: Path | None,
    human: HumanConfig,
) -> None:
    """Collect until the server is lost or ``stop`` is set."""
    if welcome.lane is None:
        raise WireError("The server sent a collector no lane into the frame pool. Restart it.")
    config = with_calibration(with_human(welcome.config, human), calibration)
    seeds = np.random.SeedSequence(welcome.seed).generate_state(3)
    game_seed, collector_seed, pupil_seed = (int(seed) for seed in seeds)
    with ExitStack() as stack:
        console = stack.enter_context(closing(CollectConsole(is_enabled=has_console)))
        lane = stack.enter_context(closing(Lane(welcome.lane)))
        game = stack.enter_context(closing(make_game(config, game_seed)))
        contract = contract_of_capture(config, capture_of(game))
        agreed = connection.agree(contract, is_accepted=accept_contract, stop=stop)
        if agreed is None:
            return
        if has_console:
            print(f"collecting under capture contract {agreed.fingerprint}")
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
        report = collector.report()
    if has_console:
        print(describe(report))


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
    report, tally = collector.report(), collector.tally
    rate_hz = tally.instants / max(time.monotonic() - started_s, 1e-9)
    connection.status(
        state="collecting",
        rate_hz=rate_hz,
        detail={
            "samples": tally.samples,
            "collisions": tally.collisions,
            "unstucks": tally.unstucks,
            "starved": tally.starved,
        },
        bins=report.bins,
    )
    console.show(
        CollectView(
            rate_hz=rate_hz,
            tally={**report.tally, "torn": report.torn},
            unlabelled=report.unlabelled,
            cadence=report.cadence,
            bins=report.bins,
        )
    )
