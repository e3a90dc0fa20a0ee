"""What all decoders share: the length of a packet, and numbers that can be what they are to be.

A packet of another protocol may well have a right length, so numbers are checked too: they must be
finite, and near enough to their range that rounding explains the rest. Pure functions.
"""

import math
from collections.abc import Sequence

from charles.errors import GameProtocolError

MAX_SPEED_MPS = 500.0
"""Faster than any car of any game; more is a number of something else."""

MAX_LOCATION_M = 1e6
"""Farther than any game's world reaches."""

_TOLERANCE = 0.02


def check_length(protocol: str, packet: bytes, lengths: Sequence[int], fix: str = "") -> None:
    """Refuse a packet of the wrong length.

    Raises:
        GameProtocolError: The length is none of ``lengths``.
    """
    if len(packet) not in lengths:
        expected = " or ".join(map(str, lengths))
        raise GameProtocolError(
            f"{protocol}: a packet must have {expected} bytes, got {len(packet)}."
            + (f" {fix}" if fix else "")
        )


def within(protocol: str, name: str, value: float, low: float, high: float) -> float:
    """``value``, clipped to ``low..high`` once it is sure that it lies there but for rounding.

    Raises:
        GameProtocolError: It is not finite, or lies farther outside.
    """
    slack = _TOLERANCE * (high - low)
    if not low - slack <= value <= high + slack:  # NaN compares false, so it is refused here too
        raise GameProtocolError(
            f"{protocol}: {name} must be finite and lie in {low:g}..{high:g}, got {value!r}."
        )
    return min(max(value, low), high)


def speed_of(protocol: str, *velocity: float) -> float:
    """Speed over ground, m/s, from the parts of a velocity, or from one speed of either sign.

    Raises:
        GameProtocolError: It is not finite, or no car is as fast.
    """
    return within(protocol, "speed", math.hypot(*velocity), 0.0, MAX_SPEED_MPS)


def pedals(protocol: str, throttle: float, brake: float) -> float:
    """Throttle less brake, in [-1, 1], from two pedals in 0..1.

    Raises:
        GameProtocolError: A pedal is not finite or out of range.
    """
    pressed = within(protocol, "throttle", throttle, 0.0, 1.0)
    return pressed - within(protocol, "brake", brake, 0.0, 1.0)


def place(protocol: str, x: float, y: float, z: float) -> tuple[float, float, float]:
    """A position, metres, along the game's own axes.

    Raises:
        GameProtocolError: A coordinate is not finite, or far outside any world.
    """
    for value in (x, y, z):
        within(protocol, "position", value, -MAX_LOCATION_M, MAX_LOCATION_M)
    return (x, y, z)
