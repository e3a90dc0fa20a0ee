"""The connection to a game that speaks the DeepGTAV v2 protocol.

:class:`Link` owns a socket and a reader thread that drains it at all times, so that what is handed
out is the newest pair and never one that waited in a buffer.

Invariants of the link: three frame buffers exist; one is being filled by the reader, one holds the
newest complete pair, one belongs to the caller until its next :meth:`Link.take`. A pair is
published whole or not at all.
"""

import select
import socket
import threading
import time
from typing import NamedTuple

import msgspec

from charles.town import protocol

MAX_DATA_BYTES = 1 << 20
"""More than any telemetry has; a longer announcement means that the stream is out of step."""

SEND_TIMEOUT_S = 5.0
"""How long a message may wait for room in the send buffer."""


class Data(msgspec.Struct):
    """The telemetry of one pair, as the mod names it."""

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
    time: int
    """Hour."""


class Pair(NamedTuple):
    """A frame and the telemetry of the same instant."""

    frame: bytearray
    """The frame's bytes, valid until the next :meth:`Link.take`."""
    data: Data
    captured_ns: int
    """When its first byte came, monotonic clock."""


class LinkLost(Exception):
    """The connection is gone; the text says how."""


class OutOfStep(Exception):
    """The stream cannot be what it should be; the text says why."""


class Link:
    """One connection. Made, used and closed from one thread; its reader is its own.

    Args:
        address: Host and port of the game.
        frame_bytes: Size of every frame.
        timeout_s: How long connecting may take.

    Raises:
        OSError: The game cannot be reached.
    """

    def __init__(self, address: tuple[str, int], *, frame_bytes: int, timeout_s: float) -> None:
        self.skipped = 0
        """Pairs that a newer one replaced before they were taken."""
        self.broken = 0
        """Pairs whose telemetry could not be read; they are dropped."""
        self.broken_in_row = 0
        """Those since the last good one."""
        self.last_broken = ""
        """What was wrong with the last of them."""
        self._frame_bytes = frame_bytes
        self._changed = threading.Condition()
        self._lost = ""
        self._newest: Pair | None = None
        self._spare = [bytearray(frame_bytes) for _ in range(2)]
        self._held = bytearray(frame_bytes)
        self._socket = socket.create_connection(address, timeout=timeout_s)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = threading.Thread(target=self._read, name="gta-reader", daemon=True)
        self._reader.start()

    def send(self, message: bytes) -> None:
        """Send one message. Blocks at most :data:`SEND_TIMEOUT_S`.

        Raises:
            LinkLost: The connection is gone, or the game stopped reading.
        """
        try:
            if not select.select((), (self._socket,), (), SEND_TIMEOUT_S)[1]:
                raise LinkLost(f"the game read nothing for {SEND_TIMEOUT_S:g} s")
            self._socket.sendall(message)
        except (OSError, ValueError) as err:
            raise LinkLost(f"sending failed: {err}") from err

    def take(self, timeout_s: float, *, after_ns: int = 0) -> Pair | None:
        """The newest pair that was not taken yet; waits for one.

        Args:
            timeout_s: How long to wait.
            after_ns: Pairs that came before this time are thrown away.

        Returns:
            The pair, or ``None`` if none came in time.

        Raises:
            LinkLost: The connection is gone.
        """
        give_up_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                if self._newest is not None and self._newest.captured_ns < after_ns:
                    self._spare.append(self._newest.frame)
                    self._newest = None
                if self._newest is not None:
                    pair, self._newest = self._newest, None
                    self._spare.append(self._held)
                    self._held = pair.frame
                    return pair
                if self._lost:
                    raise LinkLost(self._lost)
                left_s = give_up_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(left_s)

    def close(self, *, linger_s: float = 1.0) -> None:
        """End the connection. What was sent still arrives. Blocks at most about ``linger_s``."""
        try:
            # A close with frames still unread would reset the connection and could take the last
            # messages with it; so say goodbye first and let the reader drain the rest.
            self._socket.shutdown(socket.SHUT_WR)
            self._reader.join(linger_s)
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster
        self._reader.join(linger_s)
        self._socket.close()

    # The reader's own thread

    def _read(self) -> None:
        try:
            while True:
                self._read_pair()
        except (OSError, LinkLost, OutOfStep) as err:
            with self._changed:
                self._lost = str(err)
                self._changed.notify_all()

    def _read_pair(self) -> None:
        with self._changed:
            frame = self._spare.pop()
        length, captured_ns = self._read_prefix(), time.monotonic_ns()
        if length != self._frame_bytes:
            raise OutOfStep(f"a frame must have {self._frame_bytes} bytes, got {length}")
        self._read_into(memoryview(frame))
        length = self._read_prefix()
        if not 0 <= length <= MAX_DATA_BYTES:
            raise OutOfStep(f"telemetry must have 0..{MAX_DATA_BYTES} bytes, got {length}")
        text = bytearray(length)
        self._read_into(memoryview(text))
        try:
            data = msgspec.json.decode(text, type=Data)
        except msgspec.DecodeError as err:
            self._drop(frame, f"{err}: {bytes(text[:80])!r}")
        else:
            self._publish(Pair(frame, data, captured_ns))

    def _drop(self, frame: bytearray, why: str) -> None:
        """The lengths were right, so the stream is still in step: only this pair is lost."""
        with self._changed:
            self._spare.append(frame)
            self.last_broken = why
            self.broken += 1
            self.broken_in_row += 1

    def _publish(self, pair: Pair) -> None:
        with self._changed:
            self.broken_in_row = 0
            if self._newest is not None:
                self.skipped += 1
                self._spare.append(self._newest.frame)
            self._newest = pair
            self._changed.notify_all()

    def _read_prefix(self) -> int:
        prefix = bytearray(protocol.PREFIX.size)
        self._read_into(memoryview(prefix))
        return protocol.PREFIX.unpack(prefix)[0]

    def _read_into(self, part: memoryview) -> None:
        while part:
            count = self._socket.recv_into(part)
            if count == 0:
                raise LinkLost("the game closed the connection")
            part = part[count:]
