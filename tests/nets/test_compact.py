"""The compact driver and its building blocks."""

import subprocess
import sys
from dataclasses import fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charles.nets import blocks
from charles.nets.blocks import (
    RELU_GAIN,
    StandardConv,
    adapt_to_light,
    convolve,
    convolve_by_xla,
    encode_purpose,
    encode_speed,
    fold_patches,
)
from charles.nets.driver import make_network
from charles.network_config import CompactConfig, NetworkConfig
from charles.outputs import ACCELERATION_BRAKING, STEERING, make_output
from charles.sample import SampleSpec

OUTPUTS = (make_output(ACCELERATION_BRAKING), make_output(STEERING))
SAMPLE = SampleSpec(height=32, width=64, pixel_format="yuv420", history_length=3)
COMPACT_FIELDS = {field.name for field in fields(CompactConfig)}
SMALL = {
    "patch": 4, "widths": (16, 16), "residuals": 1, "neck": 4, "dense": (16,), "condition": 8,
}  # fmt: skip


SIZE = {"input_height": 32, "input_width": 64}


def small(**changes) -> NetworkConfig:
    """A small network; what is no setting of the compact driver is one of the picture."""
    of_compact = {name: changes.pop(name) for name in list(changes) if name in COMPACT_FIELDS}
    compact = CompactConfig(**SMALL | of_compact)
    return NetworkConfig(**SIZE | changes, compact=compact)


def make_inputs(size: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "pixels": rng.integers(16, 235, (size, *SAMPLE.pixels_shape), np.uint8),
        "speed": rng.uniform(0, 10, size).astype(np.float32),
        "purpose": rng.uniform(-1, 1, (size, 2)).astype(np.float32),
        "history": np.zeros((size, 3, SAMPLE.history_features), np.float32),
    }


def trained_alike(variables):
    """Every parameter away from its initial zero, so that nothing is switched off."""
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def test_variables_are_plain_nested_dicts_and_stay_the_same_tree():
    network = make_network(small(), SAMPLE, OUTPUTS)
    variables = network.init(0)

    def check(node):
        assert isinstance(node, dict | jax.Array)
        if isinstance(node, dict):
            assert all(isinstance(name, str) for name in node)
            for child in node.values():
                check(child)
        else:
            assert node.dtype == jnp.float32

    check(variables)
    apply = jax.jit(lambda batch: network.apply(variables, batch, is_training=True))
    predictions, stats = apply(make_inputs())
    assert {name: value.shape for name, value in predictions.items()} == {
        "acceleration_braking": (2, 1), "steering": (2, 1),
    }  # fmt: skip
    assert jax.tree.structure(stats) == jax.tree.structure(variables["stats"])


def test_same_key_same_parameters():
    network = make_network(small(), SAMPLE, OUTPUTS)
    one, same, other = (network.init(seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernels = [tree["params"]["backbone"]["neck"]["kernel"] for tree in (one, other)]
    assert not np.allclose(*kernels)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"is_modulated": False, "with_speed": False},
        {"with_speed": False, "with_purpose": False, "dense": (), "residuals": 0},
        {"patch": 1, "widths": (4, 4, 4), "crop_top": 0.0, "input_height": 15, "input_width": 25},
    ],
)
def test_predictions_depend_on_every_input_that_is_given(changes):
    config = small(**changes)
    network = make_network(config, SAMPLE, OUTPUTS)
    variables = trained_alike(network.init(0))
    inputs = make_inputs()
    apply = jax.jit(lambda batch: network.apply(variables, batch, is_training=False)[0])
    base = apply(inputs)
    others = make_inputs(seed=1)
    given = {
        "pixels": True,
        "speed": config.compact.with_speed,
        "purpose": config.compact.with_purpose,
    }
    for name, is_given in given.items():
        changed = apply(inputs | {name: others[name]})
        for output, value in base.items():
            assert np.allclose(changed[output], value, atol=1e-4) != is_given, (name, output)


def test_position_in_the_picture_matters():
    network = make_network(small(), SAMPLE, OUTPUTS)
    variables = trained_alike(network.init(0))
    inputs = make_inputs()
    grey = np.full_like(inputs["pixels"], 128)
    left, right = grey.copy(), grey.copy()
    left[:, 20:28, 8:16] = 220
    right[:, 20:28, 40:48] = 220
    apply = jax.jit(lambda batch: network.apply(variables, batch, is_training=False)[0])
    predicted = [apply(inputs | {"pixels": pixels})["steering"] for pixels in (left, right)]
    assert np.abs(predicted[0] - predicted[1]).max() > 1e-3


def test_speed_scales_and_shifts_what_the_picture_says():
    network = make_network(small(), SAMPLE, OUTPUTS)
    variables = trained_alike(network.init(0))
    apply = jax.jit(lambda batch: network.apply(variables, batch, is_training=False)[0])
    pictures = [make_inputs(seed=seed) for seed in range(3)]
    at_speed = [
        [apply(given | {"speed": np.full(2, speed, np.float32)})["steering"] for given in pictures]
        for speed in (0.0, 9.0)
    ]
    slow, fast = (np.concatenate(values)[:, 0].astype(np.float64) for values in at_speed)
    gain, shift = np.polyfit(slow[::2], fast[::2], 1)
    np.testing.assert_allclose(fast, gain * slow + shift, atol=1e-4)
    assert abs(gain - 1) + abs(shift) > 1e-3


@pytest.mark.parametrize("light", [0.3, 1.0])
def test_how_much_light_there_is_makes_no_difference(light):
    image = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8, 9, 3)), jnp.float32)
    adapted = adapt_to_light(light * image - 0.2)
    np.testing.assert_allclose(np.mean(adapted, axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(adapted, axis=(1, 2, 3)), 0.5, rtol=0.2)
    np.testing.assert_allclose(np.corrcoef(np.ravel(adapted), np.ravel(image))[0, 1], 1, atol=0.01)


def test_a_black_picture_stays_finite():
    assert not np.any(adapt_to_light(jnp.full((1, 4, 4, 3), -1.0)))


@pytest.mark.parametrize(("stride", "size"), [(1, 1), (1, 3), (2, 3), (2, 5)])
def test_convolution_matches_a_loop(stride, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 9, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3, 4)).astype(np.float32)
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = -(-7 // stride), -(-9 // stride)
    expected = np.zeros((2, rows, columns, 4))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            window = padded[:, top : top + size, left : left + size]
            expected[:, row, column] = np.einsum("bhwc,hwco->bo", window, kernel)
    np.testing.assert_allclose(convolve(x, kernel, stride), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "stride", "size"), [(6, 1, 3), (5, 2, 3), (4, 2, 5), (3, 1, 1)])
def test_kernel_gradient_in_chunks_matches_the_plain_one(batch, stride, size, monkeypatch):
    monkeypatch.setattr(blocks, "_CHUNK_SIZE", 2 * 7 * 8 * 4)  # several chunks
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 13, 15, 4)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 4, 6)).astype(np.float32)
    y, pull = jax.vjp(lambda kernel: convolve_by_xla(x, kernel, stride), kernel)
    gradient = rng.normal(size=y.shape).astype(np.float32)
    chunked = blocks.chunked_kernel_gradient(*map(jnp.asarray, (x, gradient)), size, stride)
    np.testing.assert_allclose(chunked, pull(gradient)[0], rtol=1e-4, atol=1e-3)


def test_convolution_has_the_gradients_of_the_plain_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 12, 20, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)

    def loss(function, x, kernel):
        return (function(x, kernel, 1) ** 2).sum()

    ours = jax.grad(partial(loss, convolve), argnums=(0, 1))(x, kernel)
    plain = jax.grad(partial(loss, convolve_by_xla), argnums=(0, 1))(x, kernel)
    for left, right in zip(ours, plain, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-2)


def test_folding_keeps_every_pixel_of_a_patch_together():
    image = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    folded = np.asarray(fold_patches(jnp.asarray(image), 2))
    assert folded.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(folded[1, 0, 2], image[1, :2, 4:6].reshape(-1))
    padded = np.asarray(fold_patches(jnp.asarray(image), 4))
    assert padded.shape == (2, 1, 2, 48)
    np.testing.assert_array_equal(padded[0, 0, 1].reshape(4, 4, 3)[:, 2:], 0)


def test_standard_convolutions_keep_unit_variance():
    from flax import nnx

    rngs = nnx.Rngs(0)
    x = jax.random.normal(jax.random.key(0), (8, 12, 12, 16))
    for _ in range(4):
        x = jax.nn.relu(StandardConv(16, 16, 3, rngs=rngs)(x)) * RELU_GAIN
    assert 0.3 < float(x[:, 4:8, 4:8].var()) < 3


def test_encodings_are_bounded_smooth_and_odd_in_direction():
    purpose = np.array([[0.5, 10.0], [-0.5, 10.0], [np.pi, 500.0], [-np.pi, 500.0]], np.float32)
    encoded = np.asarray(encode_purpose(jnp.asarray(purpose)))
    assert np.abs(encoded).max() <= 1
    np.testing.assert_allclose(encoded[0] * [-1, 1, 1, -1, 1], encoded[1], atol=1e-6)
    np.testing.assert_allclose(encoded[2], encoded[3], atol=1e-5)  # straight behind is one place
    speed = np.asarray(encode_speed(jnp.array([0.0, 10.0])))
    np.testing.assert_allclose(speed, [[0, 0, 1], [1, 1, 1]], atol=1e-6)


def test_settings_and_outputs_import_neither_flax_nor_jax():
    loaded = "[name in sys.modules for name in ('flax', 'jax')]"
    code = f"import sys, charles.config, charles.outputs; print(*{loaded})"
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert result.stdout.split() == ["False", "False"]
