"""Pairs of a frame and its telemetry, and where the newest waits for whoever asks for it.

Invariants of a :class:`Mailbox`: three frame buffers exist; one is being filled by the reader, one
holds the newest complete pair, one belongs to the caller until its next :meth:`Mailbox.take`. A
pair is published whole or not at all.
"""

import threading
import time
from typing import NamedTuple, Protocol

import msgspec

MAX_DATA_BYTES = 1 << 20
"""More than any telemetry has; a longer announcement means that the stream is out of step."""


class Data(msgspec.Struct, rename="camel"):
    """The telemetry of one pair, as the mods name it."""

    throttle: float
    """Effective, in [-1, 1]; negative drives backwards."""
    brake: float
    """Effective, in [0, 1]."""
    steering: float
    """Front wheels over 40 degrees, positive right."""
    speed: float
    """m/s."""
    location: tuple[float, float, float]
    """Metres."""
    time: int | tuple[int, int, int]
    """Hour; from the ZeroMQ fork hour, minute and second."""
    yaw_rate: float = 0.0
    """Degrees per second, positive counter-clockwise."""


class Pair(NamedTuple):
    """A frame and the telemetry of the same instant."""

    frame: bytearray
    """The frame's bytes, valid until the next :meth:`Mailbox.take`."""
    data: Data
    captured_ns: int
    """When its first byte came, monotonic clock."""


class LinkLost(Exception):
    """The connection is gone; the text says how."""


class OutOfStep(Exception):
    """The stream cannot be what it should be; the text says why."""


class Mailbox:
    """Holds the newest pair. The reader's thread fills it, the owner's thread takes.

    Args:
        frame_bytes: Size of every frame.
    """

    def __init__(self, frame_bytes: int) -> None:
        self.frame_bytes = frame_bytes
        self.skipped = 0
        """Pairs that a newer one replaced before they were taken."""
        self.broken = 0
        """Pairs whose telemetry could not be read; they are dropped."""
        self.broken_in_row = 0
        """Those since the last good one."""
        self.last_broken = ""
        """What was wrong with the last of them."""
        self._changed = threading.Condition()
        self._lost = ""
        self._from_ns = self._num_stale = 0
        self._newest: Pair | None = None
        self._spare = [bytearray(frame_bytes) for _ in range(2)]
        self._held = bytearray(frame_bytes)

    def forget(self, until_ns: int, num_stale: int) -> None:
        """Throw away what is here, what comes before a time, and so many pairs after it."""
        with self._changed:
            if self._newest is not None:
                self._spare.append(self._newest.frame)
                self._newest = None
            self._from_ns, self._num_stale = until_ns, num_stale

    def take(self, timeout_s: float) -> Pair | None:
        """The newest pair that was not taken yet; waits for one.

        Args:
            timeout_s: How long to wait.

        Returns:
            The pair, or ``None`` if none came in time.

        Raises:
            LinkLost: The connection is gone.
        """
        give_up_s = time.monotonic() + timeout_s
        with self._changed:
            while self._newest is None:
                if self._lost:
                    raise LinkLost(self._lost)
                left_s = give_up_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(left_s)
            pair, self._newest = self._newest, None
            self._spare.append(self._held)
            self._held = pair.frame
            return pair

    # For the reader

    def claim(self) -> bytearray:
        """A buffer to fill; give it back by :meth:`publish` or :meth:`drop`."""
        with self._changed:
            return self._spare.pop()

    def publish(self, pair: Pair) -> None:
        """Hand over a complete pair; it replaces one that nobody took."""
        with self._changed:
            self.broken_in_row = 0
            if self._is_stale(pair):
                self._spare.append(pair.frame)
                return
            if self._newest is not None:
                self.skipped += 1
                self._spare.append(self._newest.frame)
            self._newest = pair
            self._changed.notify_all()

    def _is_stale(self, pair: Pair) -> bool:
        if pair.captured_ns < self._from_ns:
            return True
        self._num_stale -= 1
        return self._num_stale >= 0

    def drop(self, frame: bytearray, why: str) -> None:
        """Count a pair that is of no use."""
        with self._changed:
            self._spare.append(frame)
            self.last_broken = why
            self.broken += 1
            self.broken_in_row += 1

    def fail(self, why: str) -> None:
        """There will be no more pairs."""
        with self._changed:
            self._lost = why
            self._changed.notify_all()


class Link(Protocol):
    """One connection to a game. Made, used and closed from one thread; its reader is its own."""

    pairs: Mailbox

    def send(self, message: bytes) -> None:
        """Send one message. Blocks for seconds at most.

        Raises:
            LinkLost: The connection is gone, or the game stopped reading.
        """
        ...

    def close(self) -> None:
        """End the connection. What was sent still arrives. Blocks for some seconds at most."""
        ...
