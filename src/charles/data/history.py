"""The recent past of an episode: controls, speed and purpose as they were, and pictures."""

import numpy as np

from charles.data.pixels import to_pixels
from charles.errors import require
from charles.sample import SampleSpec


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


class FrameHistory:
    """The last pictures of one episode, as samples store them. Use from one thread.

    Args:
        spec: Says how many pictures a sample has and how far they are apart; with one picture
            nothing is kept.
    """

    def __init__(self, spec: SampleSpec) -> None:
        self._spec = spec
        length = (spec.num_frames - 1) * spec.frame_stride
        self._frames = np.zeros((length, *spec.frame_shape), np.uint8)
        self._num_seen = 0

    def append(self, frame: np.ndarray) -> None:
        """Remember one instant's picture, RGB uint8 ``[H, W, 3]``; the oldest is forgotten."""
        if len(self._frames):
            to_pixels(frame, self._spec, self._frames[self._num_seen % len(self._frames)])
            self._num_seen += 1

    def clear(self) -> None:
        """Begin an episode: forget everything."""
        self._num_seen = 0

    def write_into(self, out: np.ndarray) -> None:
        """Write the pictures before the present one, which is in ``out[-1]`` already.

        Where the episode is younger than that, its first picture stands for those before.

        Args:
            out: uint8 of the sample's ``pixels_shape``, ``[F, ...]``.
        """
        for back in range(1, self._spec.num_frames):
            age = min(back * self._spec.frame_stride, self._num_seen)
            if age == 0:
                out[-1 - back] = out[-1]
            else:
                out[-1 - back] = self._frames[(self._num_seen - age) % len(self._frames)]
