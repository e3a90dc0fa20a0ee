"""Settings of a person's own pad or wheel; see :mod:`charles.io.human`."""

import math
from dataclasses import dataclass, field
from typing import Literal

from charles.errors import require
from charles.pad_config import ZonesConfig

HumanKind = Literal["none", "evdev", "xinput"]


@dataclass(frozen=True, kw_only=True)
class HumanConfig:
    """The pad or wheel that a person plays with, read while the game is played."""

    kind: HumanKind = "none"
    """``evdev`` reads pads and wheels on Linux, ``xinput`` pads on Windows."""
    device: str = ""
    """Part of the device's name, or its path (evdev); by default the first pad or wheel."""
    slot: int = 0
    """Which pad, 0 to 3 (xinput)."""
    throttle: str = ""
    """Axis of the throttle by the kernel's name, for example ``ABS_RZ``; a minus in front is for
    one that rests at its maximum, as pedals of wheels do. By default as pads and wheels have it
    (evdev)."""
    brake: str = ""
    """Axis of the brake, likewise (evdev)."""
    steering: str = ""
    """Axis of the steering, likewise; a minus in front exchanges left and right (evdev)."""
    zones: ZonesConfig = field(default_factory=ZonesConfig)
    """What the game makes of the axes, the same table that a player's pad is written with
    (``pad.zones``); for a wheel ``game`` is mostly 0."""
    idle_s: float = 5.0
    """A pad that rests for so long is taken as left alone, and nothing is learned from it."""

    def __post_init__(self) -> None:
        kinds = ("none", "evdev", "xinput")
        require(self.kind in kinds, "human.kind", f"be one of {kinds}", self.kind)
        require(0 <= self.slot < 4, "human.slot", "lie in 0..3", self.slot)
        is_idle = math.isfinite(self.idle_s) and self.idle_s > 0
        require(is_idle, "human.idle_s", "be positive", self.idle_s)
