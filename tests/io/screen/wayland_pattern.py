"""The window of :mod:`tests.io.screen.pattern` as a client of Wayland, without X.

Run as a program by :func:`tests.io.screen.pattern.pattern`. When each counter was drawn is the time
just before it was handed to GStreamer, which takes it to the compositor.
"""

import argparse
import select
import sys
import time

import gi  # pyright: ignore
import numpy as np
from tests.io.screen.pattern import BACK, BAR, CORNERS, HEIGHT, MOST, TALL, WIDTH, bars_of

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402 # pyright: ignore


def drawn(counter: int) -> bytes:
    """A picture, BGRX."""
    picture = np.full((HEIGHT, WIDTH), BACK, "<u4")
    for left, top in CORNERS:
        for at, bit in enumerate(bars_of(counter)):
            picture[top : top + TALL, left + at * BAR : left + (at + 1) * BAR] = 0xFFFFFF * bit
    return picture.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("title")
    parser.add_argument("gap_ms", type=float)
    parser.add_argument("rate_hz", type=float)
    asked = parser.parse_args()
    drawn_ns = np.memmap(asked.log, np.int64, "r+", shape=(MOST,))
    Gst.init(None)
    caps = f"video/x-raw,format=BGRx,width={WIDTH},height={HEIGHT},framerate=30/1"
    pipeline = Gst.parse_launch(f"appsrc name=source caps={caps} ! waylandsink sync=false")
    source = pipeline.get_by_name("source")
    pipeline.set_state(Gst.State.PLAYING)
    counter, is_drawing = 0, True
    next_s = time.monotonic()
    while True:
        if select.select([sys.stdin], [], [], 0)[0]:
            word = sys.stdin.readline().strip()
            if word in ("", "close"):
                return
            is_drawing = {"stop": False, "go": True}.get(word, is_drawing)
        if is_drawing:
            counter = (counter + 1) % MOST
            picture = drawn(counter)
            drawn_ns[counter] = time.monotonic_ns()
            source.emit("push-buffer", Gst.Buffer.new_wrapped(picture))
            if counter == 1:
                print("ready", flush=True)
        next_s = max(next_s + 1 / asked.rate_hz, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))


if __name__ == "__main__":
    main()
