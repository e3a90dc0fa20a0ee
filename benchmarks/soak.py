"""Kills the live loop at random for minutes, and says what was lost.

A trainer, two collectors and a player run as separate processes on Town. Every few seconds one of
them is killed with ``kill -9`` at a random moment and started again. Fails if a checkpoint is lost,
a resume is not exact, or a process or a block of shared memory is left behind; reports the
trainer's memory. ::

    python -m benchmarks.soak --minutes 10
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
from benchmarks.harness import Row, free_port, write_results

from charles.checkpoint import Checkpoints
from charles.data.shm import PREFIX, block_dir, owner_of

BETWEEN_KILLS_S = (2.0, 8.0)
"""Least and most time between two kills."""

SHARES = {"collector 1": 2, "collector 2": 2, "player": 2, "trainer": 1}
"""How often each is picked."""

TRAINER_LIVES_S = 25.0
"""A trainer is spared this long after its start: it has to come up and write a checkpoint."""

_RESUMED = re.compile(r"resumed (exactly|without \d+ samples) at step (\d+)")
_TORN = re.compile(r"(\d+) torn, \d+ foreign samples dropped")


@dataclass
class Part:
    """One of the loop's processes, and its output."""

    command: list[str]
    log: Path
    again: list[str] | None = None
    """How it is started after the first time, if otherwise."""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0

    def start(self) -> None:
        """Start it, as a person would in a terminal of its own."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "benchmarks.soak", "--be", *self.command]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.command = self.again or self.command
        self.started_s = time.monotonic()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal, and wait until it is gone."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=60)


@dataclass
class Findings:
    """What the run showed."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    resumes: int = 0
    torn: int = 0
    """Samples that a killed writer left torn, found and dropped."""
    memory_mb: list[float] = field(default_factory=list)
    """The trainer's own memory just before each kill of it, and at the end."""


def make_parts(directory: Path, port: int) -> dict[str, Part]:
    """Trainer, collectors and player of one run."""
    where = ["--server.port", str(port)]
    run_dir = ["--run-dir", str(directory / "run")]
    settings = ["--preset", "tiny", "--steps", "1000000000", "--data.replay-ratio", "4"]
    peers = {"collector 1": "collect", "collector 2": "collect", "player": "play"}
    trainer = Part(
        ["train", *run_dir, *settings, *where],
        directory / "trainer.log",
        again=["train", *run_dir, "--resume"],
    )
    return {"trainer": trainer} | {
        name: Part([command, "--no-console", *where], directory / f"{name}.log")
        for name, command in peers.items()
    }


def soak(directory: Path, *, minutes: float, seed: int) -> tuple[Findings, int]:
    """Run and kill for ``minutes``; what was found, and the last step."""
    rng = random.Random(seed)
    parts = make_parts(directory, free_port())
    checkpoints = Checkpoints(directory / "run" / "checkpoints")
    found = Findings()
    last_step = 0
    for part in parts.values():
        part.start()
    ends_s = time.monotonic() + 60 * minutes
    while time.monotonic() < ends_s:
        time.sleep(rng.uniform(*BETWEEN_KILLS_S))
        for name, part in parts.items():
            assert part.process is not None
            if part.process.poll() is not None:
                found.faults.append(f"{name} ended by itself with {part.process.returncode}")
                part.start()
        name = rng.choices(list(SHARES), list(SHARES.values()))[0]
        part = parts[name]
        if name == "trainer":
            if time.monotonic() - part.started_s < TRAINER_LIVES_S:
                continue
            found.memory_mb.append(_memory_mb(part))
        part.kill()
        found.kills[name] += 1
        step = checkpoints.latest() or 0
        if step < last_step:
            found.faults.append(f"checkpoint {last_step} was lost: the newest is {step}")
        last_step = max(step, last_step)
        part.start()
    time.sleep(TRAINER_LIVES_S)
    found.memory_mb.append(_memory_mb(parts["trainer"]))
    for part in parts.values():
        part.kill(signal.SIGTERM)
        assert part.process is not None
        if part.process.returncode != 0:
            found.faults.append(f"{part.command[0]} exited with {part.process.returncode}")
    _look_back(found, parts)
    return found, checkpoints.latest() or 0


def _memory_mb(part: Part) -> float:
    """What a process holds for itself, shared memory apart."""
    assert part.process is not None
    memory = psutil.Process(part.process.pid).memory_info()
    return (memory.rss - memory.shared) / 2**20


def _look_back(found: Findings, parts: dict[str, Part]) -> None:
    """What the trainer's words and the machine tell after the end."""
    text = parts["trainer"].log.read_text(encoding="utf-8", errors="replace")
    resumes = set(_RESUMED.findall(text))
    found.resumes = len(resumes)
    found.faults += [f"resumed {how} at step {step}" for how, step in resumes if how != "exactly"]
    torn = [int(count) for count in _TORN.findall(text)]  # each trainer counts up from 0
    found.torn = sum(count for count, after in pairwise([*torn, -1]) if after < count)
    for name, part in parts.items():
        if "Traceback" in part.log.read_text(encoding="utf-8", errors="replace"):
            found.faults.append(f"{name} wrote a traceback")
    found.faults += [f"left in shared memory: {path.name}" for path in _blocks_of_the_dead()]
    mine = psutil.Process(os.getpid()).children(recursive=True)
    found.faults += [f"left running: {process.pid}" for process in mine if process.is_running()]


def _blocks_of_the_dead() -> list[Path]:
    owners = {path: owner_of(path.name) for path in block_dir().glob(f"{PREFIX}*")}
    return [path for path, owner in owners.items() if owner is None or not owner.is_alive()]


def be(arguments: list[str]) -> None:
    """Be one of the loop's processes."""
    from charles import cli

    sys.argv = arguments
    getattr(cli, arguments[0])()


def main() -> None:
    """Soak, write the results, and exit with 1 if anything was lost."""
    if sys.argv[1:2] == ["--be"]:
        be(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--keep", type=Path, help="keep run and logs here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = given.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        found, step = soak(directory, minutes=given.minutes, seed=given.seed)
    counts = {f"kills: {name}": number for name, number in sorted(found.kills.items())}
    counts |= {
        "resumes, all exact" if not found.faults else "resumes": found.resumes,
        "steps trained": step,
        "torn samples found and dropped": found.torn,
        "faults": len(found.faults),
    }
    rows = [Row(name=name, median=number, p95=number, unit="") for name, number in counts.items()]
    rows += [
        Row(name=f"trainer's own memory, {when}", median=mb, p95=mb, unit="MiB")
        for when, mb in (("first", found.memory_mb[0]), ("last", found.memory_mb[-1]))
    ]
    write_results("soak", rows, f"python -m benchmarks.soak --minutes {given.minutes:g}")
    for fault in found.faults:
        print(f"fault: {fault}", file=sys.stderr)
    sys.exit(bool(found.faults))


if __name__ == "__main__":
    main()
