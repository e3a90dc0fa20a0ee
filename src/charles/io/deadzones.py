"""Dead zones: from what a control should do to what an axis must show, and back.

A game ignores the first part of an axis and stretches the rest, so a small control sent as it is
does nothing. :func:`to_axis` undoes that; :func:`from_axis` is the game's own side. Pure functions
on arrays of any shape.

``translated_acceleration_braking`` and ``translated_steering`` are what the original project's
console printed in brackets beside a prediction; they are for display only.
"""

from dataclasses import dataclass

import numpy as np

from charles.errors import require
from charles.town.protocol import DEAD_ZONE

STEERING_GAIN = 0.8
"""Share of the translated steering that the original project's console showed."""


@dataclass(frozen=True, kw_only=True)
class DeadZone:
    """How one axis behaves in the game and how we answer; to be measured for each game."""

    game: float = DEAD_ZONE
    """Share of the axis that the game ignores."""
    neutral: float = 0.015
    """Controls smaller than this stay neutral, so that noise about 0 does not jump the zone."""
    limit: float = 1.0
    """Largest axis value to send."""

    def __post_init__(self) -> None:
        require(0 <= self.game < 1, "dead_zone.game", "lie in [0, 1)", self.game)
        require(0 <= self.neutral < 1, "dead_zone.neutral", "lie in [0, 1)", self.neutral)
        rule = f"lie in ({self.game}, 1]"
        require(self.game < self.limit <= 1, "dead_zone.limit", rule, self.limit)


def to_axis(control: np.ndarray | float, zone: DeadZone) -> np.ndarray:
    """The axis value that makes the game apply ``control``.

    Args:
        control: Wanted effect in [-1, 1], any shape.
        zone: The axis.

    Returns:
        Axis values in [-limit, limit], float64, of the same shape; 0 for controls below
        ``zone.neutral``.
    """
    control = np.asarray(control, dtype=np.float64)
    size = np.abs(control)
    axis = np.minimum(zone.limit, zone.game + (1.0 - zone.game) * size)
    return np.where(size < zone.neutral, 0.0, np.sign(control) * axis)


def from_axis(axis: np.ndarray | float, zone: DeadZone) -> np.ndarray:
    """What the game applies when an axis shows ``axis`` in [-1, 1]; float64 of the same shape."""
    axis = np.asarray(axis, dtype=np.float64)
    size = np.maximum(np.abs(axis) - zone.game, 0.0)
    return np.sign(axis) * size / (1.0 - zone.game)


def translated_acceleration_braking(prediction: np.ndarray | float) -> np.ndarray:
    """The original console's figure in brackets for acceleration/braking."""
    return from_axis(prediction, DeadZone(game=0.25))


def translated_steering(prediction: np.ndarray | float) -> np.ndarray:
    """The original console's figure in brackets for steering."""
    return STEERING_GAIN * from_axis(prediction, DeadZone(game=0.25))
