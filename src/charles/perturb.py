"""Pushing a car off the expert's path, so that its way back is recorded.

An expert that drives well never shows how to get out of trouble, and a clone that drifts a little
has never seen where it then is. So a collector now and then takes the wheel for a moment and adds
a constant offset to the expert's action; the label stays the expert's.

References:
    Bojarski et al., 2016, "End to End Learning for Self-Driving Cars",
    https://arxiv.org/abs/1604.07316; Laskey et al., 2017, "DART: Noise Injection for Robust
    Imitation Learning", https://arxiv.org/abs/1703.09327
"""

from collections.abc import Sequence

import numpy as np

from charles.collect_config import PerturbConfig
from charles.sample import SampleFlag

RECOVERY_S = 2.0
"""How long after a push the samples count as the way back."""


class Perturber:
    """Decides at each instant whether the car is being pushed, and by how much.

    Pushes begin at random (a Poisson process) and keep one offset for their whole length, because
    noise that changes at every instant averages out and moves the car nowhere.

    Args:
        config: How often, how long and how hard.
        controls: Names of the controls, in the order of every controls array.
        rate_hz: Instants per second.
        rng: Source of all randomness here.
    """

    def __init__(
        self,
        config: PerturbConfig,
        controls: Sequence[str],
        *,
        rate_hz: float,
        rng: np.random.Generator,
    ) -> None:
        deviations = {
            "steering": config.steering,
            "acceleration_braking": config.acceleration_braking,
        }
        self._config = config
        self._deviation = np.array([deviations.get(name, 0.0) for name in controls], np.float32)
        self._rate_hz = rate_hz
        self._chance = 1 / (config.every_s * rate_hz) if config.every_s > 0 else 0.0
        self._rng = rng
        self._offset = np.zeros_like(self._deviation)
        self._ticks_left = 0
        self._recovery_left = 0

    @property
    def flag(self) -> SampleFlag:
        """What a sample taken now should be marked as."""
        if self._ticks_left > 0:
            return SampleFlag.PERTURBED
        return SampleFlag.RECOVERY if self._recovery_left > 0 else SampleFlag.NONE

    def step(self) -> bool:
        """Move on by one instant.

        Returns:
            Whether the car is being pushed at this instant.
        """
        if self._ticks_left > 0:
            self._ticks_left -= 1
        elif self._recovery_left > 0:
            self._recovery_left -= 1
        elif self._config.every_s > 0 and self._rng.random() < self._chance:
            self._begin()
        return self._ticks_left > 0

    def apply(self, action: np.ndarray) -> np.ndarray:
        """The expert's ``action`` with the push added, float32 ``[A]`` clipped to [-1, 1]."""
        return np.clip(action + self._offset, -1.0, 1.0).astype(np.float32)

    def reset(self) -> None:
        """Forget the push in progress, as after a new scene."""
        self._ticks_left = self._recovery_left = 0

    def _begin(self) -> None:
        low, high = self._config.duration_s
        self._ticks_left = max(1, round(self._rng.uniform(low, high) * self._rate_hz))
        self._recovery_left = round(RECOVERY_S * self._rate_hz)
        self._offset = (self._rng.standard_normal(len(self._deviation)) * self._deviation).astype(
            np.float32
        )
