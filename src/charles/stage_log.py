"""Where each millisecond of a player's tick goes."""

import time

import numpy as np

from charles.timing import Quantiles, clock_ns

STAGES = ("tick", "grab", "preprocess", "predict", "translate", "hold", "act")
"""Parts of one tick: the game's next instant, its pixels, the network's inputs, and so on; ``hold``
is time that is waited so that the pad is updated evenly."""


class StageLog:
    """Durations of the newest ticks' stages, in memory that is allocated once.

    Args:
        capacity: Ticks remembered.
    """

    def __init__(self, capacity: int = 36_000) -> None:
        self._stages_ns = np.zeros((capacity, len(STAGES)), np.int64)
        self._latency_ns = np.zeros(capacity, np.int64)
        self._acted_ns = np.zeros(capacity, np.int64)
        self._row = self._stage = self._mark_ns = 0
        self.ticks = 0

    def begin(self) -> None:
        """A tick begins."""
        self._row = self.ticks % len(self._stages_ns)
        self._stage = 0
        self._mark_ns = time.perf_counter_ns()

    def mark(self) -> None:
        """The tick's next stage is over."""
        now_ns = time.perf_counter_ns()
        self._stages_ns[self._row, self._stage] = now_ns - self._mark_ns
        self._stage += 1
        self._mark_ns = now_ns

    def end(self, captured_ns: int) -> None:
        """The tick's controls are on the pad; ``captured_ns`` is its instant, monotonic clock."""
        now_ns = clock_ns()
        self._latency_ns[self._row] = now_ns - captured_ns
        self._acted_ns[self._row] = now_ns
        self.ticks += 1

    def stages_ms(self) -> dict[str, Quantiles]:
        """Duration of each stage."""
        stages_ms = self._stages_ns[: self._filled] / 1e6
        return {name: Quantiles.of(stages_ms[:, index]) for index, name in enumerate(STAGES)}

    def latency_ms(self) -> Quantiles:
        """From the capture of an instant to its controls on the pad."""
        return Quantiles.of(self._latency_ns[: self._filled] / 1e6)

    @property
    def _filled(self) -> int:
        return min(self.ticks, len(self._stages_ns))
