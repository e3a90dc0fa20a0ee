"""A window that shows the cameras of a drive through Town in turn, at a steady rate.

Run as a program, it draws the pictures of a file of :func:`town_cameras`, over and over.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from charles.config import GameConfig
from charles.io.game import Scene
from charles.io.screen.interleaved import CAMERAS, InterleavedSource
from charles.io.screen.x11 import X11Source
from charles.io.town import TownGame
from charles.screen_config import ScreenConfig
from charles.timing import CadenceReport, RateKeeper

HEIGHT, WIDTH = 135, 240


def town_cameras(num: int, seed: int = 0) -> np.ndarray:
    """A drive of Town's own driver: the pictures of all three cameras at successive instants, the
    network's first, RGB uint8 ``[num, 3, H, W, 3]``."""
    found = np.empty((num, len(CAMERAS), HEIGHT, WIDTH, 3), np.uint8)
    with closing(TownGame(GameConfig(), height=HEIGHT, width=WIDTH, seed=seed)) as game:
        game.reset(Scene(seed=seed, weather="clear", time_of_day_h=12.0))
        for _ in range(60):  # it has begun to move
            game.tick()
        for instant in found:
            game.tick()
            for name, picture in zip(game.cameras, instant, strict=True):
                game.grab_camera(name, picture)
    return found


@contextlib.contextmanager
def slideshow(folder: Path, pictures: np.ndarray, title: str, rate_hz: float) -> Iterator[None]:
    """The program in a process of its own, once it has drawn something.

    Args:
        folder: Where to keep the pictures.
        pictures: Of :func:`town_cameras`.
        title: Of the window.
        rate_hz: Pictures a second of all cameras together.
    """
    file = folder / "pictures.npy"
    np.save(file, pictures)
    command = [sys.executable, __file__, str(file), title, str(rate_hz)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Watched(NamedTuple):
    """What a loop of 30 Hz saw of a slideshow."""

    seen: list[int | None]
    """Whose picture each grab got: the number of a camera, 0 the network's; ``None`` if torn."""
    cadences: dict[str, CadenceReport]
    dropped: int


def watch_cameras(folder: Path, *, instants: int, rate_hz: float, grabs: int) -> Watched:
    """Watch a drive's three cameras in a window, through the real capture.

    Args:
        folder: Where to keep the pictures.
        instants: Length of the drive, which is shown over and over.
        rate_hz: Pictures a second of all cameras together.
        grabs: How often to look.
    """
    pictures, title = town_cameras(instants), "three cameras"
    known = {
        picture.tobytes(): number % len(CAMERAS)
        for number, picture in enumerate(pictures.reshape(-1, *pictures.shape[2:]))
    }
    config = ScreenConfig(title=title)
    with (
        slideshow(folder, pictures, title, rate_hz),
        closing(
            InterleavedSource(
                lambda: X11Source(config, height=HEIGHT, width=WIDTH),
                reference=town_cameras(1, seed=7)[0, 0],
                rate_hz=rate_hz,
            )
        ) as source,
    ):
        out, keeper = np.empty(source.frame_shape, np.uint8), RateKeeper(30.0)
        source.grab(out)
        seen = []
        for _ in range(grabs):
            keeper.wait()
            source.grab(out)
            seen.append(known.get(out.tobytes()))
        return Watched(seen, source.cadences(), source.dropped)


def main() -> None:
    from Xlib import X, display  # pyright: ignore

    file, title, rate_hz = sys.argv[1], sys.argv[2], float(sys.argv[3])
    pictures = np.load(file).reshape(-1, HEIGHT, WIDTH, 3)
    bgrx = np.zeros((*pictures.shape[:3], 4), np.uint8)
    bgrx[..., :3] = pictures[..., ::-1]
    shown = display.Display()
    window = shown.screen().root.create_window(100, 60, WIDTH, HEIGHT, 0, 24)
    window.set_wm_name(title)
    window.map()
    pen = window.create_gc()
    number, next_s = 0, time.monotonic()
    while True:
        data = bgrx[number % len(bgrx)].tobytes()
        window.put_image(pen, 0, 0, WIDTH, HEIGHT, X.ZPixmap, 24, 0, data)
        shown.sync()
        if number == 0:
            print("ready", flush=True)
        number += 1
        next_s = max(next_s + 1 / rate_hz, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))


if __name__ == "__main__":
    main()
