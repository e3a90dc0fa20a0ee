"""What follows from an output's declaration for training and driving: one class for each type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from charles.outputs.declaration import OutputConfig
from charles.outputs.signals import control_of

Array = Any
"""A NumPy or a JAX array."""

_EXPECTILE_ROUNDS = 8
"""Newton's method on a cost of few parabolas ends exactly after a few rounds."""


class Output(Protocol):
    """What the rest of Charles asks of an output.

    ``current`` is the output's current value, as :func:`charles.outputs.current_of` finds it; only
    a discrete delta looks at it.
    """

    @property
    def config(self) -> OutputConfig:
        """The declaration."""
        ...

    @property
    def num_units(self) -> int:
        """Width of the network's head."""
        ...

    def target(self, controls: Array, names: Sequence[str], current: Array) -> Array:
        """What a label asks for: a value or, of a discrete delta, a change.

        Args:
            controls: Labels, float32 ``[..., A]``.
            names: Of the controls.
            current: float32 ``[...]``.

        Returns:
            float32 ``[...]``.
        """
        ...

    def loss(self, prediction: Array, target: Array) -> Array:
        """Loss per sample ``[B]`` from raw head outputs ``[B, num_units]`` and targets ``[B]``."""
        ...

    def metric(self, prediction: Array, target: Array, current: Array) -> Array:
        """Absolute error per sample ``[B]`` of the decoded value, in units of the control."""
        ...

    def decode(self, prediction: Array, current: Array) -> Array:
        """Values ``[B]`` in ``[low, high]`` from raw head outputs and current values ``[B]``."""
        ...


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

    def target(self, controls: Array, names: Sequence[str], current: Array) -> Array:
        """See :class:`Output`."""
        del current
        return _value_of(self.config, controls, names)

    def loss(self, prediction: Array, target: Array) -> Array:
        """See :class:`Output`."""
        value, low, high = prediction[..., 0], self.config.low, self.config.high
        is_beyond = ((target >= high) & (value > high)) | ((target <= low) & (value < low))
        weight = 1 + (self.config.excess_weight - 1) * (value > target)
        return weight * (value - target) ** 2 * ~is_beyond

    def metric(self, prediction: Array, target: Array, current: Array) -> Array:
        """See :class:`Output`."""
        return abs(self.decode(prediction, current) - target)

    def decode(self, prediction: Array, current: Array) -> Array:
        """See :class:`Output`."""
        del current
        return prediction[..., 0].clip(self.config.low, self.config.high)


@dataclass(frozen=True)
class Classification:
    """A softmax over class values, trained on the cross-entropy.

    Hard targets put all weight on the class that is nearest to the label. Soft targets divide it
    between the two neighbours, so that the expectation is the label and nothing is lost to the
    width of a class; the loss then has a floor above 0, the targets' own entropy.

    Unlike a mean, a distribution can say "left or right, not straight on".

    References:
        Torgo, Gama, "Regression using classification algorithms", 1997,
        https://doi.org/10.3233/IDA-1997-1405.
    """

    config: OutputConfig

    @property
    def num_units(self) -> int:
        """See :class:`Output`."""
        return len(self.config.class_values)

    def target(self, controls: Array, names: Sequence[str], current: Array) -> Array:
        """See :class:`Output`."""
        del current
        return _value_of(self.config, controls, names)

    def loss(self, prediction: Array, target: Array) -> Array:
        """See :class:`Output`."""
        return cross_entropy(prediction, class_weights(target, self.config))

    def metric(self, prediction: Array, target: Array, current: Array) -> Array:
        """See :class:`Output`."""
        return abs(self.decode(prediction, current) - target)

    def decode(self, prediction: Array, current: Array) -> Array:
        """See :class:`Output`."""
        del current
        return read_classes(prediction, self.config).clip(self.config.low, self.config.high)


@dataclass(frozen=True)
class DiscreteDelta:
    """A softmax over changes, each added to the control that applies.

    The target is the change from the current control to the label; what lies beyond the largest
    change counts as that. Driving adds what is read from the classes to the current control, so an
    error of one instant stays, and is to be seen in the history, until later changes make up for
    it. A network that cannot see its current controls cannot know what to change.
    """

    config: OutputConfig

    @property
    def num_units(self) -> int:
        """See :class:`Output`."""
        return len(self.config.class_values)

    def target(self, controls: Array, names: Sequence[str], current: Array) -> Array:
        """See :class:`Output`."""
        return _value_of(self.config, controls, names) - current

    def loss(self, prediction: Array, target: Array) -> Array:
        """See :class:`Output`."""
        return cross_entropy(prediction, class_weights(target, self.config))

    def metric(self, prediction: Array, target: Array, current: Array) -> Array:
        """See :class:`Output`; also of labels that one change cannot reach."""
        return abs(self.decode(prediction, current) - (current + target))

    def decode(self, prediction: Array, current: Array) -> Array:
        """See :class:`Output`."""
        value = current + read_classes(prediction, self.config)
        return value.clip(self.config.low, self.config.high)


def _value_of(config: OutputConfig, controls: Array, names: Sequence[str]) -> Array:
    values = control_of(controls, names, config.name)
    return values.clip(config.low, config.high).astype(np.float32)


def class_weights(values: Array, config: OutputConfig) -> Array:
    """Weight of each class, float32 ``[..., K]`` summing to 1, that values ``[...]`` ask for."""
    classes = np.array(config.class_values, np.float32)
    lows, highs = classes[:-1], classes[1:]
    numbers = np.arange(len(classes), dtype=np.float32)
    if config.targets == "hard":
        nearest = (values[..., None] > (lows + highs) / 2).sum(-1)
        return (nearest[..., None] == numbers).astype(np.float32)
    # 0 at the first class, 1 at the second and so on, linear between two.
    place = ((values[..., None] - lows) / (highs - lows)).clip(0.0, 1.0).sum(-1)
    return (1.0 - abs(place[..., None] - numbers)).clip(0.0).astype(np.float32)


def cross_entropy(prediction: Array, weights: Array) -> Array:
    """Cross-entropy ``[B]`` of softmax logits ``[B, K]`` against target weights ``[B, K]``."""
    return -(weights * _log_softmax(prediction)).sum(-1)


def read_classes(prediction: Array, config: OutputConfig) -> Array:
    """What softmax logits ``[B, K]`` say, float32 ``[B]``: their most probable class or their mean.

    With an ``excess_weight`` other than 1 an expectile stands for the mean, as a regression would
    have learned.
    """
    space = prediction.__array_namespace__()
    classes = space.asarray(np.array(config.class_values, np.float32))
    if config.decoding == "argmax":
        return classes[space.argmax(prediction, axis=-1)]
    chances = space.exp(_log_softmax(prediction))
    value = (chances * classes).sum(-1)
    if config.excess_weight == 1.0:
        return value
    for _ in range(_EXPECTILE_ROUNDS):
        is_excess = value[..., None] > classes
        weights = chances * (1.0 + (config.excess_weight - 1.0) * is_excess)
        value = (weights * classes).sum(-1) / weights.sum(-1)
    return value


def _log_softmax(logits: Array) -> Array:
    space = logits.__array_namespace__()
    shifted = logits - space.max(logits, axis=-1, keepdims=True)
    return shifted - space.log(space.exp(shifted).sum(-1)[..., None])


_KINDS = {
    "regression": Regression,
    "classification": Classification,
    "discrete_delta": DiscreteDelta,
}


def make_output(config: OutputConfig) -> Output:
    """The output that ``config`` declares."""
    return _KINDS[config.type](config)
