"""Outputs: what the network predicts, and everything that follows from that declaration.

An output is a name, a range and a type. Its target, loss, metric, bins for balancing and decoding
follow from it, so changing an output's type needs no other edit. Losses and metrics are written
against the array API, so the same code runs on NumPy arrays and inside a jitted JAX step; this
module imports no JAX.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from charles.errors import ConfigError, require

Array = Any
"""A NumPy or a JAX array."""

OutputType = Literal["regression"]


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """One thing that the network predicts."""

    name: str
    """A control of the game, or ``acceleration`` or ``braking`` alone."""
    type: OutputType = "regression"
    """``regression``: one linear unit, squared error up to the ends of the range."""
    low: float = -1.0
    """Smallest value."""
    high: float = 1.0
    """Largest value."""
    bin_width: float = 0.1
    """Width of a balancing bin."""
    exact: tuple[float, ...] = (0.0,)
    """Values that are balancing bins of their own."""
    exact_tolerance: float = 0.005
    """How near a label must be to such a value to count as it."""
    loss_weight: float = 1.0
    """Weight of this output's loss in the total."""
    excess_weight: float = 1.0
    """What predicting too much costs, where too little costs 1: above 1, doubt about the pedal
    makes for braking."""

    def __post_init__(self) -> None:
        where = f"outputs.{self.name}"
        require(self.low < self.high, f"{where}.low", f"be below high ({self.high})", self.low)
        require(self.bin_width > 0, f"{where}.bin_width", "be positive", self.bin_width)
        require(self.loss_weight >= 0, f"{where}.loss_weight", "be 0 or more", self.loss_weight)
        require(self.excess_weight > 0, f"{where}.excess_weight", "be positive",
                self.excess_weight)  # fmt: skip
        inside = all(self.low <= value <= self.high for value in self.exact)
        require(inside, f"{where}.exact", f"lie in [{self.low}, {self.high}]", self.exact)
        tolerance = self.exact_tolerance
        require(0 < tolerance < self.bin_width, f"{where}.exact_tolerance",
                f"be positive and below bin_width ({self.bin_width})", tolerance)  # fmt: skip


ACCELERATION_BRAKING = OutputConfig(name="acceleration_braking", exact=(-1.0, 0.0, 1.0))
STEERING = OutputConfig(name="steering", exact=(0.0,))


class Output(Protocol):
    """What the rest of Charles asks of an output."""

    @property
    def config(self) -> OutputConfig:
        """The declaration."""
        ...

    @property
    def num_units(self) -> int:
        """Width of the network's head."""
        ...

    def target(self, controls: Array, names: Sequence[str]) -> Array:
        """Training target ``[..., ]`` float32 from labels ``[..., A]`` of controls ``names``."""
        ...

    def loss(self, prediction: Array, target: Array) -> Array:
        """Loss per sample ``[B]`` from raw head outputs ``[B, num_units]`` and targets ``[B]``."""
        ...

    def metric(self, prediction: Array, target: Array) -> Array:
        """Absolute error per sample ``[B]`` of the decoded prediction."""
        ...

    def decode(self, prediction: Array) -> Array:
        """Values ``[B]`` in ``[low, high]`` from raw head outputs ``[B, num_units]``."""
        ...


def control_of(controls: Array, names: Sequence[str], wanted: str) -> Array:
    """Pick one signal ``[...]`` out of controls ``[..., A]``.

    ``acceleration`` and ``braking`` are the positive and the negative half of
    ``acceleration_braking`` where the game has no control of that name.

    Raises:
        ConfigError: The game has no such control.
    """
    if wanted in names:
        return controls[..., names.index(wanted)]
    halves = {"acceleration": 1.0, "braking": -1.0}
    if wanted in halves and "acceleration_braking" in names:
        both = controls[..., names.index("acceleration_braking")]
        return (halves[wanted] * both).clip(0.0)
    rule = f"be one of the game's controls {tuple(names)}"
    raise ConfigError(f"outputs: name must {rule}, got {wanted!r}.")


@dataclass(frozen=True)
class Regression:
    """One linear unit trained on the squared error; the metric is the absolute error.

    A label at an end of the range says only that the expert wanted at least that much. A prediction
    beyond it decodes to the same value and costs nothing, so the unit may stay linear in what it is
    computed from instead of bending at the ends.

    With an ``excess_weight`` other than 1 the unit learns an expectile instead of the mean.

    References:
        Newey, Powell, "Asymmetric least squares estimation and testing", 1987,
        https://doi.org/10.2307/1911031.

        Tobin, "Estimation of relationships for limited dependent variables", 1958,
        https://doi.org/10.2307/1907382.
    """

    config: OutputConfig
    num_units: int = 1

    def target(self, controls: Array, names: Sequence[str]) -> Array:
        """See :class:`Output`."""
        values = control_of(controls, names, self.config.name)
        return values.clip(self.config.low, self.config.high).astype(np.float32)

    def loss(self, prediction: Array, target: Array) -> Array:
        """See :class:`Output`."""
        value, low, high = prediction[..., 0], self.config.low, self.config.high
        is_beyond = ((target >= high) & (value > high)) | ((target <= low) & (value < low))
        weight = 1 + (self.config.excess_weight - 1) * (value > target)
        return weight * (value - target) ** 2 * ~is_beyond

    def metric(self, prediction: Array, target: Array) -> Array:
        """See :class:`Output`."""
        return abs(self.decode(prediction) - target)

    def decode(self, prediction: Array) -> Array:
        """See :class:`Output`."""
        return prediction[..., 0].clip(self.config.low, self.config.high)


def make_output(config: OutputConfig) -> Output:
    """The output that ``config`` declares."""
    makers = {"regression": Regression}
    rule = f"be one of {tuple(makers)}"
    require(config.type in makers, f"outputs.{config.name}.type", rule, config.type)
    return makers[config.type](config)


@dataclass(frozen=True)
class Bins:
    """The balancing bins of one output: exact values, and open ranges between the edges.

    Bins are numbered by rising value. ``names`` has a text for each: ``0``, ``(0.1, 0.2)``.
    """

    names: tuple[str, ...]
    lows: np.ndarray
    """Lower bound of each bin, float64 ``[K]``."""
    highs: np.ndarray
    """Upper bound of each bin, float64 ``[K]``."""

    @classmethod
    def of(cls, config: OutputConfig) -> "Bins":
        """The bins that follow from an output's range, bin width and exact values."""
        span = config.high - config.low
        num_ranges = max(1, round(span / config.bin_width))
        edges = set(np.round(np.linspace(config.low, config.high, num_ranges + 1), 9))
        edges = sorted(edges | set(config.exact))
        tolerance = config.exact_tolerance
        bounds: list[tuple[str, float, float]] = []
        for low, high in zip(edges, [*edges[1:], None], strict=True):
            if low in config.exact:
                bounds.append((f"{low:g}", low - tolerance, low + tolerance))
            if high is None:
                break
            inner_low = low + tolerance if low in config.exact else low
            inner_high = high - tolerance if high in config.exact else high
            bounds.append((f"({low:g}, {high:g})", inner_low, inner_high))
        names, lows, highs = zip(*bounds, strict=True)
        return cls(names=names, lows=np.array(lows), highs=np.array(highs))

    def __len__(self) -> int:
        return len(self.names)

    def index(self, values: np.ndarray | float) -> np.ndarray:
        """Bin numbers, int64 of the shape of ``values``; values outside go to the end bins."""
        return np.clip(np.searchsorted(self.highs, values, side="left"), 0, len(self) - 1)
