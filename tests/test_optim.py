"""The optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from charles.config import OptimizerConfig
from charles.optim import is_kernel, last_learning_rate, learning_rate, make_optimizer

PARAMS = {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "gain": jnp.ones(2)}}


def test_rate_rises_linearly_then_stays():
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=4)
    rates = [float(learning_rate(config, step)) for step in range(7)]
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5])


def test_cosine_ends_at_a_tenth():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, decay_steps=110)
    rates = [float(learning_rate(config, step)) for step in (10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [1.0, 0.55, 0.1, 0.1], rtol=1e-6)


def test_only_kernels_decay():
    assert is_kernel(PARAMS) == {"conv": {"kernel": True, "bias": False, "gain": False}}
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    optimizer = make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    after = optax.apply_updates(PARAMS, updates)["conv"]
    np.testing.assert_allclose(after["kernel"], 0.95, rtol=1e-6)
    np.testing.assert_array_equal(after["bias"], 1.0)
    np.testing.assert_array_equal(after["gain"], 1.0)


def test_update_is_adam_on_clipped_gradients():
    config = OptimizerConfig(learning_rate=0.01, warmup_steps=0, weight_decay=0, clip_norm=0.5)
    optimizer, reference = make_optimizer(config), optax.adam(0.01)
    state, reference_state = optimizer.init(PARAMS), reference.init(PARAMS)
    for scale in (1.0, 3.0, 0.01):
        grads = jax.tree.map(lambda leaf, by=scale: by * leaf, PARAMS)
        norm = float(optax.tree.norm(grads))
        share = min(1, 0.5 / norm)
        clipped = jax.tree.map(lambda leaf, by=share: by * leaf, grads)
        updates, state = optimizer.update(grads, state, PARAMS)
        expected, reference_state = reference.update(clipped, reference_state)
        jax.tree.map(
            lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-5),
            updates,
            expected,
        )


def test_state_tells_the_rate_that_was_used():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4)
    optimizer = make_optimizer(config)
    state = optimizer.init(PARAMS)
    for step in range(3):
        _, state = optimizer.update(PARAMS, state, PARAMS)
        assert float(last_learning_rate(state)) == pytest.approx((step + 1) / 4)
