"""The one protocol that every game speaks to Charles.

A game is a stream of instants. :meth:`Game.tick` moves to the next instant and returns what the
game tells about it; :meth:`Game.grab` hands out the pixels of that same instant. The two are apart
because pixels are the expensive half: a collector that sees from the telemetry alone that the
sample is not wanted never asks for them.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from charles.config import GameConfig
from charles.errors import GameError

WEATHERS = ("clear", "overcast", "rain", "fog")
"""Weathers every adapter understands; an adapter maps them to its game's own names."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where and how to start. ``None`` leaves the choice to the game, at random."""

    seed: int | None = None
    """Which world, for games that generate one; also seeds the game's own random choices."""
    car: str | None = None
    """The game's own name of a vehicle."""
    weather: str | None = None
    """One of :data:`WEATHERS`."""
    time_of_day_h: float | None = None
    """Hour, 0 to 24."""
    place: tuple[float, float] | None = None
    """World coordinates in metres; the game takes the nearest place on a road."""
    traffic: float = 1.0
    """How many others there are, relative to what the game was set to, where it can tell."""


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What a game tells about one instant, pixels apart."""

    captured_ns: int
    """When the instant was captured, monotonic clock; stepped games count simulated time."""
    controls: np.ndarray
    """Controls that apply at this instant, float32 ``[A]`` in [-1, 1]."""
    label: np.ndarray | None
    """What the expert would do here, float32 ``[A]``; ``None`` while the game cannot tell."""
    speed_mps: float | None
    """Speed over ground, 0 or more; ``None`` where the game does not tell it."""
    purpose: np.ndarray
    """Target's direction (radians, positive right) and distance (m), float32 ``[2]``."""
    location: tuple[float, float, float]
    """Position in the game's world, metres."""
    weather: str = "clear"
    """One of :data:`WEATHERS`."""
    time_of_day_h: float = 12.0
    """Hour, 0 to 24."""
    is_collision: bool = False
    """Whether a collision began since the last instant."""
    is_off_road: bool = False
    """Whether the car is off the road."""
    has_controls: bool = True
    """Whether somebody told ``controls``; where nobody did they are zeros."""
    is_whole: bool = True
    """Whether the game could be seen now and told what it should; where not, nobody drives by the
    instant or learns from it."""
    is_still: bool = False
    """Whether the picture was looked at now and is the one of ``captured_ns``, which is past."""
    is_human: bool = False
    """Whether the label is what a person does with a pad of their own."""

    @property
    def shown_speed_mps(self) -> float:
        """The speed as a network is shown it: 0 where the game does not tell it."""
        return self.speed_mps or 0.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a game with a task is since its last ``reset``."""

    length_m: float = 0.0
    """Length of the task; 0 where there is none."""
    completion: float = 0.0
    """Share of it that is done, 0 to 1."""
    ended: str = ""
    """``done``, ``off_route`` or ``crash`` once it is over; empty before."""


@runtime_checkable
class Game(Protocol):
    """A game that Charles can watch and drive. Used from one thread of one process.

    Order of calls: ``reset`` first; then, per instant, ``tick``, at most one ``grab``, at most one
    ``act``; ``teleport`` and ``set_npc`` at any time between; ``close`` last, and always.
    """

    controls: tuple[str, ...]
    """Names of the controls, in the order of every controls array."""
    frame_shape: tuple[int, int, int]
    """``(H, W, 3)`` of the frames that :meth:`grab` writes."""
    is_advising: bool
    """Whether telemetry has the expert's label also while somebody else drives."""
    is_realtime: bool
    """Whether instants come by the wall clock (``True``) or one by one as asked (``False``)."""

    def reset(self, scene: Scene) -> None:
        """Build the scene with the NPC driving. May take seconds.

        Raises:
            GameError: The game cannot be reached or does not start.
        """
        ...

    def tick(self) -> Telemetry:
        """Move to the next instant and return it; blocks until there is one.

        Raises:
            GameError: No instant came in time, or the connection was lost for good.
        """
        ...

    def grab(self, out: np.ndarray) -> None:
        """Write the pixels of the last tick's instant into ``out``, RGB uint8 ``[H, W, 3]``."""
        ...

    def act(self, controls: np.ndarray) -> None:
        """Apply ``controls``, float32 ``[A]`` in [-1, 1], from the next instant on, until replaced.

        Has no effect while the NPC drives.

        Raises:
            GameError: A value is not finite or out of range.
        """
        ...

    def set_npc(self, is_driving: bool) -> None:
        """Let the game's own driver drive, or stop it; stopping starts from neutral controls."""
        ...

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """Put the car on a road: near ``place``, or anywhere. Keeps weather, time and driver."""
        ...

    def close(self) -> None:
        """Release everything; the car is left with neutral controls. May be called twice."""
        ...


def chosen_scene(scene: Scene, config: GameConfig, rng: np.random.Generator) -> Scene:
    """``scene`` with weather and time of day chosen, within ``config``, where it left them open.

    Raises:
        GameError: A weather that no adapter knows, an hour beyond 0 to 24, or a place that is not
            finite.
    """
    weather, hour = scene.weather, scene.time_of_day_h
    if weather is None:
        weather = str(rng.choice(config.weathers))
    if hour is None:
        hour = float(rng.uniform(*config.hours))
    if weather not in WEATHERS:
        raise GameError(f"scene.weather must be one of {WEATHERS}, got {weather!r}.")
    if not 0.0 <= hour <= 24.0:
        raise GameError(f"scene.time_of_day_h must lie in 0 to 24, got {hour!r}.")
    if not 0.0 <= scene.traffic < math.inf:
        raise GameError(f"scene.traffic must be finite and 0 or more, got {scene.traffic!r}.")
    if scene.place is not None and not np.isfinite(scene.place).all():
        raise GameError(f"scene.place must be finite, got {scene.place!r}.")
    return replace(scene, weather=weather, time_of_day_h=hour)


def checked_controls(controls: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """A copy of ``controls`` as float32 ``[A]``, once it is sure that a game may have them.

    Raises:
        GameError: Another shape, a value that is not finite, or one beyond [-1, 1].
    """
    values = np.array(controls, dtype=np.float32)
    if values.shape != (len(names),):
        raise GameError(f"controls must be float32 [{len(names)}], got {list(values.shape)}.")
    if not (np.abs(values) <= 1.0).all():  # NaN compares false, so it is refused here too
        shown = dict(zip(names, values.tolist(), strict=True))
        raise GameError(f"controls must be finite and lie in [-1, 1], got {shown}.")
    return values
