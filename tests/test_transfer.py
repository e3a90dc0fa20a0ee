"""Parts of earlier runs and weight files are taken over whole, or nothing is changed."""

import threading
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.tiny_run import make_config

from charles.config import OptimizerConfig
from charles.errors import CheckpointError, ConfigError
from charles.learner import Learner
from charles.models import find_model
from charles.network_config import NetworkConfig
from charles.presets import get
from charles.trainer import Trainer
from charles.transfer import Source, export_backbone, missing_origins, transfer

PAST = "model_0008_irv2_data_td_v5"


def config_of(run_dir):
    """Settings of a small documented model."""
    config = make_config(run_dir)
    return replace(
        config,
        data=replace(config.data, history_length=60),
        network=NetworkConfig(model=PAST, input_height=16, input_width=32),
        optimizer=OptimizerConfig(ema_decay=0.9),
    )


@pytest.fixture
def config(tmp_path):
    return config_of(tmp_path / "run")


def saved(config, seed=1, step=3):
    """A learner whose state is saved as a checkpoint of ``step``."""
    learner = Learner(replace(config, seed=seed))
    learner.step_number = step
    learner.save({})
    learner.close()
    return learner


def params_of(learner):
    return jax.device_get(learner.state.params)


def begun(config, **changes):
    learner = Learner(replace(config, **changes))
    learner.restore(resume=False)
    learner.close()
    return learner


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The directory of a run with a checkpoint of step 3, and its parameters."""
    config = config_of(tmp_path_factory.mktemp("source") / "run")
    return config.run_dir, params_of(saved(config))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Variables of another run of the same settings and another seed."""
    return jax.device_get(begun(config_of(tmp_path_factory.mktemp("fresh"))).state.variables)


def test_a_part_comes_from_the_checkpoint_and_the_rest_is_fresh(config, source, fresh):
    run_dir, wanted = source
    learner = begun(config, transfer=(f"lstm={run_dir}@3",))
    got = params_of(learner)
    jax.tree.map(np.testing.assert_array_equal, got["lstm"], wanted["lstm"])
    jax.tree.map(np.testing.assert_array_equal, got["heads"], fresh["params"]["heads"])
    average = jax.device_get(learner.state.average)["params"]
    jax.tree.map(np.testing.assert_array_equal, average, got)
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(learner.state)]
    assert len(set(places)) == len(places)  # a step gives away the memory of each


def test_deeper_parts_and_the_whole_can_be_named(source, fresh):
    run_dir, wanted = source
    spec = find_model(PAST)
    part = transfer(fresh, (f"heads.steering={run_dir}",), spec)["params"]["heads"]
    jax.tree.map(np.testing.assert_array_equal, part["steering"], wanted["heads"]["steering"])
    pedal = fresh["params"]["heads"]["acceleration_braking"]
    jax.tree.map(np.testing.assert_array_equal, part["acceleration_braking"], pedal)
    whole = transfer(fresh, (f"all={run_dir}",), spec)
    jax.tree.map(np.testing.assert_array_equal, whole["params"], wanted)


def test_a_mismatch_is_a_table_of_both_sides(source, tmp_path):
    compact = make_config(tmp_path / "other")
    with pytest.raises(CheckpointError) as caught:
        begun(compact, transfer=(f"heads={source[0]}",))
    lines = str(caught.value).splitlines()
    assert "4 of 4 arrays do not" in lines[0]
    assert any(line.startswith("  params.heads.steering.kernel: expected [") for line in lines)
    assert lines[-1].startswith("Nothing was changed.")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("backbone", "must be PART=RUN"),
        ("=runs/a", "must be PART=RUN"),
        ("lstm=runs/a@last", "must be PART=RUN"),
        ("lstm=nowhere", "name a run's directory"),
        ("lstm=nowhere.h5", "name a weight file that is there"),
        ("backbone=nowhere", r"must be all or of .*common, heads, lstm.*got 'backbone'"),
    ],
)
def test_what_cannot_be_taken_over_says_why(fresh, text, problem):
    with pytest.raises(ConfigError, match=problem):
        transfer(fresh, (text,), find_model(PAST))


def test_a_step_is_told_from_a_path():
    assert Source.parse("backbone=runs/a@27500").step == 27_500
    assert str(Source.parse("backbone=runs/a@27500").path) == "runs/a"
    assert Source.parse("backbone=runs/a").step is None


def test_a_resumed_run_does_not_take_over_again(config, source):
    second = replace(config, transfer=(f"lstm={source[0]}",))
    kept = saved(second, seed=5, step=4)
    learner = Learner(second)
    learner.restore(resume=True)
    learner.close()
    jax.tree.map(np.testing.assert_array_equal, params_of(learner), params_of(kept))


FROZEN = "model_0009_irv2_cr_tl_v3"


def test_a_frozen_part_must_begin_as_something_trained_and_nothing_is_written(tmp_path):
    config = replace(get(FROZEN), run_dir=tmp_path / "run", transfer=("backbone=runs/irv2",))
    with pytest.raises(ConfigError, match=r"network.frozen must .*got 'lstm'.*--transfer lstm=RUN.*"
                       r"model_0008_irv2_data_td_v5 at step 37250"):  # fmt: skip
        Trainer(config, collectors=0, has_player=False, has_console=False, resume=False,
                stop=threading.Event())  # fmt: skip
    assert not config.run_dir.exists()


def test_what_a_documented_model_began_with_and_this_run_does_not_is_told():
    spec = find_model(FROZEN)
    backbone, lstm = missing_origins((), spec)
    assert backbone.startswith("backbone begins at random (the documented one began as that of")
    assert missing_origins(("backbone=runs/irv2",), spec) == [lstm]
    assert not missing_origins(("all=runs/other",), spec)
    assert not missing_origins((), None)


@pytest.mark.slow
def test_an_exported_backbone_is_taken_over_by_another_run(tmp_path):
    model = "model_0003_xception_v1"
    config = make_config(tmp_path / "first", network=NetworkConfig(
        model=model, input_height=72, input_width=128, crop_top=0.0),
        frame=get("town_small").frame, data=replace(get("tiny").data, history_length=0),
    )  # fmt: skip
    source = saved(config)
    path = tmp_path / "xception.safetensors"
    export_backbone(path, config.run_dir / "checkpoints", find_model(model))
    second = begun(config, run_dir=tmp_path / "second", transfer=(f"backbone={path}",))
    got, wanted = params_of(second)["backbone"], params_of(source)["backbone"]
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    tensors = load_file(path)
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"block1_conv1.kernel: expected \[3, 3, 3, 32\]"):
        begun(config, run_dir=tmp_path / "third", transfer=(f"backbone={path}",))
