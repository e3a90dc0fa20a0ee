"""What every benchmark here shares: timing, the machine's own ceiling, and the results' file.

A benchmark first measures what the machine can do at all (:func:`memcpy_ceiling`), then its
subject and the peers in the same run, and ends with :func:`write_results`, which prints the table
and writes ``benchmarks/results/<name>.json``.
"""

import json
import platform
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil

RESULTS_DIR = Path(__file__).parent / "results"
PACKAGES = ("charles", "numpy", "opencv-python-headless", "panda3d", "jax", "jaxlib", "flax")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one call took, over many calls."""

    median_s: float
    p95_s: float
    p99_s: float
    max_s: float
    calls: int

    @property
    def per_second(self) -> float:
        """Calls per second at the median."""
        return 1.0 / self.median_s


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a benchmark's table. ``None`` where a column does not apply."""

    name: str
    """What was measured."""
    median: float
    p95: float
    """The bad end: 95th percentile of a duration, 5th percentile of a rate."""
    unit: str
    """Of ``median`` and ``p95``, for example ``us`` or ``frames/s``."""
    share_of_ceiling: float | None = None
    """Speed as a share of what the machine can do at all, 1 for all of it."""
    ratio_to: dict[str, float] | None = None
    """Speed over that of each peer, by its name; above 1 is faster than the peer."""
    p99: float | None = None
    """The worse end, for what has deadlines."""
    worst: float | None = None


def timing_of(durations_s: Sequence[float] | np.ndarray) -> Timing:
    """Summarise durations in seconds that a benchmark took itself."""
    values = np.asarray(durations_s, dtype=np.float64)
    median, p95, p99 = np.percentile(values, (50, 95, 99))
    return Timing(
        median_s=float(median),
        p95_s=float(p95),
        p99_s=float(p99),
        max_s=float(values.max()),
        calls=len(values),
    )


def measure(fn: Callable[[], object], *, seconds: float = 1.0, warmup: int = 10) -> Timing:
    """Call ``fn`` over and over for about ``seconds`` and time each call by the wall clock.

    Args:
        fn: Takes no arguments; its result is dropped.
        seconds: How long to measure; at least three calls are made.
        warmup: Calls made before, not timed.
    """
    for _ in range(warmup):
        fn()
    durations: list[float] = []
    end = time.perf_counter() + seconds
    now = time.perf_counter()
    while now < end or len(durations) < 3:
        fn()
        before, now = now, time.perf_counter()
        durations.append(now - before)
    return timing_of(durations)


def memcpy_ceiling(num_bytes: int, *, seconds: float = 1.0) -> Timing:
    """How long the machine takes to copy ``num_bytes`` that are not in its caches.

    Copies go round over blocks of at least 256 MiB in total, as a frame pool's would.
    """
    count = max(4, -(-(128 << 20) // num_bytes))
    sources = np.ones((count, num_bytes), np.uint8)
    targets = np.zeros((count, num_bytes), np.uint8)
    turn = 0

    def copy() -> None:
        nonlocal turn
        np.copyto(targets[turn], sources[turn])
        turn = (turn + 1) % count

    return measure(copy, seconds=seconds, warmup=count)


def duration_row(
    name: str, timing: Timing, *, ceiling: Timing | None = None, **peers: Timing
) -> Row:
    """A row of microseconds per call, as a share of ``ceiling`` and as a ratio to each peer."""
    return Row(
        name=name,
        median=timing.median_s * 1e6,
        p95=timing.p95_s * 1e6,
        unit="us",
        share_of_ceiling=None if ceiling is None else ceiling.median_s / timing.median_s,
        ratio_to={peer: other.median_s / timing.median_s for peer, other in peers.items()} or None,
    )


def rate_row(name: str, timing: Timing, *, unit: str, ceiling: Timing | None = None) -> Row:
    """A row of calls per second: at the median, and at the 95th percentile of the duration."""
    return Row(
        name=name,
        median=1.0 / timing.median_s,
        p95=1.0 / timing.p95_s,
        unit=unit,
        share_of_ceiling=None if ceiling is None else ceiling.median_s / timing.median_s,
    )


def machine_info() -> dict[str, object]:
    """What the figures depend on: processor, cores, memory, versions. Names no host."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def format_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    has_tail = any(row.worst is not None for row in rows)
    tail, line = (" p99 | max |", "--:|--:|") if has_tail else ("", "")
    lines = [f"| what | median | p95 |{tail} unit | of ceiling | ratio to |",
             f"|---|--:|--:|{line}---|--:|---|"]  # fmt: skip
    for row in rows:
        share = "" if row.share_of_ceiling is None else f"{row.share_of_ceiling:.0%}"
        ratios = ", ".join(f"{peer} {ratio:.2f}×" for peer, ratio in (row.ratio_to or {}).items())
        numbers = f"{row.median:,.1f} | {row.p95:,.1f}"
        if has_tail:
            numbers += "".join(
                " | " if value is None else f" | {value:,.1f}" for value in (row.p99, row.worst)
            )
        lines.append(f"| {row.name} | {numbers} | {row.unit} | {share} | {ratios} |")
    return "\n".join(lines)


def write_results(name: str, rows: Sequence[Row], command: str) -> Path:
    """Print the table and write it, with machine, command and date, to ``results/<name>.json``.

    Args:
        name: The benchmark, for example ``pool``.
        rows: Its table, ceiling first.
        command: The command line that reproduces it.

    Returns:
        The file written.
    """
    RESULTS_DIR.mkdir(exist_ok=True)
    path = RESULTS_DIR / f"{name}.json"
    content = {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine_info(),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(format_table(rows))
    return path


def free_port() -> int:
    """A port of this host that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
