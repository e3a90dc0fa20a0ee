"""No balancing."""

import numpy as np

from charles.data.balancing.roles import BalanceReport
from charles.data.balancing.sets import Tallies
from charles.outputs import OutputConfig


class EverySample:
    """No balancing: every sample is a set of its own, for one output after the other."""

    max_slots = 1

    def __init__(self, outputs: tuple[OutputConfig, ...], control_names: tuple[str, ...]) -> None:
        self._tallies = Tallies(outputs, control_names)
        self.unwanted: frozenset[int] = frozenset()
        self._completed: list[tuple[int, list[int]]] = []
        self._next = 0

    def wants(self, label: np.ndarray, current: np.ndarray) -> int | None:
        """See :class:`Balancer`."""
        num = len(self._tallies.see(label, current))
        turns = ((self._next + step) % num for step in range(num))
        return next((output for output in turns if output not in self.unwanted), None)

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        self._tallies.each[output].send([self._tallies.bin_of(output, label, current)], [])
        self._completed.append((output, [slot]))
        self._next = (output + 1) % len(self._tallies.each)
        return []

    def take_completed(self) -> list[tuple[int, list[int]]]:
        """See :class:`Balancer`."""
        completed, self._completed = self._completed, []
        return completed

    def abandon(self) -> list[int]:
        """See :class:`Balancer`."""
        return [slot for _, slots in self.take_completed() for slot in slots]

    def report(self) -> tuple[BalanceReport, ...]:
        """See :class:`Balancer`."""
        return self._tallies.report()
