"""Named presets: whole configurations to start from. Any field can be changed on the command line.

A preset is a function, so that it reads as what differs from the defaults.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace

from charles.config import (
    BalancingConfig,
    CheckpointConfig,
    CollectConfig,
    DaggerConfig,
    DataConfig,
    FrameConfig,
    GameConfig,
    NetworkConfig,
    OptimizerConfig,
    PerturbConfig,
    TrainConfig,
)
from charles.errors import ConfigError
from charles.outputs import ACCELERATION_BRAKING, STEERING

Preset = Callable[[], TrainConfig]


def default() -> TrainConfig:
    """The documented system: 480x270 frames, 25,000 samples per output; about 10 GB of memory."""
    return TrainConfig()


def town_small() -> TrainConfig:
    """Half the frame size and buffers of 5,000: about 0.6 GB of memory; for a laptop."""
    return TrainConfig(
        frame=FrameConfig(height=144, width=256),
        data=DataConfig(buffer_capacity=5_000),
        steps=20_000,
    )


def town_live() -> TrainConfig:
    """The demonstration of the README: collects, trains and drives within ten minutes on two cores.

    Training starts with 15 % of the buffers, so that it starts soon. How many different samples
    there are matters more than how often one is drawn: there are few draws per sample, so that the
    trainer waits for collectors rather than the other way round.
    """
    return TrainConfig(
        frame=FrameConfig(height=144, width=256),
        data=DataConfig(buffer_capacity=12_000, start_fraction=0.15, keep_fraction=0.15,
                        replay_ratio=4, history_length=0, balancing=BalancingConfig(patience=10)),
        outputs=(replace(ACCELERATION_BRAKING, bin_width=0.5, excess_weight=2.0),
                 replace(STEERING, bin_width=0.2)),
        collect=CollectConfig(scene_s=60.0, traffic=(1.0, 2.0), perturb=PerturbConfig(every_s=3.0),
                              dagger=DaggerConfig(share=0.5, rate_hz=6.0)),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, decay_steps=2_600),
        checkpoint=CheckpointConfig(every_steps=100),
        batch_size=64,
        step_threads=1,
        steps=3_000,
        minutes=6.1,
    )  # fmt: skip


def tiny() -> TrainConfig:
    """For tests: small frames, buffers of 64, a network that steps in milliseconds."""
    return TrainConfig(
        frame=FrameConfig(height=36, width=64),
        game=GameConfig(vehicles=2, pedestrians=2),
        data=DataConfig(buffer_capacity=64, keep_fraction=0.5, slots_per_collector=64,
                        max_collectors=3, history_length=4,
                        balancing=BalancingConfig(patience=40)),
        network=NetworkConfig(input_height=24, input_width=48, widths=(8, 8), neck=4, dense=(16,),
                              condition=8),
        optimizer=OptimizerConfig(warmup_steps=2),
        checkpoint=CheckpointConfig(every_steps=5),
        batch_size=8,
        log_every=1,
        steps=20,
    )  # fmt: skip


PRESETS: dict[str, Preset] = {
    preset.__name__: preset for preset in (default, town_small, town_live, tiny)
}
"""All presets by name."""


def get(name: str) -> TrainConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: There is no preset of that name; the text names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}.{hint}")
    return PRESETS[name]()
