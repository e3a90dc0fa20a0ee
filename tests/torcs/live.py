"""The whole of it on a real game: watch TORCS' robot, learn from it live, drive by its keys.

What the robot commands is the label, told by the game's own physics (see ``telemetry.py``); the
speed limit and the pushes are there, too. Drives end when the car leaves the road, stands, or has
driven for long enough; the robot is measured in the same way. More arguments go to bin/train. ::

    python -m tests.torcs.live --minutes 8 --out docs/results/torcs.json
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from tests.torcs import telemetry
from tests.torcs.torcs import Race, Torcs, torcs

from charles.process import interrupt_on_end

ROOT = Path(__file__).resolve().parents[2]
ABOVE_THE_HOOD = ("0", "0", "480", "208")
"""Left, top, width, height: the paint of the hood says who drives."""
KEYS = {"accelerate": "up", "brake": "down", "left": "left", "right": "right"}
PICTURES_HZ = 45.0
"""What the game draws: more than are taken, and not all that the cores can do."""
LEARNING = (
    "--data.start-fraction", "0.03", "--data.keep-fraction", "0.03", "--data.replay-ratio", "8",
    "--outputs.0.excess-weight", "1", "--outputs.1.bin-width", "0.05",
    "--outputs.1.loss-weight", "10", "--augment.flip", "0.5", "--augment.shift", "0",
    "--optimizer.decay-steps", "850",
)  # fmt: skip
"""What differs from Town: bends take a tenth of the lock, and a picture that is shifted by three
pixels asks for half of that; there is no side to drive on, and nobody to be hit; there are fewer
steps, as the game takes its share of the cores."""
OFF_S, STANDS_S, STARTS_S = 0.5, 4.0, 30.0
"""How long a car may be off the road and may stand, and how long a player takes to begin."""


@dataclass(frozen=True, kw_only=True)
class Drive:
    """How far a driver came."""

    driver: str
    ended: str
    distance_m: float
    seconds: float
    mean_speed_mps: float
    mean_off_middle_m: float


def watch(driver: str, listener: telemetry.Listener, seconds: float, trace: Path) -> Drive:
    """Follow a drive until the car is off the road, stands, or the time is over; all that is told
    is kept in ``trace``."""
    listener.newest()  # forget what came before
    first = now = _next(listener)
    on_road_s = moved_s = now.time_s
    instants, ended = [now], "drove to the end"
    while now.time_s < first.time_s + seconds:
        now = _next(listener)
        instants.append(now)
        on_road_s = on_road_s if now.is_off else now.time_s
        is_slow = now.speed_mps < 1.0 and now.time_s > first.time_s + STARTS_S
        moved_s = moved_s if is_slow else now.time_s
        if now.time_s - on_road_s > OFF_S:
            ended = "left the road"
            break
        if now.time_s - moved_s > STANDS_S:
            ended = "stands"
            break
    told = {name: np.array([vars(one)[name] for one in instants]) for name in vars(now)}
    np.savez(trace, **told)
    return Drive(driver=driver, ended=ended, distance_m=round(now.raced_m - first.raced_m, 1),
                 seconds=round(now.time_s - first.time_s, 1),
                 mean_speed_mps=round(float(told["speed_mps"].mean()), 2),
                 mean_off_middle_m=round(float(abs(told["middle_m"]).mean()), 2))  # fmt: skip


def _next(listener: telemetry.Listener) -> telemetry.Instant:
    instant = listener.wait(10.0)
    if instant is None:
        raise RuntimeError("TORCS tells nothing any more")
    return instant


def train(run_dir: Path, port: int, minutes: float, extra: list[str]) -> dict:
    """Collect from the race that runs, and train meanwhile; returns what the log's end says."""
    command = [
        "bin/train", "--preset", "town_live", "--run-dir", str(run_dir),
        "--collectors", "1", "--minutes", str(minutes), "--game.name", "window",
        "--game.window.screen.title", "torcs", "--game.window.screen.region", *ABOVE_THE_HOOD,
        "--game.window.telemetry.kind", "codemasters", "--game.window.telemetry.port", str(port),
        "--collect.perturb.every-s", "0", "--collect.dagger.share", "0",
        "--network.crop-top", "0.3", "--checkpoint.every-steps", "50", *LEARNING, *extra,
    ]  # fmt: skip
    done = _run(command, timeout_s=minutes * 60 + 180)
    print(done[-3000:], flush=True)
    return {"command": " ".join(command)}


def _run(command: list[str], *, timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, timeout=timeout_s, check=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


@contextlib.contextmanager
def player(run_dir: Path, log: Path, *, pulse_ms: float, curve: float) -> Iterator[None]:
    """A player that drives by the game's keys.

    Args:
        run_dir: What it has learned.
        log: Where it says how it went.
        pulse_ms: A quarter of it is the shortest press: the game looks at its keys once a picture.
        curve: The game turns its wheels slowly: of a short press less than its share arrives.
    """
    keys = [part for name, key in KEYS.items() for part in (f"--pad.keys.{name}", key)]
    pulses = ["--pad.pulse-ms", str(pulse_ms), "--pad.zones.steering.curve", str(curve)]
    command = ["bin/play", "--checkpoint", str(run_dir), "--pad.kind", "keyboard", *keys, *pulses]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=out, stderr=out,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def picture(game: Torcs, path: Path) -> None:
    """Keep what is seen now."""
    source = game.source()
    out = np.empty(source.frame_shape, np.uint8)
    with contextlib.closing(source):
        source.grab(out)
    cv2.imwrite(str(path), out[..., ::-1])


def main() -> None:
    """Collect and train, drive by keys, let the robot drive, write the report."""
    parser = argparse.ArgumentParser(description="Learn from TORCS' robot and drive by its keys.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=200.0, help="longest drive")
    parser.add_argument("--track", default="g-track-1", help="by default one lap is 2.06 km")
    parser.add_argument("--limit-mps", type=float, default=15.0)
    parser.add_argument("--pushes-s", type=float, default=3.0)
    parser.add_argument("--pulse-ms", type=float, default=150.0, help="of the keys")
    parser.add_argument("--curve", type=float, default=0.75, help="of the steering by keys")
    parser.add_argument("--folder", type=Path, help="where to work, and what to keep")
    parser.add_argument("--skip-training", action="store_true", help="drive with what is there")
    parser.add_argument("--out", type=Path, required=True)
    options, extra = parser.parse_known_args()
    if not telemetry.is_buildable():
        parser.error("needs g++, libplib-dev and TORCS' source: see tests/torcs/telemetry.py")
    interrupt_on_end()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="torcs-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"works in {folder}", flush=True)
    report = play_all(options, folder, extra)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def play_all(options: argparse.Namespace, folder: Path, extra: list[str]) -> dict:
    """All drives, with the training before them; returns the report."""
    library = telemetry.build(Path(tempfile.mkdtemp(dir=folder)))
    run_dir, listener = folder / "run", telemetry.Listener()
    race = Race(track=options.track, limit_mps=options.limit_mps, pushes_s=options.pushes_s,
                pictures_hz=PICTURES_HZ)  # fmt: skip
    report: dict = {"date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "pulse_ms": options.pulse_ms, "curve": options.curve,
                    "track": race.track, "robot": f"{race.driver} {race.index}",
                    "limit_mps": race.limit_mps, "pushes_s": race.pushes_s,
                    "minutes": options.minutes}  # fmt: skip
    port = _free_udp_port(folder)
    drives = []

    def racing(race: Race, name: str) -> contextlib.AbstractContextManager[Torcs]:
        return torcs(folder / name, race, library=library, listener=listener, port=port)

    if not options.skip_training:
        with racing(race, "teacher") as game:
            picture(game, folder / "teacher.png")
            report |= train(run_dir, port, options.minutes, extra)
    for start in range(options.starts):
        person = replace(race, driver="human", index=1, pushes_s=0.0, pictures_hz=0.0)
        with (
            racing(person, f"player{start}") as game,
            player(run_dir, folder / "play.log", pulse_ms=options.pulse_ms, curve=options.curve),
        ):
            drives.append(watch("clone, by keys", listener, options.seconds,
                                folder / f"player{start}.npz"))  # fmt: skip
            picture(game, folder / f"player{start}.png")
        print(drives[-1], flush=True)
    with racing(replace(race, pushes_s=0.0), "robot"):
        drives.append(watch("robot", listener, options.seconds, folder / "robot.npz"))
    print(drives[-1], flush=True)
    listener.close()
    return {**report, "drives": [asdict(drive) for drive in drives]}


def _free_udp_port(folder: Path) -> int:
    """The port that the run was told, or a new one."""
    kept = folder / "port"
    if not kept.exists():
        with contextlib.closing(telemetry.Listener()) as probe:
            kept.write_text(str(probe.port))
    return int(kept.read_text())


if __name__ == "__main__":
    main()
