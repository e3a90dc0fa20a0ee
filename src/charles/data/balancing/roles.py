"""What a collector asks of balancing, and what balancing tells of itself."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class BalanceReport:
    """How well one output is balanced."""

    output: str
    """Name of the output."""
    bins: tuple[str, ...]
    """Names of the bins ``[K]``."""
    seen: tuple[int, ...]
    """Candidates met in each bin since the start ``[K]``."""
    achieved: tuple[int, ...]
    """Samples in each bin, over the newest sets ``[K]``."""
    target: tuple[float, ...]
    """The share of samples that each bin should have ``[K]``, summing to 1."""
    short: tuple[int, ...]
    """How often each bin was lacking when a set went out, over the newest sets ``[K]``."""
    num_sets: int
    """Sets that went out since the start."""


class Balancer(Protocol):
    """What a collector asks of every version of balancing. Use from one thread.

    Order of calls: ``wants``; if it names an output, capture, then ``add`` with that output, then
    ``take_completed``. A sample that could not be captured is simply not added.

    Labels and current controls are float32 ``[A]``, in the order of the game's controls. What is
    current (:attr:`charles.observer.Observer.current`) decides the bin of a discrete delta.
    """

    max_slots: int
    """Most slots that unfinished sets hold at once."""
    unwanted: frozenset[int]
    """Outputs that need no samples for now; none at first. May be set at any time."""

    def wants(self, label: np.ndarray, current: np.ndarray) -> int | None:
        """Whose set would keep a sample of this label; ``None`` if nobody's.

        Counts the label as one candidate. Cheap: called before pixels are captured.
        """
        ...

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """Take a captured sample into an output's set.

        Returns:
            Slots that the set no longer needs; the caller gives them back. It may be a sample that
            this one replaces, or this one itself.
        """
        ...

    def take_completed(self) -> list[tuple[int, list[int]]]:
        """Finished sets, as output and slots; each is to be published as a whole."""
        ...

    def abandon(self) -> list[int]:
        """Drop every set that is not taken yet; the caller gives the slots back."""
        ...

    def report(self) -> tuple[BalanceReport, ...]:
        """How well each output is balanced."""
        ...
