"""The connection to a game that speaks the DeepGTAV v2 protocol, over TCP.

:class:`TcpLink` owns a socket and a reader thread that drains it at all times, so that what is
handed out is the newest pair and never one that waited in a buffer.
"""

import select
import socket
import threading

import msgspec

from charles.io.deepgtav_pairs import MAX_DATA_BYTES, Data, LinkLost, Mailbox, OutOfStep, Pair
from charles.timing import clock_ns
from charles.town import protocol

SEND_TIMEOUT_S = 5.0
"""How long a message may wait for room in the send buffer."""


class TcpLink:
    """See :class:`charles.io.deepgtav_pairs.Link`.

    Args:
        address: Host and port of the game.
        frame_bytes: Size of every frame.
        timeout_s: How long connecting may take.

    Raises:
        OSError: The game cannot be reached.
    """

    def __init__(self, address: tuple[str, int], *, frame_bytes: int, timeout_s: float) -> None:
        self.pairs = Mailbox(frame_bytes)
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
            self.pairs.fail(str(err))

    def _read_pair(self) -> None:
        frame = self.pairs.claim()
        length, captured_ns = self._read_prefix(), clock_ns()
        if length != len(frame):
            raise OutOfStep(f"a frame must have {len(frame)} bytes, got {length}")
        self._read_into(memoryview(frame))
        length = self._read_prefix()
        if not 0 <= length <= MAX_DATA_BYTES:
            raise OutOfStep(f"telemetry must have 0..{MAX_DATA_BYTES} bytes, got {length}")
        text = bytearray(length)
        self._read_into(memoryview(text))
        try:
            data = msgspec.json.decode(text, type=Data)
        except msgspec.DecodeError as err:
            # The lengths were right, so the stream is still in step: only this pair is lost.
            self.pairs.drop(frame, f"{err}: {bytes(text[:80])!r}")
        else:
            self.pairs.publish(Pair(frame, data, captured_ns))

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
