"""What drives at which rate: every backend with every backbone, alone, over swaps, beside training.

Each cell is a process of its own that drives Town in real time, so that its memory and its share of
the processor are its own. A ``remote`` one predicts by a server of this machine, another process.
Over swaps, a writer leaves checkpoints that are swapped in. With training, a real trainer and
collector run beside it, with samples that may be drawn without end; with the guard, the trainer
gives way to the player. ::

    python -m benchmarks.pps --backends jax onnx --backbones compact xception --training compact
"""

import csv
import json
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import psutil
from benchmarks.bench_backends import store_samples
from benchmarks.harness import Row, free_port
from benchmarks.pps_drive import SEED, Ending, drive, write_checkpoints

from charles.collect import collect
from charles.config import CheckpointConfig, DataConfig, ServerConfig, TrainConfig
from charles.models import MODELS, ModelSpec
from charles.options import BackendName, PlayOptions, ServeOptions
from charles.player import PlayReport
from charles.presets import get
from charles.process import Worker, lower_priority, stop_on_signals
from charles.remote_config import RemoteConfig
from charles.run import write_run
from charles.serve import serve
from charles.trainer import train
from charles.training_config import RateGuardConfig

Predictor = BackendName | Literal["remote"]

BACKENDS: tuple[Predictor, ...] = (
    "jax", "onnx", "openvino", "openvino_bfloat16", "openvino_int8", "remote"
)  # fmt: skip

TRAINED_BESIDE = BACKENDS[:4]
"""Not int8, whose scales want a run's samples first, and not a server's, which hears no guard."""

REGNETX = "benchmark_regnetx_400mf"
"""No documented model has this backbone; here it is wired as the others are."""

MODELS.setdefault(REGNETX, ModelSpec(backbone="regnetx_004", common=(512,), heads=(256,)))

BACKBONES = {
    "compact": "compact",
    "xception": "model_0003_xception_v1",
    "inceptionresnetv2": "model_0004_inceptionresnetv2_v3",
    "regnetx_400mf": REGNETX,
    "line_0012": "model_0012_regnet_v1",
}
"""Models by the name of their backbone."""

BATCH = 8
"""Of training beside a player: a large one would only make its steps rarer."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination."""

    backend: Predictor
    backbone: str
    seconds: float
    beside: Literal["", "swaps", "unguarded", "guarded"] = ""
    """Checkpoints that are swapped in, or training, which gives way or not."""
    swaps: int = 0
    """Of which there are so many."""

    @property
    def is_training(self) -> bool:
        """Whether a trainer runs beside it."""
        return self.beside in ("guarded", "unguarded")

    @property
    def name(self) -> str:
        """As the table calls it."""
        return " ".join(filter(None, (self.backbone, self.backend, self.beside)))


def config_of(cell: Cell, run_dir: Path) -> TrainConfig:
    """A run of the cell's network, small in everything else."""
    model = BACKBONES[cell.backbone]
    config = TrainConfig() if model == "compact" else get(model)
    if model == REGNETX:  # shown what the documented models are shown
        like = get(BACKBONES["inceptionresnetv2"])
        config = replace(like, network=replace(like.network, model=REGNETX))
    history = config.data.history_length
    return replace(
        config,
        run_dir=run_dir,
        batch_size=BATCH,
        log_every=1,
        steps=10**6,
        data=DataConfig(buffer_capacity=256, start_fraction=0.1, keep_fraction=0.1,
                        replay_ratio=1e6, history_length=history, is_stored=False),
        checkpoint=CheckpointConfig(every_steps=100 if model == "compact" else 2),
        guard=RateGuardConfig(is_enabled=cell.beside == "guarded"),
        server=ServerConfig(port=free_port()),
    )  # fmt: skip


def train_beside(config: TrainConfig) -> None:
    """A trainer of its own process."""
    train(config, console=False, stop=stop_on_signals())


def collect_beside(server: ServerConfig) -> None:
    """A collector of its own process, that knows the models of this file."""
    lower_priority(10)
    collect(server, has_console=False, stop=stop_on_signals())


def serve_beside(options: ServeOptions) -> None:
    """A server of its own process."""
    serve(options, stop=stop_on_signals())


def run_cell(cell: Cell, result: Path) -> None:
    """Drive, and write what came of it as JSON; a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        config = config_of(cell, Path(directory) / "run")
        if cell.is_training:
            found = _drive_beside_training(cell, config)
        else:
            write_run(config.run_dir, config)
            write_checkpoints(config, 1, 1, 0.0)
            found = _drive_alone(cell, config)
    result.write_text(json.dumps(found), encoding="utf-8")


def _drive_alone(cell: Cell, config: TrainConfig) -> dict:
    """Drive with the run's checkpoints, by this machine or by a server of its own process."""
    options = PlayOptions(seed=SEED, console=False, checkpoint=config.run_dir)
    if cell.backend != "remote":
        if cell.backend == "openvino_int8":
            store_samples(config)  # which set its scales
        return _measure(cell, config, replace(options, backend=cell.backend))
    serving = ServeOptions(checkpoint=config.run_dir, port=free_port(), console=False)
    remote = RemoteConfig(port=serving.port, deadline_ms=1000.0)
    server = Worker("server", serve_beside, serving)
    try:
        options = replace(options, checkpoint=None, backend="remote", remote=remote)
        return _measure(cell, config, options)
    finally:
        server.stop()


def _drive_beside_training(cell: Cell, config: TrainConfig) -> dict:
    workers = [
        Worker("trainer", train_beside, config),
        Worker("collector", collect_beside, config.server),
    ]
    stop = threading.Event()

    def watch() -> None:
        """End the drive if what runs beside it has ended."""
        while not stop.wait(0.5):
            if not all(worker.is_alive for worker in workers):
                stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        options = PlayOptions(seed=SEED, console=False, server=config.server, backend=cell.backend)
        return _measure(cell, config, options, stop)
    except RuntimeError as err:
        errors = [error for worker in workers if (error := worker.error()) is not None]
        raise (errors or [err])[0] from err
    finally:
        stop.set()
        watcher.join()
        for worker in workers:
            worker.stop()


def _measure(
    cell: Cell,
    config: TrainConfig,
    options: PlayOptions,
    stop: threading.Event | None = None,
) -> dict:
    """Drive for the cell's time, and what that cost."""
    process, started = psutil.Process(), {}

    def begin() -> None:
        started.update(cpu=process.cpu_times(), s=time.monotonic(), row=_newest_row(config.run_dir))

    town = replace(config.game, is_realtime=True)
    ending = Ending(seconds=cell.seconds, swaps=cell.swaps)
    report = drive(config, town, ending, options=options, on_begin=begin, stop=stop)
    cpu, took_s = process.cpu_times(), time.monotonic() - started["s"]
    busy_s = cpu.user + cpu.system - started["cpu"].user - started["cpu"].system
    found = _as_json(report)
    found["processor"] = {"CPU": 100.0 * busy_s / took_s, "RSS": process.memory_info().rss / 2**20}
    if cell.is_training:
        row = _newest_row(config.run_dir)
        steps = float(row.get("step", 0)) - float(started["row"].get("step", 0))
        found["training"] = {
            "steps per minute": 60.0 * steps / took_s,
            "guard's share": 100.0 * float(row.get("guard_share", 1.0)),
        }
    return found


def _newest_row(run_dir: Path) -> dict[str, str]:
    """The last row of a run's figures; empty before there is one."""
    table = run_dir / "metrics.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    return rows[-1] if rows else {}


def _as_json(report: PlayReport) -> dict:
    ms = {"period": report.cadence.period_ms, "capture to pad": report.latency_ms}
    ms |= report.stages_ms
    counts = {
        "ticks": report.tally.ticks,
        "deadlines missed": report.missed,
        "late": report.cadence.late,
        "duplicate": report.frames.duplicate,
        "stale": report.frames.stale,
        "swaps": report.tally.swaps - 1,
        "compilations": report.compilations,
    }
    return {"ms": {name: asdict(each) for name, each in ms.items()}, "counts": counts}


def rows_of_cell(cell: Cell, found: dict) -> list[Row]:
    """The table's rows."""
    rows = [
        Row(
            name=f"{cell.name}: {part}", median=ms["p50"], p95=ms["p95"], p99=ms["p99"],
            worst=ms["max"], unit="ms",
        )
        for part, ms in found["ms"].items()
    ]  # fmt: skip
    plain = {name: (count, "") for name, count in found["counts"].items()}
    plain["CPU"] = (found["processor"]["CPU"], "% of a core")
    plain["RSS"] = (found["processor"]["RSS"], "MiB")
    if "training" in found:
        plain["training"] = (found["training"]["steps per minute"], "steps/min")
        plain["guard's share at the end"] = (found["training"]["guard's share"], "%")
    rows += [
        Row(name=f"{cell.name}: {what}", median=value, p95=value, unit=unit)
        for what, (value, unit) in plain.items()
    ]
    return rows


def measure_matrix(cells: list[Cell]) -> list[Row]:
    """Drive every combination, one after the other; one that fails is told and left out."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        return [row for cell in cells for row in _run_apart(cell, result)]


def _run_apart(cell: Cell, result: Path) -> list[Row]:
    result.unlink(missing_ok=True)
    worker = Worker(cell.name, run_cell, cell, result)
    while worker.is_alive:
        time.sleep(0.2)
    error = worker.error()
    worker.stop()
    if error is not None or not result.exists():
        print(f"left out: {cell.name}: {str(error).strip().splitlines()[-1]}", flush=True)
        return []
    rows = rows_of_cell(cell, json.loads(result.read_text(encoding="utf-8")))
    period = rows[0]
    print(f"{cell.name}: period p50 {period.median:.1f} p99 {period.p99:.1f} ms", flush=True)
    return rows
