"""Town behind the protocol of the ZeroMQ fork of DeepGTAV, so that its clients need no GTA V.

It keeps to the fork's habits: one PAIR socket and no framing, a picture and then its telemetry, at
most one message read per tick; the game stands still for a tick with every pair, for three more
while it records, and as long as its client takes nothing. Without recording, pixels are whatever
was in memory. A message that lacks a field ends the game. A client that leaves goes unnoticed.
"""

import json
import math
import threading
import time
from typing import Any

import numpy as np
import zmq

from charles.errors import WireError
from charles.options import TownOptions
from charles.timing import RateKeeper
from charles.town import protocol
from charles.town.asked import integer, number
from charles.town.mod import TICK_S, TICKS_PER_STEP, ClientGone, Mod
from charles.town.server_config import TownServerConfig, config_of

PAUSED_TICKS = 1
"""The game stands still while the camera is placed for a picture."""
RECORDING_TICKS = 3
"""And for so much longer while it is captured."""

LIFT_MPS = 5.0
"""How fast a car rises that was teleported without its gravity."""

FIELDS: dict[str, tuple[str, ...]] = {
    "GoToLocation": ("x", "y", "z", "speed"),
    "TeleportToLocation": ("x", "y", "z"),
    "SetCameraPositionAndRotation": ("x", "y", "z", "rot_x", "rot_y", "rot_z"),
    "SetWeather": ("weather",),
    "SetClockTime": ("hour", "minute", "second"),
    "CreateVehicle": (
        "model", "relativeForward", "relativeRight", "heading", "color", "color2",
        "placeOnGround", "withLifeJacketPed",
    ),
    "CreatePed": (
        "model", "relativeForward", "relativeRight", "relativeUp", "heading", "placeOnGround",
        "animDict", "animName",
    ),
}  # fmt: skip
"""Fields without any one of which a message ends the game."""

EXPORTS = frozenset({
    "occlusionImage", "segmentationImage", "instanceSegmentationImage", "exportBBox2D",
    "exportLiDAR", "exportDepthBuffer", "exportStencilImage",
})  # fmt: skip
"""Some of the pictures and lists that a dataset can ask for. A town has none of them: they come
empty, and null while nothing is recorded."""

_QUEUED_MESSAGES = 4
"""Pairs wait for their reader in twos; after that the game does."""
_NEUTRAL_CAMERA = (0.0, 0.5, 0.8, 0.0, 0.0, 0.0)


class ZmqTownServer:
    """A town that one client of the ZeroMQ fork watches and drives.

    :meth:`run` serves from one thread; every other member but ``port`` is for that thread alone.
    Statistics may be read from anywhere.

    Args:
        config: Where, which town, and how to behave. Faults of a stream (chunks, cuts) do not
            apply: ZeroMQ delivers messages whole or not at all.

    Raises:
        WireError: The port is taken or may not be used.
    """

    def __init__(self, config: TownServerConfig) -> None:
        self.pairs = 0
        """Pairs captured so far."""
        self.read: list[str] = []
        """Keys of the messages that were read."""
        self.last_drop = ""
        """What ended the game last."""
        self._address = (config.host, config.port)
        self._mod = Mod(config, frame_key="screenResolution")
        self._noise = np.random.default_rng(config.seed)
        self._context = zmq.Context()
        self._stop = threading.Event()
        self._keeper = RateKeeper(1.0 / TICK_S)
        try:
            self._bind()
        except zmq.ZMQError as err:
            self._context.term()
            raise WireError(
                f"port must be free on {config.host}, got {config.port} ({err}). "
                "Stop what uses it, or choose another with --port."
            ) from err
        self._ticks = self._stepped_tick = 0
        self._begin_game()

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set. Blocks; leaves within one tick."""
        self._stop, keeper = stop, self._keeper
        keeper.restart()
        try:
            while not stop.is_set():
                before = keeper.missed
                self._tick()
                keeper.wait()
                self._ticks += 1 + keeper.missed - before
        finally:
            self._mod.close()
            self._unbind()
            self._context.term()

    @property
    def builds(self) -> int:
        """Scenes built so far."""
        return self._mod.builds

    # One tick of the game

    def _tick(self) -> None:
        mod = self._mod
        if mod.is_hung or time.monotonic() < mod.busy_until_s:
            return
        try:
            self._read_one()
            if mod.is_running and not mod.is_hung:
                self._step()
                since_s = time.monotonic() - max(self._sent_s, mod.built_s)
                if protocol.is_due(since_s, mod.asked.rate_hz) and not self._is_alone:
                    self._send_pair()
        except ClientGone as err:
            self._crash(str(err))

    def _step(self) -> None:
        due = (self._ticks - self._stepped_tick) // TICKS_PER_STEP
        self._stepped_tick += due * TICKS_PER_STEP
        self._mod.step(due)
        if self._is_lifted:
            self._altitude_m += due * TICKS_PER_STEP * TICK_S * LIFT_MPS

    def _crash(self, why: str) -> None:
        """The game is gone. What listens next is the game that somebody has started anew."""
        self.last_drop = why
        self._unbind()
        self._begin_game()
        while not self._stop.is_set():
            try:
                self._bind()
                return
            except zmq.ZMQError:  # a socket is closed behind the scenes: its port takes a moment
                self._stop.wait(TICK_S)

    def _begin_game(self) -> None:
        self._mod.forget_client()
        self._is_recording = self._is_lifted = self._is_alone = False
        self._altitude_m = self._sent_s = 0.0
        self._camera = _NEUTRAL_CAMERA
        self._second = 0
        self._exports: frozenset[str] = frozenset()
        self._stale: bytes = b""

    def _bind(self) -> None:
        host, port = self._address
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set(zmq.SNDHWM, _QUEUED_MESSAGES)
        try:
            if port == 0:
                port = self._socket.bind_to_random_port(f"tcp://{host}")
            else:
                self._socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError:
            self._socket.close(linger=0)
            raise
        self._events = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.port: int = port
        self._address = (host, port)

    def _unbind(self) -> None:
        if self._socket.closed:  # the game ended, and its port was not free again
            return
        self._socket.disable_monitor()
        self._events.close()
        self._socket.close(linger=0)

    # Messages from the client

    def _read_one(self) -> None:
        """Handle at most one message; what else has come waits for the next ticks."""
        try:
            text = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        message = self._mod.read(text)
        self.read += list(message)[:1]
        for key, act in (
            ("StartRecording", self._on_recording),
            ("StopRecording", self._on_recording),
            ("TeleportToLocation", self._on_teleport),
            ("SetCameraPositionAndRotation", self._on_camera),
            ("SetWeather", self._on_weather),
            ("SetClockTime", self._on_clock),
        ):
            if key in message:
                act(key, self._whole(key, message[key]))
                return
        for key in FIELDS:
            if key in message:
                self._whole(key, message[key])  # its effect is beyond a town
                return
        self._look_into(message)
        self._mod.handle(message)

    def _whole(self, key: str, body: Any) -> dict[str, Any]:
        body = body if isinstance(body, dict) else {}
        missing = [name for name in FIELDS.get(key, ()) if body.get(name) is None]
        if missing:
            raise ClientGone(f"{key} must have {', '.join(missing)}")
        return body

    def _look_into(self, message: dict[str, Any]) -> None:
        """What the fork reads of a scene beyond what the v2 mod does."""
        for key in ("start", "config"):
            body = message.get(key)
            scenario, dataset = (
                part if isinstance(body, dict) and isinstance(part := body.get(name), dict) else {}
                for name in ("scenario", "dataset")
            )
            place = scenario.get("location")
            if isinstance(place, list) and len(place) < 4:  # it reads four, come what may
                raise ClientGone(f"location must have 4 elements, got {len(place)}")
            wanted = {name for name, value in dataset.items() if value is True}
            self._exports |= wanted & EXPORTS
            if key in message:  # another car, with its gravity
                self._is_lifted, self._altitude_m = False, 0.0
        if "start" in message:
            self._is_alone = False
            while self._events.poll(0):  # who left before is of no interest any more
                self._events.recv_multipart()

    def _on_recording(self, key: str, _: dict[str, Any]) -> None:
        self._is_recording = key == "StartRecording"

    def _on_teleport(self, _: str, body: dict[str, Any]) -> None:
        self._mod.put_at((number(body["x"], 0.0), number(body["y"], 0.0)))
        self._is_lifted = True

    def _on_camera(self, key: str, body: dict[str, Any]) -> None:
        self._camera = tuple(number(body[name], 0.0) for name in FIELDS[key])

    def _on_weather(self, _: str, body: dict[str, Any]) -> None:
        self._mod.asked.weather = str(body["weather"])

    def _on_clock(self, _: str, body: dict[str, Any]) -> None:
        asked = self._mod.asked
        asked.hour, asked.minute = integer(body["hour"], 0), integer(body["minute"], 0)
        self._second = integer(body["second"], 0)

    # Pairs to the client

    def _send_pair(self) -> None:
        """Capture a pair while the game stands still, and send it, however long that takes."""
        faults = self._mod.faults
        self.pairs += 1
        if self.pairs == faults.stall_at:
            time.sleep(faults.stall_s)
        frame, text = self._pixels(), self._text()
        if faults.controls == "not_finite" or (
            faults.truncate_every and self.pairs % faults.truncate_every == 0
        ):
            text = text[: len(text) // 2]
        paused = PAUSED_TICKS + (RECORDING_TICKS if self._is_recording else 0)
        self._stop.wait(paused * TICK_S)
        for part in (frame, text):
            if not self._is_alone:
                self._send(part)
        self._sent_s = time.monotonic()
        self._keeper.restart()  # no time has passed in the game

    def _send(self, part: bytes) -> None:
        """Wait until the client takes a part, or has left: then nothing is sent until the next one
        starts, because a socket that only sends never takes up another connection."""
        while not self._stop.is_set():
            try:
                self._socket.send(part, zmq.NOBLOCK)
            except zmq.Again:
                if self._events.poll(round(1000.0 * TICK_S)):
                    self._is_alone = True
                    return
            else:
                return

    def _pixels(self) -> bytes:
        asked = self._mod.asked
        size = protocol.frame_bytes(asked.height, asked.width)
        if self._is_recording:
            self._stale = bytes(self._mod.frame())
        elif len(self._stale) != size:
            self._stale = self._noise.bytes(size)
        return self._stale

    def _text(self) -> bytes:
        """The telemetry; keys of exports are there twice, as the fork writes them."""
        asked, world = self._mod.asked, self._mod.world
        told = self._mod.telemetry()
        if "location" in told:
            told["location"][2] += self._altitude_m
        if "time" in told:
            told["time"] = [asked.hour, asked.minute, self._second]
        x, y, z = world.location
        told |= {
            "index": self.pairs,
            "focalLen": asked.width / 2.0,
            "curPosition": [x, y, z + self._altitude_m],
            "seriesIndex": "0",
            "HeightAboveGround": self._altitude_m,
            "CameraAngle": [self._camera[3], self._camera[4],
                            math.degrees(world.heading) - 90.0 + self._camera[5]],
            "CameraPosition": [x + self._camera[0], y + self._camera[1], z + self._camera[2]],
        }  # fmt: skip
        value = "" if self._is_recording else None
        pairs = [*told.items(), *((key, each) for key in self._exports for each in (None, value))]
        parts = [f"{json.dumps(key)}:{json.dumps(each)}" for key, each in pairs]
        return ("{" + ",".join(parts) + "}").encode()


def serve(options: TownOptions, stop: threading.Event) -> None:
    """Serve a town as ``options`` say until ``stop`` is set. Blocks; for ``charles-town``.

    Raises:
        WireError: The port is taken or may not be used.
    """
    ZmqTownServer(config_of(options)).run(stop)
