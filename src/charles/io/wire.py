"""The wire: typed messages between a server and its peers, over TCP. Transport only.

What the messages mean is :mod:`charles.messages`' business. A message is a msgspec ``Struct`` of a
tagged union, packed with MessagePack; nothing is ever unpickled. No call blocks longer than the
timeout it is given. What cannot be decoded is counted and dropped, because anybody can connect.

Without keys only this host is listened to or talked to. With keys (:mod:`charles.io.keys`) any
machine may be: everything is encrypted, and each end knows who the other is.

References:
    ZeroMQ message transport protocol 3.1, https://rfc.zeromq.org/spec/23/; MessagePack
    specification, https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import errno
import ipaddress
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq
from zmq.utils.monitor import parse_monitor_message

from charles.errors import CharlesError, WireError, require
from charles.io.keys import ClientKeys, Gate, ServerKeys, guard_client, guard_server

MOST_PER_POLL = 256
"""Messages that one poll takes at most, so that a flood cannot hold the caller up."""

REFUSED_S = 1.0
"""Between being refused and asking again: somebody may be adding our key to the list."""

FAREWELL_MS = 200
"""How long closing waits for the last messages to leave."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a socket takes, and how long it takes silence for life."""

    largest_bytes: int = 1 << 20
    """Largest message; whoever sends a larger one is disconnected."""
    most_waiting: int = 1000
    """Messages that wait for a slow peer, and from each peer for us; later ones are dropped."""
    silent_s: float = 0.0
    """Silence after which a connection counts as dead, for other machines: a cable that was pulled
    tells nobody. 0 leaves that to the system."""


LIMITS = Limits()
"""Of what peers on one host say to each other; frames go another way."""


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


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach, or be reached at, this address."""
    try:
        return host == "localhost" or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _require_loopback(host: str) -> None:
    """Refuse any address that other machines could reach."""
    fix = (
        "Without keys nothing is encrypted, so other machines must not reach the port. "
        "Use --server.host 127.0.0.1."
    )
    rule = "be an address of this host alone (127.0.0.1)"
    require(is_loopback(host), "server.host", rule, host, fix)


def _make_socket(context: zmq.Context, kind: int, limits: Limits) -> zmq.Socket:
    """A socket with bounded queues that never waits at its end."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, limits.most_waiting)
    socket.setsockopt(zmq.RCVHWM, limits.most_waiting)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.largest_bytes)
    if limits.silent_s:
        silent_ms = round(limits.silent_s * 1000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, max(1, silent_ms // 3))
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, silent_ms)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, silent_ms)
        socket.setsockopt(zmq.HANDSHAKE_IVL, silent_ms)
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
        host: Address to listen on; without keys loopback only.
        port: Port to listen on.
        messages: A union of tagged ``Struct`` types: all that may arrive.
        keys: What to encrypt with, and who may connect; by default nothing is encrypted.
        limits: How much it takes.
        section: What the settings ``host`` and ``port`` are called before, for errors.

    Raises:
        ConfigError: The address could be reached from other machines.
        WireError: The port is busy, or may not be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        messages: Any,
        *,
        keys: ServerKeys | None = None,
        limits: Limits = LIMITS,
        section: str = "server.",
    ) -> None:
        if keys is None:
            _require_loopback(host)
        self._codec = _Codec(messages)
        self._context = zmq.Context()
        self._socket = _make_socket(self._context, zmq.ROUTER, limits)
        self._gate = None if keys is None else Gate(self._context, keys.may_connect)
        if keys is not None:
            guard_server(self._socket, keys.pair)
        # A peer that reconnects before its old connection was noticed dead takes its place.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        # Sending to a peer that is gone, or full, is an error that send() can report.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self._socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as err:
            self.close()
            raise WireError(_why_not_bound(host, port, err, section)) from err

    @property
    def malformed(self) -> int:
        """Messages that could not be decoded and were dropped."""
        return self._codec.malformed

    @property
    def strangers(self) -> dict[str, str]:
        """Public keys that were refused, and where each came from; without encryption none."""
        return {} if self._gate is None else self._gate.strangers

    def poll(self, timeout_s: float) -> list[tuple[bytes, Any]]:
        """What has arrived, as pairs of peer and message; waits at most ``timeout_s`` for any.

        Whoever wants to connect is let in, or not, in here: call it often.
        """
        if self._gate is not None:
            zmq.select([self._socket, self._gate.socket], [], [], timeout_s)
            self._gate.serve()
            timeout_s = 0.0
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
        if self._gate is not None:
            self._gate.socket.close()
        _close(self._context, self._socket)


class ClientSocket:
    """An end that connects, and connects again whenever it has to. Use from one thread.

    Args:
        host: Where the server listens; without keys loopback only.
        port: Port it listens on.
        messages: A union of tagged ``Struct`` types: all that may arrive.
        keys: What to encrypt with, and which server to believe; by default nothing is encrypted.
        limits: How much it takes.

    Raises:
        ConfigError: The address is not of this host.
    """

    def __init__(
        self,
        host: str,
        port: int,
        messages: Any,
        *,
        keys: ClientKeys | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        if keys is None:
            _require_loopback(host)
        self._codec = _Codec(messages)
        self._context = zmq.Context()
        self._socket = _make_socket(self._context, zmq.DEALER, limits)
        if keys is not None:
            guard_client(self._socket, keys)
        # A name that outlives connections; its first byte must not be 0.
        self._socket.setsockopt(zmq.ROUTING_ID, b"p" + uuid.uuid4().bytes)
        # Nothing queues up for a server that is not there: the next one would get stale news.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        self._num_lost = self._num_refused = 0
        self._where = f"tcp://{host}:{port}"
        self._again_s = float("inf")
        """When to connect anew, after the server did not let us in; libzmq itself would give up."""
        self._socket.connect(self._where)

    @property
    def malformed(self) -> int:
        """Messages that could not be decoded and were dropped."""
        return self._codec.malformed

    @property
    def num_lost(self) -> int:
        """Connections that have ended. What had arrived unread on one is gone with it."""
        self._take_events()
        return self._num_lost

    @property
    def num_refused(self) -> int:
        """Times that the server did not let this client's key in."""
        self._take_events()
        return self._num_refused

    def poll(self, timeout_s: float) -> list[Any]:
        """What has arrived; waits at most ``timeout_s`` for any."""
        self._knock_again()
        arrived = [self._codec.decode(frames) for frames in _receive(self._socket, timeout_s)]
        return [message for message in arrived if message is not None]

    def send(self, message: msgspec.Struct) -> bool:
        """Send without blocking; ``False`` while there is no server, or it does not read."""
        self._knock_again()
        try:
            self._socket.send(self._codec.encode(message), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def _take_events(self) -> None:
        while not self._monitor.closed and self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())["event"]
            self._num_lost += event == zmq.EVENT_DISCONNECTED
            self._num_refused += event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            if event != zmq.EVENT_DISCONNECTED:
                self._again_s = time.monotonic() + REFUSED_S

    def _knock_again(self) -> None:
        """Connect anew if the server did not let us in a moment ago; it may by now."""
        self._take_events()
        if time.monotonic() >= self._again_s:
            self._again_s = float("inf")
            self._socket.disconnect(self._where)
            self._socket.connect(self._where)

    def close(self) -> None:
        """Disconnect; waits shortly for the last messages to leave. May be called twice."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close()
        _close(self._context, self._socket)


def _why_not_bound(host: str, port: int, error: zmq.ZMQError, section: str) -> str:
    if error.errno in (zmq.EADDRNOTAVAIL, errno.ENODEV):
        fix = f"Choose one with --{section}host; 0.0.0.0 is all of them."
        return f"{section}host must be an address of this machine, got {host!r}. {fix}"
    where = f"{section}port must be free to listen on at {host}, got {port}"
    if error.errno != zmq.EADDRINUSE:
        return f"{where}: {error.strerror}. Choose another with --{section}port."
    return (
        f"{where}, where {_listener(port)} listens already. "
        f"Stop that one, or choose another with --{section}port."
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
