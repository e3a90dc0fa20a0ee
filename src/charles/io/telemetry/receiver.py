"""Receiving telemetry in a thread of its own, so that what is handed out is the newest reading.

Nothing that comes can stop a receiver: what cannot be read is dropped, counted and remembered by
its reason, and a connection that is refused, ends or falls silent is tried again.
"""

import socket
import threading
import time
from collections.abc import Callable

from charles.errors import GameError, GameProtocolError
from charles.io.telemetry.source import Reading
from charles.timing import NS_PER_S, clock_ns

Read = Callable[[bytes, int], Reading | None]
"""From what came, and when, to the newest reading; ``None`` while a stream has no new one. Raises
GameProtocolError for what cannot be read."""

POLL_S = 0.1
"""How often a receiver looks whether it is to end."""

_MAX_DATAGRAM_BYTES = 65_536
_CHUNK_BYTES = 65_536


class _Inbox:
    """What came, written by the receiver's thread and read by any."""

    def __init__(self) -> None:
        self.newest: Reading | None = None
        self.received = self.malformed = 0
        self.last_malformed = ""

    def take(self, read: Read, data: bytes) -> None:
        """Read what came just now and keep the reading, or what is wrong with it."""
        self.received += 1
        try:
            reading = read(data, clock_ns())
        except GameProtocolError as err:
            self.malformed += 1
            self.last_malformed = str(err)
        else:
            self.newest = reading or self.newest

    def explain(self, where: str, trouble: str) -> str:
        """What came from ``where``, as a sentence without its full stop."""
        if self.newest is not None:
            age_s = (clock_ns() - self.newest.received_ns) / NS_PER_S
            text = f"the last reading from {where} came {age_s:.1f} s ago"
        elif self.received:
            text = f"what came from {where} could not be read"
        else:
            text = f"nothing came from {where}"
        if self.malformed:
            text += (
                f"; {self.malformed} were malformed, the last: {self.last_malformed.rstrip('.')}"
            )
        return f"{text}; {trouble}" if trouble else text


class UdpTelemetry:
    """Telemetry that a game sends to a port of ours.

    Args:
        name: The protocol, for errors.
        read: Reads a packet.
        host: Address to listen on; ``0.0.0.0`` hears other machines too.
        port: Port to listen on; 0 takes a free one.

    Raises:
        GameError: The port is taken, or the address is none of this machine.
    """

    def __init__(self, name: str, read: Read, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._inbox, self._read = _Inbox(), read
        self._stop = threading.Event()
        self._trouble = ""
        self._socket = _listening(name, host, port)
        self.port: int = self._socket.getsockname()[1]
        self._where = f"UDP port {self.port} of {host}"
        self._thread = threading.Thread(target=self._receive, name=f"{name}-udp", daemon=True)
        self._thread.start()

    @property
    def malformed(self) -> int:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.malformed

    @property
    def last_malformed(self) -> str:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.last_malformed

    @property
    def received(self) -> int:
        """Packets that came, malformed ones among them."""
        return self._inbox.received

    def newest(self) -> Reading | None:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.newest

    def explain(self) -> str:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.explain(self._where, self._trouble)

    def close(self) -> None:
        """See :class:`charles.io.telemetry.source.TelemetrySource`. Blocks for about 0.1 s."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                packet = self._socket.recv(_MAX_DATAGRAM_BYTES)
            except TimeoutError:
                continue
            except OSError as err:
                self._trouble = f"receiving failed: {err}"
                self._stop.wait(POLL_S)  # an error that stays must not take a core
            else:
                self._trouble = ""
                self._inbox.take(self._read, packet)


class TcpTelemetry:
    """Telemetry of a game that is a server. Connects, and connects again, by itself.

    Args:
        name: The protocol, for thread names.
        make_read: Makes what reads the stream of one connection.
        host: Where the game is.
        port: Where it listens.
        silence_s: A connection on which nothing comes for so long is given up for a new one.
    """

    def __init__(
        self,
        name: str,
        make_read: Callable[[], Read],
        *,
        host: str = "127.0.0.1",
        port: int,
        silence_s: float = 5.0,
    ) -> None:
        self.connections = 0
        """Connections made so far."""
        self._inbox, self._make_read = _Inbox(), make_read
        self._address, self._silence_s = (host, port), silence_s
        self._where = f"TCP port {port} of {host}"
        self._stop = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"{name}-tcp", daemon=True)
        self._thread.start()

    @property
    def malformed(self) -> int:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.malformed

    @property
    def last_malformed(self) -> str:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.last_malformed

    def newest(self) -> Reading | None:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.newest

    def explain(self) -> str:
        """See :class:`charles.io.telemetry.source.TelemetrySource`."""
        return self._inbox.explain(self._where, self._trouble)

    def close(self) -> None:
        """See :class:`charles.io.telemetry.source.TelemetrySource`. Blocks for a second at most."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = POLL_S
        while not self._stop.is_set():
            try:
                connection = socket.create_connection(self._address, timeout=1.0)
            except OSError as err:
                self._trouble = f"cannot connect: {err}"
                self._stop.wait(pause_s)
                pause_s = min(2.0 * pause_s, 2.0)
                continue
            pause_s = POLL_S
            self.connections += 1
            with connection:
                self._trouble = self._receive(connection)
            self._stop.wait(POLL_S)  # a game that hangs up at once is not called without pause

    def _receive(self, connection: socket.socket) -> str:
        """Read one connection to its end; returns why it ended."""
        self._trouble = ""
        connection.settimeout(POLL_S)
        read = self._make_read()
        silent_at_s = time.monotonic() + self._silence_s
        while not self._stop.is_set():
            try:
                data = connection.recv(_CHUNK_BYTES)
            except TimeoutError:
                if time.monotonic() > silent_at_s:
                    return f"the game sent nothing for {self._silence_s:g} s"
                continue
            except OSError as err:
                return f"the connection was lost: {err}"
            if not data:
                return "the game closed the connection"
            silent_at_s = time.monotonic() + self._silence_s
            self._inbox.take(read, data)
        return ""


def _listening(name: str, host: str, port: int) -> socket.socket:
    """A UDP socket bound to ``host`` and ``port``, or a GameError that says what to do."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listening.bind((host, port))
    except OSError as err:
        listening.close()
        raise GameError(
            f"{name}: cannot listen on UDP port {port} of {host} ({err}). End the program that "
            "has the port, for example another collector or SimHub, or set another "
            "telemetry.port here and in the game; telemetry.host must be an address of this "
            "machine."
        ) from err
    listening.settimeout(POLL_S)
    return listening
