"""What some games can do besides what :class:`charles.io.game.Game` asks of all of them.

Each is a protocol of its own; who makes use of one asks with ``isinstance`` and does without where
a game cannot.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Fading(Protocol):
    """A game whose picture can be faded out and in again, around a jump that nobody should see."""

    def fade(self, seconds: float, is_out: bool) -> None:
        """Begin to fade the picture to black, or back from it; returns at once.

        Args:
            seconds: Game time until the picture is black, or whole again; 0 or more.
            is_out: Whether to black, or back.
        """
        ...


@runtime_checkable
class ManyCameras(Protocol):
    """A game that shows more than what the network sees, to those who watch."""

    cameras: tuple[str, ...]
    """Names of the cameras. The first is the network's, which is :meth:`Game.grab`'s; each of the
    others is shown as often as that one, between two of its pictures."""

    def grab_camera(self, camera: str, out: np.ndarray) -> int:
        """Write the newest picture of one of ``cameras`` into ``out``, RGB uint8 ``[H, W, 3]``.

        Returns:
            When it was captured, monotonic clock; the same time as before if there is no newer one.

        Raises:
            GameError: There is no such camera, or no reset yet, or ``out`` has another shape.
        """
        ...


@runtime_checkable
class Troubled(Protocol):
    """A game that says what keeps it from being seen, and goes on once that is over."""

    trouble: str
    """What it is, and what to do about it; empty while it is seen."""


@runtime_checkable
class Accounting(Protocol):
    """A game that says why some of its instants had no label."""

    def unlabelled(self) -> Mapping[str, int]:
        """Instants without a label so far, by reason."""
        ...
