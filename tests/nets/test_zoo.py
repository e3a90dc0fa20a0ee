"""The documented models: as large as published, and each makes its predictions and learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from charles.errors import ConfigError
from charles.models import MODELS, ModelSpec, Past, Signal, find_model
from charles.nets import zoo
from charles.nets.driver import make_network
from charles.nets.functional import AUXILIARY, abstract_module, functionalize
from charles.nets.recurrent import LSTM, past_features, read_past
from charles.network_config import NetworkConfig
from charles.outputs import make_output
from charles.presets import get
from charles.sample import SampleSpec

PUBLISHED = {
    "model_0001_xception_v1": (25_562_923, 25_508_395, 54_528),
    "model_0001_xception_v2": (25_562_923, 25_508_395, 54_528),
    "model_0001_xception_v3": (22_962_731, 22_908_203, 54_528),
    "model_0001_xception_v4": (22_981_181, 22_926_653, 54_528),
    "model_0001_xception_v5": (23_044_669, 22_990_141, 54_528),
    "model_0001_xception_v6": (23_799_371, 23_744_843, 54_528),
    "model_0002_xception_v1": (23_799_371, 23_744_843, 54_528),
    "model_0003_xception_v1": (23_519_466, 23_464_938, 54_528),
    "model_0003_xception_v2": (23_519_466, 23_464_938, 54_528),
    "model_0003_xception_v3": (23_519_466, 23_464_938, 54_528),
    "model_0003_xception_v4": (23_519_466, 23_464_938, 54_528),
    "model_0004_inceptionresnetv2_v1": (56_470_434, 56_409_890, 60_544),
    "model_0004_inceptionresnetv2_v2": (56_470_434, 56_409_890, 60_544),
    "model_0004_inceptionresnetv2_v3": (56_470_434, 56_409_890, 60_544),
    "model_0005_inceptionresnetv2_v1": (56_470_434, 56_409_890, 60_544),
    "model_0006_inceptionresnetv2_v1": (56_475_618, 56_415_074, 60_544),
    "model_0006_inceptionresnetv2_v2": (56_472_162, 56_411_618, 60_544),
    "model_0007_inceptionresnetv2_v1": (61_024_674, 60_964_130, 60_544),
    "model_0008_irv2_data_td_v1": (59_917_858, 59_857_314, 60_544),
    "model_0008_irv2_data_td_v2": (59_885_474, 59_824_930, 60_544),
    "model_0008_irv2_data_td_v3": (59_935_010, 59_874_466, 60_544),
    "model_0008_irv2_data_td_v4": (59_946_228, 59_885_684, 60_544),
    "model_0008_irv2_data_td_v5": (606_162, 606_162, 0),
    "model_0008_irv2_data_td_v6": (606_162, 606_162, 0),
    "model_0008_irv2_data_td_v7": (58_311_074, 58_250_530, 60_544),
    "model_0009_irv2_cr_tl_v1": (59_935_010, 59_874_466, 60_544),
    "model_0009_irv2_cr_tl_v2": (64_806_562, 64_746_018, 60_544),
    "model_0009_irv2_cr_tl_v3": (64_806_562, 9_874_882, 54_931_680),
    "model_0009_irv2_cr_tl_v4": (64_080_546, 9_743_810, 54_336_736),
    "model_0009_irv2_cr_tl_v5": (56_470_434, 2_133_698, 54_336_736),
    "model_0010_irv2_tcb": (112_381_058, 112_259_970, 121_088),
    "model_0011_x_tcb": (46_479_122, 46_370_066, 109_056),
}
"""Parameters of every version as published: total, trainable, not trainable."""

CONTROLS = ("acceleration_braking", "steering")


def test_every_documented_version_is_there():
    assert len(PUBLISHED) == 32
    assert zoo.names()[:32] == tuple(PUBLISHED)
    assert all(name.startswith("model_0012_") for name in zoo.names()[32:])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_as_many_parameters_as_published(name):
    assert zoo.count_parameters(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_preset_of_a_model_declares_what_it_predicts(name):
    config, spec = get(name), find_model(name)
    assert tuple(output.name for output in config.outputs) == spec.outputs
    units = {each.name: make_output(each).num_units for each in config.outputs}
    assert units == zoo.documented_heads(spec)
    assert config.data.balancing.version == spec.balancing


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'model_0003_xception_v4'"):
        NetworkConfig(model="model_0003_xception_v44")


def test_a_frozen_part_that_is_not_there_names_those_that_are():
    config = NetworkConfig(model="model_0008_irv2_data_td_v5", frozen=("backbone",))
    with pytest.raises(ConfigError, match="lstm, common, heads"):
        make_small(config)


def make_small(config: NetworkConfig):
    sample = SampleSpec(height=96, width=160, pixel_format="rgb", history_length=60)
    outputs = tuple(make_output(output) for output in get(config.model).outputs)
    return make_network(config, sample, outputs)


def make_batch(size=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "pixels": rng.integers(0, 256, (size, 96, 160, 3), np.uint8),
        "speed": rng.uniform(0, 20, size).astype(np.float32),
        "purpose": rng.normal(size=(size, 2)).astype(np.float32),
        "history": rng.uniform(-1, 1, (size, 60, 5)).astype(np.float32),
    }


def small_of(name, **changes):
    return NetworkConfig(model=name, input_height=96, input_width=160, crop_top=0.0, **changes)


def test_the_auxiliary_outputs_are_there_and_apart():
    network = make_small(small_of("model_0008_irv2_data_td_v4"))
    assert network.auxiliary_weight == 0.25
    abstract = network.shapes
    predict = lambda v: network.apply(v, make_batch(), is_training=False)[0]  # noqa: E731
    predictions = jax.eval_shape(predict, abstract)
    assert set(predictions) == {*CONTROLS, *(AUXILIARY + name for name in CONTROLS)}


def test_an_image_too_small_for_a_backbone_is_refused_before_anything_is_made():
    config = NetworkConfig(model="model_0003_xception_v1", input_height=60, input_width=160,
                           crop_top=0.0)  # fmt: skip
    with pytest.raises(ConfigError, match=r"at least 71 x 71.*60 x 160"):
        make_small(config)


def test_a_model_of_the_past_alone_is_moved_by_the_past_alone():
    network = make_small(small_of("model_0008_irv2_data_td_v5"))
    variables = network.init(0)
    predict = jax.jit(lambda batch: network.apply(variables, batch, is_training=False)[0])
    base, other = make_batch(), make_batch(seed=1)
    same = predict(base | {"pixels": other["pixels"], "speed": other["speed"]})
    moved = predict(base | {"history": other["history"]})
    for name in CONTROLS:
        np.testing.assert_array_equal(same[name], predict(base)[name])
        assert np.any(moved[name] != predict(base)[name])  # a narrow head may rest at 0


def small_model(spec: ModelSpec, frozen=()):
    """A network of a specification without a backbone, as pure functions."""
    make = lambda rngs: zoo.make_model(spec, frozen=frozen, rngs=rngs)  # noqa: E731
    return functionalize(make, lambda batch: batch)


def test_nothing_frozen_has_a_gradient_and_all_else_has():
    spec = find_model("model_0008_irv2_data_td_v5")
    network = small_model(spec, frozen=("lstm",))
    variables = network.init(0)

    def loss(params):
        predictions, _ = network.forward(variables | {"params": params}, make_batch(8),
                                         is_training=True)  # fmt: skip
        return sum(jnp.sum(value**2) for value in predictions.values())

    grads = jax.grad(loss)(variables["params"])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["lstm"]))
    assert np.any(grads["common"]["dense_0"]["kernel"])
    assert np.any(grads["heads"]["steering"]["output"]["kernel"])


def test_signals_are_joined_in_order_and_newest_rows_are_taken():
    history = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    signals = (
        Signal(name="acceleration", length=1),
        Signal(name="speed", length=2),
        Signal(name="purpose", length=1),
    )
    vector = np.asarray(read_past(jnp.asarray(history), signals, CONTROLS, is_sequence=False))
    assert vector.shape == (2, past_features(signals, is_sequence=False)) == (2, 5)
    np.testing.assert_allclose(vector[0], [15, 12 / 10, 17 / 10, 18, 19 / 50], rtol=1e-6)
    np.testing.assert_array_equal(vector[1, 0], 35)
    past = Past(signals=tuple(Signal(name=name, length=4) for name in (*CONTROLS, "purpose")))
    rows = read_past(jnp.asarray(history), past.signals, CONTROLS, is_sequence=True)
    assert rows.shape == (2, 4, past_features(past.signals, is_sequence=True)) == (2, 4, 4)
    np.testing.assert_allclose(rows[1, 2], [30, 31, 33, 34 / 50], rtol=1e-6)


def lstm_by_hand(rows, kernel, recurrent, bias):
    """The last state, one number at a time as the paper has it, gates in Keras' order."""
    units = len(bias) // 4
    hidden, cell = np.zeros(units), np.zeros(units)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for row in rows:
        gates = row @ kernel + hidden @ recurrent + bias
        enter, forget, candidate, leave = (gates[i * units : (i + 1) * units] for i in range(4))
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
        hidden = sigmoid(leave) * np.tanh(cell)
    return hidden


def test_the_lstm_computes_what_the_paper_says():
    network = functionalize(
        lambda rngs: LSTM(5, 7, rngs=rngs), lambda batch: batch
    )  # only its parameters are wanted
    params = network.init(3)["params"]
    bias = np.asarray(params["bias"])
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 7))
    recurrent = np.asarray(params["recurrent_kernel"])
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(7), atol=1e-5)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 11, 5)).astype(np.float32)
    bias = rng.normal(size=28).astype(np.float32)
    from flax import nnx

    module = LSTM(5, 7, rngs=nnx.Rngs(0))
    module.kernel[...], module.recurrent_kernel[...] = params["kernel"], recurrent
    module.bias[...] = bias
    states = np.asarray(module(jnp.asarray(rows)))
    assert states.shape == (3, 11, 7)
    for number in range(3):
        wanted = lstm_by_hand(rows[number], np.asarray(params["kernel"]), recurrent, bias)
        np.testing.assert_allclose(states[number, -1], wanted, rtol=1e-5, atol=1e-6)


def test_every_model_is_named_once_and_its_transfers_name_parts_that_it_has():
    for name, spec in MODELS.items():
        parts = zoo.parts_of(spec)
        assert set(spec.frozen) <= set(parts), name
        assert {each.part for each in spec.transfer} <= set(parts), name


@pytest.mark.parametrize(
    "name", ["model_0003_xception_v1", "model_0008_irv2_data_td_v4", "model_0011_x_tcb"]
)
def test_a_narrow_model_has_the_same_parts_and_a_share_of_the_parameters(name):
    spec = find_model(name)
    whole = zoo.count_parameters(name).total
    narrow = abstract_module(lambda rngs: zoo.make_model(spec.at_width(0.25), rngs=rngs))
    tree = nnx.to_pure_dict(nnx.state(narrow, nnx.Param))
    total = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert set(tree) == set(zoo.parts_of(spec))
    assert 0.05 * whole < total < 0.09 * whole  # a sixteenth, and what stays: image and history


@pytest.mark.parametrize(
    ("model", "width", "problem"),
    [
        ("model_0003_xception_v1", 0.3, r"one of 0\.125, 0\.25"),
        ("model_0003_xception_v1", 2.0, r"one of 0\.125, 0\.25"),
        ("compact", 0.5, "be 1 for the compact driver"),
    ],
)
def test_a_width_that_layers_cannot_have_is_refused(model, width, problem):
    with pytest.raises(ConfigError, match=problem):
        NetworkConfig(model=model, width=width)
