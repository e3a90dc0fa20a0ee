"""Settings of players; see :mod:`charles.config`."""

from dataclasses import dataclass, field
from typing import Literal

from charles.errors import require


@dataclass(frozen=True, kw_only=True)
class UnstuckConfig:
    """When a car counts as stuck: too little distance travelled in the last seconds."""

    window_s: float = 8.0
    """How far back to look."""
    distance_m: float = 3.0
    """Least distance travelled in that time."""
    fade_s: float = 0.5
    """How long the picture fades out before the car is put elsewhere, and in again after it, in a
    real-time game that can; nothing is predicted or kept meanwhile. 0: no fading."""

    def __post_init__(self) -> None:
        require(self.window_s > 0, "unstuck.window_s", "be positive", self.window_s)
        require(self.distance_m > 0, "unstuck.distance_m", "be positive", self.distance_m)
        require(self.fade_s >= 0, "unstuck.fade_s", "be 0 or more", self.fade_s)


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """When a player goes back to earlier parameters because it drives worse with newer ones."""

    is_enabled: bool = True
    """Go back; otherwise the newest parameters drive, however they do."""
    p_value: float = 0.05
    """Probability, for each window of driving, of going back although nothing got worse."""
    incidents: int = 4
    """Fewest incidents (the car was stuck, or hit something) to judge new parameters by."""
    apart_s: float = 10.0
    """Seconds after an incident in which further ones belong to it: a car that crashed is stuck."""
    window_minutes: float = 10.0
    """Driving after which parameters that were not found worse are what others are compared with.
    Less finds out sooner what is much worse; more finds out what is a little worse."""

    def __post_init__(self) -> None:
        require(0 < self.p_value < 1, "rollback.p_value", "lie in (0, 1)", self.p_value)
        require(self.incidents > 0, "rollback.incidents", "be positive", self.incidents)
        require(self.apart_s >= 0, "rollback.apart_s", "be 0 or more", self.apart_s)
        require(self.window_minutes > 0, "rollback.window_minutes", "be positive",
                self.window_minutes)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """What a player does."""

    rate_hz: float = 30.0
    """Predictions per second."""
    swap_at: Literal["tick", "unstuck"] = "tick"
    """When new parameters take over: between two ticks, or only when the car is put elsewhere."""
    smoothing: float = 0.6
    """Share that the controls before have in the next: the network errs a little differently on
    every picture, the mean of a few errs less. 0 takes every prediction as it is."""
    longest_hold: float = 0.5
    """Share of a period after whose end the pad is updated as soon as a prediction is ready; before
    it, the pad waits for the time that predictions lately took, so that its updates come evenly. 0
    never waits: less delay, more jitter."""
    unstuck: UnstuckConfig = field(default_factory=UnstuckConfig)
    rollback: RollbackConfig = field(default_factory=RollbackConfig)

    def __post_init__(self) -> None:
        require(self.rate_hz >= 5, "play.rate_hz", "be 5 or more", self.rate_hz,
                "Slower, pictures would be too old to drive by.")  # fmt: skip
        require(0 <= self.smoothing < 1, "play.smoothing", "lie in [0, 1)", self.smoothing)
        require(0 <= self.longest_hold < 1, "play.longest_hold", "lie in [0, 1)",
                self.longest_hold)  # fmt: skip
