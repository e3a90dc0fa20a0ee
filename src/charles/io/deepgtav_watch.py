"""What is made of a DeepGTAV game's telemetry: is it true, does the car move, where is its target.

Plain bookkeeping without sockets or clocks; times are those of the pairs. Use from one thread.
"""

import math

import numpy as np

from charles.io.deepgtav_pairs import Data, Pair
from charles.timing import NS_PER_S

_MOVED_M = 2.0
"""How far a car must get to count as moving."""

_MOVING_MPS = 2.0
"""What counts as moving."""

_TURNING_DEG_S = 5.0
_TURNING_MPS = 3.0
_STRAIGHT = 0.02
"""Steering below this says neither left nor right."""
_MOST_SAMPLED = 4096
"""Bytes of a frame that are looked at, evenly spread."""

_MAX_SPEED_MPS = 200.0
_TARGET_M = (200.0, 600.0)
_REACHED_M = 30.0
_HEADING_M = 0.5
"""Motion over which a heading is measured; less is noise."""


class ControlCheck:
    """Finds controls that cannot be the car's, as a wrong build of the game reports them.

    What cannot be told apart from nonsense yet is not proven: see ``is_proven``.

    Args:
        constant_s: Controls that stay exactly the same for so long, while the car moves all the
            time, are not real.
        num_turning: Pairs of a turning car after which steering is judged that does not say where
            it turns.
    """

    def __init__(self, *, constant_s: float, num_turning: int = 90) -> None:
        self._constant_ns = round(constant_s * NS_PER_S)
        self._num_turning = num_turning
        self._turning = self._agreeing = 0
        self._sides = {True: [0, 0], False: [0, 0]}
        """Pairs of turns to the right, and to the left, and how many of them agreed."""
        self.restart()

    def restart(self) -> None:
        """Begin anew, as after a change of driver."""
        self._last: tuple[float, float, float] | None = None
        self._since_ns = 0

    def is_possible(self, data: Data) -> bool:
        """Whether the controls are finite and in range; some cars' wheels turn past 40 degrees."""
        values = (data.throttle, data.brake, data.steering)
        return (
            all(map(math.isfinite, values))
            and abs(data.throttle) <= 1.01
            and -0.01 <= data.brake <= 1.01
            and abs(data.steering) <= 1.5
        )

    def is_frozen(self, data: Data, captured_ns: int) -> bool:
        """Whether the controls have stayed the same for too long while the car moved."""
        values = (data.throttle, data.brake, data.steering)
        if values != self._last or data.speed < _MOVING_MPS:
            self._last, self._since_ns = values, captured_ns
        return captured_ns - self._since_ns > self._constant_ns

    @property
    def is_proven(self) -> bool:
        """Whether steering has said where the car turned, to both sides, for a sixth of
        ``num_turning`` pairs each: one bend agrees with whatever is constant."""
        return all(
            6 * turning >= self._num_turning and agreeing >= 0.75 * turning
            for turning, agreeing in self._sides.values()
        )

    def is_contradicted(self, data: Data) -> bool:
        """Whether the wheels have too often pointed elsewhere than where the car turned.

        Counts over restarts, because a build that reports nonsense always does. A car that skids or
        has just been turned the other way may disagree for a while: a quarter of the time is free.
        """
        is_turning = data.speed >= _TURNING_MPS and abs(data.yaw_rate) >= _TURNING_DEG_S
        if not is_turning or data.throttle < 0.0 or abs(data.steering) < _STRAIGHT:
            return False
        is_agreeing = (data.steering > 0.0) == (data.yaw_rate < 0.0)
        self._turning += 1
        self._agreeing += is_agreeing
        side = self._sides[data.yaw_rate < 0.0]
        side[0] += 1
        side[1] += is_agreeing
        if self._turning < self._num_turning:
            return False
        is_wrong = self._agreeing < 0.75 * self._turning
        self._turning = self._agreeing = 0
        return is_wrong


class PictureCheck:
    """Finds frames that show nothing of the game, as they come once capturing has failed.

    Args:
        patience_s: How long pictures may stay black, or the same while the car moves.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_ns = round(patience_s * NS_PER_S)
        self.restart()

    def restart(self) -> None:
        """Begin anew, as with a new scene."""
        self._last = b""
        self._since_ns: int | None = None
        self._black_since_ns: int | None = None

    def is_black(self, pair: Pair) -> bool:
        """Whether every pixel is exactly 0: no game draws that, but a screen that fades does."""
        frame = pair.frame
        is_black = frame[0] == frame[-1] == 0 and frame.count(0) == len(frame)
        if not is_black:
            self._black_since_ns = None
        elif self._black_since_ns is None:
            self._black_since_ns = pair.captured_ns
        return is_black

    def is_blind(self, pair: Pair) -> str:
        """What has been wrong with the pictures for too long; empty if nothing. Ask once a pair."""
        since_ns = self._black_since_ns
        if since_ns is not None and pair.captured_ns - since_ns > self._patience_ns:
            return "are black"
        sample = bytes(pair.frame[:: max(1, len(pair.frame) // _MOST_SAMPLED)])
        if sample != self._last or pair.data.speed < _MOVING_MPS or self._since_ns is None:
            self._last, self._since_ns = sample, pair.captured_ns
        is_frozen = pair.captured_ns - self._since_ns > self._patience_ns
        return "stay the same while the car moves" if is_frozen else ""


class StartWatch:
    """Tells a car that never begins to move from one that waits for a moment.

    Args:
        patience_s: How long a car may stand at its start.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_ns = round(patience_s * NS_PER_S)
        self.restart()

    def restart(self) -> None:
        """A new start."""
        self.has_moved = False
        self._origin: tuple[float, float] | None = None
        self._since_ns = 0

    def is_dead(self, location: tuple[float, float, float], captured_ns: int) -> bool:
        """Whether the car has stood where it started for too long."""
        x, y, _ = location
        if self._origin is None:
            self._origin, self._since_ns = (x, y), captured_ns
        self.has_moved = self.has_moved or math.dist(self._origin, (x, y)) > _MOVED_M
        return not self.has_moved and captured_ns - self._since_ns > self._patience_ns


class RandomTarget:
    """A purpose for a game that has none: a random place not far away, a new one once reached.

    Args:
        rng: Draws the places.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.restart()

    def restart(self) -> None:
        """Forget target and heading, as after the car was put elsewhere."""
        self._target: tuple[float, float] | None = None
        self._from: tuple[float, float] | None = None
        self._heading: float | None = None

    def purpose(self, location: tuple[float, float, float]) -> np.ndarray:
        """Direction (radians, positive right) and distance (m) of the target, float32 ``[2]``.

        Both are 0 until the car has moved, because its heading is that of its last motion.
        """
        here = location[:2]
        self._measure_heading(here)
        if self._target is None or math.dist(here, self._target) < _REACHED_M:
            self._target = self._draw(here)
        if self._heading is None:
            return np.zeros(2, np.float32)
        bearing = math.atan2(self._target[1] - here[1], self._target[0] - here[0])
        direction = math.remainder(self._heading - bearing, 2.0 * math.pi)
        return np.array([direction, math.dist(here, self._target)], np.float32)

    def _measure_heading(self, here: tuple[float, float]) -> None:
        if self._from is None:
            self._from = here
        elif math.dist(here, self._from) >= _HEADING_M:
            self._heading = math.atan2(here[1] - self._from[1], here[0] - self._from[0])
            self._from = here

    def _draw(self, here: tuple[float, float]) -> tuple[float, float]:
        bearing, distance = self._rng.uniform(0.0, 2.0 * math.pi), self._rng.uniform(*_TARGET_M)
        return (here[0] + distance * math.cos(bearing), here[1] + distance * math.sin(bearing))


def is_plausible_motion(data: Data) -> bool:
    """Whether speed and place, which no known build reports wrongly, are possible."""
    return 0.0 <= data.speed <= _MAX_SPEED_MPS and all(map(math.isfinite, data.location))
