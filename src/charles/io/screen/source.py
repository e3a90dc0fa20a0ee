"""What every source of pictures is to a game.

A source hands out the newest picture of a screen, a window or a recording, already resized. What a
collector sees and what a player sees must come out of the same source with the same settings.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Capture(NamedTuple):
    """Of one picture."""

    captured_ns: int
    """When the picture was on the screen, as exactly as the source can tell; monotonic clock."""
    is_new: bool
    """Whether the source knows, or sees, that it is not the picture of the call before."""


@runtime_checkable
class OfProgram(Protocol):
    """A source that knows whose pictures it hands out."""

    build: str
    """Of that program, see :mod:`charles.io.builds`; empty where it is not told."""


@runtime_checkable
class FrameSource(Protocol):
    """Newest pictures, as fast as they are asked for. Used from one thread."""

    frame_shape: tuple[int, int, int]
    """``(H, W, 3)`` of what :meth:`grab` writes."""

    def grab(self, out: np.ndarray) -> Capture:
        """Write the newest picture into ``out``, RGB uint8 ``[H, W, 3]``, C-contiguous.

        Raises:
            CaptureError: There is nothing to capture any more, or ``out`` has another shape.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice; does not raise."""
        ...
