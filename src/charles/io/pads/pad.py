"""What every pad is to a player.

A pad takes controls in [-1, 1], float32 ``[A]``, in the order of the game's own controls. Whatever
the pad, a prediction that is not finite is never sent: the pad goes to neutral and counts it, and
values out of range are clamped. Used from one thread.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from charles.errors import PadError
from charles.sample import DRIVING_CONTROLS


@runtime_checkable
class Pad(Protocol):
    """What a player drives with."""

    @property
    def refused(self) -> int:
        """Predictions that were not finite; each was answered with neutral controls."""
        ...

    def update(self, controls: np.ndarray) -> None:
        """Hold ``controls``, float32 ``[A]``, until the next call. Must not block for long.

        Raises:
            PadError: ``controls`` has another shape, or the pad is gone.
            GameError: The game that carries the pad's commands is gone.
        """
        ...

    def neutral(self) -> None:
        """Let go of everything."""
        ...

    def close(self) -> None:
        """Let go of everything and give the pad back. May be called twice; does not raise."""
        ...


@runtime_checkable
class SpeedAware(Protocol):
    """A pad that must know how fast the car is, because the game answers by that."""

    def at_speed(self, speed_mps: float | None) -> None:
        """The speed of this instant; ``None`` where the game does not tell it."""
        ...


@runtime_checkable
class Applying(Protocol):
    """A pad that knows what the game makes of it, where that is not what it was told."""

    @property
    def applied(self) -> np.ndarray:
        """What the game applies of the pad as it is now, float32 ``[A]``."""
        ...


def applied_by(pad: Pad, controls: np.ndarray) -> np.ndarray:
    """What a game applies after ``pad.update(controls)``, float32 ``[A]``."""
    if isinstance(pad, Applying):
        return pad.applied
    values = clamped(controls, len(controls))
    return np.zeros(len(controls), np.float32) if values is None else values


def clamped(controls: np.ndarray, num: int) -> np.ndarray | None:
    """``controls`` as float32 ``[num]`` clamped to [-1, 1]; ``None`` if a value is not finite.

    Raises:
        PadError: The shape is not ``[num]``.
    """
    values = np.asarray(controls, dtype=np.float32)
    if values.shape != (num,):
        raise PadError(f"controls must be float32 [{num}], got {values.dtype} {values.shape}.")
    return np.clip(values, -1.0, 1.0) if np.isfinite(values).all() else None


def driving_indices(controls: Sequence[str]) -> tuple[int, int]:
    """Where acceleration/braking and steering are among the names of a game's ``controls``.

    Raises:
        PadError: One of them is missing: the game is not driven like a car.
    """
    for name in DRIVING_CONTROLS:
        if name not in controls:
            raise PadError(f"This pad needs the control {name!r}, got {tuple(controls)}.")
    pedal, wheel = (list(controls).index(name) for name in DRIVING_CONTROLS)
    return pedal, wheel
