"""Town behind the wire protocol of the DeepGTAV v2 mod, so that its clients need no GTA V.

It keeps to the mod's habits, also the awkward ones, because a client must live with them: at most
one message is read per tick, nothing is acknowledged, ``setSpeed`` is ignored, a ``config`` without
a location puts the car back where it was last asked to be, building a scene means silence, and a
message that is too long ends the connection as it would end the game.

One thread does everything; the socket never blocks it. A pair that is being sent is finished before
the next one is captured, so a slow client gets fewer pairs, and no pair is ever torn.
"""

import json
import math
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from charles.config import TownOptions
from charles.errors import WireError, require
from charles.timing import RateKeeper
from charles.town import protocol
from charles.town.asked import Asked, number
from charles.town.physics import STEP_S
from charles.town.render import Renderer
from charles.town.world import World, WorldConfig

TICKS_PER_STEP = 2
"""The script ticks at 60 Hz, as in a game that draws 60 frames per second; the town steps at 30."""

MAX_STEPS_PER_TICK = 4
"""How much of the time that a late tick missed is made up for; the rest never happens."""

GTA_AREA_M = ((-2500.0, 2500.0), (-2000.0, 6000.0))
"""Where clients of GTA V look for random places: x, then y."""


@dataclass(frozen=True, kw_only=True)
class ServerFaults:
    """Ways to misbehave on purpose; all off by default. Pairs are counted from 1."""

    controls: Literal["true", "constant", "out_of_range", "not_finite"] = "true"
    """What a wrong build of GTA V reports as controls; ``not_finite`` cuts every JSON short."""
    truncate_every: int = 0
    """Cut the JSON of every n-th pair short, as the mod does at a value that is not finite."""
    dead_starts: int = 0
    """So many starts leave the NPC with a cruising speed of 0."""
    chunk_bytes: int = 0
    """Send at most so many bytes at once, ``chunk_pause_s`` apart."""
    chunk_pause_s: float = 0.0
    cut_at: int = 0
    """Close the connection in the middle of the n-th pair's frame, once."""
    stall_at: int = 0
    """Stand still for ``stall_s`` before the n-th pair, once."""
    stall_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TownServerConfig:
    """Where to listen, which town, and how to behave."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes any that is free."""
    seed: int = 0
    """Which town; it stays the same for the life of the server."""
    vehicles: int = 14
    pedestrians: int = 14
    weather: str = "clear"
    """Weather of a start that names none."""
    time_of_day_h: float = 12.0
    """Time of a start that names none."""
    silence_s: float = 0.0
    """How long building a scene silences the server; GTA V takes seconds."""
    faults: ServerFaults = field(default_factory=ServerFaults)

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, "port", "lie in 0..65535", self.port)
        require(self.silence_s >= 0, "silence_s", "be 0 or more", self.silence_s)


class _Gone(Exception):
    """The client left, or broke the protocol."""


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
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        self._listener = _listen(config.host, config.port)
        self.port: int = self._listener.getsockname()[1]
        self._world: World | None = None
        self._renderer: Renderer | None = None
        self._starts = 0
        self._ticks = self._stepped_tick = 0
        self._handlers = {
            "commands": self._on_commands,
            "config": self._on_config,
            "start": self._on_start,
            "stop": self._on_stop,
        }
        self._forget_client()

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set; then let the client go. Blocks; leaves within one tick."""
        keeper = RateKeeper(TICKS_PER_STEP / STEP_S)
        try:
            while not stop.is_set():
                before = keeper.missed
                self._tick()
                keeper.wait()
                self._ticks += 1 + keeper.missed - before
        finally:
            self._drop("the server stopped")
            if self._renderer is not None:
                self._renderer.close()
            self.close()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._listener.close()

    # One tick of the game

    def _tick(self) -> None:
        client = self._client or self._accept()
        if client is None or time.monotonic() < self._busy_until_s:
            return
        try:
            self._read_one(client)
            if self._world is not None and self._is_running:
                self._step(self._world)
                self._capture_if_due(self._world)
            self._flush(client, 0.5 * STEP_S / TICKS_PER_STEP)
        except (_Gone, OSError) as err:
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
        self._asked = Asked()
        self._is_running = self._is_dead = False
        self._received = bytearray()
        self._outgoing = memoryview(b"")
        self._commands = (0.0, 0.0)
        self._busy_until_s = self._sent_s = 0.0

    # Messages from the client

    def _read_one(self, client: socket.socket) -> None:
        """Handle at most one message; what else has come waits for the next ticks."""
        try:
            chunk = client.recv(65536)
            if not chunk:
                raise _Gone("the client left")
            self._received += chunk
        except BlockingIOError:
            pass
        if len(self._received) < protocol.PREFIX.size:
            return
        (length,) = protocol.PREFIX.unpack_from(self._received)
        if not 0 <= length <= protocol.MAX_REQUEST_BYTES:
            raise _Gone(f"a message must have 0..{protocol.MAX_REQUEST_BYTES} bytes, got {length}")
        end = protocol.PREFIX.size + length
        if len(self._received) < end:
            return
        text = bytes(self._received[protocol.PREFIX.size : end])
        del self._received[:end]
        self._handle(text)

    def _handle(self, text: bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        for key, act in self._handlers.items():
            if key in message:
                body = message[key]
                act(body if isinstance(body, dict) else {})
                return

    def _on_commands(self, body: dict[str, Any]) -> None:
        """Commands latch; they reach the car through the game's dead zone, in manual mode only."""
        if not self._is_running:
            return
        throttle, brake, steering = (
            protocol.through_dead_zone(min(max(number(body.get(key), 0.0), low), 1.0))
            for key, low in (("throttle", 0.0), ("brake", 0.0), ("steering", -1.0))
        )
        self._commands = (throttle - brake, steering)

    def _on_config(self, body: dict[str, Any]) -> None:
        if self._is_running:
            self._asked.read(body, self._rng)
            self._build()

    def _on_start(self, body: dict[str, Any]) -> None:
        if self._is_running:
            return
        self._asked = self._defaults()
        self._asked.read(body, self._rng)
        self._starts += 1
        self._is_dead = self._starts <= self._config.faults.dead_starts
        self._is_running = True
        self._build()

    def _on_stop(self, _: dict[str, Any]) -> None:
        self._is_running = False
        self._commands = (0.0, 0.0)

    def _defaults(self) -> Asked:
        x, y = (float(self._rng.uniform(*bounds)) for bounds in GTA_AREA_M)
        hour, minute = divmod(round(self._config.time_of_day_h * 60), 60)
        weather = protocol.WEATHERS[self._config.weather][0]
        return Asked(location=(x, y), hour=hour, minute=minute, weather=weather)

    # The scene

    def _build(self) -> None:
        """Begin the scene that was asked for: a new car on the street nearest to its location."""
        asked, config = self._asked, self._config
        self._commands = (0.0, 0.0)
        wanted = WorldConfig(
            seed=config.seed,
            vehicles=config.vehicles,
            pedestrians=config.pedestrians,
            weather=protocol.our_weather(asked.weather),
            time_of_day_h=min(max(asked.hour + asked.minute / 60.0, 0.0), 24.0),
        )
        if self._world is None or self._world.config != wanted:
            self._world = World(wanted)
        self._world.place_ego(folded(asked.location, self._world.map.extent_m))
        if self._renderer is None or self._renderer.shape != (asked.height, asked.width):
            if self._renderer is not None:
                self._renderer.close()
            self._renderer = Renderer(asked.height, asked.width)
        self._sent_s = time.monotonic()
        self._busy_until_s = self._sent_s + config.silence_s

    def _step(self, world: World) -> None:
        """Let the town go on by the time that has passed, in whole steps."""
        due = (self._ticks - self._stepped_tick) // TICKS_PER_STEP
        self._stepped_tick += due * TICKS_PER_STEP
        controls = None
        if self._asked.is_manual:
            controls = np.array(self._commands, np.float32)
        elif self._is_dead:
            controls = np.zeros(2, np.float32)
        for _ in range(min(due, MAX_STEPS_PER_TICK)):
            world.step(controls)

    # Pairs to the client

    def _capture_if_due(self, world: World) -> None:
        """Begin a new pair once the last is out and *more* than a period has passed since then."""
        rate_hz = self._asked.rate_hz
        is_due = rate_hz > 0 and time.monotonic() - self._sent_s > 1.0 / rate_hz
        if self._outgoing or not is_due:
            return
        faults = self._config.faults
        self.pairs += 1
        if self.pairs == faults.stall_at:
            time.sleep(faults.stall_s)
        text = json.dumps(self._telemetry(world), separators=(",", ":")).encode()
        is_cut = faults.truncate_every and self.pairs % faults.truncate_every == 0
        if is_cut or faults.controls == "not_finite":
            text = text[: len(text) // 2]
        prefix = protocol.PREFIX
        frame = self._frame(world)
        parts = (prefix.pack(len(frame)), frame, prefix.pack(len(text)), text)
        self._outgoing = memoryview(b"".join(parts))

    def _frame(self, world: World) -> bytearray:
        """The hood camera's picture as the wire wants it: BGR, rows padded to 4 bytes."""
        assert self._renderer is not None
        height, width = self._renderer.shape
        picture = np.empty((height, width, 3), np.uint8)
        self._renderer.render(world.view(), picture)
        frame = bytearray(protocol.frame_bytes(height, width))
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, dst=protocol.frame_pixels(frame, height, width))
        return frame

    def _telemetry(self, world: World) -> dict[str, Any]:
        """What was asked for about this instant; numbers have float32's precision."""
        pedal, steering = world.controls.tolist()
        values = {
            "throttle": max(pedal, 0.0),
            "brake": max(-pedal, 0.0),
            "steering": steering,
            "speed": world.speed_mps,
            "yawRate": math.degrees(world.yaw_rate),
            "location": world.location,
        }
        garbage = {"constant": 0.0, "out_of_range": 1.4e30}.get(self._config.faults.controls)
        if garbage is not None:
            values |= dict.fromkeys(("throttle", "brake", "steering"), garbage)
        told = {key: np.asarray(value, np.float32).tolist() for key, value in values.items()}
        told["time"] = self._asked.hour
        return {key: told[key] for key in protocol.REQUESTABLE if key in self._asked.keys}

    def _flush(self, client: socket.socket, budget_s: float) -> None:
        """Send what is waiting, for at most ``budget_s``; the rest goes out in the next ticks."""
        faults, give_up_s = self._config.faults, time.monotonic() + budget_s
        while self._outgoing:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0 or not select.select((), (client,), (), left_s)[1]:
                return
            if self.pairs == faults.cut_at:
                client.send(self._outgoing[: len(self._outgoing) // 2])
                raise _Gone("cut on purpose")
            size = faults.chunk_bytes or len(self._outgoing)
            try:
                self._outgoing = self._outgoing[client.send(self._outgoing[:size]) :]
            except BlockingIOError:
                return
            if faults.chunk_pause_s:
                time.sleep(faults.chunk_pause_s)
            if not self._outgoing:
                self._sent_s = time.monotonic()


def folded(
    place: tuple[float, float], extent_m: tuple[float, float, float, float]
) -> tuple[float, float]:
    """``place`` itself if it lies in the town, else the place it falls on when the plane is tiled.

    GTA V's map is far larger than a town: without this, all of a client's random places would end
    on the town's rim.
    """
    x, y = place
    west, south, east, north = extent_m
    return (west + (x - west) % (east - west), south + (y - south) % (north - south))


def serve(options: TownOptions, stop: threading.Event) -> None:
    """Serve a town as ``options`` say until ``stop`` is set. Blocks; for ``charles-town``.

    Raises:
        WireError: The port is taken or may not be used.
    """
    config = TownServerConfig(
        host=options.host,
        port=options.port,
        seed=options.seed,
        weather=options.weather,
        time_of_day_h=options.time_of_day_h,
    )
    TownServer(config).run(stop)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
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
