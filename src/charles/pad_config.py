"""Settings of the pad that a player drives with, and of its axes; see :mod:`charles.config`."""

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charles.errors import did_you_mean, require

PadKind = Literal["command", "virtual", "uinput", "keyboard", "none"]

KEY_NAMES = (
    *string.ascii_lowercase, *string.digits, "up", "down", "left", "right", "space", "shift", "ctrl"
)  # fmt: skip
"""Keys that a keyboard pad knows, under the same name on every system."""


@dataclass(frozen=True, kw_only=True)
class DeadZone:
    """How one axis behaves in the game and how we answer; to be measured for each game."""

    game: float = 0.25
    """Share of the axis that the game ignores: 0.25 in GTA V; XInput recommends 0.24 for the left
    stick and 0.12 for triggers, but every game has its own."""
    limit: float = 1.0
    """Largest axis value to send; beyond it the game does no more."""
    curve: float = 1.0
    """Exponent of the answer beyond the dead zone: 2 where a quarter of the way there already has
    half the effect, 0.5 where half the way has a quarter of it, 1 where the game is even."""
    neutral: float = 0.015
    """Controls smaller than this stay neutral, so that noise about 0 does not jump the zone."""
    hysteresis: float = 0.005
    """How far below ``neutral`` a control must fall before its axis lets go again."""

    def __post_init__(self) -> None:
        require(0 <= self.game < 1, "dead_zone.game", "lie in [0, 1)", self.game)
        rule = f"lie in ({self.game}, 1]"
        require(self.game < self.limit <= 1, "dead_zone.limit", rule, self.limit)
        require(0.1 <= self.curve <= 10, "dead_zone.curve", "lie in [0.1, 10]", self.curve)
        require(0 <= self.neutral < 1, "dead_zone.neutral", "lie in [0, 1)", self.neutral)
        require(self.hysteresis >= 0, "dead_zone.hysteresis", "be 0 or more", self.hysteresis)


@dataclass(frozen=True, kw_only=True)
class ZonesConfig:
    """Dead zones of the axes that a car is driven with."""

    accelerate: DeadZone = field(default_factory=DeadZone)
    brake: DeadZone = field(default_factory=DeadZone)
    steering: DeadZone = field(default_factory=DeadZone)


@dataclass(frozen=True, kw_only=True)
class KeysConfig:
    """Which keys a keyboard pad presses: a letter, a digit, or up, down, left, right, space, shift,
    ctrl."""

    accelerate: str = "w"
    """Key of the throttle."""
    brake: str = "s"
    """Key of brake and reverse."""
    left: str = "a"
    """Key that steers left."""
    right: str = "d"
    """Key that steers right."""

    def __post_init__(self) -> None:
        for name, key in vars(self).items():
            require(key in KEY_NAMES, f"pad.keys.{name}", f"be one of {KEY_NAMES}", key,
                    did_you_mean(key.lower(), KEY_NAMES))  # fmt: skip
        names = tuple(vars(self).values())
        require(len(set(names)) == len(names), "pad.keys", "be four different keys", names)


@dataclass(frozen=True, kw_only=True)
class PadConfig:
    """What a player drives with."""

    kind: PadKind = "command"
    """``command``: the game's own command channel, where it has one. ``virtual``: an Xbox 360 pad
    by vgamepad (Windows, Linux). ``uinput``: the same by the Linux kernel alone. ``keyboard``: keys
    of the window in front, for games without a pad. ``none``: look on, drive nothing."""
    zones: ZonesConfig = field(default_factory=ZonesConfig)
    calibration: Path | None = None
    """File of charles-calibrate for this game: its dead zones and gains in place of ``zones``
    (command, virtual, uinput)."""
    keys: KeysConfig = field(default_factory=KeysConfig)
    pulse_ms: float = 100.0
    """Time of a key's press and pause together at half deflection (keyboard). Near none and full
    it is longer, so that no press or pause is shorter than a quarter of it: a game looks at its
    keys once a frame."""
    display: str = ""
    """X display of the game's window (keyboard); by default the environment's."""
    wake_up: bool = True
    """Press and let go of A once at the start (virtual, uinput): games ignore a pad before that."""

    def __post_init__(self) -> None:
        require(20 <= self.pulse_ms <= 5000, "pad.pulse_ms", "lie in [20, 5000]", self.pulse_ms)
