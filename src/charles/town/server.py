"""Town behind the wire protocol of the DeepGTAV v2 mod, so that its clients need no GTA V.

What the mod does is in :mod:`charles.town.mod`; here is how it talks: at most one message is read
per tick, pairs go out at ticks only, one client is served while others wait, and a message that is
too long ends the connection as it would end the game.

One thread does everything; the socket never blocks it. A pair that is being sent is finished before
the next one is captured, so a slow client gets fewer pairs, and no pair is ever torn.
"""

import json
import select
import socket
import sys
import threading
import time

from charles.errors import WireError
from charles.options import TownOptions
from charles.timing import RateKeeper
from charles.town import protocol
from charles.town.mod import TICK_S, TICKS_PER_STEP, ClientGone, Mod
from charles.town.server_config import TownServerConfig, config_of


class TownServer:
    """A town that one DeepGTAV client at a time watches and drives over TCP.

    :meth:`run` serves from one thread; every other member but :meth:`close` and ``port`` is for
    that thread alone. Statistics may be read from anywhere.

    Args:
        config: Where, which town, and how to behave.

    Raises:
        WireError: The port is taken or may not be used.
    """

    def __init__(self, config: TownServerConfig) -> None:
        self.pairs = 0
        """Pairs captured so far."""
        self.clients = 0
        """Clients served so far."""
        self.last_drop = ""
        """Why the last client was let go."""
        self._mod = Mod(config)
        self._listener = _listen(config.host, config.port)
        self.port: int = self._listener.getsockname()[1]
        self._ticks = self._stepped_tick = 0
        self._forget_client()

    @property
    def is_hung(self) -> bool:
        """Whether the game waits for something that never comes."""
        return self._mod.is_hung

    @property
    def builds(self) -> int:
        """Scenes built so far."""
        return self._mod.builds

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set; then let the client go. Blocks; leaves within one tick."""
        keeper = RateKeeper(1.0 / TICK_S)
        try:
            while not stop.is_set():
                before = keeper.missed
                self._tick()
                keeper.wait()
                self._ticks += 1 + keeper.missed - before
        finally:
            self._drop("the server stopped")
            self._mod.close()
            self.close()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._listener.close()

    # One tick of the game

    def _tick(self) -> None:
        client = self._client or self._accept()
        mod = self._mod
        if client is None or mod.is_hung or time.monotonic() < mod.busy_until_s:
            return
        try:
            self._read_one(client)
            if mod.is_running and not mod.is_hung:
                due = (self._ticks - self._stepped_tick) // TICKS_PER_STEP
                self._stepped_tick += due * TICKS_PER_STEP
                mod.step(due)
                self._capture_if_due()
            self._flush(client, 0.5 * TICK_S)
        except (ClientGone, OSError) as err:
            self._drop(str(err))

    def _accept(self) -> socket.socket | None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return None
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        self.clients += 1
        return client

    def _drop(self, reason: str) -> None:
        if self._client is not None:
            self.last_drop = reason
            self._client.close()
        self._forget_client()

    def _forget_client(self) -> None:
        self._client: socket.socket | None = None
        self._mod.forget_client()
        self._received = bytearray()
        self._outgoing = memoryview(b"")
        self._sent_s = 0.0

    # Messages from the client

    def _read_one(self, client: socket.socket) -> None:
        """Handle at most one message; what else has come waits for the next ticks."""
        try:
            chunk = client.recv(65536)
            if not chunk:
                raise ClientGone("the client left")
            self._received += chunk
        except BlockingIOError:
            pass
        if len(self._received) < protocol.PREFIX.size:
            return
        (length,) = protocol.PREFIX.unpack_from(self._received)
        if not 0 <= length <= protocol.MAX_REQUEST_BYTES:
            raise ClientGone(
                f"a message must have 0..{protocol.MAX_REQUEST_BYTES} bytes, got {length}"
            )
        end = protocol.PREFIX.size + length
        if len(self._received) < end:
            return
        text = bytes(self._received[protocol.PREFIX.size : end])
        del self._received[:end]
        self._mod.handle(self._mod.read(text))

    # Pairs to the client

    def _capture_if_due(self) -> None:
        """Begin a new pair once the last is out and *more* than a period has passed since then."""
        mod, faults = self._mod, self._mod.faults
        since_s = max(self._sent_s, mod.built_s)
        if self._outgoing or not protocol.is_due(time.monotonic() - since_s, mod.asked.rate_hz):
            return
        self.pairs += 1
        if self.pairs == faults.stall_at:
            time.sleep(faults.stall_s)
        text = json.dumps(mod.telemetry(), separators=(",", ":")).encode()
        is_cut = faults.truncate_every and self.pairs % faults.truncate_every == 0
        if is_cut or faults.controls == "not_finite":
            text = text[: len(text) // 2]
        prefix, frame = protocol.PREFIX, mod.frame()
        parts = (prefix.pack(len(frame)), frame, prefix.pack(len(text)), text)
        self._outgoing = memoryview(b"".join(parts))

    def _flush(self, client: socket.socket, budget_s: float) -> None:
        """Send what is waiting, for at most ``budget_s``; the rest goes out in the next ticks."""
        faults, give_up_s = self._mod.faults, time.monotonic() + budget_s
        while self._outgoing:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0 or not select.select((), (client,), (), left_s)[1]:
                return
            if self.pairs == faults.cut_at:
                client.send(self._outgoing[: len(self._outgoing) // 2])
                raise ClientGone("cut on purpose")
            size = faults.chunk_bytes or len(self._outgoing)
            try:
                self._outgoing = self._outgoing[client.send(self._outgoing[:size]) :]
            except BlockingIOError:
                return
            if faults.chunk_pause_s:
                time.sleep(faults.chunk_pause_s)
            if not self._outgoing:
                self._sent_s = time.monotonic()


def serve(options: TownOptions, stop: threading.Event) -> None:
    """Serve a town as ``options`` say until ``stop`` is set. Blocks; for ``charles-town``.

    Raises:
        WireError: The port is taken or may not be used.
    """
    TownServer(config_of(options)).run(stop)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":  # there SO_REUSEADDR lets two servers have the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)  # one more waits until the client of the moment has left
    except OSError as err:
        listener.close()
        raise WireError(
            f"port must be free on {host}, got {port} ({err.strerror or err}). "
            "Stop what uses it, or choose another with --port."
        ) from err
    listener.setblocking(False)
    return listener
