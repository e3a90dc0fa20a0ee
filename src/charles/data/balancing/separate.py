"""Versions 2 and 3: each output is balanced on its own."""

from collections.abc import Sequence

import numpy as np

from charles.data.balancing.roles import BalanceReport
from charles.data.balancing.sets import OpenSet, Tallies
from charles.outputs import OutputConfig


class OnePerBin:
    """A set of an output has one sample for each of its bins, whatever the other outputs are.

    A sample that several outputs want goes to the one that has got fewest samples so far, so that
    all buffers fill evenly; at random if they are level.
    """

    def __init__(
        self,
        outputs: tuple[OutputConfig, ...],
        control_names: tuple[str, ...],
        *,
        patience: int,
        seed: int,
    ) -> None:
        self.unwanted: frozenset[int] = frozenset()
        self._rng = np.random.default_rng(seed)
        self._tallies = Tallies(outputs, control_names)
        self._sets = [OpenSet(len(tally.bins), patience) for tally in self._tallies.each]
        self._completed: list[tuple[int, list[int]]] = []
        self.max_slots = sum(len(tally.bins) for tally in self._tallies.each)

    def wants(self, label: np.ndarray, current: np.ndarray) -> int | None:
        """See :class:`Balancer`."""
        return self.choose(self.meet(label, current))

    def meet(self, label: np.ndarray, current: np.ndarray) -> list[int]:
        """The first half of :meth:`wants`: count a candidate; gives the bin of each output."""
        bins = self._tallies.see(label, current)
        for which, one in zip(bins, self._sets, strict=True):
            one.meet(which)
        self._finish_due()
        return bins

    def choose(self, bins: Sequence[int]) -> int | None:
        """The second half of :meth:`wants`: whose set lacks a sample of these bins."""
        wanting = [n for n, one in enumerate(self._sets) if bins[n] not in one.slots]
        return self._choose([n for n in wanting if n not in self.unwanted])

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        which = self._tallies.bin_of(output, label, current)
        if which in self._sets[output].slots:  # more captures than one were under way for this bin
            return [slot]
        self._sets[output].put(which, slot)
        self._finish_due()
        return []

    def take_completed(self) -> list[tuple[int, list[int]]]:
        """See :class:`Balancer`."""
        completed, self._completed = self._completed, []
        return completed

    def abandon(self) -> list[int]:
        """See :class:`Balancer`."""
        slots = [slot for _, done in self.take_completed() for slot in done]
        for one in self._sets:
            slots.extend(one.empty().values())
        return slots

    def report(self) -> tuple[BalanceReport, ...]:
        """See :class:`Balancer`."""
        return self._tallies.report()

    def bins_of(self, label: np.ndarray, current: np.ndarray) -> list[int]:
        """The bin of each output; as :meth:`meet`, but nothing is counted."""
        return self._tallies.bins_of(label, current)

    def held(self, output: int, which: int) -> int | None:
        """The slot that an output's unfinished set holds for a bin."""
        return self._sets[output].slots.get(which)

    def swap(self, output: int, which: int, slot: int) -> None:
        """Let an output's unfinished set hold another slot for a bin; no progress of the set."""
        self._sets[output].slots[which] = slot

    def _choose(self, wanting: list[int]) -> int | None:
        if not wanting:
            return None
        got = [self._tallies.each[n].num_samples + len(self._sets[n].slots) for n in wanting]
        fewest = [n for n, count in zip(wanting, got, strict=True) if count == min(got)]
        return fewest[0] if len(fewest) == 1 else int(self._rng.choice(fewest))

    def _finish_due(self) -> None:
        for number, one in enumerate(self._sets):
            if one.is_due():
                self._tallies.each[number].send(list(one.slots), one.lacking())
                self._completed.append((number, list(one.empty().values())))
