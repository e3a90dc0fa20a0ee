"""One resizer for everything that is captured, so that collector and player see the same.

Area averaging: a pixel of the result is the mean of the area it covers in the original, where
nearest and linear interpolation would skip pixels and let thin lines flicker. Half the size is more
than twice as fast as other ratios: for frames of 480×270 let the game draw 960×540.
"""

import cv2
import numpy as np

from charles.errors import CaptureError
from charles.io.screen.area import AreaMeans

RESIZER = "area-2"
"""Name and version of what is done here; another version wherever pixels come out otherwise."""


class Resizer:
    """Turns captured pixels into RGB frames of one size. Use from one thread.

    Args:
        height: Of the frames, pixels.
        width: Of the frames, pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.frame_shape: tuple[int, int, int] = (height, width, 3)
        self._small: dict[int, np.ndarray] = {}
        self._means: AreaMeans | None = None
        self._source = (0, 0)

    def into(self, out: np.ndarray, pixels: np.ndarray) -> None:
        """Write ``pixels`` into ``out``, resized.

        Args:
            out: RGB uint8 ``[H, W, 3]``, C-contiguous; overwritten.
            pixels: BGR or BGRA uint8 ``[h, w, 3 or 4]``, of any size and with any row stride; alpha
                is ignored. Smaller ones than ``out`` are interpolated.

        Raises:
            CaptureError: An array is not as described above.
        """
        check_frame(out, self.frame_shape)
        channels = pixels.shape[-1] if pixels.ndim == 3 else 0
        if pixels.dtype != np.uint8 or channels not in (3, 4) or 0 in pixels.shape:
            raise CaptureError(
                f"Expected pixels as uint8 [h, w, 3 or 4], got {pixels.dtype} {list(pixels.shape)}."
            )
        order = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB
        if pixels.shape[:2] == out.shape[:2]:
            cv2.cvtColor(pixels, order, dst=out)
            return
        # Colours are put in order afterwards, when there are fewer pixels.
        height, width, _ = self.frame_shape
        means = self._means_of(pixels)
        small = self._buffer(4 if means is not None else channels)
        if means is None:
            cv2.resize(pixels, (width, height), dst=small, interpolation=cv2.INTER_AREA)
        else:
            means.into(small, pixels)
            order = cv2.COLOR_BGRA2RGB
        cv2.cvtColor(small, order, dst=out)

    def _means_of(self, pixels: np.ndarray) -> AreaMeans | None:
        """What averages pictures of that size faster than OpenCV, which is best at halves."""
        height, width, _ = pixels.shape
        target = self.frame_shape[:2]
        if (height, width) != self._source:
            self._source = height, width
            is_half = (height, width) == (2 * target[0], 2 * target[1])
            is_ours = not is_half and AreaMeans.fits(self._source, target)
            self._means = AreaMeans(self._source, target) if is_ours else None
        return self._means

    def _buffer(self, channels: int) -> np.ndarray:
        height, width, _ = self.frame_shape
        if channels not in self._small:
            self._small[channels] = np.empty((height, width, channels), np.uint8)
        return self._small[channels]


def check_frame(out: np.ndarray, frame_shape: tuple[int, int, int]) -> None:
    """Refuse a target that a source cannot write a frame into.

    Raises:
        CaptureError: It is not C-contiguous uint8 of that shape.
    """
    if out.shape == frame_shape and out.dtype == np.uint8 and out.flags.c_contiguous:
        return
    memory = "C-contiguous " if out.flags.c_contiguous else ""
    raise CaptureError(
        f"Expected out as C-contiguous uint8 {list(frame_shape)}, "
        f"got {memory}{out.dtype} {list(out.shape)}."
    )
