"""Capture on Windows: dxcam reads the screen, windows-capture reads a window, even a covered one.

The libraries themselves were not run here, for want of Windows; what is done with their answers is
tested.
"""

import signal
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np

from charles.errors import CaptureError, ExtraMissingError, WindowHiddenError
from charles.io.builds import build_of
from charles.io.screen.inbox import Inbox
from charles.io.screen.region import Rectangle, part_of
from charles.io.screen.resize import Resizer, check_frame
from charles.io.screen.source import Capture
from charles.io.screen.watch import Watch
from charles.io.screen.win32 import Win32Window
from charles.screen_config import ScreenConfig
from charles.timing import clock_ns

FIRST_S = 5.0
"""How long the first picture may take."""

POLL_S = 0.005


class DxcamSource:
    """A :class:`charles.io.screen.source.FrameSource` on DXGI desktop duplication.

    Windows that a title names must be on the first monitor and not covered. dxcam hands out a
    picture only when the screen changed, so duplicates cost nothing.

    Args:
        config: What to capture.
        height: Frame height in pixels.
        width: Frame width in pixels.
        camera: A dxcam camera; by default one of the monitor is made.

    Raises:
        CaptureError: This is not Windows, there is no such window or monitor, or the region is not
            inside.
        ExtraMissingError: dxcam is not installed.
    """

    def __init__(
        self, config: ScreenConfig, *, height: int, width: int, camera: Any = None
    ) -> None:
        self._resizer = Resizer(height, width)
        self.frame_shape = self._resizer.frame_shape
        self.watch = Watch(self.frame_shape, config.max_age_s)
        self._last: np.ndarray | None = None
        monitor = 1 if config.title else max(1, config.monitor)
        self._window = Win32Window(config.title, config.region) if config.title else None
        self._camera: Any = _dxcam_camera(monitor) if camera is None else camera
        self._monitor, self._region = monitor, None if config.title else config.region
        self.build = build_of(self._window.pid) if self._window is not None else ""
        self._fixed()  # which must be inside

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`; waits for the first picture only."""
        check_frame(out, self.frame_shape)
        if self._camera is None:
            raise CaptureError("The capture is closed. Make a new one.")
        area = self._fixed() if self._window is None else self._window.area()
        asked_ns = clock_ns()
        pixels = self._take(area)
        while pixels is None and self._last is None:
            if clock_ns() - asked_ns > FIRST_S * 1e9:
                raise CaptureError(f"No picture came in {FIRST_S} s. Is the screen switched off?")
            time.sleep(POLL_S)
            pixels = self._take(area)
        if pixels is None:
            assert self._last is not None
            np.copyto(out, self._last)
            return self.watch.see_again(asked_ns)
        self._resizer.into(out, pixels)
        self._last = out.copy()
        return self.watch.see(out, asked_ns)

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with suppress(Exception):
                camera.release()

    def _fixed(self) -> Rectangle:
        """The wanted part of the monitor, whose size changes with its mode."""
        whole = Rectangle(0, 0, self._camera.width, self._camera.height)
        return part_of(whole, self._region, f"monitor {self._monitor}")

    def _take(self, area: Rectangle) -> np.ndarray | None:
        camera, region = self._camera, (area.left, area.top, area.right, area.bottom)
        try:
            if area.is_inside(Rectangle(0, 0, camera.width, camera.height)):
                return camera.grab(region=region, new_frame_only=True)
            camera.grab()  # by which it finds out that the monitor's mode has changed
        except Exception as err:  # bare exceptions of COM
            raise CaptureError(f"The screen cannot be read: {err}. Start again.") from err
        raise WindowHiddenError(f"{area} is not on the screen now. Move the window back.")


class WindowsCaptureSource:
    """A :class:`charles.io.screen.source.FrameSource` on Windows Graphics Capture.

    Windows pushes pictures into a thread of its own, where they are resized; a grab hands out the
    newest. A window may be covered, but not minimised.

    Args:
        config: What to capture.
        height: Frame height in pixels.
        width: Frame width in pixels.

    Raises:
        CaptureError: This is not Windows, or there is no such window.
        ExtraMissingError: windows-capture is not installed.
    """

    def __init__(self, config: ScreenConfig, *, height: int, width: int) -> None:
        self._config = config
        self._window = Win32Window(config.title, config.region) if config.title else None
        self.inbox = Inbox(height, width, config.max_age_s)
        self.frame_shape, self.watch = self.inbox.frame_shape, self.inbox.watch
        self.build = build_of(self._window.pid) if self._window is not None else ""
        self._control = self._start()

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`; waits for the first picture only."""
        if self._window is not None:
            self._window.area(may_be_covered=True)  # raises if it is minimised or closed
        return self.inbox.take(out, FIRST_S)

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        self.inbox.end("The capture is closed. Make a new one.")
        control, self._control = self._control, None
        if control is not None:
            with suppress(Exception):  # it repeats what its callbacks raised
                control.stop()

    def _start(self) -> Any:
        module = _load_windows_capture()
        where = {"monitor_index": max(1, self._config.monitor)}
        if self._window is not None:
            where = {"window_hwnd": self._window.handle}
        try:
            capture = module.WindowsCapture(cursor_capture=False, draw_border=None, **where)
        except Exception as err:  # bare exceptions of a library in another language
            raise _not_captured(err) from err

        # The library knows its callbacks by these names.
        @capture.event
        def on_frame_arrived(frame: Any, capture_control: Any) -> None:
            arrived_ns = clock_ns()
            try:
                pixels = self._crop(frame.frame_buffer)
                if pixels is not None:
                    self.inbox.put(pixels, arrived_ns)
            except WindowHiddenError:
                return  # the grabbing thread finds that out by itself
            except Exception as err:  # for the grabbing thread
                self.inbox.end(str(err))
                capture_control.stop()

        @capture.event
        def on_closed() -> None:
            self.inbox.end("The window, or the monitor, is gone.")

        try:
            return capture.start_free_threaded()
        except Exception as err:
            raise _not_captured(err) from err

    def _crop(self, pixels: np.ndarray) -> np.ndarray | None:
        """The wanted part of a picture that shows a whole window, with its frame, or a monitor;
        ``None`` for a picture of before, or in the midst of, a change of size."""
        height, width = pixels.shape[:2]
        whole = Rectangle(0, 0, width, height)
        if self._window is None:
            part = part_of(whole, self._config.region, "the monitor")
        else:
            frame = self._window.frame()
            if frame is None:
                return None
            part = self._window.area(may_be_covered=True).shifted(-frame.left, -frame.top)
        is_whole = part.is_inside(whole)
        return pixels[part.top : part.bottom, part.left : part.right] if is_whole else None


def _not_captured(err: Exception) -> CaptureError:
    return CaptureError(
        f"Windows' capture does not start: {err}. It needs Windows 10 from 2004 on, and the window "
        "or monitor that is named; or take --game.window.screen.kind dxcam."
    )


def _dxcam_camera(monitor: int) -> Any:
    term = signal.getsignal(signal.SIGTERM)
    try:
        import dxcam  # pyright: ignore[reportMissingImports]

        # BGRA is how the screen comes: no conversion there.
        return dxcam.create(output_idx=monitor - 1, output_color="BGRA")
    except ImportError as err:
        raise ExtraMissingError(
            "This capture needs dxcam, on Windows. Install it: pip install 'charles[screen]'."
        ) from err
    except Exception as err:  # bare exceptions of COM and of lists, also while it is imported
        raise CaptureError(f"Monitor {monitor} cannot be captured: {err}.") from err
    finally:
        # It would release the camera under our hands before who is asked to stop has stopped.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, term)


def _load_windows_capture() -> Any:
    try:
        import windows_capture  # pyright: ignore[reportMissingImports]
    except ImportError as err:
        raise ExtraMissingError(
            "This capture needs windows-capture, on Windows. "
            "Install it: pip install 'charles[windows-capture]'."
        ) from err
    return windows_capture
