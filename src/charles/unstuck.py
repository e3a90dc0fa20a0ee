"""When a car counts as stuck: it travelled too little in the last seconds.

What counts is the distance *travelled*, not the distance between two end points: a car that drives
around the block and comes back to where it was is not stuck.
"""

import numpy as np

from charles.errors import require
from charles.play_config import UnstuckConfig


class Unstuck:
    """Adds up the distance travelled over a sliding window. Use from one thread.

    Args:
        config: Length of the window and the least distance in it.
        rate_hz: Instants per second of game time.

    Example:
        >>> unstuck = Unstuck(UnstuckConfig(window_s=1.0, distance_m=3.0), rate_hz=2.0)
        >>> [unstuck.add(speed) for speed in (10.0, 0.0, 0.0)]
        [False, False, True]
    """

    def __init__(self, config: UnstuckConfig, rate_hz: float) -> None:
        require(rate_hz > 0, "rate_hz", "be positive", rate_hz)
        self._least_m = config.distance_m
        self._period_s = 1.0 / rate_hz
        self._steps_m = np.zeros(max(1, round(config.window_s * rate_hz)))
        self._seen = 0

    def add(self, speed_mps: float | None) -> bool:
        """Count one instant at this speed over ground, 0 or more; ``None`` where nobody knows, and
        a car of unknown speed is never stuck.

        Returns:
            Whether the car is stuck. Never before a whole window was seen since :meth:`reset`.
        """
        step_m = np.inf if speed_mps is None else abs(speed_mps) * self._period_s
        self._steps_m[self._seen % len(self._steps_m)] = step_m
        self._seen += 1
        return self._seen >= len(self._steps_m) and self.travelled_m < self._least_m

    @property
    def travelled_m(self) -> float:
        """Distance travelled in the window so far, metres."""
        return float(self._steps_m.sum())

    def reset(self) -> None:
        """Forget the past, as after a teleport."""
        self._steps_m[:] = 0.0
        self._seen = 0
