"""Every documented model, narrow and on small frames, learns, resumes, drives and is evaluated."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from charles.config import GameConfig, TrainConfig
from charles.controls import to_controls
from charles.drivers import DriverSpec, make_driver
from charles.evaluate import newest_step
from charles.intake import sample_spec
from charles.learner import Learner
from charles.models import MODELS
from charles.observer import blank_inputs
from charles.play_config import UnstuckConfig
from charles.policy import Policy, load_variables
from charles.presets import get
from charles.routes import Drive, Route
from charles.run import write_run
from charles.sample import DRIVING_CONTROLS

SHORT = Route(index=0, seed=100_000, weather="clear", time_of_day_h=12.0, length_m=60.0)
TICKS = 5

QUICK = (
    "model_0001_xception_v5",  # discrete deltas of three outputs, and a vector of the past
    "model_0008_irv2_data_td_v6",  # rows of the past alone
    "model_0012_regnet_v2",  # four pictures, and a memory
)
"""One of each kind that takes seconds to compile; the large backbones take minutes."""


def small(name: str, run_dir) -> TrainConfig:
    """The preset of a model, its backbone an eighth as wide, on frames as small as that takes."""
    config = get(name)
    width = 1.0 if MODELS[name].backbone == "none" else 0.125
    return replace(
        config,
        run_dir=run_dir,
        batch_size=2 * len(config.outputs),
        frame=replace(config.frame, height=76, width=80, pixel_format="rgb"),
        game=GameConfig(vehicles=1, pedestrians=1),
        network=replace(config.network, width=width, input_height=76, input_width=80),
        play=replace(config.play, unstuck=UnstuckConfig(window_s=60.0)),
    )


def make_batch(config: TrainConfig, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    spec, size = sample_spec(config), config.batch_size
    rows = (size, spec.history_length, spec.history_features)
    return {
        "pixels": rng.integers(0, 256, (size, *spec.pixels_shape), np.uint8),
        "speed": rng.uniform(0, 10, size).astype(np.float32),
        "purpose": rng.normal(size=(size, 2)).astype(np.float32),
        "history": rng.uniform(-1, 1, rows).astype(np.float32),
        "label": rng.uniform(-1, 1, (size, 2)).astype(np.float32),
    }


def train(learner: Learner, config: TrainConfig, seed: int) -> dict[str, float]:
    return learner.host_scalars(learner.step(learner.put(make_batch(config, seed))))


def params_of(learner: Learner):
    return jax.device_get(learner.state.params)


def check_training(config: TrainConfig) -> None:
    """Two steps, of which the second is done again after what the first left was restored."""
    learner = Learner(config)
    before = params_of(learner)
    metrics = train(learner, config, 0)
    assert metrics["is_finite"]
    learner.save({})
    learner.wait_saved()
    first = params_of(learner)
    train(learner, config, 1)
    expected = params_of(learner)
    moved = jax.tree.map(lambda old, new: bool(np.any(old != new)), before, expected)
    for part, leaves in moved.items():
        assert any(jax.tree.leaves(leaves)) == (part not in config.network.frozen), part
    restored = learner.restore(resume=True)
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, params_of(learner), first)
    train(learner, config, 1)
    jax.tree.map(np.testing.assert_array_equal, params_of(learner), expected)
    learner.close()


def check_driving(config: TrainConfig) -> None:
    """What was saved predicts controls, and steps through a drive of the evaluation."""
    checkpoints = config.run_dir / "checkpoints"
    policy = Policy(config)
    policy.variables = load_variables(policy, checkpoints)
    controls = to_controls(policy.predict(blank_inputs(policy.spec)), DRIVING_CONTROLS)
    assert np.all(np.abs(controls) <= 1)
    spec = DriverSpec(name="driving", kind="policy", checkpoint_dir=checkpoints,
                      step=newest_step(checkpoints))  # fmt: skip
    driver = make_driver(spec, config)
    drive = Drive("driving", driver, SHORT, game=config.game, unstuck=config.play.unstuck)
    for _ in range(TICKS):
        assert not drive.ended
        drive.step()
    assert drive.result().time_s > 0


def check(name: str, run_dir) -> None:
    config = small(name, run_dir)
    write_run(run_dir, config)
    check_training(config)
    check_driving(config)


@pytest.mark.parametrize("name", QUICK)
def test_a_model_learns_resumes_drives_and_is_evaluated(name, tmp_path):
    check(name, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two backbones compile for minutes
@pytest.mark.parametrize("name", [name for name in MODELS if name not in QUICK])
def test_every_other_model_does_so_too(name, tmp_path):
    check(name, tmp_path / "run")
