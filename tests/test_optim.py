"""The optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from charles import presets
from charles.config import OptimizerConfig
from charles.errors import ConfigError
from charles.intake import sample_spec
from charles.nets.driver import make_network
from charles.optim import (
    is_kernel,
    last_grad_norm,
    last_learning_rate,
    learning_rate,
    make_optimizer,
)
from charles.outputs import make_output

PARAMS = {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "gain": jnp.ones(2)}}


def test_rate_rises_linearly_then_stays():
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=4)
    rates = [float(learning_rate(config, step)) for step in range(7)]
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5])


def test_cosine_ends_at_a_tenth():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, decay_steps=110)
    rates = [float(learning_rate(config, step)) for step in (10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [1.0, 0.55, 0.1, 0.1], rtol=1e-6)


def test_line_ends_at_its_final_share():
    config = OptimizerConfig(
        learning_rate=1.0, warmup_steps=10, decay_steps=110, schedule="linear", final_share=0.2
    )
    rates = [float(learning_rate(config, step)) for step in (4, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 0.6, 0.2, 0.2], rtol=1e-6)


def test_a_constant_rate_does_not_fall():
    config = OptimizerConfig(learning_rate=1.0, decay_steps=300, schedule="constant")
    assert float(learning_rate(config, 1000)) == 1.0


def test_peak_scales_the_whole_schedule():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, decay_steps=110)
    for step in (0, 5, 60, 200):
        turned = float(learning_rate(config, step, jnp.float32(0.25)))
        assert turned == pytest.approx(0.25 * float(learning_rate(config, step)))


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


def test_kernels_of_every_layer_decay():
    names = ("kernel", "depthwise", "pointwise", "recurrent_kernel", "bias")
    decays = is_kernel({"layer": {name: jnp.ones(2) for name in names}})["layer"]
    assert [name for name in names if not decays[name]] == ["bias"]


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


def test_of_a_whole_network_nothing_but_kernels_decays():
    config = presets.tiny()
    outputs = tuple(make_output(output) for output in config.outputs)
    network = make_network(config.network, sample_spec(config), outputs)
    params = network.shapes["params"]
    norms = {"norm": {"scale": jnp.ones(3), "offset": jnp.ones(3), "embedding": jnp.ones((3, 2))}}
    decays = is_kernel(params | norms)
    leaves = jax.tree_util.tree_leaves_with_path(decays)
    kinds = {(path[-1].key, is_decayed) for path, is_decayed in leaves}
    assert ("kernel", True) in kinds
    assert {name for name, is_decayed in kinds if is_decayed} == {"kernel"}
    assert {"bias", "gain", "scale", "offset", "embedding"} <= {
        name for name, is_decayed in kinds if not is_decayed
    }


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("adamw", optax.adamw(0.01, weight_decay=0.1, mask=is_kernel)),
        ("adam", optax.chain(optax.add_decayed_weights(0.1, is_kernel), optax.adam(0.01))),
        ("sgd", optax.chain(optax.add_decayed_weights(0.1, is_kernel),
                            optax.sgd(0.01, momentum=0.8))),
    ],
)  # fmt: skip
def test_kinds_are_those_of_the_literature(kind, reference):
    config = OptimizerConfig(
        kind=kind, learning_rate=0.01, warmup_steps=0, weight_decay=0.1, momentum=0.8, clip_norm=1e9
    )
    optimizer = make_optimizer(config)
    params = expected = PARAMS
    state, reference_state = optimizer.init(params), reference.init(params)
    rng = np.random.default_rng(0)
    for _ in range(4):
        grads = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        updates, reference_state = reference.update(grads, reference_state, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(
        lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-5), params, expected
    )


PARTS = {"backbone": {"kernel": jnp.full((3, 2), 2.0)}, "heads": {"kernel": jnp.full((2, 1), 2.0)}}


def test_frozen_parts_stay_as_they_are_and_cost_no_memory():
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=1e9)
    optimizer = make_optimizer(config, ("backbone",))
    state = optimizer.init(PARTS)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert (2, 1) in shapes
    assert (3, 2) not in shapes
    only = make_optimizer(config)
    heads = {"heads": PARTS["heads"]}
    only_state, params = only.init(heads), PARTS
    for _ in range(3):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        updates, only_state = only.update({"heads": grads["heads"]}, only_state, heads)
        heads = optax.apply_updates(heads, updates)
    np.testing.assert_array_equal(params["backbone"]["kernel"], PARTS["backbone"]["kernel"])
    np.testing.assert_array_equal(params["heads"]["kernel"], heads["heads"]["kernel"])
    assert not np.array_equal(params["heads"]["kernel"], PARTS["heads"]["kernel"])
    assert float(last_grad_norm(state)) == pytest.approx(np.sqrt(2))


def test_an_unknown_frozen_part_is_refused_with_those_there_are():
    optimizer = make_optimizer(OptimizerConfig(), ("backbone", "neck"))
    with pytest.raises(ConfigError, match=r"parts \('backbone', 'heads'\), got 'neck'"):
        optimizer.init(PARTS)
