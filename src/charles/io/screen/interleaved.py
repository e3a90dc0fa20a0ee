"""A game that shows several cameras in turn, watched as one that shows the network's alone.

Pictures are read as fast as they come by a thread of its own, as a game loop at a third of the rate
would miss two of three; who is whose is told by :class:`charles.io.cameras.Deinterleaver`.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from charles.errors import CaptureError, ConfigError, WindowHiddenError
from charles.io.cameras import Deinterleaver
from charles.io.screen.source import Capture, FrameSource, OfProgram
from charles.timing import Cadence, CadenceReport, RateKeeper

CAMERAS = ("hood", "third_person", "spare")
"""In the order in which a game shows them; the first is the network's."""

OVERSAMPLING = 1.5
"""Looks at the screen for each picture of the game: neither clock knows the other."""

START_S = 10.0
"""How long it may take until the cameras are told apart."""

_POLL_S = 0.01


class InterleavedSource:
    """The network's camera of several that are shown in turn. Owns a thread.

    Args:
        make: Opens what is watched; called, and its source used, in that thread.
        reference: What the network's camera shows, RGB uint8 ``[H, W, 3]`` of any size.
        rate_hz: Pictures per second of all cameras together.

    Raises:
        CharlesError: What ``make`` raises.

    Attributes:
        cameras: See :class:`charles.io.abilities.ManyCameras`.
    """

    def __init__(
        self, make: Callable[[], FrameSource], *, reference: np.ndarray, rate_hz: float
    ) -> None:
        self.cameras: tuple[str, ...] = CAMERAS
        self.frame_shape: tuple[int, int, int] = (0, 0, 3)
        self.build = ""
        self._make, self._reference, self._rate_hz = make, reference, rate_hz
        self._deinterleaver = Deinterleaver(len(CAMERAS))
        self._cadences = {name: Cadence(rate_hz / len(CAMERAS)) for name in CAMERAS}
        self._newest: dict[str, tuple[np.ndarray, int]] = {}
        self._shown_ns = -1
        self._error: Exception | None = None
        self._hidden: WindowHiddenError | None = None
        """Why nothing is seen now, if it is not."""
        self._is_open, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)
        self._thread.start()
        self._is_open.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    @property
    def dropped(self) -> int:
        """Pictures of any camera that were lost."""
        return self._deinterleaver.dropped

    def cadences(self) -> dict[str, CadenceReport]:
        """How evenly each camera's pictures came so far; from any thread."""
        return {name: cadence.report() for name, cadence in self._cadences.items()}

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`. Waits for the very first picture.

        Raises:
            CaptureError: Also if the cameras could not be told apart within :data:`START_S`.
            WindowHiddenError: It is hidden now; once it is not, it is watched again.
        """
        if (hidden := self._hidden) is not None:
            raise hidden
        captured_ns = self.grab_camera(self.cameras[0], out)
        is_new = captured_ns != self._shown_ns
        self._shown_ns = captured_ns
        return Capture(captured_ns, is_new)

    def grab_camera(self, camera: str, out: np.ndarray) -> int:
        """See :class:`charles.io.abilities.ManyCameras`."""
        if camera not in self.cameras:
            raise CaptureError(f"camera must be one of {self.cameras}, got {camera!r}.")
        give_up_s = time.monotonic() + START_S
        while (newest := self._newest.get(camera)) is None or self._error is not None:
            if self._error is not None:
                raise self._error
            if self._stop.is_set() or time.monotonic() > give_up_s:
                raise CaptureError(
                    f"The pictures of {len(self.cameras)} cameras in turn must be told apart, and "
                    f"were not within {START_S:g} s. Does the game show them at "
                    f"{self._rate_hz:g} pictures a second, and does it move?"
                )
            time.sleep(_POLL_S)
        picture, captured_ns = newest
        if out.shape != picture.shape or out.dtype != np.uint8:
            raise CaptureError(
                f"Expected out as uint8 {list(picture.shape)}, got {out.dtype} {list(out.shape)}."
            )
        np.copyto(out, picture)
        return captured_ns

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        source = None
        try:
            source = self._make()
            self.frame_shape = source.frame_shape
            self.build = source.build if isinstance(source, OfProgram) else ""
            self._is_open.set()
            self._watch(source)
        except Exception as err:  # whoever grabs next is told
            self._error = err
        finally:
            self._is_open.set()
            if source is not None:
                source.close()

    def _watch(self, source: FrameSource) -> None:
        keeper = RateKeeper(OVERSAMPLING * self._rate_hz)
        first: int | None = None
        while not self._stop.is_set():
            picture = np.empty(self.frame_shape, np.uint8)
            try:
                capture, self._hidden = source.grab(picture), None
            except WindowHiddenError as err:
                self._hidden = err
                keeper.wait()
                continue
            number = self._deinterleaver.add(picture) if capture.is_new else None
            if number is not None:
                if first is None:
                    first = self._deinterleaver.looks_like(self._reference)
                name = self.cameras[(number - first) % len(self.cameras)]
                self._cadences[name].add(capture.captured_ns)
                self._newest = {**self._newest, name: (picture, capture.captured_ns)}
            keeper.wait()


def read_reference(path: Path) -> np.ndarray:
    """The picture of the network's camera that settings name, RGB uint8 ``[H, W, 3]``.

    Raises:
        ConfigError: There is no picture in that file.
    """
    try:
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as err:
        raise ConfigError(f"screen.reference must be a picture, got {path}: {err}.") from err
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if picture is None:
        raise ConfigError(f"screen.reference must be a picture (PNG or JPEG), got {path}.")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
