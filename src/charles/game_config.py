"""Settings of the game and of its frames; see :mod:`charles.config`."""

import math
from dataclasses import dataclass, field
from typing import Literal

from charles.errors import require
from charles.human_config import HumanConfig
from charles.sample import PixelFormat
from charles.telemetry_config import TelemetryConfig

GameName = Literal["town", "deepgtav", "window"]
Weather = Literal["clear", "overcast", "rain", "fog"]


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """A game that is only watched: its pictures, what it tells about itself, and who plays it."""

    rate_hz: float = 30.0
    """Instants per second; collect.rate_hz and play.rate_hz mean the same."""
    start_s: float = 60.0
    """How long to wait for the game's first telemetry, where it is to have any."""
    max_frame_age_s: float = 0.5
    """Nothing is learned from a picture that has been the same for longer than this."""
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    human: HumanConfig = field(default_factory=HumanConfig)

    def __post_init__(self) -> None:
        for name in ("rate_hz", "start_s", "max_frame_age_s"):
            value = getattr(self, name)
            is_positive = math.isfinite(value) and value > 0
            require(is_positive, f"game.window.{name}", "be positive", value)


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Which game, and what it shows."""

    name: GameName = "town"
    """``town`` is built in; ``deepgtav`` is GTA V, or anything that speaks its protocol; ``window``
    is any game that can be seen."""
    host: str = "127.0.0.1"
    """Where the game listens (deepgtav)."""
    port: int = 8000
    """Port the game listens on (deepgtav)."""
    seeds: tuple[int, int] = (0, 1000)
    """Worlds to collect in: first, and one past the last. Evaluation uses others."""
    vehicles: int = 14
    """Traffic around the car (town)."""
    pedestrians: int = 14
    """Pedestrians around the car (town)."""
    weathers: tuple[str, ...] = ("clear", "overcast", "rain", "fog")
    """Weathers to choose from."""
    hours: tuple[float, float] = (0.0, 24.0)
    """Times of day to choose from."""
    is_realtime: bool = False
    """Let the built-in game run by the wall clock; a player always does."""
    window: WindowConfig = field(default_factory=WindowConfig)

    def __post_init__(self) -> None:
        low, high = self.seeds
        require(0 <= low < high, "game.seeds", "be two rising numbers from 0 on", self.seeds)
        require(0 < self.port < 65536, "game.port", "lie in 1..65535", self.port)
        require(self.vehicles >= 0, "game.vehicles", "be 0 or more", self.vehicles)
        require(self.pedestrians >= 0, "game.pedestrians", "be 0 or more", self.pedestrians)
        require(len(self.weathers) > 0, "game.weathers", "name at least one", self.weathers)
        first, last = self.hours
        require(0 <= first <= last <= 24, "game.hours", "be two rising hours", self.hours)


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """The frames that are stored and learned from."""

    height: int = 270
    """Frame height in pixels."""
    width: int = 480
    """Frame width in pixels."""
    pixel_format: PixelFormat = "yuv420"
    """``rgb``, or ``yuv420`` at half the memory."""
    num_frames: int = 1
    """Pictures that a sample has: the present one and those before it. Each takes its memory."""
    frame_stride: int = 1
    """Instants between two of a sample's pictures."""
