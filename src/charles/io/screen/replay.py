"""A recording in the place of a screen, with the times of its own pictures."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np

from charles.errors import CaptureError
from charles.io.screen.resize import Resizer, check_frame
from charles.io.screen.source import Capture
from charles.io.screen.watch import Watch
from charles.screen_config import ScreenConfig
from charles.timing import NS_PER_S, clock_ns


class Picture(NamedTuple):
    """One picture of a recording."""

    offset_ns: int
    """Its time after that of the first."""
    load: Callable[[], np.ndarray]
    """Its pixels, BGR uint8 ``[h, w, 3]``; decoded only if somebody looks."""


Pictures = Generator[Picture, None, None]


class ReplaySource:
    """A :class:`charles.io.screen.source.FrameSource` that plays a video or an MCAP file once.

    The clock starts at the first grab, which gets the first picture. In real time a grab gets the
    newest picture that is due, and those it came too late for are passed over; otherwise each grab
    gets the next one. Either way the capture time is the recording's own, counted from that start.

    Args:
        config: The file, and whether it plays by the wall clock.
        height: Frame height in pixels.
        width: Frame width in pixels.

    Raises:
        CaptureError: The file is not there, or has no pictures.
        ExtraMissingError: It is an MCAP file, and mcap is not installed.
    """

    def __init__(self, config: ScreenConfig, *, height: int, width: int) -> None:
        assert config.file is not None
        self._path, self._is_realtime = config.file, config.is_realtime
        self._resizer = Resizer(height, width)
        self.frame_shape = self._resizer.frame_shape
        self.watch = Watch(self.frame_shape, config.max_age_s)
        if not self._path.is_file():
            raise CaptureError(f"screen.file must be a file, got {str(self._path)!r}.")
        self._pictures = _pictures_of(self._path, config.topic)
        self._started_ns: int | None = None
        self._current = self._following = self._read()
        self._period_ns = 0

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`.

        Raises:
            CaptureError: The recording is at its end or broken, or ``out`` has another shape.
        """
        check_frame(out, self.frame_shape)
        now_ns = clock_ns()
        if self._started_ns is None:
            self._started_ns = now_ns
            self._step()
        elif self._is_realtime:
            self._catch_up(now_ns - self._started_ns)
        else:
            self._step()
        if self._current is None:
            raise CaptureError(f"{self._path} is at its end. Start again to see it again.")
        self._resizer.into(out, self._current.load())
        return self.watch.see(out, self._started_ns + self._current.offset_ns)

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        self._pictures.close()
        self._current = self._following = None

    def _step(self) -> None:
        self._current = self._following
        if self._current is None:
            return
        self._following = self._read()
        if self._following is not None:
            self._period_ns = self._following.offset_ns - self._current.offset_ns

    def _catch_up(self, elapsed_ns: int) -> None:
        while self._following is not None and self._following.offset_ns <= elapsed_ns:
            self._step()
        if self._following is not None or self._current is None:
            return
        # The last picture is shown for as long as the one before.
        if elapsed_ns >= self._current.offset_ns + self._period_ns:
            self._current = None

    def _read(self) -> Picture | None:
        return next(self._pictures, None)


def _pictures_of(path: Path, topic: str) -> Pictures:
    if path.suffix.lower() == ".mcap":
        from charles.io.screen.replay_mcap import mcap_pictures

        return mcap_pictures(path, topic)
    return _video_pictures(path)


def _video_pictures(path: Path) -> Pictures:
    """The pictures of a video in the order they are shown.

    Raises:
        CaptureError: FFmpeg cannot read it, or its pictures have no times.
    """
    first_s: float | None = None
    at_s = 0.0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise CaptureError(f"{path} has no pictures: it must be a video.")
            for frame in container.decode(video=0):
                if frame.time is None:
                    raise CaptureError(f"{path} tells no times. Put it into an MP4 or Matroska.")
                first_s = frame.time if first_s is None else first_s
                at_s = frame.time - first_s
                yield Picture(round(at_s * NS_PER_S), _loader(frame))
    except av.error.FFmpegError as err:
        raise CaptureError(f"{path} cannot be read as a video, after {at_s:.2f} s: {err}.") from err


def _loader(frame: av.VideoFrame) -> Callable[[], np.ndarray]:
    return lambda: frame.to_ndarray(format="bgr24")
