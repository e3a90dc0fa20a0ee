"""MetaDrive's own driver, the Intelligent Driver Model with changes of lane, as a teacher.

It is made to be asked ten times a second. Here it is asked at every instant, whoever drives: what
it derives over time is scaled, so that it is the same driver at any rate. What it adds up over time
is left out: while another drives, that grows without end and tells of nothing that can be seen. It
arrives as often without (34 of 40 maps either way).

References:
    Treiber, M., Hennecke, A. and Helbing, D. (2000). Congested Traffic States in Empirical
    Observations and Microscopic Simulations. https://doi.org/10.1103/PhysRevE.62.1805
"""

import importlib
from collections import deque
from typing import Any

import numpy as np

OWN_HZ = 10.0
"""How often MetaDrive asks its drivers by default, which its controllers are tuned for."""


class Controller:
    """A PD controller with the gains of one at :data:`OWN_HZ`, asked at another rate.

    Args:
        gains: Proportional and derivative gain, each per call at :data:`OWN_HZ`.
        rate_hz: How often it is asked.
    """

    def __init__(self, gains: tuple[float, float], rate_hz: float) -> None:
        self._gains = gains
        self._per_period = max(1, round(rate_hz / OWN_HZ))
        self._errors: deque[float] = deque(maxlen=self._per_period + 1)

    def get_result(self, current_error: float) -> float:
        """The controller's answer to an error; MetaDrive's name and sign."""
        self._errors.append(current_error)
        change = (current_error - self._errors[0]) * self._per_period
        change /= max(len(self._errors) - 1, 1)
        proportional, derivative = self._gains
        return -(proportional * current_error + derivative * change)

    def reset(self) -> None:
        """Forget the past."""
        self._errors.clear()


class Teacher:
    """What MetaDrive's driver would do with a car. Use from one thread.

    Args:
        car: MetaDrive's vehicle.
        seed: Seeds when it dares to overtake.
        rate_hz: How often it is asked.
        speed_km_h: Its speed on a free road.
    """

    def __init__(self, car: Any, *, seed: int, rate_hz: float, speed_km_h: float) -> None:
        policies: Any = importlib.import_module("metadrive.policy.idm_policy")
        self._policy = policies.IDMPolicy(car, seed)
        self._policy.NORMAL_SPEED = self._policy.target_speed = speed_km_h
        self._policy.LANE_CHANGE_FREQ = round(self._policy.LANE_CHANGE_FREQ * rate_hz / OWN_HZ)
        for name in ("heading_pid", "lateral_pid"):
            theirs = getattr(self._policy, name)
            setattr(self._policy, name, Controller((theirs.k_p, theirs.k_d), rate_hz))

    def advise(self) -> np.ndarray:
        """Controls for the present instant, float32 ``[2]``; to be asked once at every instant."""
        steering, pedal = self._policy.act()
        return np.clip([pedal, -steering], -1.0, 1.0).astype(np.float32)
