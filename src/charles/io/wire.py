"""The wire: typed messages between a server and its peers, over TCP. Transport only.

What the messages mean is :mod:`charles.messages`' business. A message is a msgspec ``Struct`` of a
tagged union, packed with MessagePack; nothing is ever unpickled. No call blocks longer than the
timeout it is given. What cannot be decoded is counted and dropped, because anybody can connect.

:func:`_make_socket` is the only place that makes a socket, so that is where encryption goes.

References:
    ZeroMQ message transport protocol 3.1, https://rfc.zeromq.org/spec/23/; MessagePack
    specification, https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import ipaddress
import uuid
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq

from charles.errors import CharlesError, WireError, require

MOST_WAITING = 1000
"""Messages that wait for a slow peer; later ones are dropped."""

MOST_PER_POLL = 256
"""Messages that one poll takes at most, so that a flood cannot hold the caller up."""

LARGEST_BYTES = 1 << 20
"""Largest message; whoever sends a larger one is disconnected."""

FAREWELL_MS = 200
"""How long closing waits for the last messages to leave."""


class _Codec:
    """Packs and unpacks the messages of one tagged union; paths travel as text."""

    def __init__(self, messages: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_to_text)
        self._decoder = msgspec.msgpack.Decoder(messages, dec_hook=_from_text)
        self.malformed = 0

    def encode(self, message: msgspec.Struct) -> bytes:
        return self._encoder.encode(message)

    def decode(self, frames: list[bytes]) -> Any | None:
        """The message, or ``None``, counted, if these are not the bytes of one."""
        try:
            (payload,) = frames
            return self._decoder.decode(payload)
        except (ValueError, RecursionError, CharlesError):  # msgspec's errors are ValueErrors
            self.malformed += 1
            return None


def _to_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a {type(value).__name__} cannot travel over the wire")


def _from_text(kind: type, value: Any) -> Any:
    if issubclass(kind, Path) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"a {kind.__name__} cannot travel over the wire")


def _require_loopback(host: str) -> None:
    """Refuse any address that other machines could reach: nothing is encrypted yet."""
    try:
        is_loopback = host == "localhost" or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        is_loopback = False
    fix = (
        "Frames travel through shared memory on one host, and messages are not encrypted yet, so "
        "other machines must not reach the port. Use --server.host 127.0.0.1."
    )
    require(is_loopback, "server.host", "be an address of this host alone (127.0.0.1)", host, fix)


def _make_socket(context: zmq.Context, kind: int) -> zmq.Socket:
    """A socket with bounded queues that never waits at its end. Encryption will be set here."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, MOST_WAITING)
    socket.setsockopt(zmq.RCVHWM, MOST_WAITING)
    socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_BYTES)
    return socket


def _receive(socket: zmq.Socket, timeout_s: float) -> list[list[bytes]]:
    """Everything that has arrived, waiting at most ``timeout_s`` for the first of it."""
    if not socket.poll(max(0, round(timeout_s * 1000))):
        return []
    arrived: list[list[bytes]] = []
    while len(arrived) < MOST_PER_POLL:
        try:
            arrived.append(socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            break
    return arrived


def _close(context: zmq.Context, socket: zmq.Socket) -> None:
    if not socket.closed:
        socket.close(linger=FAREWELL_MS)
        context.term()


class ServerSocket:
    """The one end that listens. Use from one thread.

    Args:
        host: Address to listen on; loopback only.
        port: Port to listen on.
        messages: A union of tagged ``Struct`` types: all that may arrive.

    Raises:
        ConfigError: The address could be reached from other machines.
        WireError: The port is busy, or may not be used.
    """

    def __init__(self, host: str, port: int, messages: Any) -> None:
        _require_loopback(host)
        self._codec = _Codec(messages)
        self._context = zmq.Context()
        self._socket = _make_socket(self._context, zmq.ROUTER)
        # A peer that reconnects before its old connection was noticed dead takes its place.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        # Sending to a peer that is gone, or full, is an error that send() can report.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self._socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as err:
            self.close()
            raise WireError(_why_not_bound(host, port, err)) from err

    @property
    def malformed(self) -> int:
        """Messages that could not be decoded and were dropped."""
        return self._codec.malformed

    def poll(self, timeout_s: float) -> list[tuple[bytes, Any]]:
        """What has arrived, as pairs of peer and message; waits at most ``timeout_s`` for any."""
        arrived = []
        for peer, *frames in _receive(self._socket, timeout_s):
            message = self._codec.decode(frames)
            if message is not None:
                arrived.append((peer, message))
        return arrived

    def send(self, peer: bytes, message: msgspec.Struct) -> bool:
        """Send without blocking; ``False`` if that peer is gone or does not read."""
        try:
            self._socket.send_multipart([peer, self._codec.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        """Stop listening; waits shortly for the last messages to leave. May be called twice."""
        _close(self._context, self._socket)


class ClientSocket:
    """An end that connects, and connects again whenever it has to. Use from one thread.

    Args:
        host: Where the server listens; loopback only.
        port: Port it listens on.
        messages: A union of tagged ``Struct`` types: all that may arrive.

    Raises:
        ConfigError: The address is not of this host.
    """

    def __init__(self, host: str, port: int, messages: Any) -> None:
        _require_loopback(host)
        self._codec = _Codec(messages)
        self._context = zmq.Context()
        self._socket = _make_socket(self._context, zmq.DEALER)
        # A name that outlives connections; its first byte must not be 0.
        self._socket.setsockopt(zmq.ROUTING_ID, b"p" + uuid.uuid4().bytes)
        # Nothing queues up for a server that is not there: the next one would get stale news.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._num_lost = 0
        self._socket.connect(f"tcp://{host}:{port}")

    @property
    def malformed(self) -> int:
        """Messages that could not be decoded and were dropped."""
        return self._codec.malformed

    @property
    def num_lost(self) -> int:
        """Connections that have ended. What had arrived unread on one is gone with it."""
        while self._monitor.poll(0):
            self._monitor.recv_multipart()
            self._num_lost += 1
        return self._num_lost

    def poll(self, timeout_s: float) -> list[Any]:
        """What has arrived; waits at most ``timeout_s`` for any."""
        arrived = [self._codec.decode(frames) for frames in _receive(self._socket, timeout_s)]
        return [message for message in arrived if message is not None]

    def send(self, message: msgspec.Struct) -> bool:
        """Send without blocking; ``False`` while there is no server, or it does not read."""
        try:
            self._socket.send(self._codec.encode(message), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        """Disconnect; waits shortly for the last messages to leave. May be called twice."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close()
        _close(self._context, self._socket)


def _why_not_bound(host: str, port: int, error: zmq.ZMQError) -> str:
    where = f"server.port must be free to listen on at {host}, got {port}"
    if error.errno != zmq.EADDRINUSE:
        return f"{where}: {error.strerror}. Choose another with --server.port."
    return (
        f"{where}, where {_listener(port)} listens already. "
        "Stop that one, or choose another with --server.port."
    )


def _listener(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            is_it = connection.laddr[1:] == (port,) and connection.status == psutil.CONN_LISTEN
            if is_it and connection.pid is not None:
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline()[:4]) or process.name()
                return f"process {connection.pid} ({command})"
    except (psutil.Error, OSError):  # not ours to see
        pass
    return "another process, perhaps of another user,"
