"""Version 1: all outputs are balanced together, every combination of their bins alike."""

from math import prod

import numpy as np

from charles.data.balancing.roles import BalanceReport
from charles.data.balancing.sets import OpenSet, Tallies
from charles.outputs import OutputConfig


class OnePerCombination:
    """A set has one sample for every combination of the bins of all outputs.

    The set's samples are dealt evenly to the outputs' buffers, each as it comes: to an output that
    has got fewest of the set so far, at random if there are more of those than one.

    Most combinations are rare or never met, so that a set that waits for them is mostly made of
    what the others have in common.
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
        self._sizes = tuple(len(tally.bins) for tally in self._tallies.each)
        self.max_slots = prod(self._sizes)
        self._set = OpenSet(self.max_slots, patience)
        self._hands: list[list[int]] = [[] for _ in outputs]
        self._completed: list[tuple[int, list[int]]] = []

    def wants(self, label: np.ndarray, current: np.ndarray) -> int | None:
        """See :class:`Balancer`."""
        number = self._number_of(self._tallies.see(label, current))
        self._set.meet(number)
        self._finish_if_due()
        return None if number in self._set.slots else self._deal()

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        number = self._number_of(self._tallies.bins_of(label, current))
        if number in self._set.slots:
            return [slot]
        self._set.put(number, slot)
        self._hands[output].append(slot)
        self._finish_if_due()
        return []

    def take_completed(self) -> list[tuple[int, list[int]]]:
        """See :class:`Balancer`; a set is finished for all outputs at once."""
        completed, self._completed = self._completed, []
        return completed

    def abandon(self) -> list[int]:
        """See :class:`Balancer`."""
        slots = [slot for _, done in self.take_completed() for slot in done]
        self._hands = [[] for _ in self._hands]
        return slots + list(self._set.empty().values())

    def report(self) -> tuple[BalanceReport, ...]:
        """See :class:`Balancer`; counts are of whole sets, whoever a sample was dealt to."""
        return self._tallies.report()

    def _number_of(self, bins: list[int]) -> int:
        """The number of a combination of bins."""
        number = 0
        for which, size in zip(bins, self._sizes, strict=True):
            number = number * size + which
        return number

    def _deal(self) -> int | None:
        hands = [n for n in range(len(self._hands)) if n not in self.unwanted]
        if not hands:
            return None
        fewest = min(len(self._hands[n]) for n in hands)
        hands = [n for n in hands if len(self._hands[n]) == fewest]
        return hands[0] if len(hands) == 1 else int(self._rng.choice(hands))

    def _finish_if_due(self) -> None:
        if not self._set.is_due():
            return
        numbers = np.array(list(self._set.empty()), np.int64)
        columns = np.unravel_index(numbers, self._sizes)
        for tally, column, size in zip(self._tallies.each, columns, self._sizes, strict=True):
            tally.send(column.tolist(), sorted(set(range(size)) - set(column.tolist())))
        self._completed += [(n, hand) for n, hand in enumerate(self._hands) if hand]
        self._hands = [[] for _ in self._hands]
