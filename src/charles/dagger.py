"""DAgger: the network itself drives a collector now and then, and the expert says what is right.

A clone that has only seen an expert drive has never seen where its own mistakes lead: too fast and
too close behind a car, half on the pavement. Pushes reach some of these states; its own driving
reaches those that matter. The labels stay the expert's, so this needs a game whose expert advises
whoever drives.

References:
    Ross et al., 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret
    Online Learning", https://arxiv.org/abs/1011.0686
"""

import numpy as np

from charles.controls import to_controls
from charles.io.game import Telemetry
from charles.observer import Observer
from charles.policy import Policy
from charles.staging import Stager


class Pupil:
    """A run's newest network, at the wheel of a collector in turns with the expert.

    It begins with a turn of the expert, and takes new parameters between two turns of its own. Use
    from one thread.

    Args:
        policy: The network; warmed up by the caller.
        stager: Where new parameters come from; the caller starts and stops it.
        rng: Source of all randomness here.
    """

    def __init__(self, policy: Policy, stager: Stager, *, rng: np.random.Generator) -> None:
        collect = policy.config.collect
        self._config, self._rate_hz, self._rng = collect.dagger, collect.rate_hz, rng
        self._hold_ticks = max(1, round(collect.rate_hz / collect.dagger.rate_hz))
        self._policy, self._stager = policy, stager
        self._since_prediction = 0
        self.reset()

    def reset(self) -> None:
        """Give the wheel to the expert for a turn, as after a new scene."""
        self._is_driving = False
        share = self._config.share
        self._ticks_left = round(self._turn_ticks() * (1.0 - share) / max(share, 1e-6))

    def step(self) -> bool:
        """Move on by one instant.

        Returns:
            Whether the network is at the wheel at this instant.
        """
        self._ticks_left -= 1
        self._since_prediction += 1
        if self._ticks_left > 0:
            return self._is_driving
        if self._is_driving:
            self.reset()
        elif self._stager.newest is not None:
            self._policy.variables = self._stager.newest.variables
            self._is_driving = True
            self._ticks_left = self._turn_ticks()
            self._since_prediction = self._hold_ticks
        return self._is_driving

    @property
    def is_due(self) -> bool:
        """Whether the network at the wheel predicts at this instant, or holds its controls."""
        return self._is_driving and self._since_prediction >= self._hold_ticks

    def act(self, observer: Observer, telemetry: Telemetry) -> np.ndarray:
        """Controls for the instant whose pixels are in ``observer.frame``, float32 ``[A]``."""
        self._since_prediction = 0
        predictions = self._policy.predict(observer.observe(telemetry))
        controls = to_controls(predictions, self._policy.spec.controls)
        return np.nan_to_num(controls)

    def _turn_ticks(self) -> int:
        return round(self._rng.uniform(*self._config.turn_s) * self._rate_hz)
