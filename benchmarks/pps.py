"""What a player's tick takes, stage by stage, and whether it keeps 30 a second while it swaps.

Three drives in real time with the full-size network: a quiet one, one while another process writes
real checkpoints of a slightly changed network, each of which is restored, checked and swapped in,
and one of a Town in another process, over the DeepGTAV protocol as GTA V would be. Targets: period
p99 within 2 ms of 33.3 ms, no deadline missed over 20 swaps. ::

    python -m benchmarks.pps --seconds 20 --swaps 20
"""

import argparse
import socket
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Row, free_port, write_results

from charles.checkpoint import Checkpoints
from charles.config import GameConfig, TrainConfig
from charles.io.game import Game
from charles.io.games import make_game
from charles.io.pads.command import CommandPad
from charles.options import PlayOptions, TownOptions
from charles.play import play
from charles.player import PlayReport
from charles.process import Worker, stop_on_signals
from charles.run import contract_of, write_run
from charles.timing import Quantiles
from charles.town.server import serve

BETWEEN_SWAPS_S = 1.5
"""Between two checkpoints; a trainer writes one every few seconds."""

LAST_SWAP_S = 3.0
"""Given to the last checkpoint to be found and swapped in."""


def write_checkpoints(config: TrainConfig, first_step: int, num: int, wait_s: float) -> None:
    """Write ``num`` checkpoints, each of slightly other parameters, as a trainer would."""
    import jax

    from charles.intake import sample_spec
    from charles.nets.driver import make_network
    from charles.optim import make_optimizer
    from charles.outputs import make_output
    from charles.state import make_state

    outputs = tuple(make_output(output) for output in config.outputs)
    network = make_network(config.network, sample_spec(config), outputs)
    state = make_state(network, make_optimizer(config.optimizer), seed=0)
    with closing(Checkpoints(config.run_dir / "checkpoints")) as checkpoints:
        for step in range(first_step, first_step + num):
            params = jax.tree.map(lambda leaf, by=1 + 1e-3 * step: leaf * by, state.params)
            checkpoints.save(step, replace(state, params=params), {}, contract=contract_of(config))
            checkpoints.wait()
            time.sleep(wait_s)


def drive(config: TrainConfig, game: GameConfig, *, seconds: float, swaps: int = 0) -> PlayReport:
    """Drive for ``seconds``, or, with ``swaps``, until the writer has written that many."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def end() -> None:
        if swaps:
            worker = Worker("writer", write_checkpoints, config, 2, swaps, BETWEEN_SWAPS_S)
            while worker.is_alive:
                time.sleep(0.1)
            error = worker.error()
            worker.stop()
            if error is not None:
                print(error, file=sys.stderr)
            time.sleep(LAST_SWAP_S)
        else:
            time.sleep(seconds)
        stop.set()

    def make_pad(game: Game) -> CommandPad:
        threads.append(threading.Thread(target=end))
        threads[0].start()
        return CommandPad(game)

    options = PlayOptions(checkpoint=config.run_dir, seed=100_000, console=False)
    report = play(
        options,
        stop=stop,
        make_game=lambda config, seed: make_game(game, config.frame, seed=seed),
        make_pad=make_pad,
    )
    for thread in threads:
        thread.join()
    assert report is not None
    return report


def serve_town(options: TownOptions) -> None:
    """Serve a town until told to stop; a process of its own."""
    serve(options, stop_on_signals())


def wait_for_town(town: Worker, port: int) -> None:
    """Return once somebody listens."""
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if not town.is_alive:
            raise SystemExit(str(town.error() or "The town ended."))
        time.sleep(0.1)


def drive_over_tcp(config: TrainConfig, *, seconds: float) -> PlayReport:
    """Drive a town that another process serves."""
    port = free_port()
    town = Worker("town", serve_town, TownOptions(port=port, seed=100_000))
    try:
        wait_for_town(town, port)
        return drive(config, GameConfig(name="deepgtav", port=port), seconds=seconds)
    finally:
        town.stop()


def rows_of(name: str, report: PlayReport) -> list[Row]:
    """The table's rows for one drive."""
    parts = {"period": report.cadence.period_ms, "capture to pad": report.latency_ms}
    rows = [_row(f"{name}: {part}", ms) for part, ms in (parts | report.stages_ms).items()]
    counts = {
        "ticks": report.tally.ticks,
        "deadlines missed": report.missed,
        "swaps": report.tally.swaps - 1,
        "checkpoints refused": len(report.refusals),
        "compilations": report.compilations,
    }
    rows += [
        Row(name=f"{name}: {what}", median=count, p95=count, unit="")
        for what, count in counts.items()
    ]
    return rows


def _row(name: str, ms: Quantiles) -> Row:
    return Row(name=name, median=ms.p50, p95=ms.p95, p99=ms.p99, worst=ms.max, unit="ms")


def main() -> None:
    """Drive twice and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the quiet drive")
    parser.add_argument("--swaps", type=int, default=20, help="checkpoints of the second drive")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        config = TrainConfig(run_dir=Path(directory) / "run")
        write_run(config.run_dir, config)
        write_checkpoints(config, 1, 1, 0.0)
        town = replace(config.game, is_realtime=True)
        quiet = drive(config, town, seconds=given.seconds)
        swapping = drive(config, town, seconds=0.0, swaps=given.swaps)
        over_tcp = drive_over_tcp(config, seconds=given.seconds)
    rows = rows_of("quiet", quiet) + rows_of("swapping", swapping) + rows_of("TCP", over_tcp)
    command = f"python -m benchmarks.pps --seconds {given.seconds:g} --swaps {given.swaps}"
    write_results("pps", rows, command)


if __name__ == "__main__":
    main()
