"""What a DeepGTAV mod does in the game, done in a town; the connection is its servers' business.

It keeps to the mod's habits, also the awkward ones, because a client must live with them: nothing
is acknowledged, ``setSpeed`` is ignored, a ``config`` without a location puts the car back where it
was last asked to be, every scene leaks what it captures with, and what the game cannot do hangs it.
"""

import json
import math
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from charles.town import protocol
from charles.town.asked import Asked, number
from charles.town.habits import Late, answer
from charles.town.layout import WorldView
from charles.town.physics import STEP_S
from charles.town.render import Renderer
from charles.town.server_config import ServerFaults, TownServerConfig
from charles.town.world import World, WorldConfig
from charles.town_config import TownConfig

TICKS_PER_STEP = 2
"""The script ticks at 60 Hz, as in a game that draws 60 frames per second; the town steps at 30."""

TICK_S = STEP_S / TICKS_PER_STEP

MAX_STEPS_PER_TICK = 4
"""How much of the time that a late tick missed is made up for; the rest never happens."""

GTA_AREA_M = ((-2500.0, 2500.0), (-2000.0, 6000.0))
"""Where clients of GTA V look for random places: x, then y."""


class ClientGone(Exception):
    """The client left, broke the protocol, or met a fault that ends the connection."""


class Mod:
    """The script of the mod, in a town. Used from one thread.

    Args:
        config: Which town, and how to misbehave.
        frame_key: The setting of a dataset that says how large the pictures are.
    """

    def __init__(self, config: TownServerConfig, *, frame_key: str = "frame") -> None:
        self.builds = 0
        """Scenes built so far."""
        self.is_hung = False
        """Whether it waits for something that never comes; only another process would help."""
        self._config, self._frame_key = config, frame_key
        self._rng = np.random.default_rng(config.seed)
        self._noise = np.random.default_rng([config.seed, 1])
        self.world = World(
            WorldConfig(seed=config.seed, vehicles=config.vehicles, pedestrians=config.pedestrians)
        )
        """The town; it stays the same for the life of the server."""
        self._views: Late[WorldView] = Late(config.habits.frame_delay)
        self._told: Late[dict[str, Any]] = Late(config.habits.telemetry_delay)
        self._renderer: Renderer | None = None
        self._last_frame: bytearray | None = None
        self._starts = 0
        self.forget_client()

    @property
    def faults(self) -> ServerFaults:
        """Ways in which it misbehaves."""
        return self._config.faults

    def forget_client(self) -> None:
        """The client has left: stop."""
        self.asked = Asked()
        self.is_running = self._is_dead = False
        self.built_s = self.busy_until_s = 0.0
        self._commands = (0.0, 0.0)

    def close(self) -> None:
        """Release the renderer. May be called twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # Messages from the client

    def read(self, text: bytes) -> dict[str, Any]:
        """A message as an object; an empty one, which asks for nothing, if it is none."""
        try:
            message = json.loads(text)
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}

    def handle(self, message: dict[str, Any]) -> None:
        """Do what a message asks for; one that asks for nothing known is overlooked.

        Raises:
            ClientGone: The scene it asks for ends the connection.
        """
        for key, act in (
            ("commands", self._on_commands),
            ("config", self._on_config),
            ("start", self._on_start),
            ("stop", self._on_stop),
        ):
            if key in message:
                body = message[key]
                act(body if isinstance(body, dict) else {})
                return

    def _on_commands(self, body: dict[str, Any]) -> None:
        """Commands latch; they reach the car through the game's dead zone, in manual mode only."""
        if not self.is_running:
            return
        zones = self._config.habits.zones
        throttle, brake, steering = (
            answer(min(max(number(body.get(key), 0.0), low), 1.0), zone)
            for key, low, zone in (
                ("throttle", 0.0, zones.accelerate),
                ("brake", 0.0, zones.brake),
                ("steering", -1.0, zones.steering),
            )
        )
        self._commands = (throttle - brake, steering)

    def _on_config(self, body: dict[str, Any]) -> None:
        if not self.is_running:
            return
        if self.faults.dangling_strings:
            self._use_freed_strings(body.get("scenario"))
        self.asked.read(body, self._rng, frame_key=self._frame_key)
        self._build()

    def _use_freed_strings(self, scenario: Any) -> None:
        """Weather and vehicle point into the message before, which is gone."""
        scenario = scenario if isinstance(scenario, dict) else {}
        self.is_hung = self.is_hung or not scenario.get("vehicle")
        self.asked.weather = str(
            self._rng.choice([names[0] for names in protocol.WEATHERS.values()])
        )

    def _on_start(self, body: dict[str, Any]) -> None:
        if self.is_running:
            return
        self.asked = self._defaults()
        self.asked.read(body, self._rng, frame_key=self._frame_key)
        self._starts += 1
        self._is_dead = self._starts <= self.faults.dead_starts
        self.is_running = True
        self._build()

    def _on_stop(self, _: dict[str, Any]) -> None:
        self.is_running = False
        self._commands = (0.0, 0.0)

    def _defaults(self) -> Asked:
        x, y = (float(self._rng.uniform(*bounds)) for bounds in GTA_AREA_M)
        hour, minute = divmod(round(self._config.time_of_day_h * 60), 60)
        weather = protocol.WEATHERS[self._config.weather][0]
        return Asked(location=(x, y), hour=hour, minute=minute, weather=weather)

    # The scene

    def _build(self) -> None:
        """Begin the scene that was asked for: a new car on the street nearest to its location."""
        asked = self.asked
        self.builds += 1
        self._commands = (0.0, 0.0)
        # The reward needs a file that a town does not have either.
        unknown = self.faults.unknown_vehicle
        self.is_hung = self.is_hung or asked.wants_reward or (asked.vehicle == unknown != "")
        self.put_at(asked.location)
        if self._renderer is None or self._renderer.shape != (asked.height, asked.width):
            self.close()
            self._renderer = Renderer(asked.height, asked.width)
            self._last_frame = None
        self.built_s = time.monotonic()
        self.busy_until_s = self.built_s + self._config.silence_s
        if self._has_leaked and self.faults.leak_ends == "closed":
            raise ClientGone("nothing is left to capture with")

    @property
    def _has_leaked(self) -> bool:
        return 0 < self.faults.leak_after < self.builds

    def put_at(self, place: tuple[float, float]) -> None:
        """Put the car on the street nearest to a place of GTA V's map."""
        self.world.place_ego(folded(place, self.world.map.extent_m))
        self._views.clear()
        self._told.clear()

    def step(self, steps: int) -> None:
        """Let so many steps of the town pass, but no more than a late tick makes up for."""
        habits = self._config.habits
        for _ in range(min(steps, MAX_STEPS_PER_TICK)):
            self.world.step(self._applied(habits))
            if habits.frame_delay:
                self._views.add(self.world.view())
            self._told.add(self._seen())

    def _applied(self, habits: TownConfig) -> np.ndarray | None:
        """What the car is driven with; ``None`` for the NPC's own."""
        if self.asked.is_manual:
            pedal, steering = self._commands
            return np.array([pedal, steering * habits.gain(self.world.speed_mps)], np.float32)
        return np.zeros(2, np.float32) if self._is_dead else None

    # What it tells

    def frame(self) -> bytearray:
        """The hood camera's picture as the wire wants it: BGR, rows padded to 4 bytes."""
        shown = self.faults.leak_ends if self._has_leaked else self.faults.picture
        height, width = self.asked.height, self.asked.width
        if shown == "black":
            return bytearray(protocol.frame_bytes(height, width))
        if self._last_frame is None or shown != "frozen":
            self._last_frame = self._draw(height, width)
        return bytearray(self._last_frame)

    def _draw(self, height: int, width: int) -> bytearray:
        assert self._renderer is not None
        picture = np.empty((height, width, 3), np.uint8)
        self._renderer.render(self._view(), picture)
        frame = bytearray(protocol.frame_bytes(height, width))
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, dst=protocol.frame_pixels(frame, height, width))
        return frame

    def _view(self) -> WorldView:
        """The town in the weather and at the hour of the game."""
        asked = self.asked
        hour = min(max(asked.hour + asked.minute / 60.0, 0.0), 24.0)
        view = self._views.shown or self.world.view()
        return replace(view, weather=protocol.our_weather(asked.weather), time_of_day_h=hour)

    def telemetry(self) -> dict[str, Any]:
        """What was asked for about this instant; numbers have float32's precision."""
        values = dict(self._told.shown or self._seen())
        controls = (values["throttle"], values["brake"], values["steering"])
        values |= zip(("throttle", "brake", "steering"), self._reported(controls), strict=True)
        told = {key: np.asarray(value, np.float32).tolist() for key, value in values.items()}
        told["time"] = self.asked.hour
        return {key: told[key] for key in protocol.REQUESTABLE if key in self.asked.keys}

    def _seen(self) -> dict[str, Any]:
        """What there is to tell about the instant of the last step."""
        world = self.world
        pedal, steering = world.controls.tolist()
        return {
            "throttle": max(pedal, 0.0),
            "brake": max(-pedal, 0.0),
            "steering": steering,
            "speed": world.speed_mps,
            "yawRate": math.degrees(world.yaw_rate),
            "location": world.location,
        }

    def _reported(self, controls: tuple[float, ...]) -> tuple[float, ...]:
        """The car's controls, as this build of the game lets the mod see them."""
        match self.faults.controls:
            case "constant":
                return (0.0, 0.0, 0.0)
            case "out_of_range":
                return (1.4e30, 1.4e30, 1.4e30)
            case "random":
                throttle, brake, steering = self._noise.uniform((0.0, 0.0, -1.0), 1.0)
                return (throttle, brake, steering)
        return controls


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
