"""Version 4: sets of one output that also leave the other outputs as even as they can."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from charles.data.balancing.roles import BalanceReport
from charles.data.balancing.separate import OnePerBin
from charles.data.balancing.sets import WINDOW
from charles.outputs import OutputConfig

LEAST_GAIN = 0.1
"""How much more even a replacement must leave the other outputs, in heights of an even bin: each
costs a picture, and gains near 0 are soon made up for by others."""

Combination = tuple[int, ...]
"""The bin of each output."""


class Flattening:
    """As version 3, and of two samples of a bin the set keeps the better one.

    While a set waits for its rare bins, its common bins are met again and again. Version 3 keeps
    the first of these samples; here a later one replaces it if it leaves the other outputs more
    even: if its bins of these outputs have been sent less often, lately, than those of the sample
    that it replaces. Only such candidates are captured.

    A replacement is no progress: sets begin, wait and go out exactly as those of version 3 do on
    the same candidates, with samples of the same bins of their own output.

    Evenness is the sum, over outputs and bins, of squared counts, each output's over the height
    that its bins would have if they were even. What unfinished sets hold counts as sent.
    """

    def __init__(
        self,
        outputs: tuple[OutputConfig, ...],
        control_names: tuple[str, ...],
        *,
        patience: int,
        seed: int,
    ) -> None:
        self._sets = OnePerBin(outputs, control_names, patience=patience, seed=seed)
        self.max_slots = self._sets.max_slots
        self._counts = [[0] * len(report.bins) for report in self._sets.report()]
        self._num_counted = 0
        self._held: dict[int, Combination] = {}
        self._sent: deque[list[Combination]] = deque()

    @property
    def unwanted(self) -> frozenset[int]:
        """See :class:`Balancer`; an unwanted output's samples are not replaced either."""
        return self._sets.unwanted

    @unwanted.setter
    def unwanted(self, outputs: frozenset[int]) -> None:
        self._sets.unwanted = outputs

    def wants(self, label: np.ndarray, current: np.ndarray) -> int | None:
        """See :class:`Balancer`; a bin without a sample comes before a better one for another."""
        bins = tuple(self._sets.meet(label, current))
        output = self._sets.choose(bins)
        if output is not None:
            return output
        gains = [(self._gain(n, bins), n) for n in range(len(bins)) if n not in self._sets.unwanted]
        gain, output = max(gains, default=(0.0, 0))
        return output if gain > LEAST_GAIN else None

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        bins = tuple(self._sets.bins_of(label, current))
        held = self._sets.held(output, bins[output])
        if held is None:
            self._hold(slot, bins)
            return self._sets.add(output, label, current, slot)
        if self._gain(output, bins) <= 0.0:  # what it was captured for has changed since
            return [slot]
        self._sets.swap(output, bins[output], slot)
        self._count([self._held.pop(held)], -1)
        self._hold(slot, bins)
        return [held]

    def take_completed(self) -> list[tuple[int, list[int]]]:
        """See :class:`Balancer`."""
        completed = self._sets.take_completed()
        for _, slots in completed:
            self._sent.append([self._held.pop(slot) for slot in slots])
        while len(self._sent) > WINDOW:
            self._count(self._sent.popleft(), -1)
        return completed

    def abandon(self) -> list[int]:
        """See :class:`Balancer`."""
        slots = self._sets.abandon()
        self._count([self._held.pop(slot) for slot in slots], -1)
        return slots

    def report(self) -> tuple[BalanceReport, ...]:
        """See :class:`Balancer`."""
        return self._sets.report()

    def _gain(self, output: int, bins: Combination) -> float:
        """How much more even the other outputs get if a sample replaces the held one of its bin.

        Half the fall of the sum of squares; 1 is one even bin's height more in one bin than in
        another.
        """
        held = self._sets.held(output, bins[output])
        if held is None:
            return 0.0
        gain = 0
        for counts, new, old in zip(self._counts, bins, self._held[held], strict=True):
            if new != old:  # the output's own bins are the same
                gain += len(counts) * (counts[old] - counts[new] - 1)
        return gain / self._num_counted

    def _hold(self, slot: int, bins: Combination) -> None:
        self._held[slot] = bins
        self._count([bins], 1)

    def _count(self, combinations: Iterable[Combination], step: int) -> None:
        for bins in combinations:
            self._num_counted += step
            for counts, which in zip(self._counts, bins, strict=True):
                counts[which] += step
