"""From our controls to an environment's action."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from charles.errors import GameError, require
from charles.gymnasium_config import ACTION_FORM
from charles.sample import DRIVING_CONTROLS


class ActionMap:
    """Turns pedal and steering into an action of a Box.

    A signal in [-1, 1] spans the whole range of its number of the action; a half in [0, 1] goes
    from 0, or the end of the range that is nearest to 0, to the upper end.

    Args:
        actions: An entry for each number of the action, see
            :class:`charles.gymnasium_config.GymnasiumConfig`.
        space: The environment's action space.
        env: Its name, for errors.

    Raises:
        GameError: The space is no Box of one finite range for each number.
        ConfigError: There are more or fewer entries than numbers.

    Example:
        >>> from gymnasium.spaces import Box
        >>> space = Box(np.float32([-1, 0, 0]), np.float32([1, 1, 1]))
        >>> ActionMap(("-steering", "acceleration", "braking*0.5"), space, "Car")([-1.0, 0.5])
        array([-0.5,  0. ,  0.5], dtype=float32)
    """

    def __init__(self, actions: Sequence[str], space: Any, env: str) -> None:
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        if low is None or high is None or low.ndim != 1 or not np.isfinite([low, high]).all():
            raise GameError(
                f"{env} must have a finite Box of actions [N], got {space}. Choose an environment "
                "with continuous actions."
            )
        fix = f"One for each of {space}."
        require(len(actions) == len(low), "game.gymnasium.actions", f"have {len(low)} entries",
                actions, fix)  # fmt: skip
        self._low, self._high = low.astype(np.float32), high.astype(np.float32)
        pedal, steering = np.eye(len(DRIVING_CONTROLS), dtype=np.float32)
        rows = {"acceleration_braking": pedal, "acceleration": pedal, "braking": -pedal,
                "steering": steering, "neutral": 0 * pedal}  # fmt: skip
        self._rows = np.zeros((len(low), len(DRIVING_CONTROLS)), np.float32)
        self._is_half = np.zeros(len(low), bool)
        for number, text in enumerate(actions):
            form = ACTION_FORM.fullmatch(text)
            assert form is not None, "checked by the config"
            gain = float(form["gain"] or 1.0) * (-1.0 if form["sign"] else 1.0)
            self._rows[number] = gain * rows[form["name"]]
            self._is_half[number] = form["name"] in ("acceleration", "braking", "neutral")
        self._rest = np.clip(0.0, self._low, self._high).astype(np.float32)

    def __call__(self, controls: Sequence[float] | np.ndarray) -> np.ndarray:
        """The action for ``controls`` ``[2]``, float32 ``[N]``, within the Box."""
        signals = self._rows @ np.asarray(controls, np.float32)
        half = self._rest + np.maximum(signals, 0.0) * (self._high - self._rest)
        whole = self._low + (signals + 1.0) / 2.0 * (self._high - self._low)
        action = np.where(self._is_half, half, whole)
        return np.clip(action, self._low, self._high).astype(np.float32)
