"""Whether pictures still change: duplicates and staleness, told from the pixels themselves.

A screen can be read at any time, whether or not the game has drawn since. A picture that equals the
one before is a *duplicate*; once a picture is older than a limit it is *stale*.
"""

from dataclasses import dataclass

import numpy as np

from charles.errors import require
from charles.io.screen.source import Capture
from charles.timing import NS_PER_S, clock_ns


@dataclass(frozen=True, kw_only=True)
class WatchReport:
    """What a source handed out so far."""

    pictures: int
    """Pictures that differed from the one before."""
    duplicates: int
    """Grabs that got the picture of the grab before."""
    stale: int
    """Those of them whose picture was older than the limit."""
    age_s: float
    """How long ago the newest picture was first seen; 0 before there is one."""


class Watch:
    """Tells new pictures from old ones. Use from one thread.

    The fingerprint of a picture is the sum of its 64-bit words, each times an odd random number:
    any one pixel that changes changes it, and it costs less than a checksum.

    Args:
        frame_shape: ``(H, W, 3)`` of the pictures.
        max_age_s: When a picture that stays the same is stale.
    """

    def __init__(self, frame_shape: tuple[int, int, int], max_age_s: float) -> None:
        require(max_age_s > 0, "max_age_s", "be positive", max_age_s)
        num_words, self._num_rest = divmod(int(np.prod(frame_shape)), 8)
        rng = np.random.default_rng(0)
        self._weights = rng.integers(0, 2**63, num_words, np.uint64) * np.uint64(2) + np.uint64(1)
        self._max_age_ns = round(max_age_s * NS_PER_S)
        self._print: tuple[int, bytes] | None = None
        self._captured_ns = 0
        self._pictures = self._duplicates = self._stale = 0

    def see(self, picture: np.ndarray, captured_ns: int) -> Capture:
        """Count a picture, C-contiguous uint8 of the frame shape.

        Args:
            picture: What was grabbed.
            captured_ns: When it was on the screen, monotonic clock.

        Returns:
            Whether it is new, and when it was first seen.
        """
        seen = self._fingerprint(picture)
        if seen == self._print:
            return self.see_again(captured_ns)
        self._print, self._captured_ns = seen, captured_ns
        self._pictures += 1
        return Capture(captured_ns, is_new=True)

    def see_again(self, now_ns: int) -> Capture:
        """Count a duplicate, for a source that knows that there is nothing new."""
        self._duplicates += 1
        self._stale += now_ns - self._captured_ns > self._max_age_ns
        return Capture(self._captured_ns, is_new=False)

    def is_stale(self, now_ns: int | None = None) -> bool:
        """Whether the newest picture is older than the limit, now or at a time."""
        now_ns = clock_ns() if now_ns is None else now_ns
        return self._pictures > 0 and now_ns - self._captured_ns > self._max_age_ns

    def report(self) -> WatchReport:
        """The counts so far."""
        age_ns = clock_ns() - self._captured_ns if self._pictures else 0
        return WatchReport(
            pictures=self._pictures,
            duplicates=self._duplicates,
            stale=self._stale,
            age_s=age_ns / NS_PER_S,
        )

    def _fingerprint(self, picture: np.ndarray) -> tuple[int, bytes]:
        flat = picture.reshape(-1)
        end = flat.size - self._num_rest
        total = np.dot(flat[:end].view(np.uint64), self._weights)
        return int(total), flat[end:].tobytes()
