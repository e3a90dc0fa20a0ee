"""A window that draws a counter as a bar code into its four corners, at a steady rate.

Run as a program, it is told by its standard input what to do: ``stop``, ``go``, ``move X Y``,
``close``. When each counter was drawn is kept in a file for the test.
"""

import argparse
import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from charles.io.screen.source import Capture, FrameSource
from charles.timing import RateKeeper, clock_ns

WIDTH, HEIGHT = 640, 360
BITS, BAR, TALL = 16, 10, 40
BACK = 0x406080
MOST = 1 << BITS
CORNERS = (
    (0, 0),
    (WIDTH - (BITS + 1) * BAR, 0),
    (0, HEIGHT - TALL),
    (WIDTH - (BITS + 1) * BAR, HEIGHT - TALL),
)


def bars_of(counter: int) -> list[int]:
    """Bits from the lowest on, and one that makes their number even."""
    bits = [counter >> bit & 1 for bit in range(BITS)]
    return [*bits, sum(bits) & 1]


def read_corners(frame: np.ndarray) -> list[int | None]:
    """The counter in each corner of a captured frame; ``None`` where there is no whole code."""
    height, width, _ = frame.shape
    found: list[int | None] = []
    for left, top in CORNERS:
        row = round((top + TALL / 2) * height / HEIGHT)
        columns = [round((left + (bar + 0.5) * BAR) * width / WIDTH) for bar in range(BITS + 1)]
        bits = [int(frame[row, column, 0] > 127) for column in columns]
        counter = sum(bit << at for at, bit in enumerate(bits[:BITS]))
        found.append(counter if bits == bars_of(counter) else None)
    return found


def watch(
    source: FrameSource, seconds: float, rate_hz: float
) -> list[tuple[list[int | None], Capture]]:
    """Counters of the four corners and captures of so many seconds of grabs."""
    out = np.empty(source.frame_shape, np.uint8)
    keeper = RateKeeper(rate_hz)
    seen = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        capture = source.grab(out)
        seen.append((read_corners(out), capture))
        keeper.wait()
    return seen


class Pattern:
    """The other end of the program."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        self.process = process
        self.drawn_ns = np.memmap(log, np.int64, "r", shape=(MOST,))
        """When each counter was sent to the server, monotonic clock; 0 where it was not yet."""

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def pattern(
    folder: Path,
    title: str,
    *,
    gap_ms: float = 0.0,
    rate_hz: float = 30.0,
    program: Path = Path(__file__),
) -> Iterator[Pattern]:
    """The program in a process of its own, once it has drawn something.

    Args:
        folder: Where to keep the times.
        title: Of the window.
        gap_ms: Between the upper and the lower corners; 0 shows all at once.
        rate_hz: Pictures a second.
        program: What draws, and understands the same.
    """
    log = folder / "drawn"
    np.zeros(MOST, np.int64).tofile(log)
    process = subprocess.Popen(
        [sys.executable, str(program), str(log), title, str(gap_ms), str(rate_hz)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Pattern(process, log)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def watch_until_fresh(source: FrameSource, seconds: float = 5.0) -> None:
    """Return once what is watched is drawn again."""
    ends_s = time.monotonic() + seconds
    while source.watch.is_stale():
        watch(source, 0.02, 60.0)
        assert time.monotonic() < ends_s


def read_arguments() -> argparse.Namespace:
    """What :func:`pattern` tells the program that draws."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("title")
    parser.add_argument("gap_ms", type=float)
    parser.add_argument("rate_hz", type=float)
    return parser.parse_args()


def draw_until_closed(
    rate_hz: float, draw: Callable[[int], None], move: Callable[[int, int], None] | None = None
) -> None:
    """Draw one counter after the other, and do meanwhile what :meth:`Pattern.tell` says."""
    counter, is_drawing = 0, True
    next_s = time.monotonic()
    while True:
        if select.select([sys.stdin], [], [], 0)[0]:
            word, *numbers = (sys.stdin.readline() or "close").split()
            if word == "close":
                return
            if word == "move" and move is not None:
                move(int(numbers[0]), int(numbers[1]))
            is_drawing = {"stop": False, "go": True}.get(word, is_drawing)
        if is_drawing:
            counter = (counter + 1) % MOST
            draw(counter)
            if counter == 1:
                print("ready", flush=True)
        next_s = max(next_s + 1 / rate_hz, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))


def main() -> None:
    from Xlib import display  # pyright: ignore

    asked = read_arguments()
    drawn_ns = np.memmap(asked.log, np.int64, "r+", shape=(MOST,))
    shown = display.Display()
    root = shown.screen().root
    window = root.create_window(100, 60, WIDTH, HEIGHT, 0, 24, background_pixel=BACK)
    window.set_wm_name(asked.title)
    window.map()
    canvas = window.create_pixmap(WIDTH, HEIGHT, 24)
    white, black = (window.create_gc(foreground=colour) for colour in (0xFFFFFF, 0))
    back = window.create_gc(foreground=BACK)
    canvas.fill_rectangle(back, 0, 0, WIDTH, HEIGHT)

    def draw_bars(target, counter, corners):
        bars = [
            (bit, (left + at * BAR, top, BAR, TALL))
            for left, top in corners
            for at, bit in enumerate(bars_of(counter))
        ]
        target.poly_fill_rectangle(white, [place for bit, place in bars if bit])
        target.poly_fill_rectangle(black, [place for bit, place in bars if not bit])

    def draw(counter):
        if asked.gap_ms:
            drawn_ns[counter] = clock_ns()
            draw_bars(window, counter, CORNERS[:2])
            shown.sync()
            time.sleep(asked.gap_ms / 1e3)
            draw_bars(window, counter, CORNERS[2:])
        else:
            draw_bars(canvas, counter, CORNERS)
            shown.sync()
            drawn_ns[counter] = clock_ns()
            window.copy_area(white, canvas, 0, 0, WIDTH, HEIGHT, 0, 0)
        shown.sync()

    def move(left, top):
        window.configure(x=left, y=top)
        shown.sync()

    draw_until_closed(asked.rate_hz, draw, move)


if __name__ == "__main__":
    main()
