"""Line 0012: the memory speaks of change alone, and learns nothing but change."""

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
from charles.nets.functional import AUXILIARY, functionalize
from charles.nets.recall import Recall
from charles.network_config import NetworkConfig
from charles.outputs import make_output
from charles.presets import get
from charles.sample import SampleSpec

APART, TOGETHER, BLIND = (f"model_0012_regnet_v{number}" for number in (3, 2, 1))
CONTROLS = ("acceleration_braking", "steering")
PICTURES = 4
KEY = jax.random.key(0)


def make_model(name, **memory):
    spec = find_model(name)
    if memory:
        assert spec.memory is not None
        spec = replace(spec, memory=replace(spec.memory, **memory))
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
    return Recall(Memory(), PICTURES - 1, {"steering": 1}, rngs=nnx.Rngs(0))


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


def test_a_memory_apart_learns_from_the_change_alone_and_nothing_else_does():
    network = make_model(APART)
    variables = moved(network.init(0))
    driving = gradient_of(network, variables, make_batch(), CONTROLS)
    assert not driving.pop("memory")
    assert all(driving.values())
    change = gradient_of(network, variables, make_batch(), {AUXILIARY + each for each in CONTROLS})
    assert change.pop("memory")
    assert not any(change.values())


def test_a_memory_that_is_not_apart_learns_what_all_learn():
    network = make_model(TOGETHER)
    variables = moved(network.init(0))
    assert all(gradient_of(network, variables, make_batch(), CONTROLS).values())
    assert set(predict(network, variables, make_batch(), KEY)) == set(CONTROLS)


def test_what_the_memory_learns_is_the_change_since_its_oldest_picture():
    network = make_model(APART)
    variables, batch = network.init(0), make_batch()
    later = batch | {"history": batch["history"].copy()}
    later["history"][:, -30, :2] += 0.25  # the row of the oldest picture
    before, after = (predict(network, variables, each, KEY) for each in (batch, later))
    for name in CONTROLS:
        np.testing.assert_allclose(
            after[AUXILIARY + name], before[AUXILIARY + name] + 0.25, atol=1e-6
        )
        np.testing.assert_array_equal(after[name], before[name])


def test_nothing_of_the_past_but_pictures_moves_a_prediction():
    network = make_model(APART)
    variables, batch = moved(network.init(0)), make_batch()
    other = batch | {"history": -batch["history"]}
    one, two = (predict(network, variables, each) for each in (batch, other))
    assert set(one) == set(CONTROLS)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    seen = batch | {"image": batch["image"].copy()}
    seen["image"][..., :3] *= -1  # the oldest picture
    three = predict(network, variables, seen)
    assert all(np.all(three[name] != one[name]) for name in CONTROLS)


def test_a_hidden_memory_tells_nothing_while_training_and_all_when_driving():
    network = make_model(APART, hidden_share=1.0)
    variables, batch = moved(network.init(0)), make_batch()
    still = batch | {"image": np.tile(batch["image"][..., -3:], PICTURES)}

    def steer(batch, key=None):
        return predict(network, variables, batch, key)["steering"]

    np.testing.assert_array_equal(steer(batch, KEY), steer(still, KEY))
    assert np.all(steer(batch) != steer(still))


def test_any_size_of_picture_has_the_same_parameters():
    network = make_model(BLIND)
    variables = network.init(0)
    for height, width in ((36, 64), (90, 160)):
        batch = make_batch(height=height, width=width, pictures=1)
        predictions = predict(network, variables, batch).values()
        assert all(np.all(np.isfinite(value)) for value in predictions)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_frames": 1}, r"frame\.num_frames must be 4 for model_0012"),
        ({"history_length": 10}, r"data\.history_length must be at least 30"),
    ],
)
def test_a_run_that_remembers_too_little_is_refused(changes, problem):
    config = get(APART)
    frames = {name: value for name, value in changes.items() if name == "num_frames"}
    data = {name: value for name, value in changes.items() if name == "history_length"}
    with pytest.raises(ConfigError, match=problem):
        replace(config, frame=replace(config.frame, **frames), data=replace(config.data, **data))


def test_a_frozen_backbone_has_no_gradient():
    outputs = tuple(make_output(output) for output in get(BLIND).outputs)
    config = NetworkConfig(model=BLIND, input_height=36, input_width=64, frozen=("backbone",))
    network = make_network(config, SampleSpec(height=36, width=64, pixel_format="rgb"), outputs)
    batch = make_batch(height=25, width=64, pictures=1)
    moved_parts = gradient_of(network, moved(network.init(0)), batch, CONTROLS)
    assert not moved_parts.pop("backbone")
    assert all(moved_parts.values())
