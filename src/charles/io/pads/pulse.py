"""A control between none and full by a key that is only up or down: pulse width."""

import math


class Pulse:
    """When the two keys of one axis are down, so that their mean over time is the control.

    What is owed is the control's integral over time minus the key's. A key goes down once an eighth
    of a period is owed, and up once it was down an eighth too long. So the mean is exact, the error
    never exceeds an eighth of a period (and however late :meth:`advance` comes), no press or pause
    is shorter than a quarter of one, and at half deflection the two take exactly one. Time in
    seconds, of any clock. Neutral and full deflection take hold at once and forgive what is owed.

    Args:
        period_s: Press and pause together at half deflection.
    """

    def __init__(self, period_s: float) -> None:
        self.side = 0
        """Which key is down: -1, 0 for none, 1; never both."""
        self._control = 0.0
        self._slack_s = period_s / 8
        self._owed_s = 0.0
        self._seen_s = 0.0

    def aim(self, control: float, now_s: float) -> None:
        """From now on the mean shall be ``control``, in [-1, 1]."""
        self.advance(now_s)
        self._control = control
        self.advance(now_s)

    def advance(self, now_s: float) -> None:
        """Account for the time until now, and press or let go if it is due."""
        passed_s, self._seen_s = max(0.0, now_s - self._seen_s), now_s
        sign = (self._control > 0) - (self._control < 0)
        if sign == 0 or abs(self._control) >= 1.0:
            self._owed_s, self.side = 0.0, sign
            return
        most_s = 8 * self._slack_s  # a process that slept for an hour owes nothing for it
        owed_s = self._owed_s + (self._control - self.side) * passed_s
        self._owed_s = min(max(owed_s, -most_s), most_s)
        if self.side != 0 and (self.side != sign or sign * self._owed_s <= -self._slack_s):
            self.side = 0
        if self.side == 0 and sign * self._owed_s >= self._slack_s:
            self.side = sign

    def wait_s(self) -> float:
        """From the last :meth:`advance` to the next press or release; infinite if none is due."""
        size = abs(self._control)
        if size == 0.0 or size >= 1.0:
            return math.inf
        owed_s = math.copysign(1.0, self._control) * self._owed_s
        if self.side:
            return max(0.0, (owed_s + self._slack_s) / (1.0 - size))
        return max(0.0, (self._slack_s - owed_s) / size)
