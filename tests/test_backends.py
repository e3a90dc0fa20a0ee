"""Other runtimes predict what JAX predicts, from the same parameters, swap and refuse alike."""

import importlib.util
from contextlib import closing
from dataclasses import replace

import jax
import numpy as np
import pytest
from tests.tiny_run import make_config

from charles.backends import quantised
from charles.data.storage import Storage
from charles.errors import CheckpointError
from charles.intake import sample_spec
from charles.network_config import NetworkConfig
from charles.observer import blank_inputs
from charles.policy import Policy

NEEDS = {"onnx": "onnxruntime", "openvino": "openvino"}
TOLERANCE = 1e-4

SMALL = {"input_height": 80, "input_width": 80, "crop_top": 0.0}


def require_runtime(backend):
    for package in ("jax2onnx", NEEDS[backend]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(params=sorted(NEEDS))
def backend(request):
    require_runtime(request.param)
    return request.param


def make_inputs(policy, seed):
    rng, inputs = np.random.default_rng(seed), blank_inputs(policy.spec)
    inputs["pixels"][:] = rng.integers(0, 256, inputs["pixels"].shape, np.uint8)
    inputs["speed"][:] = rng.uniform(0, 15)
    inputs["purpose"][:] = rng.normal(size=inputs["purpose"].shape)
    inputs["history"][:] = rng.uniform(-1, 1, inputs["history"].shape)
    return inputs


def variables_of(policy, seed=0):
    """As training begins, but none at zero, which would hide a wrong shape or order."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda like: rng.uniform(0.01, 0.1, like.shape).astype(like.dtype),
        policy.abstract_variables,
    )


def test_predictions_are_those_of_jax_after_each_swap(backend, tmp_path):
    config = make_config(tmp_path)
    ours, theirs = Policy(config), Policy(config, backend=backend)
    theirs.warm_up()
    before = theirs.num_compilations()
    for seed in range(3):
        variables, inputs = variables_of(ours, seed), make_inputs(ours, seed)
        expected = ours.predict(inputs, ours.admit(variables, (inputs,)))
        got = theirs.predict(inputs, theirs.admit(variables, (inputs,)))
        assert got == pytest.approx(expected, abs=TOLERANCE)
    assert theirs.num_compilations() == before


def test_parameters_that_are_no_numbers_are_refused(backend, tmp_path):
    policy = Policy(make_config(tmp_path), backend=backend)
    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), variables_of(policy))
    with pytest.raises(CheckpointError, match="not finite"):
        policy.admit(broken)


def store_samples(config, num=24):
    """A disk copy as a trainer leaves it."""
    spec = sample_spec(config)
    rng, header = np.random.default_rng(0), np.zeros(1, spec.header_dtype)
    with closing(Storage(config.run_dir / "samples", spec, ("acceleration_braking",))) as storage:
        for _ in range(num):
            header["speed_mps"] = rng.uniform(0, 15)
            header["history"] = rng.uniform(-1, 1, header["history"].shape)
            pixels = rng.integers(0, 256, spec.pixels_shape, np.uint8)
            storage.add(0, header[0], pixels)


@pytest.fixture
def int8(tmp_path):
    """Makes a policy in int8 and one in float32, with the same parameters and samples."""
    require_runtime("openvino")

    def make(num_samples):
        config = make_config(tmp_path / "run")
        store_samples(config, num_samples)
        exact, rounded = Policy(config), Policy(config, backend="openvino_int8")
        variables = exact.initial(0)
        exact.variables = exact.admit(variables)
        rounded.variables = rounded.admit(variables, (make_inputs(exact, 0),))
        return exact, rounded

    return make


def test_int8_differs_a_little_from_float32_and_says_how_much(int8):
    exact, rounded = int8(24)
    assert rounded.note().startswith("int8: predictions differ from float32 by 0.0")
    for seed in range(3):
        inputs = make_inputs(exact, seed)
        expected, got = exact.predict(inputs), rounded.predict(inputs)
        assert got != pytest.approx(expected, abs=1e-7), "nothing was rounded"
        assert got == pytest.approx(expected, abs=5 * quantised.MOST_DIFFERENCE)


def test_int8_keeps_its_scales_as_long_as_they_fit(int8):
    exact, rounded = int8(24)
    ranges = rounded._backend._ranges
    assert ranges
    rounded.admit(jax.tree.map(lambda leaf: leaf * np.float32(1.01), exact.initial(0)))
    assert rounded._backend._ranges is ranges
    assert rounded.note().startswith("int8")


def test_int8_that_is_too_far_from_float32_does_not_drive(int8, monkeypatch):
    monkeypatch.setattr(quantised, "MOST_DIFFERENCE", 0.0)
    exact, rounded = int8(24)
    assert rounded.note().startswith("float32: in int8 predictions would differ by 0.0")
    inputs = make_inputs(exact, 1)
    assert rounded.predict(inputs) == pytest.approx(exact.predict(inputs), abs=TOLERANCE)


def test_without_samples_int8_drives_in_float32_and_says_what_it_needs(int8):
    exact, rounded = int8(3)
    assert rounded.note().startswith("float32: int8 needs 12 samples in ")
    inputs = make_inputs(exact, 1)
    assert rounded.predict(inputs) == pytest.approx(exact.predict(inputs), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "model",
    [
        "model_0003_xception_v1",
        "model_0004_inceptionresnetv2_v1",
        "model_0008_irv2_data_td_v5",
        "model_0012_regnet_v2",
    ],
)
def test_documented_models_predict_alike(backend, model, tmp_path):
    base = make_config(tmp_path)
    network = NetworkConfig(model=model, width=0.125, **SMALL)
    frames = network.spec.frames if network.spec else 1
    config = replace(
        base,
        network=network,
        frame=replace(base.frame, height=80, width=80, num_frames=frames),
        data=replace(base.data, history_length=60),
    )
    ours, theirs = Policy(config), Policy(config, backend=backend)
    inputs = make_inputs(ours, 0)
    variables = ours.initial(0)
    expected = ours.predict(inputs, ours.place(variables))
    assert theirs.predict(inputs, theirs.place(variables)) == pytest.approx(expected, abs=1e-3)
