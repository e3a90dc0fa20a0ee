"""Capture of an X11 screen, or of one window on it, through mss."""

import contextlib
import sys
from typing import Any

import numpy as np

from charles.errors import CaptureError, ExtraMissingError, WindowHiddenError, require
from charles.io.builds import build_of
from charles.io.screen.region import Rectangle, part_of
from charles.io.screen.resize import Resizer, check_frame
from charles.io.screen.source import Capture
from charles.io.screen.watch import Watch
from charles.io.screen.x11_windows import FollowedWindow, no_display
from charles.screen_config import ScreenConfig
from charles.timing import clock_ns

MOST_TRIES = 5
"""Grabs of a window that moves while it is grabbed."""


class X11Source:
    """A :class:`charles.io.screen.source.FrameSource` on the display that ``DISPLAY`` names.

    The server copies what is *on the screen*. So a window must be shown, and no other may be in
    front of it: each grab makes sure of that. A region of a monitor is taken as it is.
    The time of a picture is that just before it was asked for; it can only have been on the screen
    later than that, by less than a grab takes.

    Args:
        config: What to capture.
        height: Frame height in pixels.
        width: Frame width in pixels.

    Raises:
        CaptureError: There is no display, no such window or monitor, or the region is not inside.
        ExtraMissingError: mss or python-xlib is not installed.
    """

    def __init__(self, config: ScreenConfig, *, height: int, width: int) -> None:
        self._resizer = Resizer(height, width)
        self.frame_shape = self._resizer.frame_shape
        self.watch = Watch(self.frame_shape, config.max_age_s)
        self._screen: Any = None
        self._window: FollowedWindow | None = None
        self.build = ""
        self._mss = _load_mss()
        self._screen = self._open()
        try:
            if config.title:
                self._window = FollowedWindow(config.title, config.region)
                self._fixed = None
                self.build = build_of(self._window.pid)
            else:
                self._fixed = self._region(config)
        except CaptureError:
            self.close()
            raise

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`. Takes milliseconds, never waits.

        Raises:
            WindowHiddenError: The window is not on the screen now, or something covers it.
            CaptureError: The window or the display was closed, or ``out`` has another shape.
        """
        if self._screen is None:
            raise CaptureError("The capture is closed. Make a new one.")
        check_frame(out, self.frame_shape)
        pixels, asked_ns = self._pixels()
        self._resizer.into(out, pixels)
        return self.watch.see(out, asked_ns)

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        if self._window is not None:
            self._window.close()
        if self._screen is not None:
            with contextlib.suppress(self._mss.ScreenShotError):  # the server went first
                self._screen.close()
        self._window = self._screen = None

    def _pixels(self) -> tuple[np.ndarray, int]:
        """BGRA uint8 ``[h, w, 4]`` of the region, or of the window at one place, and when."""
        if self._window is None:
            assert self._fixed is not None
            return self._take(self._fixed)
        area = self._window.area()
        for _ in range(MOST_TRIES):
            try:
                taken = self._take(area)
            except CaptureError:
                if not self._window.has_changed():  # else it was moved or closed in between
                    raise
                taken = None
            before, area = area, self._window.area()
            if taken is not None and area == before:
                return taken
        raise WindowHiddenError(f"The window keeps moving, last to {area}. Let it stand still.")

    def _take(self, area: Rectangle) -> tuple[np.ndarray, int]:
        asked_ns = clock_ns()
        try:
            picture = self._screen.grab(area._asdict())
        except AssertionError as err:  # how mss takes it that the server does not answer
            raise CaptureError("The X display was closed.") from err
        except self._mss.ScreenShotError as err:
            raise CaptureError(f"The screen could not be grabbed, {area}: {err}") from err
        return np.asarray(picture), asked_ns

    def _region(self, config: ScreenConfig) -> Rectangle:
        monitors = [_rectangle(one) for one in self._screen.monitors]
        if len(monitors) == 1:  # a display that knows of no monitors is one
            monitors *= 2
        number, num = config.monitor, len(monitors) - 1
        shown = ", ".join(f"{index}: {one}" for index, one in enumerate(monitors[1:], 1))
        require(number <= num, "screen.monitor", f"be one of those there are ({shown})", number)
        return part_of(monitors[number], config.region, f"monitor {number}")

    def _open(self) -> Any:
        try:
            return self._mss.MSS(backend="default")
        except (self._mss.ScreenShotError, OSError) as err:
            raise CaptureError(no_display(err)) from err


def _rectangle(monitor: dict[str, int]) -> Rectangle:
    return Rectangle(monitor["left"], monitor["top"], monitor["width"], monitor["height"])


def _load_mss() -> Any:
    try:
        import mss  # pyright: ignore[reportMissingImports]
    except ImportError as err:
        fix = "Install it: pip install 'charles[screen]'."
        if sys.platform == "win32":
            fix = "On Windows use --game.window.screen.kind dxcam or windows_capture."
        raise ExtraMissingError(f"Capture on X11 needs mss. {fix}") from err
    return mss
