"""A player's place in the frame pool: a lane that comes and goes with its server.

Two threads meet here. The link's thread moors a lane when a server lets the player in, and leaves
it before it says anything else to a server; the driving loop writes to it meanwhile. The lock makes
sure that nothing is written to a lane that was left, and is never held for longer than a sample
takes to be copied.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from charles.data.pool import Lane, LaneSpec
from charles.errors import SharedMemoryError


class Berth:
    """Holds a player's lane while there is a server."""

    def __init__(self) -> None:
        self._lane: Lane | None = None
        self._lock = threading.Lock()

    def moor(self, spec: LaneSpec) -> None:
        """Take a lane; from the link's thread. One of a trainer that is gone already is not."""
        try:
            lane = Lane(spec)
        except SharedMemoryError:
            return
        with self._lock:
            self._lane = lane

    def leave(self) -> None:
        """Let go of the lane: nobody writes to it any more. May be called twice."""
        with self._lock:
            lane, self._lane = self._lane, None
            if lane is not None:
                lane.close()

    @contextmanager
    def lane(self) -> Iterator[Lane | None]:
        """The lane, kept for as long as the ``with`` block lasts; ``None`` without a server."""
        with self._lock:
            yield self._lane
