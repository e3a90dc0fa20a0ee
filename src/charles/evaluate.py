"""Closed-loop evaluation: how far a checkpoint drives, in worlds that were never trained on.

Where its game is Town, CarRacing or MetaDrive (:mod:`charles.courses`). Four drivers drive the same
routes: ``driving`` (the checkpoint), ``npc`` (its teacher), and two
floors, ``straight`` (straight ahead) and ``untrained`` (the network before training). Routes are
shared out to worker processes, each with one thread, so that the result is the same on any machine
of a kind, and the same twice.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from charles.config import TrainConfig
from charles.contract import read_contract
from charles.courses import PLACES, Course, make_course
from charles.drivers import DriverSpec
from charles.errors import CheckpointError, WorkerError
from charles.files import write_whole
from charles.options import EvaluateOptions
from charles.routes import Route, RouteResult
from charles.run import NOT_CONTRACT, as_data, read_run
from charles.statistics import Estimate, compare, event_rate, interval

DRIVERS = ("driving", "npc", "straight", "untrained")
"""The drivers of a report, the checkpoint first."""


def _start_worker() -> None:
    """Pin a worker to one thread, before jax is first imported there."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    import cv2

    cv2.setNumThreads(1)


@cache
def _course(config: TrainConfig) -> Course:
    """The course that this worker process drives."""
    return make_course(config)


def _work(spec: DriverSpec, route: Route, config: TrainConfig) -> RouteResult:
    """One drive, in a worker process."""
    return _course(config).drive(spec, route)


def run_routes(
    drivers: Sequence[DriverSpec],
    routes: Sequence[Route],
    config: TrainConfig,
    *,
    workers: int = 2,
    on_result: Callable[[RouteResult], None] | None = None,
) -> dict[str, list[RouteResult]]:
    """Let every driver drive every route, in worker processes. Blocks until all have.

    Args:
        drivers: Who drives; slow ones first keeps all workers busy to the end.
        routes: Where.
        config: The run's settings.
        workers: Processes to share the work.
        on_result: Called here with each drive as it ends, in no certain order.

    Returns:
        Each driver's drives, by the driver's name, in the order of ``routes``.

    Raises:
        CheckpointError: A driver's checkpoint is missing or of another network.
        WorkerError: A worker process died.
    """
    results: dict[str, list[RouteResult]] = {spec.name: [] for spec in drivers}
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        futures = [pool.submit(_work, spec, route, config) for spec in drivers for route in routes]
        for future in as_completed(futures):
            result = future.result()
            results[result.driver].append(result)
            if on_result is not None:
                on_result(result)
    except BrokenProcessPool as err:
        raise WorkerError("An evaluation worker died without a word; is memory short?") from err
    finally:
        pool.shutdown(cancel_futures=True)
    for drives in results.values():
        drives.sort(key=lambda drive: drive.route.index)
    return results


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Drive a checkpoint, its teacher and two floors through unseen worlds, and report.

    Writes ``options.json`` and prints a table. Blocks for about a minute for 20 routes.

    Raises:
        ConfigError: A world was trained on, there is no route, or the run's game cannot be scored.
        CheckpointError: There is no checkpoint, or it is of another network.
    """
    run_dir, checkpoint_dir = find_run(options.checkpoint)
    config = read_run(run_dir)
    course = make_course(config)
    routes = course.make_routes(options.routes, first_seed=options.first_seed)
    step = newest_step(checkpoint_dir)
    specs = (
        DriverSpec(name="driving", kind="policy", checkpoint_dir=checkpoint_dir, step=step),
        DriverSpec(name="untrained", kind="policy"),
        DriverSpec(name="npc", kind="npc"),
        DriverSpec(name="straight", kind="straight"),
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("driving", total=len(specs) * len(routes))
        drives = run_routes(
            specs, routes, config, workers=options.workers,
            on_result=lambda _: progress.advance(task),
        )  # fmt: skip
    report = make_report(drives, checkpoint_step=step, config=config)
    contract = read_contract(run_dir)
    report["contract"] = contract.fingerprint if contract else ""
    if options.json is not None:
        write_report(options.json, report)
    print_report(report)
    return report


def find_run(path: Path) -> tuple[Path, Path]:
    """Run directory and checkpoint directory from either of them.

    Returns:
        ``runs/live`` and ``runs/live/checkpoints``.
    """
    run_dir = path.parent if path.name == "checkpoints" else path
    return run_dir, run_dir / "checkpoints"


def newest_step(checkpoint_dir: Path) -> int:
    """The step of a directory's newest complete checkpoint.

    Raises:
        CheckpointError: There is none.
    """
    from charles.checkpoint import Checkpoints

    step = Checkpoints(checkpoint_dir).latest()
    if step is None:
        raise CheckpointError(
            f"{checkpoint_dir} must hold a checkpoint, got none. Train first, or wait for one."
        )
    return step


def make_report(
    drives: dict[str, list[RouteResult]], *, checkpoint_step: int, config: TrainConfig
) -> dict[str, Any]:
    """Everything that is known about the drives, as plain data for JSON.

    Args:
        drives: Each driver's drives on the same routes, in the same order; ``driving`` and ``npc``
            are compared.
        checkpoint_step: Training steps behind ``driving``.
        config: The run's settings.
    """
    ours, theirs = drives["driving"], drives["npc"]
    rows = [drive.as_json() for name in DRIVERS for drive in drives.get(name, ())]
    return {
        **{name: summarise(drives[name]) for name in DRIVERS if name in drives},
        "ratio_to_npc": {
            "route_completion": interval(_completions(ours), _completions(theirs)).as_json(),
            "collisions_per_km": compare(_collision_rate(ours), _collision_rate(theirs)).as_json(),
            "arrivals": interval(_arrivals(ours), _arrivals(theirs)).as_json(),
        },
        "by_weather": _summarise_by(drives, lambda route: route.weather),
        "by_time_of_day": _summarise_by(drives, lambda route: f"{route.time_of_day_h:02.0f}:00"),
        "routes": rows,
        "num_routes": len(ours),
        "checkpoint_step": checkpoint_step,
        "config": {k: v for k, v in as_data(config).items() if k not in NOT_CONTRACT},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def summarise(drives: Sequence[RouteResult]) -> dict[str, Any]:
    """One driver's figures over its drives, each as mean and 95 % interval."""
    km = [drive.distance_m / 1000 for drive in drives]
    stuck = [float(drive.ended == "stuck") for drive in drives]
    causes = sorted({cause for drive in drives for cause in drive.collisions})
    by_cause = {
        cause: interval([drive.collisions.get(cause, 0) for drive in drives], km).as_json()
        for cause in causes
    }
    endings = [drive.ended for drive in drives]
    figures: dict[str, Estimate] = {
        "route_completion": interval(_completions(drives)),
        "arrivals": interval(_arrivals(drives)),
        "collisions_per_km": event_rate(*_collision_rate(drives)),
        "off_road_s_per_km": interval([drive.off_road_s for drive in drives], km),
        "distance_between_unstucks_m": interval([drive.distance_m for drive in drives], stuck),
        "speed_mps": interval(
            [drive.distance_m for drive in drives], [drive.time_s for drive in drives]
        ),
    }
    return {
        **{name: figure.as_json() for name, figure in figures.items()},
        "collisions_per_km_by_cause": by_cause,
        "ended": {ending: endings.count(ending) for ending in sorted(set(endings))},
        "distance_km": sum(km),
    }


def _completions(drives: Sequence[RouteResult]) -> list[float]:
    return [drive.completion for drive in drives]


def _arrivals(drives: Sequence[RouteResult]) -> list[float]:
    return [float(drive.ended == "done") for drive in drives]


def _collision_rate(drives: Sequence[RouteResult]) -> tuple[list[float], list[float]]:
    """Collisions and kilometres of each drive."""
    collisions = [float(sum(drive.collisions.values())) for drive in drives]
    return collisions, [drive.distance_m / 1000 for drive in drives]


def _summarise_by(
    drives: dict[str, list[RouteResult]], group_of: Callable[[Route], str]
) -> dict[str, Any]:
    """Each driver's main figures within each group of routes."""
    groups = dict.fromkeys(group_of(drive.route) for drive in drives["driving"])
    return {
        group: {
            name: _main_figures([drive for drive in mine if group_of(drive.route) == group])
            for name, mine in drives.items()
        }
        for group in groups
    }


def _main_figures(drives: Sequence[RouteResult]) -> dict[str, Any]:
    return {
        "route_completion": interval(_completions(drives)).as_json(),
        "collisions_per_km": event_rate(*_collision_rate(drives)).as_json(),
        "routes": len(drives),
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text + "\n")


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the drivers side by side, each figure with its 95 % interval."""
    num, step = report["num_routes"], report["checkpoint_step"]
    places = PLACES.get(report["config"]["game"]["name"], "worlds")
    title = f"{num} routes in unseen {places}, checkpoint {step}"
    if report.get("contract"):
        title += f", contract {report['contract']}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("driver", no_wrap=True)
    for name in ("route completion", "collisions /km", "off-road s/km", "m between unstucks"):
        table.add_column(name, justify="right")
    table.add_column("ended")
    for name in DRIVERS:
        if name in report:
            table.add_row(name, *_cells(report[name]))
    console = console or Console()
    console.print(table)
    ratio, arrivals = (report["ratio_to_npc"][name] for name in ("route_completion", "arrivals"))
    collisions = [_text(report[name]["collisions_per_km"], ".1f") for name in ("driving", "npc")]
    console.print(
        f"driving completes {_text(ratio, '.0%')} of what the npc completes and arrives at "
        f"{_text(arrivals, '.0%')} of its rate, with {collisions[0]} collisions per km against its "
        f"{collisions[1]}"
    )


def _cells(figures: dict[str, Any]) -> list[str]:
    return [
        _text(figures["route_completion"], ".0%"),
        _text(figures["collisions_per_km"], ".1f"),
        _text(figures["off_road_s_per_km"], ".0f"),
        _text(figures["distance_between_unstucks_m"], ".0f"),
        "\n".join(f"{ending} {count}" for ending, count in figures["ended"].items()),
    ]


def _text(figure: dict[str, Any], form: str) -> str:
    """Mean and interval as text; ``∞`` where an event never came."""
    mean, low, high = (
        "∞" if value is None else format(value, form)
        for value in (figure["mean"], *figure["interval"])
    )
    return f"{mean} ({low}–{high})"
