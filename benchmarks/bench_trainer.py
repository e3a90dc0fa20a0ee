"""The live trainer's wall time: what share of it goes into steps while data suffices.

A real run on Town with one collector, whose samples may be drawn as often as there is time for, so
that nothing waits for data. Taking batches, logging, checkpoints, looking after the other processes
and every gap between two steps are what is left. ::

    python -m benchmarks.bench_trainer --minutes 2
"""

import argparse
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Row, free_port, write_results

from charles.config import ServerConfig
from charles.presets import get
from charles.trainer import TrainResult, train


def run(minutes: float, run_dir: Path) -> TrainResult:
    """Train in ``run_dir``, from its first sample, for so long."""
    config = get("town_live")
    data = replace(config.data, replay_ratio=1e6, start_fraction=0.02, keep_fraction=0.02)
    server = ServerConfig(port=free_port())
    config = replace(config, run_dir=run_dir, minutes=minutes, data=data, server=server)
    return train(config, collectors=1, console=False, stop=threading.Event())


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as directory:
        result = run(minutes, Path(directory) / "run")
    share = 100 * result.share_stepping
    rows = [
        Row(name="wall time inside steps", median=share, p95=share, unit="%"),
        Row(name="steps", median=result.steps, p95=result.steps, unit="steps"),
    ]
    write_results("trainer", rows, f"python -m benchmarks.bench_trainer --minutes {minutes:g}")


if __name__ == "__main__":
    main()
