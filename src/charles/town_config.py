"""How the built-in game answers a pad, and how late it shows and tells; see :mod:`charles.config`.

By default it answers as GTA V does, and at once. Everything else is there so that a calibration can
be tried where the truth is known.
"""

from dataclasses import dataclass, field

import numpy as np

from charles.errors import require
from charles.pad_config import ZonesConfig


@dataclass(frozen=True, kw_only=True)
class TownConfig:
    """Habits of Town that a calibration finds out."""

    zones: ZonesConfig = field(default_factory=ZonesConfig)
    """What it makes of a pad's axes; a network's or an expert's controls pass by them."""
    steering_gain: tuple[tuple[float, float], ...] = ()
    """What a full deflection of the stick steers at a speed: rising speeds (m/s), each with its
    share; in between evenly. Empty: all, at any speed."""
    frame_delay: int = 0
    """Instants by which pictures are older than what is told with them."""
    telemetry_delay: int = 0
    """Instants by which what is told is older than the pictures with it."""

    def __post_init__(self) -> None:
        for name in ("frame_delay", "telemetry_delay"):
            value = getattr(self, name)
            require(0 <= value <= 60, f"game.town.{name}", "lie in 0..60", value)
        speeds = [speed for speed, _ in self.steering_gain]
        is_table = speeds == sorted(set(speeds)) and all(
            speed >= 0 and 0 < gain <= 1 for speed, gain in self.steering_gain
        )
        require(is_table, "game.town.steering_gain",
                "be rising speeds from 0 on, each with a share in (0, 1]",
                self.steering_gain)  # fmt: skip

    def gain(self, speed_mps: float) -> float:
        """What a full deflection of the stick steers at a speed."""
        if not self.steering_gain:
            return 1.0
        speeds, gains = zip(*self.steering_gain, strict=True)
        return float(np.interp(speed_mps, speeds, gains))
