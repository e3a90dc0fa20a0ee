"""The jitted step and the prediction."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charles.checkpoint import Checkpoints
from charles.config import AugmentConfig, NetworkConfig, OptimizerConfig
from charles.data.device import put
from charles.nets.driver import make_network
from charles.network_config import CompactConfig
from charles.optim import make_optimizer
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig, make_output
from charles.sample import SampleSpec
from charles.state import make_state
from charles.train_step import batch_sharding, make_mesh, make_predict, make_train_step

SAMPLE = SampleSpec(height=16, width=32, pixel_format="rgb", history_length=2)
NETWORK = NetworkConfig(
    input_height=16, input_width=32, crop_top=0.25,
    compact=CompactConfig(patch=4, widths=(16,), residuals=0, neck=4, dense=(16,), condition=8),
)  # fmt: skip
OUTPUTS = (make_output(ACCELERATION_BRAKING), make_output(STEERING))
# Random at every step, yet gentle enough for the task below to be learned.
AUGMENT = AugmentConfig(shift=0, brightness=0.02, contrast=0.02)


OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=10))
DRIVER = make_network(NETWORK, SAMPLE, OUTPUTS)


@functools.cache
def make_step(num_devices: int):
    """Compiled once for all tests, which is a test of purity too."""
    mesh = make_mesh(jax.devices()[:num_devices])
    step = make_train_step(
        DRIVER, OUTPUTS, OPTIMIZER, AUGMENT, control_names=SAMPLE.controls, mesh=mesh
    )
    return step, mesh


@functools.cache
def make_first_state(num_devices: int):
    """A fresh state on the host, and how it lies on the mesh."""
    state = make_state(DRIVER, OPTIMIZER, seed=0, mesh=make_step(num_devices)[1])
    return jax.tree.map(np.array, state), jax.tree.map(lambda leaf: leaf.sharding, state)


class Rig:
    """A tiny driver, ready to train."""

    def __init__(self, num_devices: int = 1) -> None:
        self.step_fn, mesh = make_step(num_devices)
        self.state = jax.device_put(*make_first_state(num_devices))
        self.sharding = batch_sharding(mesh)

    def train(self, first: int, last: int) -> dict[str, float]:
        """Train on the batches numbered ``first`` up to, not including, ``last``."""
        metrics = {}
        for number in range(first, last):
            batch = put(make_batch(number), self.sharding)
            self.state, metrics = self.step_fn(self.state, batch)
        return {name: float(value) for name, value in metrics.items()}


def make_batch(seed: int, size: int = 16) -> dict[str, np.ndarray]:
    """Steer by how much of the picture, from the left, is bright; accelerate by the speed."""
    rng = np.random.default_rng(seed)
    left = rng.uniform(0, 1, size).astype(np.float32)
    pixels = rng.integers(0, 60, (size, *SAMPLE.pixels_shape), np.uint8)
    is_bright = np.arange(32) < left[:, None] * 32
    pixels += (is_bright * 150).astype(np.uint8)[:, None, :, None]
    speed = rng.uniform(0, 10, size).astype(np.float32)
    return {
        "pixels": pixels,
        "speed": speed,
        "purpose": rng.uniform(-1, 1, (size, 2)).astype(np.float32),
        "history": np.zeros((size, 2, SAMPLE.history_features), np.float32),
        "label": np.stack([1 - speed / 5, 2 * left - 1], axis=-1),
    }


def test_a_simple_task_is_learned():
    rig = Rig()
    before = rig.train(0, 1)
    after = rig.train(1, 300)
    assert before["steering_mae"] > 0.3
    assert after["loss"] < 0.05 * before["loss"]
    predict = make_predict(DRIVER, OUTPUTS, control_names=SAMPLE.controls)
    batch = make_batch(1000, 200)
    inputs = {name: array for name, array in batch.items() if name != "label"}
    predicted = predict(rig.state.variables, inputs)
    for number, name in enumerate(SAMPLE.controls):
        assert float(np.abs(predicted[name] - batch["label"][:, number]).mean()) < 0.08
    assert all(np.abs(values).max() <= 1 for values in predicted.values())


def test_metrics_are_complete_and_consistent():
    rig = Rig()
    metrics = rig.train(0, 3)
    assert set(metrics) == {
        "loss", "acceleration_braking_loss", "acceleration_braking_mae", "steering_loss",
        "steering_mae", "grad_norm", "learning_rate", "is_finite",
    }  # fmt: skip
    parts = metrics["acceleration_braking_loss"] + metrics["steering_loss"]
    assert metrics["loss"] == pytest.approx(parts, rel=1e-5)
    assert metrics["learning_rate"] == pytest.approx(3e-3 * 3 / 10)
    assert metrics["is_finite"] == 1
    assert int(rig.state.step) == 3


def test_step_and_prediction_compile_once():
    rig = Rig()
    rig.train(0, 4)
    assert rig.step_fn._cache_size() == 1
    predict = make_predict(DRIVER, OUTPUTS, control_names=SAMPLE.controls)
    for seed in range(3):
        variables = jax.device_put(DRIVER.init(seed), jax.devices()[0])
        predict(variables, {k: v for k, v in make_batch(seed, 1).items() if k != "label"})
    assert predict._cache_size() == 1


def test_state_is_donated():
    rig = Rig()
    rig.train(0, 1)
    before = rig.state
    rig.train(1, 2)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def test_a_loss_that_is_not_finite_leaves_the_state_as_it_was():
    rig = Rig()
    rig.train(0, 2)
    before = jax.tree.map(np.array, rig.state)
    bad = make_batch(2)
    bad["label"][3, 1] = np.nan
    state, metrics = rig.step_fn(rig.state, put(bad, rig.sharding))
    assert not bool(metrics["is_finite"])
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, state), before)
    rig.state = state
    assert rig.train(2, 3)["is_finite"] == 1


def test_four_steps_are_two_saved_restored_and_two_more(tmp_path):
    whole = Rig()
    whole.train(0, 4)
    first = Rig()
    first.train(0, 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, first.state, {"position": np.array(2)}, contract={})
    checkpoints.close()
    second = Rig()
    second.state, data_state = checkpoints.restore(second.state)
    second.train(int(data_state["position"]), 4)
    jax.tree.map(np.testing.assert_array_equal, second.state, whole.state)


def test_halves_of_a_control_are_targets_of_their_own():
    names = SAMPLE.controls
    labels = np.array([[0.6, 0.0], [-0.3, 0.0]], np.float32)
    for make in (np.asarray, jnp.asarray):
        for name, expected in (("acceleration", [0.6, 0.0]), ("braking", [0.0, 0.3])):
            output = make_output(OutputConfig(name=name, low=0.0))
            np.testing.assert_allclose(output.target(make(labels), names, 0.0), expected, rtol=1e-6)


SHARDED = """
import sys
sys.path[:0] = {path!r}
import jax
import numpy as np
from tests.test_train_step import Rig

assert len(jax.devices()) == 2
rig = Rig(num_devices=2)
assert rig.train(0, 3)["is_finite"] == 1
assert rig.step_fn._cache_size() == 1
leaves = jax.tree.leaves(rig.state.params)
assert all(len(leaf.sharding.device_set) == 2 for leaf in leaves)
np.savez({file!r}, *map(np.asarray, leaves))

from dataclasses import replace
from charles.errors import ConfigError
from charles.learner import Learner
from charles.presets import tiny

config = tiny()
try:
    Learner(replace(config, outputs=config.outputs[:1], batch_size=7))
except ConfigError as err:
    assert "batch_size must be a multiple of the devices (2), got 7" in str(err)
else:
    raise AssertionError("an uneven batch was taken")
"""


def test_two_devices_train_as_one(tmp_path):
    file = str(tmp_path / "params.npz")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    result = subprocess.run(
        [sys.executable, "-c", SHARDED.format(path=sys.path, file=file)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rig = Rig()
    rig.train(0, 3)
    with np.load(file) as saved:
        for number, leaf in enumerate(jax.tree.leaves(rig.state.params)):
            np.testing.assert_allclose(saved[f"arr_{number}"], leaf, atol=2e-5)
