"""The pad that drives nothing and remembers what it was told."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from charles.errors import PadError, require
from charles.io.pads.pad import clamped
from charles.sample import DRIVING_CONTROLS
from charles.timing import clock_ns


class Recorded(NamedTuple):
    """One update of a :class:`RecordingPad`."""

    time_ns: int
    """When it was made, monotonic clock."""
    controls: np.ndarray
    """What would have been sent, float32 ``[A]``."""


class RecordingPad:
    """Remembers what it is told instead of driving: for measurements, and for looking on.

    Args:
        controls: Names of the controls.
        capacity: How many of the newest updates are kept.
    """

    def __init__(
        self, controls: Sequence[str] = DRIVING_CONTROLS, *, capacity: int = 10_000
    ) -> None:
        require(capacity > 0, "capacity", "be positive", capacity)
        self.refused = 0
        self.updates: deque[Recorded] = deque(maxlen=capacity)
        self._num = len(controls)
        self._is_open = True

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        values = clamped(controls, self._num)
        self.refused += values is None
        self._record(np.zeros(self._num, np.float32) if values is None else values)

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        self._record(np.zeros(self._num, np.float32))

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        if self._is_open:
            self.neutral()
        self._is_open = False

    def _record(self, values: np.ndarray) -> None:
        if not self._is_open:
            raise PadError("The pad is closed. Make a new one.")
        self.updates.append(Recorded(clock_ns(), values))
