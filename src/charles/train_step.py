"""The training step and the prediction, as pure jitted functions.

A step is compiled once: batches of one size, one state structure. The state is donated, so a state
that was given to a step must not be used again. Arrays lie on a one-dimensional mesh named
``batch``, also on a single device: the state on every device, a batch's samples spread over them.
"""

import ctypes
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from charles.config import AugmentConfig
from charles.nets.augment import augment as augment_batch
from charles.nets.functional import AUXILIARY, Batch, Network, Variables
from charles.nets.lowerings import heavy_options
from charles.optim import last_grad_norm, last_learning_rate
from charles.outputs import Output, current_of
from charles.state import TrainState, batch_sharding, make_mesh, state_sharding

__all__ = [
    "Gradient",
    "batch_sharding",
    "make_evaluate",
    "make_mesh",
    "make_predict",
    "make_train_step",
    "measure",
    "move_average",
    "state_sharding",
]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

Array = jax.Array
Metrics = dict[str, Array]
StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvaluateFn = Callable[[Variables, Batch], Metrics]
PredictFn = Callable[[Variables, Batch], dict[str, Array]]


def make_train_step(
    network: Network,
    outputs: tuple[Output, ...],
    optimizer: optax.GradientTransformation,
    augment: AugmentConfig,
    *,
    control_names: Sequence[str],
    mesh: Mesh,
    accumulate: int = 1,
    is_per_output: bool = False,
    ema_decay: float = 0.0,
) -> StepFn:
    """The jitted training step.

    Args:
        network: What is trained.
        outputs: What it predicts; loss and metrics follow from them.
        optimizer: As :func:`charles.optim.make_optimizer` makes it.
        augment: What is varied at random.
        control_names: The controls of ``label``, in order.
        mesh: As :func:`make_mesh` makes it; the batch size must be a multiple of its size.
        accumulate: Parts of a batch that gradients are summed over before they are applied.
        is_per_output: Whether each output is trained on its own part of the batch alone, see
            :class:`Gradient`.
        ema_decay: Share that a state's average keeps of itself, less in the first steps. Without
            effect on a state that has none.

    Returns:
        ``step(state, batch) -> (state, metrics)``. It returns at once, before the device is done.
        ``batch`` has ``pixels`` uint8 ``[B, ...]``, ``speed [B]``, ``purpose [B, 2]``, ``history
        [B, T, D]`` and ``label [B, A]``, float32. ``state`` is consumed. Metrics are scalars on
        the device: ``loss``, ``<output>_loss``, ``<output>_mae``, ``grad_norm``,
        ``learning_rate`` and ``is_finite``; where the last is false, the state is as it was. What
        ``state.knobs`` says holds instead of what was configured.
    """
    gradient = Gradient(network, outputs, augment, tuple(control_names), mesh,
                        accumulate=accumulate, is_per_output=is_per_output)  # fmt: skip
    update = optax.with_extra_args_support(optimizer).update

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        grads, stats, metrics = gradient(state, batch, key)
        peak = None if state.knobs is None else state.knobs.learning_rate
        updates, opt_state = update(grads, state.opt_state, state.params, peak=peak)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average:
            variables = {"params": params, "stats": stats}
            average = move_average(average, variables, ema_decay, state.step)
        new = replace(
            state,
            step=state.step + 1,
            params=params,
            stats=stats,
            opt_state=opt_state,
            average=average,
        )
        grad_norm = last_grad_norm(opt_state)
        is_finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
        kept = jax.tree.map(lambda after, before: jnp.where(is_finite, after, before), new, state)
        more = {
            "grad_norm": grad_norm,
            "learning_rate": last_learning_rate(opt_state),
            "is_finite": is_finite,
        }
        return kept, metrics | more

    if jax.default_backend() == "cpu":
        reuse_freed_memory()
    everywhere = state_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, batch_sharding(mesh)),
        out_shardings=everywhere,
        donate_argnums=0,
    )


@dataclass(frozen=True)
class Gradient:
    """The gradient of a batch; pure, for use inside a jitted step.

    A batch has equal parts, picked for one output each, first output first. By default every output
    learns from all of it. With ``is_per_output`` each output learns from its own part alone: a
    forward pass per output, with only that output's loss; the gradients are summed, and no other
    label of a sample has any influence.

    With ``accumulate`` above 1 each pass is done in so many smaller ones, with equal shares of
    every output's part, and their mean is taken; only one of them needs memory at a time.
    Statistics go through all passes, one after the other.
    """

    network: Network
    outputs: tuple[Output, ...]
    augment: AugmentConfig
    control_names: tuple[str, ...]
    mesh: Mesh
    accumulate: int = 1
    is_per_output: bool = False

    def __call__(self, state: TrainState, batch: Batch, key: Array) -> tuple[Any, Any, Metrics]:
        """Gradient by the parameters, new statistics, and the metrics of the loss.

        Args:
            state: Gives parameters, statistics and the losses' weights.
            batch: See :func:`make_train_step`.
            key: A PRNG key, consumed.
        """
        weights = {out.config.name: out.config.loss_weight for out in self.outputs}
        if state.knobs is not None:
            weights = state.knobs.loss_weights
        if not self.is_per_output:
            one = _Pass(self, state.params, weights, self.outputs)
            return one.in_parts(state.stats, batch, key)
        stats, passes = state.stats, []
        for number, output in enumerate(self.outputs):
            part = {
                name: part_of(value, number, len(self.outputs)) for name, value in batch.items()
            }
            one = _Pass(self, state.params, weights, (output,))
            grads, stats, metrics = one.in_parts(stats, part, jax.random.fold_in(key, number))
            passes.append((grads, metrics))
        total = jax.tree.map(lambda *each: reduce(operator.add, each), *[one[0] for one in passes])
        metrics = {name: value for one in passes for name, value in one[1].items()}
        metrics["loss"] = reduce(operator.add, [one[1]["loss"] for one in passes])
        return total, stats, metrics


@dataclass(frozen=True)
class _Pass:
    """One forward and backward pass, with the losses of some outputs."""

    of: Gradient
    params: Any
    weights: Mapping[str, Any]
    outputs: tuple[Output, ...]

    def in_parts(self, stats: Any, batch: Batch, key: Array) -> tuple[Any, Any, Metrics]:
        """The pass, in so many parts as gradients are accumulated over; see :class:`Gradient`."""
        num_parts = self.of.accumulate
        if num_parts == 1:
            return self.whole(stats, batch, key)
        parts = {name: self._split(value, num_parts) for name, value in batch.items()}

        def add(carry: tuple[Any, Any], each: tuple[Batch, Array]) -> tuple[Any, Metrics]:
            total, stats = carry
            grads, stats, metrics = self.whole(stats, *each)
            return (jax.tree.map(jnp.add, total, grads), stats), metrics

        zeros = jax.tree.map(jnp.zeros_like, self.params)
        each = (parts, jax.random.split(key, num_parts))
        (total, stats), metrics = jax.lax.scan(add, (zeros, stats), each)
        mean = jax.tree.map(lambda leaf: leaf / num_parts, total)
        return mean, stats, {name: jnp.mean(values) for name, values in metrics.items()}

    def whole(self, stats: Any, batch: Batch, key: Array) -> tuple[Any, Any, Metrics]:
        """The pass over a batch at once."""
        network, names = self.of.network, self.of.control_names
        augment_key, network_key = jax.random.split(key)
        batch = augment_batch(network.prepare(batch), self.of.augment, names, augment_key)

        def loss_of(params: Any) -> tuple[Array, Any]:
            variables = {"params": params, "stats": stats}
            predictions, new = network.forward(variables, batch, is_training=True, key=network_key)
            metrics = measure(predictions, batch, self.outputs, names)
            weighed = [self.weights[name] * metrics[f"{name}_loss"] for name in self._names()]
            if network.auxiliary_weight:
                weighed += self._auxiliary(predictions, batch, metrics)
            metrics["loss"] = reduce(operator.add, weighed)
            return metrics["loss"], (new, metrics)

        grads, (stats, metrics) = jax.grad(loss_of, has_aux=True)(self.params)
        return grads, stats, metrics

    def _auxiliary(
        self, predictions: dict[str, Array], batch: Batch, metrics: Metrics
    ) -> list[Array]:
        """Weighted losses of the auxiliary predictions; the plain ones are added to ``metrics``."""
        network, names = self.of.network, self.of.control_names
        again = {name: predictions[AUXILIARY + name] for name in self._names()}
        losses = measure(again, batch, self.outputs, names)
        weighed = []
        for name in self._names():
            metrics[f"{AUXILIARY}{name}_loss"] = losses[f"{name}_loss"]
            weighed.append(network.auxiliary_weight * self.weights[name] * losses[f"{name}_loss"])
        return weighed

    def _names(self) -> list[str]:
        return [output.config.name for output in self.outputs]

    def _split(self, values: Array, num_parts: int) -> Array:
        """``[B, ...]`` as ``[K, B / K, ...]``, with the same share of every output's part in each.

        Each part is spread over all devices again.
        """
        rest = values.shape[1:]
        grouped = values.reshape(len(self.outputs), num_parts, -1, *rest)
        parts = grouped.swapaxes(0, 1).reshape(num_parts, -1, *rest)
        if parts.shape[1] % self.of.mesh.size:
            return parts
        where = NamedSharding(self.of.mesh, PartitionSpec(None, "batch"))
        return jax.lax.with_sharding_constraint(parts, where)


def part_of(values: Array, number: int, num_parts: int) -> Array:
    """One of equal parts of ``[B, ...]``: the samples that were picked for output ``number``."""
    share = values.shape[0] // num_parts
    return values[number * share : (number + 1) * share]


def move_average(average: Variables, newest: Variables, decay: float, step: Array) -> Variables:
    """A running mean of variables after one more step.

    It keeps ``decay`` of itself, at first less, so that it soon forgets what training began with:
    ``(1 + step) / (10 + step)``, where ``step`` counts the steps before this one. Statistics are
    averaged alike, so that both belong to the same mean of networks; what is no floating-point
    number is copied.

    References:
        Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992,
        https://doi.org/10.1137/0330046.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def move(mean: Array, value: Array) -> Array:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        return mean + (1.0 - kept).astype(value.dtype) * (value - mean)

    return jax.tree.map(move, average, newest)


def reuse_freed_memory() -> None:
    """Make this process keep freed memory for the next step instead of giving it back.

    A step on a CPU takes and frees over a hundred megabytes; by default glibc gives them back to
    the system, and every page of them is faulted in and zeroed again at the next step: a fifth of
    the step's time at batch 64, measured. Does nothing where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        most_bytes = 1 << 30
        libc.mallopt(_M_MMAP_THRESHOLD, most_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, most_bytes)


def measure(
    predictions: dict[str, Array],
    batch: Batch,
    outputs: tuple[Output, ...],
    control_names: Sequence[str],
) -> Metrics:
    """Losses and metrics of raw predictions; pure, inside or outside jit.

    Args:
        predictions: Raw head outputs ``[B, num_units]`` by output name.
        batch: Has ``label [B, A]`` and ``history [B, T, D]``; the rest is not looked at.
        outputs: What is predicted.
        control_names: The controls of ``label``, in order.

    Returns:
        ``loss`` (weighted sum), ``<output>_loss`` and ``<output>_mae``, float32 scalars.
    """
    metrics: Metrics = {"loss": jnp.zeros(())}
    for output in outputs:
        name = output.config.name
        current = current_of(batch["history"], control_names, name)
        target = output.target(batch["label"], control_names, current)
        loss = jnp.mean(output.loss(predictions[name], target))
        metrics["loss"] += output.config.loss_weight * loss
        metrics[f"{name}_loss"] = loss
        metrics[f"{name}_mae"] = jnp.mean(output.metric(predictions[name], target, current))
    return metrics


def make_predict(
    network: Network, outputs: tuple[Output, ...], *, control_names: Sequence[str]
) -> PredictFn:
    """The jitted prediction, for a player (one frame) or an evaluation (many).

    Args:
        network: What predicts.
        outputs: What it predicts.
        control_names: The controls at the front of a ``history`` row, in order.

    Returns:
        ``predict(variables, inputs)``: decoded values, float32 ``[B]`` by output name, from
        variables as the network's ``fold`` gives them and
        ``pixels`` uint8 ``[B, ...]``, ``speed [B]``, ``purpose [B, 2]`` and ``history
        [B, T, D]``. Compiled once per batch size; new variables of the same shapes change nothing.
    """
    names = tuple(control_names)

    def predict(variables: Variables, inputs: Batch) -> dict[str, Array]:
        predictions = network.infer(variables, network.prepare(inputs))
        return decode_outputs(predictions, inputs["history"], outputs, names)

    return jax.jit(predict, compiler_options=heavy_options() if network.is_heavy else None)


def decode_outputs(
    predictions: dict[str, Array],
    history: Array,
    outputs: tuple[Output, ...],
    control_names: Sequence[str],
) -> dict[str, Array]:
    """Values of the outputs, float32 ``[B]``, from raw predictions ``[B, num_units]``; pure."""
    return {
        name: output.decode(predictions[name], current_of(history, control_names, name))
        for name, output in ((each.config.name, each) for each in outputs)
    }


def make_evaluate(
    network: Network,
    outputs: tuple[Output, ...],
    *,
    control_names: Sequence[str],
    mesh: Mesh,
    is_per_output: bool = False,
) -> EvaluateFn:
    """The jitted measurement of a labelled batch, without training on it.

    Args:
        network: What is measured.
        outputs: What it predicts.
        control_names: The controls of ``label``, in order.
        mesh: The training step's.
        is_per_output: Whether each output is measured on its own part of the batch alone, as it is
            then trained.

    Returns:
        ``evaluate(variables, batch)``: ``<output>_loss`` and ``<output>_mae``, float32 scalars,
        from a batch as the training step takes it. Compiled once.
    """
    names = tuple(control_names)

    def evaluate(variables: Variables, batch: Batch) -> Metrics:
        predictions, _ = network.apply(variables, batch, is_training=False)
        metrics: Metrics = {}
        for number, output in enumerate(outputs):
            name = output.config.name
            part = {name: predictions[name], **{key: batch[key] for key in ("label", "history")}}
            if is_per_output:
                part = {key: part_of(each, number, len(outputs)) for key, each in part.items()}
            metrics |= measure(part, part, (output,), names)
        del metrics["loss"]
        return metrics

    everywhere = state_sharding(mesh)
    return jax.jit(
        evaluate,
        in_shardings=(everywhere, batch_sharding(mesh)),
        out_shardings=everywhere,
    )
