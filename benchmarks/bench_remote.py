"""A player whose network is on a server: what each part of an answer takes, and who waits for whom.

The default run's network, served by another process of this machine; one, two and four players ask
30 times a second each, in the clear and encrypted. So the network's part is packing, encrypting and
the loopback; a real cable adds its own (194 kB are 1.6 ms at 1 Gbit/s and 16 ms at 100 Mbit/s).
Then what a picture would weigh packed, and what a player's process costs without and with JAX::

    python -m benchmarks.bench_remote
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from benchmarks.bench_backends import store_samples
from benchmarks.harness import Row, duration_row, free_port, measure, memcpy_ceiling, write_results
from benchmarks.pps_drive import write_checkpoints
from benchmarks.pps_matrix import serve_beside

from charles.backends.quantised import inputs_of
from charles.config import ServerConfig, TrainConfig
from charles.data.storage import read_some
from charles.intake import sample_spec
from charles.io.keys import load_or_make_keys
from charles.options import ServeOptions
from charles.process import Worker
from charles.remote import RemoteLink, RemotePolicy, RemoteReport
from charles.remote_config import RemoteConfig
from charles.run import write_run
from charles.timing import Quantiles, RateKeeper

PLAYERS = (1, 2, 4)
RATE_HZ = 30.0
MEASURED = "import psutil; print(psutil.Process().memory_info().rss)"
IMPORTS = {
    "remote player": "import charles.play, charles.io.games, charles.remote",
    "player with JAX": "import charles.play, charles.io.games, charles.policy, charles.staging",
}


@dataclass(frozen=True)
class Place:
    """Where a server listens, and how to talk to it."""

    remote: RemoteConfig
    options: ServeOptions


def ask(place: Place, run_dir: Path, seconds: float, out: list[RemoteReport]) -> None:
    """One player: shows stored samples, 30 a second."""
    with closing(RemoteLink(ServerConfig(), place.remote)) as link:
        joined = link.join(lambda: False)
        assert joined is not None
        policy = RemotePolicy(link, joined)
        inputs = [inputs_of(each) for each in read_some(run_dir / "samples", policy.spec, 20)]
        keeper = RateKeeper(RATE_HZ)
        for number in range(round(seconds * RATE_HZ)):
            keeper.wait()
            policy.predict(inputs[number % len(inputs)])
        out.append(policy.report())


def player_rows(name: str, place: Place, run_dir: Path, seconds: float) -> list[Row]:
    """One, two and four players at once, threads of this process."""
    rows = []
    for num in PLAYERS:
        reports: list[RemoteReport] = []
        threads = [
            threading.Thread(target=ask, args=(place, run_dir, seconds, reports))
            for _ in range(num)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        worst = max(reports, key=lambda report: report.network_ms.p99)
        parts = {"network": worst.network_ms, "queue": worst.queued_ms, "predict": worst.predict_ms}
        rows += [_row(f"{name}, {num} players, {part}", ms) for part, ms in parts.items()]
        missing = sum(report.unanswered for report in reports)
        rows.append(_count(f"{name}, {num} players, unanswered", missing, ""))
    return rows


def picture_rows(run_dir: Path, config: TrainConfig) -> list[Row]:
    """A stored picture as its planes, packed in other ways."""
    sample = read_some(run_dir / "samples", sample_spec(config), 1)[0]
    pixels = np.ascontiguousarray(sample.pixels)
    rows = [_count("picture, raw", pixels.nbytes / 1e3, "kB")]
    kinds = {"PNG": (".png", []), "JPEG 90": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90])}
    for name, (ending, settings) in kinds.items():
        packed = cv2.imencode(ending, pixels, settings)[1]
        rows.append(_count(f"picture, {name}", packed.nbytes / 1e3, "kB"))
        for what, call in (
            (
                "pack",
                lambda ending=ending, settings=settings: cv2.imencode(ending, pixels, settings),
            ),
            ("unpack", lambda packed=packed: cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)),
        ):
            rows.append(duration_row(f"picture, {name}, {what}", measure(call, seconds=0.5)))
    return rows


def process_rows() -> list[Row]:
    """Time and memory to import what a player needs."""
    rows = []
    for name, statement in IMPORTS.items():
        took_s, memory = [], 0.0
        for _ in range(5):
            began_s = time.perf_counter()
            command = [sys.executable, "-c", f"{statement}\n{MEASURED}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            took_s.append(time.perf_counter() - began_s)
            memory = int(done.stdout) / 2**20
        rows.append(_count(f"{name}, start", float(np.median(took_s)), "s"))
        rows.append(_count(f"{name}, memory", memory, "MiB"))
    return rows


def _row(name: str, ms: Quantiles) -> Row:
    return Row(name=name, median=ms.p50, p95=ms.p95, p99=ms.p99, worst=ms.max, unit="ms")


def _count(name: str, value: float, unit: str) -> Row:
    return Row(name=name, median=value, p95=value, unit=unit)


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each conversation")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        config = TrainConfig(run_dir=Path(directory) / "run")
        write_run(config.run_dir, config)
        store_samples(config)
        write_checkpoints(config, 1, 1, 0.0)
        rows = [
            duration_row("memcpy of a picture", memcpy_ceiling(sample_spec(config).pixels_bytes))
        ]
        rows += picture_rows(config.run_dir, config) + process_rows()
        player = load_or_make_keys(Path(directory) / "player.key")
        server = load_or_make_keys(config.run_dir / "server.key")
        for name, is_encrypted in (("clear", False), ("encrypted", True)):
            options = ServeOptions(checkpoint=config.run_dir, port=free_port(), console=False)
            remote = RemoteConfig(port=options.port, deadline_ms=1000.0)
            if is_encrypted:
                options = replace(options, encrypted=True, allow=(player.public,))
                remote = replace(remote, server_key=server.public,
                                 key=Path(directory) / "player.key")  # fmt: skip
            worker = Worker("serve", serve_beside, options)
            try:
                rows += player_rows(name, Place(remote, options), config.run_dir, seconds)
            finally:
                worker.stop()
    write_results("remote", rows, f"python -m benchmarks.bench_remote --seconds {seconds:g}")


if __name__ == "__main__":
    main()
