"""Balancing: which samples are kept, so that rare actions are learned as well as common ones.

A collector asks its :class:`Balancer` about every instant, from the label alone, before the pixels
are captured. Samples are gathered into *sets*; a set that is complete is published as a whole.

Version 3: for each output on its own, a set has one sample for each of the output's bins. Every
sample carries the labels of all outputs. Bins follow from the output's range and type
(:class:`charles.outputs.Bins`), so an output that is declared otherwise is balanced otherwise.

Bins that are hardly ever met must not hold a set up for ever:

* After ``patience`` candidates without a new sample for it, a set goes out incomplete; the bins it
  lacks are reported as *short*.
* A bin not met among the last :data:`ABSENCE` x ``patience`` candidates counts as absent. A set
  that lacks absent bins only goes out at once.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from charles.config import BalancingConfig
from charles.errors import ConfigError, require
from charles.outputs import Bins, OutputConfig, control_of

ABSENCE = 20
"""Patiences after which a bin that was never met counts as absent."""

WINDOW = 200
"""Newest sets over which achieved counts are taken."""


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
    """

    max_slots: int
    """Most slots that unfinished sets hold at once."""
    unwanted: frozenset[int]
    """Outputs that need no samples for now; none at first. May be set at any time."""

    def wants(self, label: np.ndarray) -> int | None:
        """Whose set still needs a sample of this label, float32 ``[A]``; ``None`` if nobody's.

        Counts the label as one candidate. Cheap: called before pixels are captured.
        """
        ...

    def add(self, output: int, label: np.ndarray, slot: int) -> list[int]:
        """Take a captured sample into an output's set.

        Returns:
            Slots that the set no longer needs; the caller gives them back. Version 3 never does.
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


class _Tally:
    """What one output has seen and sent."""

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

    def bin_of(self, label: np.ndarray, names: tuple[str, ...]) -> int:
        """The bin of a label ``[A]``."""
        value = float(control_of(label, names, self.config.name))
        return min(bisect_left(self._highs, value), len(self._highs) - 1)

    def send(self, sent: list[int], short: list[int]) -> None:
        """Count a set: the bins it has samples of, and those it lacks."""
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


def _count(sets: deque[list[int]], num_bins: int) -> tuple[int, ...]:
    flat = np.array([number for one in sets for number in one], np.int64)
    return tuple(np.bincount(flat, minlength=num_bins).tolist())


class EverySample:
    """No balancing: every sample is a set of its own, for one output after the other."""

    max_slots = 1

    def __init__(self, outputs: tuple[OutputConfig, ...], control_names: tuple[str, ...]) -> None:
        self._names = control_names
        self._tallies = [_Tally(output) for output in outputs]
        self.unwanted: frozenset[int] = frozenset()
        self._completed: list[tuple[int, list[int]]] = []
        self._next = 0

    def wants(self, label: np.ndarray) -> int | None:
        """See :class:`Balancer`."""
        for tally in self._tallies:
            tally.seen[tally.bin_of(label, self._names)] += 1
        num = len(self._tallies)
        turns = ((self._next + step) % num for step in range(num))
        return next((output for output in turns if output not in self.unwanted), None)

    def add(self, output: int, label: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        tally = self._tallies[output]
        tally.send([tally.bin_of(label, self._names)], [])
        self._completed.append((output, [slot]))
        self._next = (output + 1) % len(self._tallies)
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
        return tuple(tally.report() for tally in self._tallies)


class _OpenSet:
    """The unfinished set of one output, and when each bin was last met."""

    def __init__(self, output: OutputConfig) -> None:
        self.tally = _Tally(output)
        self.slots: dict[int, int] = {}
        self.idle = 0
        self.last_met = [0] * len(self.tally.bins)

    def is_due(self, num_candidates: int, patience: int) -> bool:
        """Whether the set goes out now: complete, out of patience, or nothing left to wait for."""
        if not self.slots:
            return False
        if self.idle >= patience:
            return True
        oldest = num_candidates - ABSENCE * patience
        return not any(
            met >= oldest for number, met in enumerate(self.last_met) if number not in self.slots
        )

    def take(self) -> list[int]:
        """Finish the set and begin the next; gives the slots."""
        lacking = [number for number in range(len(self.tally.bins)) if number not in self.slots]
        self.tally.send(list(self.slots), lacking)
        slots, self.slots, self.idle = list(self.slots.values()), {}, 0
        return slots


class OnePerBin:
    """Version 3: a set of an output has one sample for each of its bins.

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
        self._names = control_names
        self._patience = patience
        self._rng = np.random.default_rng(seed)
        self._sets = [_OpenSet(output) for output in outputs]
        self.unwanted: frozenset[int] = frozenset()
        self._completed: list[tuple[int, list[int]]] = []
        self._candidates = 0
        self.max_slots = sum(len(one.tally.bins) for one in self._sets)

    def wants(self, label: np.ndarray) -> int | None:
        """See :class:`Balancer`."""
        self._candidates += 1
        bins = [one.tally.bin_of(label, self._names) for one in self._sets]
        for which, one in zip(bins, self._sets, strict=True):
            one.tally.seen[which] += 1
            one.last_met[which] = self._candidates
            one.idle += 1
        self._finish_due()
        wanting = [n for n, one in enumerate(self._sets) if bins[n] not in one.slots]
        return self._choose([n for n in wanting if n not in self.unwanted])

    def add(self, output: int, label: np.ndarray, slot: int) -> list[int]:
        """See :class:`Balancer`."""
        one = self._sets[output]
        which = one.tally.bin_of(label, self._names)
        if which in one.slots:  # more than one capture was under way for this bin
            return [slot]
        one.slots[which] = slot
        one.idle = 0
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
            slots.extend(one.slots.values())
            one.slots, one.idle = {}, 0
        return slots

    def report(self) -> tuple[BalanceReport, ...]:
        """See :class:`Balancer`."""
        return tuple(one.tally.report() for one in self._sets)

    def _choose(self, wanting: list[int]) -> int | None:
        if not wanting:
            return None
        got = [self._sets[n].tally.num_samples + len(self._sets[n].slots) for n in wanting]
        fewest = [n for n, count in zip(wanting, got, strict=True) if count == min(got)]
        return fewest[0] if len(fewest) == 1 else int(self._rng.choice(fewest))

    def _finish_due(self) -> None:
        for number, one in enumerate(self._sets):
            if one.is_due(self._candidates, self._patience):
                self._completed.append((number, one.take()))


def make_balancer(
    config: BalancingConfig,
    outputs: tuple[OutputConfig, ...],
    control_names: tuple[str, ...],
    *,
    seed: int,
    slots_per_collector: int | None = None,
) -> Balancer:
    """The balancer that ``config`` declares.

    Args:
        config: Version and patience.
        outputs: What the network predicts.
        control_names: The game's controls, in the order of every label.
        seed: Seed of random choices.
        slots_per_collector: Slots that the collector may hold; checked against the sets.

    Raises:
        ConfigError: An output is no control of the game, or the sets need more slots.
    """
    for output in outputs:
        control_of(np.zeros(len(control_names), np.float32), control_names, output.name)
    if config.version == "none":
        balancer: Balancer = EverySample(outputs, control_names)
    elif config.version == "v3":
        balancer = OnePerBin(outputs, control_names, patience=config.patience, seed=seed)
    else:
        rule = "balancing.version must be one of ('v3', 'none')"
        raise ConfigError(f"{rule}, got {config.version!r}.")
    if slots_per_collector is not None:
        fits = slots_per_collector > balancer.max_slots
        require(fits, "data.slots_per_collector",
                f"exceed the {balancer.max_slots} slots that balanced sets hold",
                slots_per_collector, "Raise it, or use wider bins.")  # fmt: skip
    return balancer
