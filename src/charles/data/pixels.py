"""From a game's frame to the pixels of a sample: one function for the collector and the player.

Both must store and see the very same bytes, or the network drives on pictures it never learned.
"""

import cv2
import numpy as np

from charles.errors import ConfigError
from charles.sample import SampleSpec


def to_pixels(frame: np.ndarray, spec: SampleSpec, out: np.ndarray) -> None:
    """Write one frame in the sample's pixel format.

    Args:
        frame: RGB uint8 ``[H, W, 3]`` of the sample's height and width; not changed.
        spec: The sample's shape and pixel format.
        out: Where the pixels go, C-contiguous uint8 of ``spec.frame_shape``, for example a pool
            slot. It must not overlap ``frame``.

    Raises:
        ConfigError: ``frame`` or ``out`` has another shape or type.
    """
    _check("frame", frame, (spec.height, spec.width, 3))
    _check("out", out, spec.frame_shape)
    if spec.pixel_format == "rgb":
        np.copyto(out, frame)
    else:
        cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420, dst=out)


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.uint8 or not array.flags.c_contiguous:
        layout = "" if array.flags.c_contiguous else ", not contiguous"
        raise ConfigError(
            f"Expected {name} as contiguous uint8 {list(shape)}, "
            f"got {array.dtype} {list(array.shape)}{layout}."
        )
