"""What capturing a window costs, in its parts, on an X server without a screen.

Needs Xvfb and ``charles[screen]``. The window does not change meanwhile; of the grab, the server's
share runs in its own process. Latency is that from drawing to the picture's capture time, for a
window that draws 30 times a second and is grabbed 60 times a second. Three cameras in turn are a
drive through Town, drawn into a window; whose a picture is, is known from its pixels.
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from benchmarks.harness import (
    Row,
    Timing,
    duration_row,
    measure,
    memcpy_ceiling,
    timing_of,
    write_results,
)
from tests.io.screen.pattern import pattern, read_corners
from tests.io.screen.slideshow import watch_cameras
from tests.io.screen.xserver import x_client, x_server

from charles.io.screen.x11 import X11Source
from charles.screen_config import ScreenConfig
from charles.timing import RateKeeper

FRAME = (270, 480)
WINDOWS = ((1280, 720), (960, 540), (1920, 1080))
SECONDS = 2.0
CAMERAS_HZ = 90.0


def bench_window(width: int, height: int) -> list[Row]:
    """Every part of one grab of a window of that size."""
    name = f"{width}x{height}"
    ceiling = memcpy_ceiling(width * height * 4, seconds=SECONDS / 2)
    rows = [duration_row(f"memcpy, {name} BGRA", ceiling)]
    with x_server(width, height), x_client() as client:
        window = client.window("bench", (0, 0, width, height))
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
        pen = window.create_gc()
        for top in range(0, height, 8):  # a request may not be longer than 256 KiB
            part = picture[top : top + 8].tobytes()
            window.put_image(pen, 0, top, width, min(8, height - top), 2, 24, 0, part)
        client.display.sync()
        source = X11Source(ScreenConfig(title="bench"), height=FRAME[0], width=FRAME[1])
        out = np.empty(source.frame_shape, np.uint8)
        try:
            parts = _parts(source, out)
        finally:
            source.close()
    for part, timing in parts.items():
        is_grab = part == "grab"
        rows.append(duration_row(f"{part}, {name}", timing, ceiling=ceiling if is_grab else None))
    return rows


def _parts(source: X11Source, out: np.ndarray) -> dict[str, Timing]:
    pixels, now_ns = source._pixels()
    resizer, watch = source._resizer, source.watch

    def opencv() -> None:
        small = cv2.resize(pixels, FRAME[::-1], interpolation=cv2.INTER_AREA)
        cv2.cvtColor(small, cv2.COLOR_BGRA2RGB, dst=out)

    def timed(seconds: float) -> dict[str, Timing]:
        return {
            "grab": measure(source._pixels, seconds=seconds),
            "resize": measure(lambda: resizer.into(out, pixels), seconds=seconds),
            "area means by OpenCV alone": measure(opencv, seconds=seconds),
            "tell duplicates": measure(lambda: watch.see(out, now_ns), seconds=seconds / 4),
            "all": measure(lambda: source.grab(out), seconds=seconds),
        }

    return timed(SECONDS)


def bench_latency() -> list[Row]:
    """From drawing to capture time."""
    height, width = FRAME
    with (
        x_server(1280, 720),
        tempfile.TemporaryDirectory() as folder,
        pattern(Path(folder), "bar codes") as drawing,
    ):
        source = X11Source(ScreenConfig(title="bar codes"), height=height, width=width)
        out = np.empty(source.frame_shape, np.uint8)
        keeper = RateKeeper(60.0)
        latencies_s, tears, grabs = [], 0, 0
        end_s = time.monotonic() + 5 * SECONDS
        source.grab(out)  # drawn at any time before
        while time.monotonic() < end_s:
            capture = source.grab(out)
            corners = read_corners(out)
            grabs, tears = grabs + 1, tears + (len(set(corners)) > 1)
            if capture.is_new and corners[0] is not None:
                latencies_s.append((capture.captured_ns - drawing.drawn_ns[corners[0]]) / 1e9)
            keeper.wait()
        source.close()
    latency = timing_of(latencies_s)
    row = Row(
        name="drawn to captured, 30 a second, grabbed 60 times a second",
        median=latency.median_s * 1e6,
        p95=latency.p95_s * 1e6,
        unit="us",
        p99=latency.p99_s * 1e6,
        worst=latency.max_s * 1e6,
    )
    torn = Row(name=f"torn pictures of {grabs}", median=tears, p95=tears, unit="pictures")
    return [row, torn]


def bench_cameras() -> list[Row]:
    """Three cameras of Town shown in turn at 90 pictures a second, watched by a player's loop."""
    with x_server(1280, 720), tempfile.TemporaryDirectory() as folder:
        seen, reports, dropped = watch_cameras(
            Path(folder), instants=90, rate_hz=CAMERAS_HZ, grabs=round(30 * 10 * SECONDS)
        )
    rows = [
        Row(name=f"{name}, of three in turn at {CAMERAS_HZ:g} a second: between two",
            median=report.period_ms.p50, p95=report.period_ms.p95, unit="ms",
            p99=report.period_ms.p99, worst=report.period_ms.max)
        for name, report in reports.items()
    ]  # fmt: skip
    rows += [
        Row(name=f"{name}: a second", median=report.rate_hz, p95=report.rate_hz, unit="pictures")
        for name, report in reports.items()
    ]
    counts = {
        "lost": dropped,
        f"of another camera, of {len(seen)} seen": seen.count(1) + seen.count(2),
        "torn": seen.count(None),
    }
    return rows + [
        Row(name=f"pictures {what}", median=count, p95=count, unit="pictures")
        for what, count in counts.items()
    ]


def main() -> None:
    """Measure and write ``results/capture.json``."""
    rows = [row for width, height in WINDOWS for row in bench_window(width, height)]
    rows += bench_latency() + bench_cameras()
    write_results("capture", rows, "python -m benchmarks.bench_capture")


if __name__ == "__main__":
    main()
