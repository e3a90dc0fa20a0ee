"""Versions 2 and 3: each output is balanced on its own."""

import numpy as np

from charles.data.balancing.roles import BalanceReport
from charles.data.balancing.sets import OpenSet, Tally
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
        self._names = control_names
        self._rng = np.random.default_rng(seed)
        self._tallies = [Tally(output) for output in outputs]
        self._sets = [OpenSet(len(tally.bins), patience) for tally in self._tallies]
        self._completed: list[tuple[int, list[int]]] = []
        self.max_slots = sum(len(tally.bins) for tally in self._tallies)

    def wants(self, label: np.ndarray, current: np.ndarray) -> int | None:
        """See :class:`Balancer`."""
        bins = self.bins_of(label, current)
        for which, one, tally in zip(bins, self._sets, self._tallies, strict=True):
            tally.seen[which] += 1
            one.meet(which)
        self._finish_due()
        wanting = [n for n, one in enumerate(self._sets) if bins[n] not in one.slots]
        return self._choose([n for n in wanting if n not in self.unwanted])

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        which = self.bins_of(label, current)[output]
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
        return tuple(tally.report() for tally in self._tallies)

    def bins_of(self, label: np.ndarray, current: np.ndarray) -> list[int]:
        """The bin of each output; as :meth:`wants`, but nothing is counted."""
        return [tally.bin_of(label, current, self._names) for tally in self._tallies]

    def held(self, output: int, which: int) -> int | None:
        """The slot that an output's unfinished set holds for a bin."""
        return self._sets[output].slots.get(which)

    def swap(self, output: int, which: int, slot: int) -> None:
        """Let an output's unfinished set hold another slot for a bin; no progress of the set."""
        self._sets[output].slots[which] = slot

    def _choose(self, wanting: list[int]) -> int | None:
        if not wanting:
            return None
        got = [self._tallies[n].num_samples + len(self._sets[n].slots) for n in wanting]
        fewest = [n for n, count in zip(wanting, got, strict=True) if count == min(got)]
        return fewest[0] if len(fewest) == 1 else int(self._rng.choice(fewest))

    def _finish_due(self) -> None:
        for number, one in enumerate(self._sets):
            if one.is_due():
                self._tallies[number].send(list(one.slots), one.lacking())
                self._completed.append((number, list(one.empty().values())))
