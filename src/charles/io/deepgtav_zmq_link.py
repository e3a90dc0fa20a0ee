"""The connection to the ZeroMQ fork of DeepGTAV.

:class:`ZmqLink` owns a PAIR socket in a thread of its own, because such a socket belongs to one
thread. The thread drains it at all times: the fork's game stands still while nobody reads.

ZeroMQ connects behind the scenes and for ever. So a connection counts only once the other end has
answered, and one that breaks is given up rather than waited for: the game has then forgotten us.
"""

import contextlib
import json
import math
import threading
import time

import msgspec
import zmq

from charles.io.deepgtav_pairs import MAX_DATA_BYTES, Data, LinkLost, Mailbox, OutOfStep, Pair
from charles.timing import clock_ns

LINGER_MS = 1000
"""How long a close may wait for the last messages to go out."""

DRAIN_S = 5.0
"""How long a close may wait until the game has read them: it then stops sending. A game whose
client leaves before may never serve another."""

_QUIET_MS = 500
"""A stream that has said nothing for so long has stopped."""

_LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_END = b""


class ZmqLink:
    """See :class:`charles.io.deepgtav_pairs.Link`.

    Args:
        address: Host and port of the game.
        frame_bytes: Size of every frame.
        timeout_s: How long connecting may take.

    Raises:
        OSError: The game cannot be reached, or serves another client.
    """

    def __init__(self, address: tuple[str, int], *, frame_bytes: int, timeout_s: float) -> None:
        self.pairs = Mailbox(frame_bytes)
        self._context = zmq.Context()
        self._game = self._socket()
        self._outbox, self._inbox = self._socket(), self._socket()
        # Small queues: what waits in them is old, and holds megabytes.
        self._game.set(zmq.RCVHWM, 2)
        self._game.set(zmq.IMMEDIATE, 1)  # no queue to a game that has not answered
        # A connection that is lost stays so: one that came back by itself while a new one is being
        # made would be the one client that the game serves.
        self._game.set(zmq.RECONNECT_IVL, -1)
        self._events = self._game.get_monitor_socket(_LOST)
        self._inbox.bind("inproc://out")
        self._outbox.connect("inproc://out")
        self._reader = threading.Thread(target=self._read, name="gta-reader", daemon=True)
        host, port = address
        try:
            self._game.connect(f"tcp://{host}:{port}")
            if not self._game.poll(math.ceil(min(timeout_s, 2.0) * 1000), zmq.POLLOUT):
                raise ConnectionRefusedError("no answer")
        except (zmq.ZMQError, OSError) as err:
            self._release(linger_ms=0)
            raise OSError(str(err)) from err
        self._reader.start()

    def send(self, message: bytes) -> None:
        """Hand one message to the thread that sends it. Does not block for long.

        Raises:
            LinkLost: The connection is closed.
        """
        try:
            self._outbox.send(message, zmq.NOBLOCK)
        except zmq.ZMQError as err:
            raise LinkLost(f"sending failed: {err}") from err

    def close(self) -> None:
        """End the connection once the game has stopped. Blocks for half a second or longer."""
        with contextlib.suppress(zmq.ZMQError):  # the thread may be gone already
            self._outbox.send(_END, zmq.NOBLOCK)
        self._reader.join()
        self._release(linger_ms=LINGER_MS)

    def _socket(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.PAIR)
        socket.set(zmq.LINGER, 0)
        return socket

    def _release(self, *, linger_ms: int) -> None:
        self._game.disable_monitor()
        self._events.close()
        self._outbox.close()
        self._inbox.close()
        self._game.close(linger=linger_ms)
        self._context.term()

    # The thread

    def _read(self) -> None:
        poller = zmq.Poller()
        for socket in (self._game, self._inbox, self._events):
            poller.register(socket, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._inbox in ready and not self._pass_on():
                    return self._drain()
                if self._game in ready:
                    self._read_pair()
                elif self._events in ready:
                    raise LinkLost("the game closed the connection")
        except (zmq.ZMQError, LinkLost, OutOfStep) as err:
            self.pairs.fail(str(err))

    def _pass_on(self) -> bool:
        """Send one message to the game; whether there may be more."""
        message = self._inbox.recv()
        if message == _END:
            return False
        try:
            self._game.send(message, zmq.NOBLOCK)
        except zmq.Again as err:
            raise LinkLost("the game reads nothing") from err
        return True

    def _drain(self) -> None:
        """Read on until the game has stopped: it reads our last messages only while we read."""
        give_up_s = time.monotonic() + DRAIN_S
        while time.monotonic() < give_up_s and self._game.poll(_QUIET_MS):
            self._game.recv(copy=False)

    def _read_pair(self) -> None:
        """One frame and its telemetry; a connection may begin between the two."""
        pixels = self._game.recv(copy=False).buffer
        captured_ns = clock_ns()
        if len(pixels) != self.pairs.frame_bytes and bytes(pixels[:1]) == b"{":
            return
        frame = self.pairs.claim()
        if len(pixels) != len(frame):
            raise OutOfStep(f"a frame must have {len(frame)} bytes, got {len(pixels)}")
        frame[:] = pixels
        self._read_data(frame, captured_ns)

    def _read_data(self, frame: bytearray, captured_ns: int) -> None:
        while not self._game.poll(_QUIET_MS):
            if self._inbox.poll(0) and not self._pass_on():
                raise LinkLost("closed")
            if self._events.poll(0):
                raise LinkLost("the game closed the connection")
        text = self._game.recv()
        if len(text) > MAX_DATA_BYTES:
            raise OutOfStep(f"telemetry must have 0..{MAX_DATA_BYTES} bytes, got {len(text)}")
        try:
            # The fork writes some keys twice, first as a placeholder. Of these the last one counts,
            # also where the first has another type, so types are looked at afterwards.
            data = msgspec.convert(json.loads(text), Data)
        except (ValueError, RecursionError) as err:
            self.pairs.drop(frame, f"{err}: {text[:80]!r}")
        else:
            self.pairs.publish(Pair(frame, data, captured_ns))
