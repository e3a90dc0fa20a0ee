"""Every impossible setting is refused with its name, the rule and the value."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from charles import config as configs
from charles import pad_config, training_config
from charles.collect_config import CollectConfig, DaggerConfig, PerturbConfig
from charles.config import (
    AugmentConfig,
    BalancingConfig,
    CheckpointConfig,
    DataConfig,
    GameConfig,
    NetworkConfig,
    OptimizerConfig,
    ServerConfig,
    TrainConfig,
    ValidationConfig,
)
from charles.errors import ConfigError
from charles.network_config import CompactConfig
from charles.options import EvaluateOptions, PlayOptions, TownOptions
from charles.outputs import OutputConfig
from charles.play_config import PlayConfig, UnstuckConfig
from charles.sample import SampleSpec, is_held_out

NAN = float("nan")

IMPOSSIBLE = [
    (GameConfig, "game.seeds", {"seeds": (5, 5)}),
    (GameConfig, "game.seeds", {"seeds": (-1, 5)}),
    (GameConfig, "game.port", {"port": 0}),
    (GameConfig, "game.port", {"port": 70_000}),
    (GameConfig, "game.vehicles", {"vehicles": -1}),
    (GameConfig, "game.pedestrians", {"pedestrians": -1}),
    (GameConfig, "game.weathers", {"weathers": ()}),
    (GameConfig, "game.hours", {"hours": (9.0, 8.0)}),
    (GameConfig, "game.hours", {"hours": (0.0, 25.0)}),
    (PerturbConfig, "perturb.every_s", {"every_s": -1.0}),
    (PerturbConfig, "perturb.duration_s", {"duration_s": (0.0, 1.0)}),
    (PerturbConfig, "perturb.duration_s", {"duration_s": (2.0, 1.0)}),
    (UnstuckConfig, "unstuck.window_s", {"window_s": 0.0}),
    (UnstuckConfig, "unstuck.distance_m", {"distance_m": -3.0}),
    (CollectConfig, "collect.rate_hz", {"rate_hz": -30.0}),
    (CollectConfig, "collect.rate_hz", {"rate_hz": NAN}),
    (CollectConfig, "collect.scene_s", {"scene_s": 0.0}),
    (CollectConfig, "collect.traffic", {"traffic": (2.0, 1.0)}),
    (CollectConfig, "collect.traffic", {"traffic": (-1.0, 1.0)}),
    (DaggerConfig, "dagger.share", {"share": 1.0}),
    (DaggerConfig, "dagger.share", {"share": NAN}),
    (DaggerConfig, "dagger.turn_s", {"turn_s": (3.0, 2.0)}),
    (DaggerConfig, "dagger.rate_hz", {"rate_hz": 0.0}),
    (BalancingConfig, "balancing.patience", {"patience": 0}),
    (DataConfig, "data.buffer_capacity", {"buffer_capacity": 0}),
    (DataConfig, "data.keep_fraction", {"keep_fraction": 0.0}),
    (DataConfig, "data.keep_fraction", {"keep_fraction": 1.1}),
    (DataConfig, "data.start_fraction", {"start_fraction": 0.8}),
    (DataConfig, "data.start_fraction", {"start_fraction": 1.1}),
    (DataConfig, "data.replay_ratio", {"replay_ratio": -0.5}),
    (DataConfig, "data.history_length", {"history_length": -1}),
    (DataConfig, "data.slots_per_collector", {"slots_per_collector": 0}),
    (DataConfig, "data.max_collectors", {"max_collectors": 0}),
    (DataConfig, "data.validation_share", {"validation_share": 0.6}),
    (DataConfig, "data.validation_capacity", {"validation_capacity": 0}),
    (NetworkConfig, "network.crop_top", {"crop_top": 1.0}),
    (CompactConfig, "network.compact.widths", {"widths": ()}),
    (OptimizerConfig, "optimizer.learning_rate", {"learning_rate": 0.0}),
    (OptimizerConfig, "optimizer.warmup_steps", {"warmup_steps": -1}),
    (OptimizerConfig, "optimizer.clip_norm", {"clip_norm": 0.0}),
    (OptimizerConfig, "optimizer.decay_steps", {"decay_steps": -1}),
    (OptimizerConfig, "optimizer.weight_decay", {"weight_decay": NAN}),
    (OptimizerConfig, "optimizer.final_share", {"final_share": 1.5}),
    (OptimizerConfig, "optimizer.momentum", {"momentum": 1.0}),
    (OptimizerConfig, "optimizer.ema_decay", {"ema_decay": 1.0}),
    (ValidationConfig, "validation.every_steps", {"every_steps": 0}),
    (CheckpointConfig, "checkpoint.every_steps", {"every_steps": 0}),
    (CheckpointConfig, "checkpoint.keep", {"keep": 0}),
    (PlayConfig, "play.rate_hz", {"rate_hz": 0.0}),
    (PlayConfig, "play.longest_hold", {"longest_hold": 1.0}),
    (PlayConfig, "play.smoothing", {"smoothing": 1.0}),
    (AugmentConfig, "augment.shift", {"shift": -1}),
    (AugmentConfig, "augment.flip", {"flip": NAN}),
    (AugmentConfig, "augment.noise", {"noise": -0.1}),
    (AugmentConfig, "augment.colour", {"colour": 2.0}),
    (AugmentConfig, "augment.saturation", {"saturation": 1.1}),
    (AugmentConfig, "augment.shift_steering", {"shift_steering": -1.0}),
    (AugmentConfig, "augment.shift_steering", {"shift_steering": float("inf")}),
    (ServerConfig, "server.port", {"port": 65_536}),
    (TrainConfig, "steps", {"steps": 0}),
    (TrainConfig, "minutes", {"minutes": -1.0}),
    (TrainConfig, "log_every", {"log_every": 0}),
    (TrainConfig, "outputs", {"outputs": ()}),
    (TrainConfig, "batch_size", {"batch_size": 33}),
    (TrainConfig, "batch_size", {"batch_size": 0}),
    (TrainConfig, "accumulate", {"accumulate": 0}),
    (PlayOptions, "seconds", {"seconds": -1.0}),
    (PlayOptions, "time_of_day_h", {"time_of_day_h": 24.5}),
    (TownOptions, "port", {"port": -1}),
    (TownOptions, "seconds", {"seconds": 0.0}),
    (TownOptions, "time_of_day_h", {"time_of_day_h": NAN}),
    (SampleSpec, "frame.height", {"height": 0}),
    (SampleSpec, "frame.width", {"width": 481}),
]


@pytest.mark.parametrize(("kind", "name", "values"), IMPOSSIBLE)
def test_impossible_values_are_refused_with_name_rule_and_value(kind, name, values):
    (value,) = values.values()
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    text = str(caught.value)
    assert text.startswith(f"{name} must ")
    assert f"got {value!r}." in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("low", {"low": 2.0}),
        ("bin_width", {"bin_width": 0.0}),
        ("loss_weight", {"loss_weight": -1.0}),
        ("exact", {"exact": (3.0,)}),
        ("exact_tolerance", {"exact_tolerance": 0.2}),
    ],
)
def test_impossible_outputs_are_refused_with_the_outputs_name(name, values):
    with pytest.raises(ConfigError, match=rf"^outputs\.steering\.{name} must "):
        OutputConfig(name="steering", **values)


@pytest.mark.parametrize("values", [{"routes": 0}, {"first_seed": -1}, {"workers": 0}])
def test_impossible_evaluations_are_refused(values):
    (name,) = values
    with pytest.raises(ConfigError, match=f"^{name} must "):
        EvaluateOptions(checkpoint=Path("runs/live"), **values)


def test_buffers_smaller_than_a_batchs_share_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"hold a batch's share \(16\), got 8\. Use larger"):
        TrainConfig(batch_size=32, data=DataConfig(buffer_capacity=8))


def test_a_batch_that_cannot_be_accumulated_in_balanced_parts_is_refused():
    with pytest.raises(ConfigError, match=r"outputs \(2\) times accumulate \(3\), got 32"):
        TrainConfig(batch_size=32, accumulate=3)


def test_held_out_worlds_need_room_for_a_batch_and_worlds_of_both_kinds():
    with pytest.raises(ConfigError, match=r"at least batch_size \(32\), got 16"):
        TrainConfig(data=DataConfig(validation_share=0.1, validation_capacity=16))
    alone = next(seed for seed in range(100) if is_held_out(seed, 0.1))
    for first, kind in ((alone, "training"), (alone + 1, "held-out")):
        game = GameConfig(seeds=(first, first + 1))
        with pytest.raises(ConfigError, match=f"have {kind} worlds"):
            TrainConfig(game=game, data=DataConfig(validation_share=0.1))


def test_configs_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        TrainConfig().steps = 5


def test_every_field_has_its_help():
    """The command line shows the text below a field; a field without one is a riddle."""
    files = (configs.__file__, pad_config.__file__, training_config.__file__)
    source = "\n".join(Path(file).read_text(encoding="utf-8") for file in files).splitlines()
    for number, line in enumerate(source):
        is_field = line.startswith("    ") and not line.startswith("     ") and ": " in line
        is_simple = is_field and " = " in line and "field(default_factory" not in line
        if is_simple and "(" not in line.split(" = ")[0].split(": ")[0]:
            assert source[number + 1].startswith('    """'), line
