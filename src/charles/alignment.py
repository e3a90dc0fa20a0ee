"""Pairing each frame with the controls of its own time, where frames come later or earlier.

With an offset above 0 frames show the world that much later than what is told: a frame is paired
with what was told then. Below 0 it is the other way round: a frame, and what was told with it, wait
for the controls that are told so much later. At 0 nothing waits and nothing is copied.

A player sees the present frame as well; with an offset above 0 it must delay what it is told by the
same time (:class:`Delay`), below 0 it needs nothing.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from charles.io.game import Telemetry
from charles.sample import SampleFlag

Item = TypeVar("Item")


class Delay(Generic[Item]):
    """Hands out what was so long ago. Use from one thread.

    Args:
        delay_ns: How long ago, 0 or more.
    """

    def __init__(self, delay_ns: int) -> None:
        self.delay_ns = delay_ns
        self._items: deque[tuple[int, Item]] = deque()
        self._is_full = False

    def add(self, time_ns: int, item: Item) -> Item | None:
        """Take the present item and return the one nearest to a delay ago.

        An item of the same time as the one before takes its place.

        Returns:
            ``None`` while there is none that old, as at the start of an episode.
        """
        if not self.delay_ns:
            self._items.clear()
        items, wanted_ns = self._items, time_ns - self.delay_ns
        if items and items[-1][0] == time_ns:
            items.pop()
        period_ns = time_ns - items[-1][0] if items else 0
        items.append((time_ns, item))
        self._is_full = self._is_full or items[0][0] - wanted_ns <= 0.5 * period_ns
        while len(items) > 1 and abs(items[1][0] - wanted_ns) < abs(items[0][0] - wanted_ns):
            items.popleft()
        return items[0][1] if self._is_full else None

    @property
    def oldest(self) -> Item | None:
        """The oldest item that is kept, for those who cannot wait."""
        return self._items[0][1] if self._items else None

    def clear(self) -> None:
        """Forget the past."""
        self._items.clear()
        self._is_full = False


@dataclass(frozen=True)
class Paired:
    """A frame and what belongs to it."""

    telemetry: Telemetry
    """What was told of the frame's own time."""
    label: np.ndarray | None
    """What the expert did at that time, or ``None``."""
    flag: SampleFlag
    """Who drove at that time."""
    frame: np.ndarray | None
    """The frame; ``None`` for the present one."""
    captured_ns: int
    """When the frame was captured."""
    told_ns: int
    """When the label was told."""


class Alignment:
    """A collector's: pairs frames with what is told. Use from one thread.

    Args:
        offset_ms: How much later frames show the world than what is told.
    """

    def __init__(self, offset_ms: float) -> None:
        self._is_frame_late = offset_ms >= 0
        self._delay: Delay[Paired] = Delay(round(abs(offset_ms) * 1e6))
        self._newest_ns = -1

    @property
    def needs_every_frame(self) -> bool:
        """Whether frames must wait for what is told, so that each has to be captured."""
        return not self._is_frame_late

    def add(self, telemetry: Telemetry, flag: SampleFlag, frame: np.ndarray) -> Paired | None:
        """Take an instant and return what is now complete.

        Args:
            telemetry: What is told now.
            flag: Who drives now.
            frame: The present frame, copied if it has to wait.

        Returns:
            ``None`` while nothing is that old, as at the start of an episode and after the game was
            not seen; and where frames are told apart by their time, for one that came already.
        """
        now_ns, newest_ns = telemetry.captured_ns, self._newest_ns
        self._newest_ns = now_ns
        if self._delay.delay_ns and not telemetry.is_whole:
            self._delay.clear()  # what comes next has no past
            return None
        if self._delay.delay_ns and now_ns == newest_ns:
            return None
        kept = frame.copy() if self.needs_every_frame else None
        present = Paired(telemetry, telemetry.label, flag, kept, now_ns, now_ns)
        if not self._delay.delay_ns:
            return present
        past = self._delay.add(now_ns, present)
        if past is None:
            return None
        if self._is_frame_late:
            return Paired(past.telemetry, past.label, past.flag, None, now_ns, past.told_ns)
        return Paired(past.telemetry, telemetry.label, flag, past.frame, past.captured_ns, now_ns)

    def clear(self) -> None:
        """Forget the past, as after a jump of the car."""
        self._delay.clear()
        self._newest_ns = -1
