"""Dead zones: from what a control should do to what an axis must show, and back.

A game ignores the first part of an axis and stretches the rest, so a small control sent as it is
does nothing. :func:`to_axis` undoes that; :func:`from_axis` is the game's own side. Pure functions
on arrays of any shape. With dead zone ``d``, outer limit ``m`` and curve ``g``::

    axis    = sign(control) * min(m, d + (1 - d) * |control| ** g)          to_axis
    control = sign(axis) * ((min(m, |axis|) - d) / (1 - d)) ** (1 / g)     from_axis, |axis| > d

At neutral the axis jumps from 0 to ``d``. So that noise about 0 does not make it jump to and fro,
small controls are neutral, and :class:`Axis` leaves and enters neutral at two different values.

``translated_acceleration_braking`` and ``translated_steering`` are what the original project's
console printed in brackets beside a prediction; they are for display only.
"""

import numpy as np

from charles.pad_config import DeadZone

STEERING_GAIN = 0.8
"""Share of the translated steering that the original project's console showed."""


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
    return np.where(np.abs(control) < zone.neutral, 0.0, _stretched(control, zone))


def from_axis(axis: np.ndarray | float, zone: DeadZone) -> np.ndarray:
    """What the game applies when an axis shows ``axis`` in [-1, 1]; float64 of the same shape."""
    axis = np.asarray(axis, dtype=np.float64)
    size = np.minimum(np.abs(axis), zone.limit)
    share = np.maximum(size - zone.game, 0.0) / (1.0 - zone.game)
    return np.sign(axis) * share ** (1.0 / zone.curve)


def active_side(control: float, before: int, zone: DeadZone) -> int:
    """On which side of neutral an axis is: -1, 0 or 1.

    It leaves neutral, or changes sides, where the control reaches ``zone.neutral``, and is neutral
    again once the control falls ``zone.hysteresis`` below that, or has the other sign.

    Args:
        control: Wanted effect in [-1, 1].
        before: The side on which it was.
        zone: The axis.
    """
    side, size = (control > 0) - (control < 0), abs(control)
    if size >= zone.neutral:
        return side
    return side if side == before and size >= zone.neutral - zone.hysteresis else 0


class Axis:
    """One axis that remembers whether it is at neutral, so that it does not chatter.

    Args:
        zone: Its dead zone.
    """

    def __init__(self, zone: DeadZone) -> None:
        self._zone = zone
        self._side = 0

    def show(self, control: float) -> float:
        """What the axis shows from now on, in [-limit, limit], for ``control`` in [-1, 1]."""
        self._side = active_side(control, self._side, self._zone)
        return float(_stretched(np.asarray(control), self._zone)) if self._side else 0.0

    def rest(self) -> None:
        """Go to neutral, and forget where it was."""
        self._side = 0


def _stretched(control: np.ndarray, zone: DeadZone) -> np.ndarray:
    axis = zone.game + (1.0 - zone.game) * np.abs(control) ** zone.curve
    return np.sign(control) * np.minimum(zone.limit, axis)


def translated_acceleration_braking(prediction: np.ndarray | float) -> np.ndarray:
    """The original console's figure in brackets for acceleration/braking."""
    return from_axis(prediction, DeadZone(game=0.25))


def translated_steering(prediction: np.ndarray | float) -> np.ndarray:
    """The original console's figure in brackets for steering."""
    return STEERING_GAIN * from_axis(prediction, DeadZone(game=0.25))
