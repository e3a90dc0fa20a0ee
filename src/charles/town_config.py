"""How the built-in game answers a pad, how late it shows and tells, and how its servers misbehave;
see :mod:`charles.config`.

By default it answers as GTA V does, and at once. Everything else is there so that a calibration, or
a client, can be tried where the truth is known.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from charles.errors import require
from charles.pad_config import ZonesConfig

Picture = Literal["true", "black", "frozen"]


@dataclass(frozen=True, kw_only=True)
class ServerFaults:
    """Ways to misbehave on purpose; all off by default. Pairs are counted from 1."""

    controls: Literal["true", "constant", "random", "out_of_range", "not_finite"] = "true"
    """What a wrong build of GTA V reports as controls: the same ones for ever, numbers that are
    possible but have nothing to do with the car, or impossible ones; ``not_finite`` cuts every JSON
    short."""
    picture: Picture = "true"
    """What is captured: ``black`` as in exclusive full screen, ``frozen`` as of a window that
    nothing draws any more."""
    leak_after: int = 0
    """So many scenes can be built in the life of the server before capturing fails, because each
    leaks what it captures with; 0 for any number."""
    leak_ends: Literal["black", "frozen", "closed"] = "black"
    """What happens then: such pictures, or a closed connection."""
    dangling_strings: bool = False
    """A config that names no weather or no vehicle takes it from memory that was freed: any
    weather, and a vehicle that cannot exist, which hangs the server."""
    unknown_vehicle: str = ""
    """A vehicle that the game does not know: the server waits for it for ever."""
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
