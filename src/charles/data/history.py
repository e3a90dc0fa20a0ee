"""The recent past of an episode: what the controls, the speed and the purpose were."""

import numpy as np

from charles.errors import require


class History:
    """The last instants of one episode. Bounded memory; use from one thread.

    Invariant: an instant is appended only after its own sample was written (or its own prediction
    was made), so a sample's history never holds the action that is to be predicted.

    Args:
        length: Instants to remember, ``T``; 0 remembers nothing.
        num_features: Width ``D`` of a row: the controls, then speed, then purpose (2).
    """

    def __init__(self, length: int, num_features: int) -> None:
        require(length >= 0, "history_length", "be 0 or more", length)
        require(num_features > 3, "history features", "be controls + 3", num_features)
        self.length = length
        self._rows = np.zeros((length, num_features), np.float32)
        self._oldest = 0

    def append(self, controls: np.ndarray, speed_mps: float, purpose: np.ndarray) -> None:
        """Remember one instant; the oldest is forgotten.

        Args:
            controls: What applied, float32 ``[A]``.
            speed_mps: Speed over ground.
            purpose: Direction and distance of the target, float32 ``[2]``.
        """
        if self.length == 0:
            return
        row = self._rows[self._oldest]
        row[:-3] = controls
        row[-3] = speed_mps
        row[-2:] = purpose
        self._oldest = (self._oldest + 1) % self.length

    @property
    def newest_controls(self) -> np.ndarray:
        """What applied at the newest instant, float32 ``[A]``; zeros where there is none.

        A view, overwritten by what is appended later.
        """
        if self.length == 0:
            return np.zeros(self._rows.shape[1] - 3, np.float32)
        return self._rows[self._oldest - 1, :-3]

    def clear(self) -> None:
        """Begin an episode: forget everything."""
        self._rows[:] = 0.0
        self._oldest = 0

    def write_into(self, out: np.ndarray) -> None:
        """Write the past into ``out``, float32 ``[T, D]``, oldest first.

        Instants before the episode began are rows of zeros, at the front.
        """
        num_last = self.length - self._oldest
        out[:num_last] = self._rows[self._oldest :]
        out[num_last:] = self._rows[: self._oldest]
