"""Settings of the game and of its frames; see :mod:`charles.config`."""

from dataclasses import dataclass
from typing import Literal

from charles.errors import require
from charles.sample import PixelFormat

GameName = Literal["town", "deepgtav"]
Weather = Literal["clear", "overcast", "rain", "fog"]


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Which game, and what it shows."""

    name: GameName = "town"
    """``town`` is built in; ``deepgtav`` is GTA V, or anything that speaks its protocol."""
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
