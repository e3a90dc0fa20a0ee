"""The optimiser: AdamW, Adam or SGD with warm-up, a schedule, clipping, decay on kernels only.

References:
    Loshchilov, Hutter, "Decoupled weight decay regularization", 2019,
    https://arxiv.org/abs/1711.05101.

    Kingma, Ba, "Adam: a method for stochastic optimization", 2015,
    https://arxiv.org/abs/1412.6980.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from charles.config import OptimizerConfig
from charles.errors import require


class OptimizerState(NamedTuple):
    """What the optimiser keeps between two steps."""

    inner: Any
    """Moments, of the parameters that are trained only."""
    num_updates: jax.Array
    """Updates done, int32 ``[]``; where the schedule stands."""
    rate: jax.Array
    """The rate used last, float32 ``[]``."""
    grad_norm: jax.Array
    """Global norm of the gradient used last, before clipping, float32 ``[]``."""


def learning_rate(
    config: OptimizerConfig, step: jax.Array | int, peak: jax.Array | None = None
) -> jax.Array:
    """The rate of step ``step`` (counted from 0), float32.

    Rises linearly, so that step ``warmup_steps - 1`` is the first at the peak; then stays, or
    falls, along a half cosine or a line, to its final share at ``decay_steps``.

    Args:
        config: Gives the schedule.
        step: Which step.
        peak: Its highest rate, float32 ``[]``; the config's by default.
    """
    step = jnp.asarray(step, jnp.float32)
    top = config.learning_rate if peak is None else peak
    rate = top * jnp.minimum(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant" or config.decay_steps == 0:
        return rate
    span = max(1, config.decay_steps - config.warmup_steps)
    progress = jnp.clip((step - config.warmup_steps) / span, 0.0, 1.0)
    is_cosine = config.schedule == "cosine"
    left = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if is_cosine else 1 - progress
    return rate * (config.final_share + (1 - config.final_share) * left)


def make_optimizer(
    config: OptimizerConfig, frozen: tuple[str, ...] = ()
) -> optax.GradientTransformationExtraArgs:
    """The optimiser that ``config`` describes.

    Args:
        config: Its settings.
        frozen: Names on the top level of the parameters. What is below them stays as it is: no
            update, no decay, no part in the gradient's norm, and no memory for moments.

    Returns:
        An optimiser whose state is an :class:`OptimizerState`. ``update`` takes ``peak``, the peak
        rate as float32 ``[]``, instead of the config's; changing it compiles nothing. ``init``
        raises a :class:`ConfigError` for a frozen name that the parameters have not.
    """
    direction = _make_direction(config)

    def init(params: Any) -> OptimizerState:
        for name in frozen:
            rule = f"be one of the network's parts {tuple(params)}"
            require(name in params, "frozen", rule, name)
        return OptimizerState(
            inner=direction.init(_trained(params, frozen)),
            num_updates=jnp.zeros((), jnp.int32),
            rate=jnp.zeros((), jnp.float32),
            grad_norm=jnp.zeros((), jnp.float32),
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, peak: Any = None, **_more: Any
    ) -> tuple[Any, OptimizerState]:
        grads = _trained(updates, frozen)
        steps, inner = direction.update(grads, state.inner, _trained(params, frozen))
        rate = learning_rate(config, state.num_updates, peak)
        steps = jax.tree.map(lambda step: -rate * step, steps)
        if frozen:
            steps |= {name: jax.tree.map(jnp.zeros_like, updates[name]) for name in frozen}
        norm = optax.tree.norm(grads)
        return steps, OptimizerState(inner, state.num_updates + 1, rate, norm)

    return optax.GradientTransformationExtraArgs(init, update)


def last_learning_rate(opt_state: Any) -> jax.Array:
    """The rate of the last update, float32 ``[]``, from a state of :func:`make_optimizer`."""
    return opt_state.rate


def last_grad_norm(opt_state: Any) -> jax.Array:
    """The norm of the last gradient, frozen parts apart, before it was clipped; float32 ``[]``."""
    return opt_state.grad_norm


_KERNELS = {"kernel", "depthwise", "pointwise", "recurrent_kernel"}
"""Names of what layers multiply their inputs by."""


def is_kernel(params: Any) -> Any:
    """Which parameters decay: a tree like ``params`` of bools, true for kernels of any layer.

    So biases, gains, the scale and offset of a normalisation, and learned embeddings do not: they
    are few, and pulling them to zero changes what a layer is for, not how smooth it is.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) in _KERNELS, params
    )


def _make_direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """From gradients to steps of rate 1, uphill."""
    clip = optax.clip_by_global_norm(config.clip_norm)
    decay = optax.add_decayed_weights(config.weight_decay, mask=is_kernel)
    if config.kind == "adamw":
        return optax.chain(clip, optax.scale_by_adam(), decay)
    if config.kind == "adam":
        return optax.chain(clip, decay, optax.scale_by_adam())
    return optax.chain(clip, decay, optax.trace(config.momentum))


def _trained(params: Any, frozen: tuple[str, ...]) -> Any:
    """The parts of a tree that are not frozen."""
    if not frozen or params is None:
        return params
    return {name: part for name, part in params.items() if name not in frozen}
