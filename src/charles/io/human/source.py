"""What every person's pad or wheel is to a game: what the game applies, and whether anybody plays.

The game reads the pad too, and ignores its dead zone. So a label is not what the axis shows but
what the game makes of it: :func:`controls_of`.
"""

from collections.abc import Hashable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from charles.human_config import HumanConfig
from charles.io.deadzones import from_axis
from charles.pad_config import ZonesConfig
from charles.timing import NS_PER_S, clock_ns

_NOISE = 0.02
"""A resting axis may tremble by so much of its range, and stand so far from neutral."""


class HumanReading(NamedTuple):
    """What a person did with the pad at one time."""

    controls: np.ndarray
    """Acceleration less braking and steering as the game applies them, float32 ``[2]``, [-1, 1]."""
    is_active: bool
    """Whether somebody holds the pad: it was touched lately, or is held away from neutral."""
    read_ns: int
    """When it was read, monotonic clock."""


@runtime_checkable
class HumanInput(Protocol):
    """A person's pad or wheel. Used from one thread; does not keep the game from reading it."""

    def read(self) -> HumanReading:
        """What the person does now. Does not block.

        Raises:
            PadError: The device is gone.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice; does not raise."""
        ...


class Axes(NamedTuple):
    """Where a pad's or wheel's axes are."""

    throttle: float
    """0 to 1."""
    brake: float
    """0 to 1."""
    steering: float
    """-1 to 1, positive right."""


def share(value: int, low: int, high: int) -> float:
    """Where ``value`` lies in the range of an axis: 0 at ``low``, 1 at ``high``, clipped."""
    return min(max((value - low) / (high - low), 0.0), 1.0)


def centred(value: int, low: int, high: int) -> float:
    """Where ``value`` lies about the middle of an axis: -1 at ``low``, 1 at ``high``, clipped."""
    return 2.0 * share(value, low, high) - 1.0


def controls_of(axes: Axes, zones: ZonesConfig) -> np.ndarray:
    """What the game makes of the axes, float32 ``[2]``: throttle less brake, and steering.

    Each pedal passes the game's dead zone on its own, before the two meet.
    """
    throttle = from_axis(axes.throttle, zones.accelerate)
    brake = from_axis(axes.brake, zones.brake)
    return np.array([throttle - brake, from_axis(axes.steering, zones.steering)], np.float32)


class Attention:
    """Tells a pad that is held from one that lies on the table. Use from one thread.

    A pad that nobody has touched yet is left alone wherever its axes stand: some wheels show
    nonsense until they are moved for the first time.

    Args:
        idle_s: How long a neutral pad may rest before it counts as left alone.
    """

    def __init__(self, idle_s: float) -> None:
        self._idle_ns = round(idle_s * NS_PER_S)
        self._axes: Axes | None = None
        self._buttons: Hashable = None
        self._touched_ns: int | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the pad was touched at all."""
        return self._touched_ns is not None

    def is_held(self, axes: Axes, buttons: Hashable, now_ns: int, *, is_neutral: bool) -> bool:
        """Whether somebody holds the pad, which shows ``axes`` and ``buttons`` now."""
        if self._axes is None:
            self._axes, self._buttons = axes, buttons
        moved = max(abs(new - old) for new, old in zip(axes, self._axes, strict=True))
        if moved > _NOISE or buttons != self._buttons:
            self._axes, self._buttons, self._touched_ns = axes, buttons, now_ns
        if self._touched_ns is None:
            return False
        return not is_neutral or now_ns - self._touched_ns <= self._idle_ns


class Person:
    """From axes to readings: what all pads and wheels have in common. Use from one thread.

    Args:
        config: The game's dead zones, and how long a pad may rest.
    """

    def __init__(self, config: HumanConfig) -> None:
        self._zones = config.zones
        self._attention = Attention(config.idle_s)

    def reading(self, axes: Axes, buttons: Hashable) -> HumanReading:
        """The reading of what a pad shows now; neutral until it was touched for the first time."""
        now_ns = clock_ns()
        controls = controls_of(axes, self._zones)
        is_neutral = bool((np.abs(controls) <= _NOISE).all())
        is_active = self._attention.is_held(axes, buttons, now_ns, is_neutral=is_neutral)
        if not self._attention.has_begun:
            controls = np.zeros_like(controls)
        return HumanReading(controls, is_active, now_ns)
