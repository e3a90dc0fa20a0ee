"""What a player's tick takes, stage by stage, and whether it keeps 30 a second while it swaps.

Three drives in real time with the full-size network: a quiet one, one while another process writes
real checkpoints of a slightly changed network, each of which is restored, checked and swapped in,
and one of a Town in another process, over the DeepGTAV protocol as GTA V would be. Targets: period
p99 within 2 ms of 33.3 ms, no deadline missed over 20 swaps. ::

    python -m benchmarks.pps --seconds 20 --swaps 20

With ``--backends``, ``--backbones``, ``--swapping`` or ``--training``, every combination of these
drives instead, see :mod:`benchmarks.pps_matrix`; by default all of them, alone. ::

    python -m benchmarks.pps --backends jax openvino --backbones compact xception --training
"""

import argparse
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Row, free_port, write_results
from benchmarks.pps_drive import Ending, drive, write_checkpoints
from benchmarks.pps_matrix import BACKBONES, BACKENDS, TRAINED_BESIDE, Cell, measure_matrix

from charles.config import GameConfig, TrainConfig
from charles.options import TownOptions
from charles.player import PlayReport
from charles.process import Worker, stop_on_signals
from charles.run import write_run
from charles.timing import Quantiles
from charles.town.server import serve


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
        return drive(config, GameConfig(name="deepgtav", port=port), Ending(seconds=seconds))
    finally:
        town.stop()


def rows_of(name: str, report: PlayReport) -> list[Row]:
    """The table's rows for one drive."""
    parts = {"period": report.cadence.period_ms, "capture to pad": report.latency_ms}
    rows = [_row(f"{name}: {part}", ms) for part, ms in (parts | report.stages_ms).items()]
    counts = {
        "ticks": report.tally.ticks,
        "deadlines missed": report.missed,
        "late": report.cadence.late,
        "duplicate": report.frames.duplicate,
        "stale": report.frames.stale,
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
    """Drive, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a drive")
    parser.add_argument("--swaps", type=int, default=20, help="checkpoints of the second drive")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="what predicts")
    parser.add_argument("--backbones", nargs="+", choices=tuple(BACKBONES), help="with which")
    parser.add_argument("--swapping", nargs="+", choices=tuple(BACKBONES), default=[],
                        help="which also over swaps")  # fmt: skip
    parser.add_argument("--training", nargs="+", choices=tuple(BACKBONES), default=[],
                        help="which also beside training, unguarded and guarded")  # fmt: skip
    parser.add_argument("--result", help="name of the file of results; pps or pps_matrix")
    given = parser.parse_args()
    if any((given.backends, given.backbones, given.swapping, given.training)):
        result, rows = "pps_matrix", measure_matrix(_cells(given))
    else:
        result, rows = "pps", _three_drives(given.seconds, given.swaps)
    told = [
        f" --{name} {' '.join(value) if isinstance(value, list) else value}"
        for name, value in vars(given).items()
        if value
    ]
    write_results(given.result or result, rows, f"python -m benchmarks.pps{''.join(told)}")


def _cells(given: argparse.Namespace) -> list[Cell]:
    """What is asked for of the matrix, in its order."""
    cells = []
    for backbone in given.backbones or BACKBONES:
        for backend in given.backends or BACKENDS:
            cell = Cell(backend=backend, backbone=backbone, seconds=given.seconds)
            cells.append(cell)
            if backbone in given.swapping:
                cells.append(replace(cell, beside="swaps", swaps=given.swaps))
            if backbone in given.training and backend in TRAINED_BESIDE:
                cells += [replace(cell, beside="unguarded"), replace(cell, beside="guarded")]
    return cells


def _three_drives(seconds: float, swaps: int) -> list[Row]:
    """A quiet drive, one over swaps, one over TCP."""
    with tempfile.TemporaryDirectory() as directory:
        config = TrainConfig(run_dir=Path(directory) / "run")
        write_run(config.run_dir, config)
        write_checkpoints(config, 1, 1, 0.0)
        town = replace(config.game, is_realtime=True)
        quiet = drive(config, town, Ending(seconds=seconds))
        swapping = drive(config, town, Ending(swaps=swaps))
        over_tcp = drive_over_tcp(config, seconds=seconds)
    return rows_of("quiet", quiet) + rows_of("swapping", swapping) + rows_of("TCP", over_tcp)


if __name__ == "__main__":
    main()
