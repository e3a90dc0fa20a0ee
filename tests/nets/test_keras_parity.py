"""Backbones and the LSTM compute what Keras' own do, see ``make_keras_reference.py``."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.nets.reference_weights import (
    LSTM_SHAPE,
    LSTM_UNITS,
    make_images,
    make_weight,
    project,
)

from charles.nets import inception_resnet_v2, xception
from charles.nets.inception_resnet_v2 import InceptionResNetV2
from charles.nets.recurrent import LSTM
from charles.nets.xception import Xception

REFERENCE = np.load(Path(__file__).with_name("keras_reference.npz"), allow_pickle=False)
CASES = sorted({name.rsplit("/", 1)[0] for name in REFERENCE.files if name.endswith("/training")})
BACKBONES = {
    "xception": (Xception, xception.keras_names),
    "inception_resnet_v2": (InceptionResNetV2, inception_resnet_v2.keras_names),
}
KERAS_VARIABLES = {
    "kernel": "kernel", "depthwise": "depthwise_kernel", "pointwise": "pointwise_kernel",
    "scale": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance",
}  # fmt: skip


def make_backbone(name, channels):
    """A backbone with the weights of the reference, found by the names that it says Keras uses."""
    make, keras_names = BACKBONES[name]
    backbone = nnx.eval_shape(lambda: make(channels, rngs=nnx.Rngs(0)))
    structure, state = nnx.split(backbone)
    names, flat = keras_names(), nnx.to_flat_state(state)
    assert {"/".join(path) for path, _ in flat} == set(names)
    weights = []
    for path, variable in flat:
        layer, _ = names["/".join(path)]
        has_norm = "/".join((*path[:-1], "mean")) in names
        kind = KERAS_VARIABLES[path[-1]] if has_norm or path[-1] != "bias" else "bias"
        weight = make_weight(layer, kind, variable.shape)
        weights.append((path, variable.replace(jnp.asarray(weight))))
    return nnx.merge(structure, nnx.from_flat_state(weights))


def assert_close(ours, reference, what):
    """Within 1e-4 of the reference's norm."""
    error = np.linalg.norm(ours - reference) / np.linalg.norm(reference)
    print(what, error)
    assert error <= 1e-4, (what, error)


def mark_slow(cases):
    """One case of each backbone in every run, the rest before a release: compiling takes long."""
    for index, case in enumerate(cases):
        is_first = index == 0 or case.split("/")[0] != cases[index - 1].split("/")[0]
        yield case if is_first else pytest.param(case, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=mark_slow(CASES))
def case(request):
    name, size = request.param.split("/")
    shape = tuple(map(int, size.split("x")))
    return request.param, make_backbone(name, shape[-1]), make_images(shape)


def run(backbone, images, *, is_training):
    """Output and flat statistics, compiled."""
    structure, state = nnx.split(backbone)

    @jax.jit
    def apply(state, images):
        backbone = nnx.merge(structure, state)
        output = backbone(images, is_training=is_training)
        return output, nnx.to_pure_dict(nnx.state(backbone, nnx.BatchStat))

    return apply(state, images)


def test_inference_is_keras(case):
    name, backbone, images = case
    output, _ = run(backbone, images, is_training=False)
    assert output.shape[-1] == backbone.num_features
    assert_close(project(np.asarray(output), 16), REFERENCE[f"{name}/inference"], name)


def mark_slow_but(name):
    """Compiling a training step takes long: that of one backbone in every run."""
    first = next(case for case in CASES if case.startswith(f"{name}/"))
    rest = [pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != first]
    return [first, *rest]


@pytest.mark.parametrize("case", mark_slow_but("xception"), indirect=True)
def test_training_gathers_the_statistics_of_keras(case):
    name, backbone, images = case
    output, statistics = run(backbone, images, is_training=True)
    assert_close(project(np.asarray(output), 16), REFERENCE[f"{name}/training"], name)
    _, keras_names = BACKBONES[name.split("/")[0]]
    norms = {path.split("/")[1]: names[0] for path, names in keras_names().items()
             if path.endswith("/mean")}  # fmt: skip
    for layer, keras_layer in norms.items():
        moving = statistics["layers"][layer]["norm"]
        gathered = []
        for variable in ("mean", "variance"):
            old = make_weight(keras_layer, KERAS_VARIABLES[variable], moving[variable].shape)
            gathered.append((np.float64(moving[variable]) - 0.99 * np.float64(old)) / 0.01)
        reference = REFERENCE[f"{name}/statistics/{keras_layer}"]
        assert_close(project(np.stack(gathered), 4), reference, (name, layer))


def test_two_layers_of_lstm_are_keras():
    rows = jnp.asarray(make_images(LSTM_SHAPE))
    for number, units in enumerate(LSTM_UNITS):
        layer = LSTM(rows.shape[-1], units, rngs=nnx.Rngs(0))
        for name in ("kernel", "recurrent_kernel", "bias"):
            weight = getattr(layer, name)
            weight[...] = make_weight(f"lstm_{number}", name, weight.shape)
        rows = layer(rows)
    reference = REFERENCE[f"lstm/{len(LSTM_UNITS)}/{'x'.join(map(str, LSTM_SHAPE))}"]
    assert np.abs(reference).max() > 0.2
    np.testing.assert_allclose(rows, reference, rtol=0, atol=1e-5)
