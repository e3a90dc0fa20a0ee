"""Line 0012: the memory speaks of change alone."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from charles.errors import ConfigError
from charles.models import Memory, find_model
from charles.nets import zoo
from charles.nets.driver import make_network
from charles.nets.functional import functionalize
from charles.nets.recall import Recall
from charles.network_config import NetworkConfig
from charles.outputs import make_output
from charles.presets import get
from charles.sample import SampleSpec

BLIND, RECALL = (f"model_0012_regnet_v{number}" for number in (1, 2))
CONTROLS = ("acceleration_braking", "steering")
PICTURES = 4
KEY = jax.random.key(0)


def make_model(name):
    spec = find_model(name)
    return functionalize(lambda rngs: zoo.make_model(spec, rngs=rngs), lambda batch: batch)


def make_batch(size=3, height=40, width=72, pictures=PICTURES, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.uniform(-1, 1, (size, height, width, 3 * pictures)).astype(np.float32),
        "speed": rng.uniform(0, 20, size).astype(np.float32),
        "purpose": rng.normal(size=(size, 2)).astype(np.float32),
        "history": rng.uniform(-1, 1, (size, 30, 5)).astype(np.float32),
    }


def moved(tree, seed=5):
    """Variables a little off their beginning, where much is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype), tree
    )


@pytest.fixture(scope="module")
def recall():
    return Recall(Memory(), PICTURES - 1, rngs=nnx.Rngs(0))


def pictures_of(*seeds):
    shape = (2, 40, 72, 3)
    return [np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in seeds]


def test_where_nothing_moved_the_memory_says_nothing(recall):
    assert np.all(recall(pictures_of(7, 7, 7, 7)) == 0)
    assert np.any(recall(pictures_of(8, 7, 7, 7)) != 0)


def test_the_order_of_the_pictures_is_told_apart(recall):
    in_order, swapped = recall(pictures_of(1, 2, 3, 7)), recall(pictures_of(2, 1, 3, 7))
    assert not np.allclose(in_order, swapped, atol=1e-3)


def predict(network, variables, batch, key=None):
    """Compiled: one by one its operations take a minute."""
    run = jax.jit(partial(network.forward, is_training=key is not None))
    return run(variables, batch, key=key)[0]


def gradient_of(network, variables, batch, names):
    """Of a sum over these predictions in training mode, by part."""

    def total(params):
        predictions, _ = network.forward(
            variables | {"params": params}, batch, is_training=True, key=KEY
        )
        return sum(jnp.sum(value * value) for name, value in predictions.items() if name in names)

    grads = jax.jit(jax.grad(total))(variables["params"])
    parts = {name: jax.tree.leaves(part) for name, part in grads.items()}
    return {name: any(bool(np.any(leaf != 0)) for leaf in part) for name, part in parts.items()}


def test_every_part_learns_to_drive():
    network = make_model(RECALL)
    moved_parts = gradient_of(network, moved(network.init(0)), make_batch(), CONTROLS)
    assert "memory" in moved_parts
    assert all(moved_parts.values())


def test_nothing_of_the_past_but_pictures_moves_a_prediction():
    network = make_model(RECALL)
    variables, batch = moved(network.init(0)), make_batch()
    other = batch | {"history": -batch["history"]}
    one, two = (predict(network, variables, each) for each in (batch, other))
    assert set(one) == set(CONTROLS)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    seen = batch | {"image": batch["image"].copy()}
    seen["image"][..., :3] *= -1  # the oldest picture
    three = predict(network, variables, seen)
    assert all(np.all(three[name] != one[name]) for name in CONTROLS)


def test_any_size_of_picture_has_the_same_parameters():
    network = make_model(BLIND)
    variables = network.init(0)
    for height, width in ((36, 64), (90, 160)):
        batch = make_batch(height=height, width=width, pictures=1)
        predictions = predict(network, variables, batch).values()
        assert all(np.all(np.isfinite(value)) for value in predictions)


def test_a_run_that_keeps_too_few_pictures_is_refused():
    config = get(RECALL)
    with pytest.raises(ConfigError, match=r"frame\.num_frames must be 4 for model_0012"):
        replace(config, frame=replace(config.frame, num_frames=1))


def test_a_frozen_backbone_has_no_gradient():
    outputs = tuple(make_output(output) for output in get(BLIND).outputs)
    config = NetworkConfig(model=BLIND, input_height=36, input_width=64, frozen=("backbone",))
    network = make_network(config, SampleSpec(height=36, width=64, pixel_format="rgb"), outputs)
    batch = make_batch(height=25, width=64, pictures=1)
    moved_parts = gradient_of(network, moved(network.init(0)), batch, CONTROLS)
    assert not moved_parts.pop("backbone")
    assert all(moved_parts.values())
