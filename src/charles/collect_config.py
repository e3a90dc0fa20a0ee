"""Settings of collectors, and of who drives in them; see :mod:`charles.config`."""

from dataclasses import dataclass, field

from charles.errors import require
from charles.play_config import UnstuckConfig


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    """Pushing the car off the expert's path, so that its way back is recorded."""

    every_s: float = 4.0
    """Mean time from the end of a push to the next; 0 switches them off."""
    duration_s: tuple[float, float] = (0.3, 1.0)
    """Shortest and longest push."""
    steering: float = 0.5
    """Standard deviation of the steering that is added."""
    acceleration_braking: float = 0.3
    """Standard deviation of the acceleration/braking that is added."""

    def __post_init__(self) -> None:
        require(self.every_s >= 0, "perturb.every_s", "be 0 or more", self.every_s)
        low, high = self.duration_s
        require(0 < low <= high, "perturb.duration_s", "be two rising times", self.duration_s)


@dataclass(frozen=True, kw_only=True)
class DaggerConfig:
    """Letting the network drive a collector in turns with the expert, who says what it would do."""

    share: float = 0.0
    """Share of the time that the network drives, once there is a checkpoint; 0 switches it off."""
    turn_s: tuple[float, float] = (3.0, 12.0)
    """Shortest and longest turn of the network."""
    rate_hz: float = 10.0
    """Predictions per second; between two, the controls stay. Fewer leave more time to collect."""

    def __post_init__(self) -> None:
        require(0 <= self.share < 1, "dagger.share", "lie in [0, 1)", self.share)
        low, high = self.turn_s
        require(0 < low <= high, "dagger.turn_s", "be two rising times", self.turn_s)
        require(self.rate_hz > 0, "dagger.rate_hz", "be positive", self.rate_hz)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What a collector does."""

    rate_hz: float = 30.0
    """Instants per second of game time."""
    scene_s: float = 40.0
    """Game time after which world, weather and time of day change."""
    traffic: tuple[float, float] = (1.0, 1.0)
    """Least and most traffic of a scene, relative to the game's; more of it shows more braking."""
    drop_before_crash_s: float = 0.0
    """Game time before a crash of the expert whose samples are dropped; for experts that do crash.
    All samples then reach the trainer later by as much, and take more ``slots_per_collector``."""
    latency_offset_ms: float = 0.0
    """How much later frames show the world than the controls that are told, as charles-calibrate
    measures it: each frame is paired with the controls of that much earlier. Negative where frames
    come first."""
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    dagger: DaggerConfig = field(default_factory=DaggerConfig)
    unstuck: UnstuckConfig = field(default_factory=UnstuckConfig)

    def __post_init__(self) -> None:
        require(self.rate_hz > 0, "collect.rate_hz", "be positive", self.rate_hz)
        require(self.scene_s > 0, "collect.scene_s", "be positive", self.scene_s)
        require(abs(self.latency_offset_ms) <= 2000, "collect.latency_offset_ms",
                "lie in [-2000, 2000]", self.latency_offset_ms)  # fmt: skip
        is_time = 0 <= self.drop_before_crash_s < float("inf")
        require(is_time, "collect.drop_before_crash_s", "be finite and 0 or more",
                self.drop_before_crash_s)  # fmt: skip
        low, high = self.traffic
        require(0 <= low <= high, "collect.traffic", "be two rising numbers", self.traffic)
