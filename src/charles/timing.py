"""Keeping a rate on absolute deadlines, and measuring how well a stream of instants kept one."""

import sys
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from charles.errors import require

NS_PER_S = 1_000_000_000

clock_ns = time.perf_counter_ns if sys.platform == "win32" else time.monotonic_ns
"""The monotonic clock of all instants, one for all processes of a host. Windows' own moves in steps
of 15.6 ms before Python 3.13."""


def sleep_until(time_ns: int) -> int:
    """Sleep until a time of the monotonic clock, if it is yet to come; returns the time then."""
    now_ns = clock_ns()
    while now_ns < time_ns:
        time.sleep((time_ns - now_ns) / NS_PER_S)
        now_ns = clock_ns()
    return now_ns


class RateKeeper:
    """Holds a loop to a rate by absolute deadlines, so that errors never add up.

    A loop that falls behind by more than a period skips the deadlines it cannot make and counts
    them as missed; it does not race to catch up. Use from one thread.

    Args:
        rate_hz: Ticks per second, positive.
    """

    def __init__(self, rate_hz: float) -> None:
        require(rate_hz > 0, "rate_hz", "be positive", rate_hz)
        self.period_ns = round(NS_PER_S / rate_hz)
        self.missed = 0
        self.deadline_ns = clock_ns()
        """The newest deadline, by the monotonic clock."""

    def wait(self) -> int:
        """Sleep until the next deadline.

        Returns:
            How late the loop woke, in nanoseconds after the deadline it was meant to make.
        """
        self.deadline_ns += self.period_ns
        now_ns = clock_ns()
        behind = (now_ns - self.deadline_ns) // self.period_ns
        if behind > 0:
            self.missed += behind
            self.deadline_ns += behind * self.period_ns
        return sleep_until(self.deadline_ns) - self.deadline_ns

    def restart(self) -> None:
        """Start a new series of deadlines now, as after a pause; nothing is counted as missed."""
        self.deadline_ns = clock_ns()


MOST_INSTANTS = 4
"""How many instants a late tick in real time stands for at most; time beyond never happens."""


class InstantClock:
    """The instants of a game that can also be stepped. Use from one thread.

    Stepped, an instant comes when it is asked for, and time is counted, rising over restarts. In
    real time instants come on absolute deadlines. A caller that is late misses instants, but not
    their time: the game moves on by up to :data:`MOST_INSTANTS`, as one does that drops frames.

    Args:
        rate_hz: Instants per second of game time, positive.
        is_realtime: Whether they come by the wall clock.
    """

    def __init__(self, rate_hz: float, *, is_realtime: bool) -> None:
        self._keeper = RateKeeper(rate_hz) if is_realtime else None
        self._instant_ns = round(NS_PER_S / rate_hz)
        self.now_ns = 0
        """The newest instant's time: counted when stepped, else of the monotonic clock."""

    @property
    def missed(self) -> int:
        """Instants that real time had and the caller was too late for; 0 when stepped."""
        return self._keeper.missed if self._keeper is not None else 0

    def wait(self) -> int:
        """Wait for the next instant if need be, and return how many have passed."""
        if self._keeper is None:
            return 1
        before = self._keeper.missed
        self._keeper.wait()
        return min(1 + self._keeper.missed - before, MOST_INSTANTS)

    def stamp(self) -> int:
        """The time of the instant that was waited for, once the game has moved on to it."""
        is_stepped = self._keeper is None
        self.now_ns = self.now_ns + self._instant_ns if is_stepped else clock_ns()
        return self.now_ns

    def restart(self) -> None:
        """After a pause, begin a new series of deadlines instead of making up for the pause."""
        if self._keeper is not None:
            self._keeper.restart()


class JitterBuffer:
    """Holds each tick's result until the same time after its deadline, so that results come evenly.

    What a tick takes varies. The hold is as long as ticks lately took: a slower one lengthens it at
    once, and it shortens slowly again. Use from one thread.

    Args:
        most_ns: Longest hold; a tick that takes longer delivers when it is ready.
    """

    _FORGET = 0.005
    """Share of the hold that is given up at every tick: half in five seconds at 30 a second."""

    def __init__(self, most_ns: int) -> None:
        self.most_ns = most_ns
        self.hold_ns = 0

    def wait(self, deadline_ns: int) -> int:
        """Call when the result is ready: sleep until it is due.

        Returns:
            How long the result was held, in nanoseconds.
        """
        ready_ns = clock_ns()
        faded_ns = round(self.hold_ns * (1 - self._FORGET))
        self.hold_ns = min(max(ready_ns - deadline_ns, faded_ns), self.most_ns)
        return sleep_until(deadline_ns + self.hold_ns) - ready_ns


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Median, tail and worst of a series, in the unit of the series."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Quantiles":
        """Quantiles of ``values`` ``[N]``; all zero for an empty series."""
        if len(values) == 0:
            return cls(p50=0.0, p95=0.0, p99=0.0, max=0.0)
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        return cls(p50=float(p50), p95=float(p95), p99=float(p99), max=float(np.max(values)))


@dataclass(frozen=True, kw_only=True)
class CadenceReport:
    """How well a stream kept its rate."""

    instants: int
    """Instants seen."""
    rate_hz: float
    """Instants per second between the first and the last of the window."""
    period_ms: Quantiles
    """Time between neighbours, in the window."""
    late: int
    """Instants that came more than half a period after they were due."""
    duplicate: int
    """Instants with the capture time of the one before."""
    stale: int
    """Instants whose pixels did not change although the clock moved on."""


class Cadence:
    """Measures the cadence of a stream of capture times. Bounded memory; use from one thread.

    Args:
        rate_hz: The rate the stream is meant to keep; 0 for a stepped game, where nothing is late.
        window: How many of the newest periods the quantiles are taken over.
    """

    def __init__(self, rate_hz: float, window: int = 3000) -> None:
        require(rate_hz >= 0, "rate_hz", "be 0 or more", rate_hz)
        self._late_ns = 1.5 * NS_PER_S / rate_hz if rate_hz else float("inf")
        self._periods_ns: deque[int] = deque(maxlen=window)
        self._last_ns: int | None = None
        self._instants = self._late = self._duplicate = self._stale = 0

    def add(self, captured_ns: int, *, is_stale: bool = False) -> None:
        """Count one instant.

        Args:
            captured_ns: When its pixels were captured, monotonic clock.
            is_stale: Whether its pixels are those of the instant before.
        """
        self._instants += 1
        self._stale += is_stale
        if self._last_ns is not None:
            period_ns = captured_ns - self._last_ns
            if period_ns <= 0:
                self._duplicate += 1
                return
            self._late += period_ns > self._late_ns
            self._periods_ns.append(period_ns)
        self._last_ns = captured_ns

    @property
    def fresh(self) -> int:
        """Instants so far that showed something new."""
        return self._instants - self._duplicate - self._stale

    def pause(self) -> None:
        """Forget the last instant, so that a wanted pause (a reset) is not counted as lateness."""
        self._last_ns = None

    def report(self) -> CadenceReport:
        """The cadence so far."""
        periods = np.asarray(self._periods_ns, dtype=np.float64)
        total_s = periods.sum() / NS_PER_S
        return CadenceReport(
            instants=self._instants,
            rate_hz=len(periods) / total_s if total_s else 0.0,
            period_ms=Quantiles.of(periods / 1e6),
            late=self._late,
            duplicate=self._duplicate,
            stale=self._stale,
        )
