"""Settings of the game and of its frames; see :mod:`charles.config`."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from charles.errors import require
from charles.gymnasium_config import GymnasiumConfig
from charles.human_config import HumanConfig
from charles.metadrive_config import MetaDriveConfig
from charles.sample import PixelFormat
from charles.screen_config import ScreenConfig
from charles.telemetry_config import TelemetryConfig
from charles.town_config import TownConfig

GameName = Literal["town", "deepgtav", "deepgtav_zmq", "window", "gymnasium", "metadrive"]
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
    screen: ScreenConfig = field(default_factory=ScreenConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    human: HumanConfig = field(default_factory=HumanConfig)

    def __post_init__(self) -> None:
        for name in ("rate_hz", "start_s", "max_frame_age_s"):
            value = getattr(self, name)
            is_positive = math.isfinite(value) and value > 0
            require(is_positive, f"game.window.{name}", "be positive", value)


@dataclass(frozen=True, kw_only=True)
class GTAConfig:
    """What GTA V is told, and how it is set up (deepgtav, deepgtav_zmq)."""

    car: str = "blista"
    """The car, by the name that the game spawns it by. A name that it does not know hangs it."""
    restart_after: int = 500
    """Scenes after which the game is restarted, before what every scene leaks makes its pictures
    fail; only where a collector or player has a ``--restart-command``. 0: never."""
    screen: tuple[int, int] = (1280, 720)
    """Width and height of the game's picture on the screen, in pixels (deepgtav_zmq)."""
    trust_controls: bool = False
    """Take the fork's throttle, brake and steering as labels once they pass the checks: it reads
    them at the places of a build of 2017 (deepgtav_zmq)."""

    def __post_init__(self) -> None:
        require(bool(self.car), "game.gta.car", "name a car", self.car)
        require(self.restart_after >= 0, "game.gta.restart_after", "be 0 or more",
                self.restart_after)  # fmt: skip
        require(min(self.screen) > 0, "game.gta.screen", "be two positive sizes", self.screen)


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Which game, and what it shows."""

    name: GameName = "town"
    """``town`` is built in; ``deepgtav`` is GTA V with the DeepGTAV v2 mod, or anything that speaks
    its protocol; ``deepgtav_zmq`` is GTA V with the fork that newer builds need; ``window`` is any
    game that can be seen; ``gymnasium`` is an environment of Gymnasium, such as CarRacing;
    ``metadrive`` is the simulator MetaDrive."""
    host: str = "127.0.0.1"
    """Where the game listens (deepgtav, deepgtav_zmq)."""
    port: int = 8000
    """Port the game listens on (deepgtav, deepgtav_zmq)."""
    gta: GTAConfig = field(default_factory=GTAConfig)
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
    """Let a game that can be stepped run by the wall clock; a player always does."""
    town: TownConfig = field(default_factory=TownConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    gymnasium: GymnasiumConfig = field(default_factory=GymnasiumConfig)
    metadrive: MetaDriveConfig = field(default_factory=MetaDriveConfig)

    @property
    def human(self) -> HumanConfig:
        """The pad of a person who is learned from: where this game has a place for one, that is its
        own, else that of watched games."""
        return self.gymnasium.human if self.name == "gymnasium" else self.window.human

    def with_human(self, human: HumanConfig) -> "GameConfig":
        """The same game with another :attr:`human`."""
        if self.name == "gymnasium":
            return replace(self, gymnasium=replace(self.gymnasium, human=human))
        return replace(self, window=replace(self.window, human=human))

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
