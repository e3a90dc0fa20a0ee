"""From predictions to a game's controls: which follow from which, and how they are steadied.

Apart from the policy, because a player whose network is elsewhere imports no JAX.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from charles.errors import require
from charles.outputs import OutputConfig

HALVES = ("acceleration", "braking")
"""Outputs that together make the control ``acceleration_braking``."""


def check_controls(outputs: tuple[str, ...], controls: tuple[str, ...]) -> None:
    """Refuse outputs that cannot drive a game with these controls.

    Raises:
        ConfigError: A control of the game follows from no output.
    """
    for control in controls:
        halves = control == "acceleration_braking" and set(HALVES) <= set(outputs)
        rule = f"predict the game's control {control!r}, itself or as both of {HALVES}"
        require(control in outputs or halves, "outputs", rule, outputs)


def to_controls(predictions: Mapping[str, float], controls: tuple[str, ...]) -> np.ndarray:
    """Translate predictions to the game's controls, float32 ``[A]`` clipped to [-1, 1].

    What is not finite stays so: the caller decides what to do about it.
    """
    values = [
        predictions[name]
        if name in predictions
        else predictions["acceleration"] - predictions["braking"]
        for name in controls
    ]
    return np.clip(np.asarray(values, np.float32), -1.0, 1.0)


class ControlFilter:
    """From predictions to controls that do not tremble: a running mean of what was predicted.

    A network errs a little differently on every picture, and a car follows all of it; the mean
    over a few pictures errs less.

    What a discrete delta predicts is left as it is: it adds to what applied, which is a mean over
    the past by itself, and of a change that was damped again too little would arrive.

    Args:
        outputs: What is predicted.
        controls: Names of the game's ``A`` controls.
        smoothing: Share that the controls before have in the next, in [0, 1).
    """

    def __init__(
        self, outputs: Iterable[OutputConfig], controls: tuple[str, ...], smoothing: float
    ) -> None:
        by_change = {output.name for output in outputs if output.is_by_change}
        is_summing = [
            name in by_change
            or (name == "acceleration_braking" and not by_change.isdisjoint(HALVES))
            for name in controls
        ]
        self._controls = controls
        self._smoothing = np.where(is_summing, 0.0, smoothing).astype(np.float32)
        self._last: np.ndarray | None = None

    def restart(self) -> None:
        """Forget what was predicted before, as after a teleport."""
        self._last = None

    def apply(self, predictions: Mapping[str, float]) -> np.ndarray:
        """The next controls, as :func:`to_controls` returns them; what is not finite stays so."""
        controls = to_controls(predictions, self._controls)
        if not np.isfinite(controls).all():
            self._last = None
            return controls
        if self._last is not None:
            controls += self._smoothing * (self._last - controls)
        self._last = controls
        return controls
