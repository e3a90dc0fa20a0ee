"""Whether a game does what it is asked for: the pad's controls against those that the game tells.

A game in the background, a pad that it does not read, a key that turns its wheels too slowly: all
look like a network that drives badly. What is asked of each control is compared with what is told
to apply. Both are averaged over a second, so that the presses of a key become their mean and a
delay does not matter; their share of each other over ten seconds is what counts.
"""

from collections.abc import Sequence

import numpy as np

AVERAGE_S = 1.0
"""Time that controls are averaged over."""
WINDOW_S = 10.0
"""Time that is judged."""
LEAST = 0.05
"""Root mean square of what must be asked of a control before anything is said of it."""
ENOUGH = 0.3
"""Share from which on nothing is said: a pedal by keys comes to less than half in some games."""


class Response:
    """Compares what was asked and what was told. Use from one thread.

    Args:
        controls: Names of the game's controls, ``A`` of them.
        rate_hz: How often :meth:`hear` is called.
    """

    def __init__(self, controls: Sequence[str], rate_hz: float) -> None:
        self._controls = tuple(controls)
        self._average, self._weight = 1 / (AVERAGE_S * rate_hz), 1 / (WINDOW_S * rate_hz)
        self._least_heard = round(WINDOW_S * rate_hz)
        self._heard = 0
        num = len(self._controls)
        self._means = np.zeros((2, num))
        """Of what was asked, and of what was told."""
        self._products = np.zeros((2, num))
        """Means of what was asked times what was asked, and times what was told."""
        self._shares = np.full(num, np.nan)

    def hear(self, asked: np.ndarray, told: np.ndarray) -> None:
        """Take note of an instant at which the pad was driven; both float ``[A]`` in [-1, 1]."""
        self._heard += 1
        self._means += self._average * (np.stack([asked, told]) - self._means)
        self._products += self._weight * (self._means[0] * self._means - self._products)
        if self._heard >= self._least_heard:
            power, common = self._products
            np.divide(common, power, out=self._shares, where=power >= LEAST**2)

    def shares(self) -> dict[str, float]:
        """Told share of what was asked, of each control when it was last asked for enough: 1 where
        the game does as it is asked, 0 where it does nothing, below 0 where it does the opposite.
        """
        shares = zip(self._controls, self._shares.tolist(), strict=True)
        return {name: share for name, share in shares if np.isfinite(share)}

    def text(self) -> str:
        """What is to be said of the controls that a game does not follow; empty where it does."""
        short = [
            f"{max(share, -9.99):.0%} of {name}"
            for name, share in self.shares().items()
            if share < ENOUGH
        ]
        if not short:
            return ""
        return (
            f"the game applies {' and '.join(short)} that it is asked for: is its window in front, "
            "and does it follow this pad or these keys?"
        )
