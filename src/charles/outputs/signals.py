"""One signal out of many: an output's value in a label, and its current value in a history."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from charles.errors import ConfigError

Array = Any
"""A NumPy or a JAX array."""


def control_of(controls: Array, names: Sequence[str], wanted: str) -> Array:
    """Pick one signal ``[...]`` out of controls ``[..., A]``.

    ``acceleration`` and ``braking`` are the positive and the negative half of
    ``acceleration_braking`` where the game has no control of that name.

    Raises:
        ConfigError: The game has no such control.
    """
    if wanted in names:
        return controls[..., names.index(wanted)]
    halves = {"acceleration": 1.0, "braking": -1.0}
    if wanted in halves and "acceleration_braking" in names:
        both = controls[..., names.index("acceleration_braking")]
        return (halves[wanted] * both).clip(0.0)
    rule = f"be one of the game's controls {tuple(names)}"
    raise ConfigError(f"outputs: name must {rule}, got {wanted!r}.")


def current_of(history: Array, names: Sequence[str], wanted: str) -> Array:
    """The current value of one signal: what applied at the instant before the one to decide.

    It is taken from the newest row of the history, which is what a network may see and what driving
    has as well; what applies at the instant itself is, for a game whose expert is watched from
    outside, the label.

    Args:
        history: float32 ``[..., T, D]``, oldest first, a row beginning with the controls.
        names: Of the controls, in that order.
        wanted: The signal, as for :func:`control_of`.

    Returns:
        float32 ``[...]``; zero where nothing is remembered (``T`` is 0).

    Raises:
        ConfigError: The game has no such control.
    """
    if history.shape[-2] == 0:
        return np.zeros(history.shape[:-2], np.float32)
    return control_of(history[..., -1, : len(names)], names, wanted)
