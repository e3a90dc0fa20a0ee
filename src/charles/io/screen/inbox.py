"""Where pictures wait that are pushed by a thread of somebody else's."""

import threading

import numpy as np

from charles.errors import CaptureError
from charles.io.screen.resize import Resizer, check_frame
from charles.io.screen.source import Capture
from charles.io.screen.watch import Watch
from charles.timing import clock_ns


class Inbox:
    """The newest picture that another thread pushed, resized; any thread may call.

    Args:
        height: Frame height in pixels.
        width: Frame width in pixels.
        max_age_s: See :class:`charles.io.screen.watch.Watch`.
    """

    def __init__(self, height: int, width: int, max_age_s: float) -> None:
        self._resizer = Resizer(height, width)
        self.frame_shape = self._resizer.frame_shape
        self.watch = Watch(self.frame_shape, max_age_s)
        self._newest = np.zeros(self.frame_shape, np.uint8)
        self._captured_ns: int | None = None
        self._taken_ns: int | None = None
        self._end: str | None = None
        self._changed = threading.Condition()

    def put(self, pixels: np.ndarray, captured_ns: int) -> None:
        """Resize BGR or BGRA uint8 ``[h, w, 3 or 4]`` into the place of the newest picture."""
        with self._changed:
            self._resizer.into(self._newest, pixels)
            self._captured_ns = captured_ns
            self._changed.notify_all()

    def end(self, why: str) -> None:
        """Let every later :meth:`take` raise with ``why``; the first reason counts."""
        with self._changed:
            self._end = self._end or why
            self._changed.notify_all()

    def take(self, out: np.ndarray, timeout_s: float) -> Capture:
        """Copy the newest picture into ``out``; waits only for the very first.

        Raises:
            CaptureError: There will be none any more, or none came in time.
        """
        check_frame(out, self.frame_shape)
        with self._changed:
            self._changed.wait_for(lambda: self._end or self._captured_ns, timeout_s)
            if self._end is not None:
                raise CaptureError(self._end)
            if self._captured_ns is None:
                raise CaptureError(f"No picture came in {timeout_s} s. Is the window minimised?")
            np.copyto(out, self._newest)
            is_known, self._taken_ns = self._captured_ns == self._taken_ns, self._captured_ns
            if is_known:
                return self.watch.see_again(clock_ns())
            return self.watch.see(out, self._captured_ns)
