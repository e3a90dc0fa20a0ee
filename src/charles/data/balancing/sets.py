"""What the versions of balancing share: an output's tally, and a set that is being filled."""

from bisect import bisect_left
from collections import deque

import numpy as np

from charles.data.balancing.roles import BalanceReport
from charles.outputs import Bins, OutputConfig, control_of

ABSENCE = 20
"""Patiences after which a bin that was never met counts as absent."""

WINDOW = 200
"""Newest sets over which achieved counts are taken."""


class Tally:
    """The bins of one output, and what was seen and sent of them."""

    def __init__(self, config: OutputConfig) -> None:
        self.config = config
        self.bins = Bins.of(config)
        self.seen = [0] * len(self.bins)
        self.num_samples = 0
        self.num_sets = 0
        # As ``Bins.index``, for one value; NumPy's calls would cost ten times as much.
        self._highs = self.bins.highs.tolist()
        self._sent: deque[list[int]] = deque(maxlen=WINDOW)
        self._short: deque[list[int]] = deque(maxlen=WINDOW)

    def bin_of(self, label: np.ndarray, current: np.ndarray, names: tuple[str, ...]) -> int:
        """The bin of a label ``[A]`` where the controls ``current [A]`` apply."""
        config = self.config
        value = float(control_of(label, names, config.name))
        if config.is_by_change:
            value = min(max(value, config.low), config.high)
            value -= float(control_of(current, names, config.name))
        return min(bisect_left(self._highs, value), len(self._highs) - 1)

    def send(self, sent: list[int], short: list[int]) -> None:
        """Count a set: the bins of its samples, and those it lacks."""
        self.num_sets += 1
        self.num_samples += len(sent)
        self._sent.append(sent)
        self._short.append(short)

    def report(self) -> BalanceReport:
        """See :class:`Balancer`."""
        num = len(self.bins)
        return BalanceReport(
            output=self.config.name,
            bins=self.bins.names,
            seen=tuple(self.seen),
            achieved=_count(self._sent, num),
            target=(1.0 / num,) * num,
            short=_count(self._short, num),
            num_sets=self.num_sets,
        )


class Tallies:
    """The tallies of all outputs, in order."""

    def __init__(self, outputs: tuple[OutputConfig, ...], control_names: tuple[str, ...]) -> None:
        self.each = [Tally(output) for output in outputs]
        self._names = control_names

    def bins_of(self, label: np.ndarray, current: np.ndarray) -> list[int]:
        """The bin of each output of a label ``[A]`` where ``current [A]`` applies."""
        return [tally.bin_of(label, current, self._names) for tally in self.each]

    def bin_of(self, output: int, label: np.ndarray, current: np.ndarray) -> int:
        """As :meth:`bins_of`, of one output."""
        return self.each[output].bin_of(label, current, self._names)

    def see(self, label: np.ndarray, current: np.ndarray) -> list[int]:
        """Count a candidate; gives its bins."""
        bins = self.bins_of(label, current)
        for which, tally in zip(bins, self.each, strict=True):
            tally.seen[which] += 1
        return bins

    def report(self) -> tuple[BalanceReport, ...]:
        """See :class:`Balancer`."""
        return tuple(tally.report() for tally in self.each)


def _count(sets: deque[list[int]], num_bins: int) -> tuple[int, ...]:
    flat = np.array([number for one in sets for number in one], np.int64)
    return tuple(np.bincount(flat, minlength=num_bins).tolist())


class OpenSet:
    """A set with room for one sample of each bin, and when each bin was last met.

    Args:
        num_bins: Bins, or combinations of bins.
        patience: Candidates without a new bin after which it goes out as it is.
    """

    def __init__(self, num_bins: int, patience: int) -> None:
        self.slots: dict[int, int] = {}
        self._idle = self._num_met = 0
        self._patience = patience
        self._last_met = [0] * num_bins

    def meet(self, number: int) -> None:
        """A candidate of bin ``number`` was seen."""
        self._num_met += 1
        self._idle += 1
        self._last_met[number] = self._num_met

    def put(self, number: int, slot: int) -> None:
        """Take a sample of a bin that has none yet."""
        self.slots[number] = slot
        self._idle = 0

    def is_due(self) -> bool:
        """Whether the set goes out now: complete, out of patience, or nothing left to wait for."""
        if not self.slots:
            return False
        if self._idle >= self._patience:
            return True
        oldest = self._num_met - ABSENCE * self._patience
        return not any(
            met >= oldest for number, met in enumerate(self._last_met) if number not in self.slots
        )

    def lacking(self) -> list[int]:
        """Bins without a sample."""
        return [number for number in range(len(self._last_met)) if number not in self.slots]

    def empty(self) -> dict[int, int]:
        """Begin the next set; gives the slots of the one before by bin."""
        slots, self.slots, self._idle = self.slots, {}, 0
        return slots
