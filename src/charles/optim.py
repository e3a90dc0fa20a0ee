"""The optimiser: AdamW with warm-up, an optional cosine, clipping, decay on kernels only.

References:
    Loshchilov, Hutter, "Decoupled weight decay regularization", 2019,
    https://arxiv.org/abs/1711.05101.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from charles.config import OptimizerConfig

FINAL_SHARE = 0.1
"""What is left of the peak rate after the cosine."""


def learning_rate(config: OptimizerConfig, step: jax.Array | int) -> jax.Array:
    """The rate of step ``step`` (counted from 0), float32.

    Rises linearly, so that step ``warmup_steps - 1`` is the first at the peak; then stays, or
    falls along a half cosine to a tenth at ``decay_steps``.
    """
    step = jnp.asarray(step, jnp.float32)
    rate = config.learning_rate * jnp.minimum(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay_steps == 0:
        return rate
    span = max(1, config.decay_steps - config.warmup_steps)
    progress = jnp.clip((step - config.warmup_steps) / span, 0.0, 1.0)
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return rate * share


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimiser that ``config`` describes.

    Its state carries the rate used last, see :func:`last_learning_rate`.
    """

    def make(rate: jax.Array) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(config.clip_norm),
            optax.scale_by_adam(),
            optax.add_decayed_weights(config.weight_decay, mask=is_kernel),
            optax.scale_by_learning_rate(rate),
        )

    return optax.inject_hyperparams(make)(rate=lambda step: learning_rate(config, step))


def last_learning_rate(opt_state: Any) -> jax.Array:
    """The rate of the last update, float32 ``[]``, from a state of :func:`make_optimizer`."""
    return opt_state.hyperparams["rate"]


def is_kernel(params: Any) -> Any:
    """Which parameters decay: a tree like ``params`` of bools, true for those named ``kernel``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )
