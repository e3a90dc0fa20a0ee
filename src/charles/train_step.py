"""The training step and the prediction, as pure jitted functions.

A step is compiled once: batches of one size, one state structure. The state is donated, so a state
that was given to a step must not be used again. Arrays lie on a one-dimensional mesh named
``batch``, also on a single device: the state on every device, a batch's samples spread over them.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from charles.config import AugmentConfig
from charles.nets.augment import augment as augment_batch
from charles.nets.functional import Batch, Network, Variables
from charles.optim import last_learning_rate
from charles.outputs import Output, current_of
from charles.state import TrainState, batch_sharding, make_mesh, state_sharding

__all__ = [
    "batch_sharding",
    "make_mesh",
    "make_predict",
    "make_train_step",
    "measure",
    "state_sharding",
]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

Array = jax.Array
Metrics = dict[str, Array]
StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
PredictFn = Callable[[Variables, Batch], dict[str, Array]]


def make_train_step(
    network: Network,
    outputs: tuple[Output, ...],
    optimizer: optax.GradientTransformation,
    augment: AugmentConfig,
    *,
    control_names: Sequence[str],
    mesh: Mesh,
) -> StepFn:
    """The jitted training step.

    Args:
        network: What is trained.
        outputs: What it predicts; loss and metrics follow from them.
        optimizer: As :func:`charles.optim.make_optimizer` makes it.
        augment: What is varied at random.
        control_names: The controls of ``label``, in order.
        mesh: As :func:`make_mesh` makes it; the batch size must be a multiple of its size.

    Returns:
        ``step(state, batch) -> (state, metrics)``. It returns at once, before the device is done.
        ``batch`` has ``pixels`` uint8 ``[B, ...]``, ``speed [B]``, ``purpose [B, 2]``, ``history
        [B, T, D]`` and ``label [B, A]``, float32. ``state`` is consumed. Metrics are scalars on
        the device: ``loss``, ``<output>_loss``, ``<output>_mae``, ``grad_norm``,
        ``learning_rate`` and ``is_finite``; where the last is false, the state is as it was.
    """
    names = tuple(control_names)

    def loss_of(params: Any, stats: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        variables = {"params": params, "stats": stats}
        predictions, stats = network.forward(variables, batch, is_training=True, key=key)
        metrics = measure(predictions, batch, outputs, names)
        return metrics["loss"], (stats, metrics)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        augment_key, network_key = jax.random.split(key)
        batch = augment_batch(network.prepare(batch), augment, names, augment_key)
        grad_of = jax.grad(loss_of, has_aux=True)
        grads, (stats, metrics) = grad_of(state.params, state.stats, batch, network_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            opt_state=opt_state,
            key=state.key,
        )
        grad_norm = optax.tree.norm(grads)
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
        ``pixels`` uint8 ``[B, ...]``, ``speed [B]``, ``purpose [B, 2]`` and ``history
        [B, T, D]``. Compiled once per batch size; new variables of the same shapes change nothing.
    """
    names = tuple(control_names)

    def predict(variables: Variables, inputs: Batch) -> dict[str, Array]:
        predictions, _ = network.apply(variables, inputs, is_training=False)
        return {
            name: output.decode(predictions[name], current_of(inputs["history"], names, name))
            for name, output in ((each.config.name, each) for each in outputs)
        }

    return jax.jit(predict)
