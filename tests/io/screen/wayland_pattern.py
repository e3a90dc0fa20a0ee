"""The window of :mod:`tests.io.screen.pattern` as a client of Wayland, without X.

Run as a program by :func:`tests.io.screen.pattern.pattern`. When each counter was drawn is the time
just before it was handed to GStreamer, which takes it to the compositor.
"""

import time

import gi  # pyright: ignore
import numpy as np
from tests.io.screen.pattern import (
    BACK,
    BAR,
    CORNERS,
    HEIGHT,
    MOST,
    TALL,
    WIDTH,
    bars_of,
    draw_until_closed,
    read_arguments,
)

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
    asked = read_arguments()
    drawn_ns = np.memmap(asked.log, np.int64, "r+", shape=(MOST,))
    Gst.init(None)
    caps = f"video/x-raw,format=BGRx,width={WIDTH},height={HEIGHT},framerate=30/1"
    pipeline = Gst.parse_launch(f"appsrc name=source caps={caps} ! waylandsink sync=false")
    source = pipeline.get_by_name("source")
    pipeline.set_state(Gst.State.PLAYING)

    def draw(counter: int) -> None:
        picture = drawn(counter)
        drawn_ns[counter] = time.monotonic_ns()
        source.emit("push-buffer", Gst.Buffer.new_wrapped(picture))

    draw_until_closed(asked.rate_hz, draw)


if __name__ == "__main__":
    main()
