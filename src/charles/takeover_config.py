"""Settings of a person who takes the wheel from a player; see :mod:`charles.takeover`."""

import math
from dataclasses import dataclass, field
from typing import Literal

from charles.errors import did_you_mean, require
from charles.human_config import HumanConfig
from charles.pad_config import KEY_NAMES, KeysConfig

TakeoverKind = Literal["none", "evdev", "xinput", "keys"]

HOTKEY_NAMES = (*(f"f{number}" for number in range(1, 13)), *KEY_NAMES)
"""Keys that may hand the wheel over."""

_ARROWS = KeysConfig(accelerate="up", brake="down", left="left", right="right")


@dataclass(frozen=True, kw_only=True)
class TakeoverConfig:
    """A person who takes the wheel from the network by touching a pad, or by a key."""

    kind: TakeoverKind = "none"
    """What the person drives with: ``evdev``, a pad or wheel on Linux; ``xinput``, a pad on
    Windows; ``keys``, the keyboard (X11, Windows); ``none``, nobody takes the wheel."""
    release_s: float = 1.0
    """The network drives again once the pad has rested in neutral for so long."""
    hotkey: str = ""
    """Key that hands the wheel over and back, whatever the pad does, for example ``f8`` (X11,
    Windows); none by default."""
    passes_through: bool = True
    """Put the person's controls on the player's pad. Switch it off where the game reads the
    person's pad itself: the player's pad is then neutral while the person drives."""
    human: HumanConfig = field(default_factory=HumanConfig)
    """Which pad or wheel, its axes and the game's dead zones (evdev, xinput); ``takeover.kind``
    and ``takeover.release_s`` stand for its ``kind`` and ``idle_s``."""
    keys: KeysConfig = _ARROWS
    """Keys that the person drives with (keys)."""
    display: str = ""
    """X display whose keyboard is read; by default the environment's."""

    def __post_init__(self) -> None:
        kinds = ("none", "evdev", "xinput", "keys")
        require(self.kind in kinds, "takeover.kind", f"be one of {kinds}", self.kind)
        is_time = math.isfinite(self.release_s) and self.release_s > 0
        require(is_time, "takeover.release_s", "be positive", self.release_s)
        require(self.human.kind == "none", "takeover.human.kind", "stay none", self.human.kind,
                "Set takeover.kind.")  # fmt: skip
        if not self.hotkey:
            return
        require(self.hotkey in HOTKEY_NAMES, "takeover.hotkey", f"be one of {HOTKEY_NAMES}",
                self.hotkey, did_you_mean(self.hotkey.lower(), HOTKEY_NAMES))  # fmt: skip
        require(self.kind != "none", "takeover.kind", "say what the person drives with",
                self.kind, "Set takeover.kind, or leave takeover.hotkey out.")  # fmt: skip
        taken = tuple(vars(self.keys).values()) if self.kind == "keys" else ()
        require(self.hotkey not in taken, "takeover.hotkey", f"be none of the keys {taken}",
                self.hotkey)  # fmt: skip

    def used_keys(self) -> tuple[str, ...]:
        """Keys of the keyboard that mean something to us."""
        driven = tuple(vars(self.keys).values()) if self.kind == "keys" else ()
        return (*driven, *([self.hotkey] if self.hotkey else []))
