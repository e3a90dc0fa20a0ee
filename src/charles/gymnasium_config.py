"""Settings of environments of Gymnasium, played as games; see :mod:`charles.io.gym`."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from charles.errors import require
from charles.human_config import HumanConfig

ACTION_FORM = re.compile(
    r"(?P<sign>-?)(?P<name>acceleration_braking|acceleration|braking|steering|neutral)"
    r"(?:\*(?P<gain>\d*\.?\d+))?"
)
"""How an entry of ``actions`` is written: a signal, a minus in front, a gain behind."""


@dataclass(frozen=True, kw_only=True)
class GymnasiumConfig:
    """An environment with a continuous action space, and who shows how it is played."""

    env: str = "CarRacing-v3"
    """Its name in Gymnasium's registry; it must have a Box of actions."""
    actions: tuple[str, ...] = ("steering*0.4", "acceleration*0.3", "braking*0.3")
    """What each number of the environment's action is: ``steering``, ``acceleration_braking``, or
    its halves ``acceleration`` and ``braking``, or ``neutral`` for one that stays 0. A minus in
    front turns it round. ``*0.4`` lets full lock be 0.4 of what the environment allows: in
    CarRacing the wheels turn no further, and full gas only spins them."""
    camera: Literal["render", "observation"] = "render"
    """What is seen: the picture that the environment renders, or the one that it observes."""
    expert: Literal["auto", "human", "none"] = "auto"
    """Who is learned from: ``auto`` is the expert that Charles has, which is one for CarRacing;
    ``human`` is you, with the pad of ``human``; ``none`` is nobody, enough to drive only."""
    rate_hz: float = 30.0
    """Instants per second of game time; collect.rate_hz and play.rate_hz mean the same. The
    environment makes as many steps between two instants as its own rate asks for."""
    steps_hz: float = 50.0
    """The environment's own steps per second, where it does not say so itself."""
    human: HumanConfig = field(default_factory=HumanConfig)

    def __post_init__(self) -> None:
        where = "game.gymnasium"
        require(bool(self.env), f"{where}.env", "name an environment", self.env)
        require(len(self.actions) > 0, f"{where}.actions", "name at least one", self.actions)
        for action in self.actions:
            rule = "be a signal such as steering, -steering or acceleration*0.5"
            require(ACTION_FORM.fullmatch(action) is not None, f"{where}.actions", rule, action)
        kinds = ("auto", "human", "none")
        require(self.expert in kinds, f"{where}.expert", f"be one of {kinds}", self.expert)
        is_whole = self.expert != "human" or self.human.kind != "none"
        require(is_whole, f"{where}.human.kind", "be evdev or xinput where expert is human",
                self.human.kind)  # fmt: skip
        for name in ("rate_hz", "steps_hz"):
            value = getattr(self, name)
            is_positive = math.isfinite(value) and value > 0
            require(is_positive, f"{where}.{name}", "be positive", value)
