"""What an output is declared to be, and what cannot be declared."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from charles.errors import require

OutputType = Literal["regression", "classification", "discrete_delta"]

TYPES = get_args(OutputType)

DELTAS = (-0.3, -0.1, -0.03, 0.0, 0.03, 0.1, 0.3)
"""The changes that a discrete delta chooses from, unless others are given."""


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """One thing that the network predicts."""

    name: str
    """A control of the game, or ``acceleration`` or ``braking`` alone."""
    type: OutputType = "regression"
    """``regression``: one linear unit, squared error up to the ends of the range.
    ``classification``: a softmax over class values. ``discrete_delta``: a softmax over changes of
    the control that applies; it needs a network that is given its current controls."""
    low: float = -1.0
    """Smallest value."""
    high: float = 1.0
    """Largest value."""
    bin_width: float = 0.1
    """Width of a balancing bin (regression)."""
    edges: tuple[float, ...] = ()
    """Edges of the balancing bins, from low to high, instead of a width (regression)."""
    exact: tuple[float, ...] = (0.0,)
    """Values that are balancing bins of their own (regression)."""
    exact_tolerance: float = 0.005
    """How near a label must be to such a value to count as it (regression)."""
    num_classes: int = 21
    """Classes, evenly spaced from low to high (classification). Each is a balancing bin."""
    classes: tuple[float, ...] = ()
    """Values of the classes, rising from low to high, instead of a number; or, for a discrete
    delta, the changes to choose from, by default -0.3, -0.1, -0.03, 0, 0.03, 0.1, 0.3."""
    targets: Literal["hard", "soft"] = "hard"
    """What classes are trained on: ``hard``, the nearest; ``soft``, the two neighbours, weighted so
    that their mean is the label."""
    decoding: Literal["expectation", "argmax"] = "expectation"
    """What classes are read as: their mean, each as probable as predicted, or the most probable."""
    loss_weight: float = 1.0
    """Weight of this output's loss in the total."""
    excess_weight: float = 1.0
    """What predicting too much costs, where too little costs 1: above 1, doubt about the pedal
    makes for braking. Of classes, it decides how they are read; ``argmax`` knows nothing of it."""
    is_blind: bool = False
    """Let a discrete delta do without its current control, which it cannot be learned without; only
    to reproduce model_0001_xception_v4."""

    def __post_init__(self) -> None:
        where = f"outputs.{self.name}"
        require(self.type in TYPES, f"{where}.type", f"be one of {TYPES}", self.type)
        require(self.low < self.high, f"{where}.low", f"be below high ({self.high})", self.low)
        require(self.bin_width > 0, f"{where}.bin_width", "be positive", self.bin_width)
        require(self.num_classes > 1, f"{where}.num_classes", "be 2 or more", self.num_classes)
        require(self.loss_weight >= 0, f"{where}.loss_weight", "be 0 or more", self.loss_weight)
        require(self.excess_weight > 0, f"{where}.excess_weight", "be positive",
                self.excess_weight)  # fmt: skip
        if self.type == "regression":
            self._check_bins(where)
        elif self.type == "classification":
            self._check_reach(f"{where}.classes", self.classes)
        elif self.classes:
            rises = is_rising(self.classes) and self.classes[0] < 0.0 < self.classes[-1]
            require(rises, f"{where}.classes", "rise from below 0 to above it", self.classes,
                    "Else part of the range could never be reached.")  # fmt: skip

    def _check_bins(self, where: str) -> None:
        self._check_reach(f"{where}.edges", self.edges)
        inside = all(self.low <= value <= self.high for value in self.exact)
        require(inside, f"{where}.exact", f"lie in [{self.low}, {self.high}]", self.exact)
        tolerance, edges = self.exact_tolerance, self.bin_edges
        widest = self.high - self.low if self.edges else self.bin_width
        require(0 < tolerance < widest, f"{where}.exact_tolerance",
                f"be positive and below bin_width ({widest})", tolerance)  # fmt: skip
        for low, high in pairwise(edges):
            cut = tolerance * ((low in self.exact) + (high in self.exact))
            require(cut < high - low, f"{where}.exact_tolerance",
                    f"leave something of the range ({low:g}, {high:g})", tolerance)  # fmt: skip

    def _check_reach(self, where: str, values: tuple[float, ...]) -> None:
        if values:
            covers = is_rising(values) and (values[0], values[-1]) == (self.low, self.high)
            require(covers, where, f"rise from low ({self.low}) to high ({self.high})", values,
                    "Else part of the range would have none.")  # fmt: skip

    @property
    def bin_edges(self) -> tuple[float, ...]:
        """Where the balancing bins of a regression begin and end, its exact values among them."""
        num_ranges = max(1, round((self.high - self.low) / self.bin_width))
        evenly = np.round(np.linspace(self.low, self.high, num_ranges + 1), 9).tolist()
        return tuple(sorted({*(self.edges or evenly), *self.exact}))

    @property
    def class_values(self) -> tuple[float, ...]:
        """What the classes stand for: values, or changes of a discrete delta; empty without."""
        if self.type == "regression":
            return ()
        if self.classes:
            return self.classes
        if self.type == "discrete_delta":
            return DELTAS
        evenly = np.linspace(self.low, self.high, self.num_classes)
        return tuple(float(value) for value in np.round(evenly, 9))

    @property
    def is_by_change(self) -> bool:
        """Whether its classes and bins are changes of the current control."""
        return self.type == "discrete_delta"


ACCELERATION_BRAKING = OutputConfig(name="acceleration_braking", exact=(-1.0, 0.0, 1.0))
STEERING = OutputConfig(name="steering", exact=(0.0,))


def is_rising(values: Sequence[float]) -> bool:
    """Whether there are two values or more, each above the one before."""
    return len(values) > 1 and all(low < high for low, high in pairwise(values))


def check_deltas(
    outputs: Iterable[OutputConfig], *, history_length: int, controls_read: Collection[str]
) -> None:
    """Refuse discrete deltas that cannot be learned, or not be added to anything.

    Args:
        outputs: What the network predicts.
        history_length: Past instants that a sample remembers; the newest has the current controls.
        controls_read: Outputs whose current value the network is given.

    Raises:
        ConfigError: A discrete delta has no current control to add to, or its network cannot see
            what it would change.
    """
    for output in outputs:
        if not output.is_by_change:
            continue
        require(history_length > 0, "data.history_length",
                f"be 1 or more for the discrete delta {output.name!r}", history_length,
                "A change needs the current control.")  # fmt: skip
        require(output.name in controls_read or output.is_blind, f"outputs.{output.name}.type",
                "not be discrete_delta for a network that is not given its current controls",
                output.type, "Take a network with a history, or another type.")  # fmt: skip
