"""Named presets: whole configurations to start from. Any field can be changed on the command line.

A preset is a function, so that it reads as what differs from the defaults. The name of a documented
model is a preset too: the documented system with that network, its outputs and its balancing.
"""

from collections.abc import Callable
from dataclasses import replace

from charles.collect_config import CollectConfig, DaggerConfig, PerturbConfig
from charles.config import (
    AugmentConfig,
    BalancingConfig,
    CheckpointConfig,
    DataConfig,
    FrameConfig,
    GameConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
)
from charles.errors import did_you_mean, require
from charles.models import HISTORY_LENGTH, MODELS, ModelSpec
from charles.network_config import CompactConfig
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig
from charles.play_config import PlayConfig

Preset = Callable[[], TrainConfig]


def default() -> TrainConfig:
    """The documented system: 480x270 frames, 25,000 samples per output; about 10 GB of memory."""
    return TrainConfig()


def town_small() -> TrainConfig:
    """Half the frame size and buffers of 5,000: about 0.8 GB of memory; for a laptop."""
    return TrainConfig(
        frame=FrameConfig(height=144, width=256),
        data=DataConfig(buffer_capacity=5_000),
        steps=20_000,
    )


_CAREFUL_OUTPUTS = (
    replace(ACCELERATION_BRAKING, bin_width=0.5, excess_weight=2.0),
    replace(STEERING, bin_width=0.2),
)
"""Among others who may be hit: rather too slow than too fast."""


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
        outputs=_CAREFUL_OUTPUTS,
        collect=CollectConfig(scene_s=60.0, traffic=(1.0, 2.0), perturb=PerturbConfig(every_s=3.0),
                              dagger=DaggerConfig(share=0.5, rate_hz=6.0)),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, decay_steps=2_600),
        checkpoint=CheckpointConfig(every_steps=100),
        batch_size=64,
        step_threads=1,
        steps=3_000,
        minutes=6.1,
    )  # fmt: skip


def car_racing_live() -> TrainConfig:
    """CarRacing of Gymnasium, learned while it is driven: seven minutes on two cores.

    The road has no side to drive on, and all laps turn the same way: half of the pictures are
    mirrored. The strip at the bottom, which shows what the car is told, is cut off.
    """
    return TrainConfig(
        game=GameConfig(name="gymnasium"),
        frame=FrameConfig(height=128, width=192),
        data=DataConfig(buffer_capacity=12_000, start_fraction=0.1, keep_fraction=0.1,
                        replay_ratio=6, history_length=0, balancing=BalancingConfig(patience=10)),
        outputs=(replace(ACCELERATION_BRAKING, bin_width=0.25),
                 replace(STEERING, bin_width=0.2)),
        collect=CollectConfig(scene_s=40.0, perturb=PerturbConfig(every_s=3.0),
                              dagger=DaggerConfig(share=0.5, rate_hz=10.0)),
        network=NetworkConfig(input_height=84, input_width=144, crop_top=0.0, crop_bottom=0.125),
        augment=AugmentConfig(flip=0.5),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, decay_steps=2_200),
        checkpoint=CheckpointConfig(every_steps=100),
        batch_size=64,
        step_threads=1,
        steps=2_500,
        minutes=7.0,
    )  # fmt: skip


def metadrive_live() -> TrainConfig:
    """MetaDrive, learned while it is driven, on two cores.

    Its driver crashes now and then: three seconds before that are not learned. The upper part of
    the picture is sky.
    """
    return TrainConfig(
        game=GameConfig(name="metadrive"),
        frame=FrameConfig(height=144, width=256),
        data=DataConfig(buffer_capacity=12_000, start_fraction=0.1, keep_fraction=0.1,
                        replay_ratio=6, history_length=0, slots_per_collector=320,
                        balancing=BalancingConfig(patience=10)),
        outputs=_CAREFUL_OUTPUTS,
        collect=CollectConfig(scene_s=60.0, drop_before_crash_s=3.0,
                              perturb=PerturbConfig(every_s=3.0),
                              dagger=DaggerConfig(share=0.5, rate_hz=6.0)),
        network=NetworkConfig(crop_top=0.2),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, decay_steps=2_200),
        checkpoint=CheckpointConfig(every_steps=100),
        batch_size=64,
        step_threads=1,
        steps=2_500,
        minutes=8.0,
    )  # fmt: skip


def tiny() -> TrainConfig:
    """For tests: small frames, buffers of 64, a network that steps in milliseconds."""
    return TrainConfig(
        frame=FrameConfig(height=36, width=64),
        game=GameConfig(vehicles=2, pedestrians=2),
        data=DataConfig(buffer_capacity=64, keep_fraction=0.5, slots_per_collector=64,
                        max_collectors=3, history_length=4, human_capacity=200,
                        balancing=BalancingConfig(patience=40)),
        network=NetworkConfig(input_height=24, input_width=48,
                              compact=CompactConfig(widths=(8, 8), neck=4, dense=(16,),
                                                    condition=8)),
        optimizer=OptimizerConfig(warmup_steps=2),
        checkpoint=CheckpointConfig(every_steps=5),
        batch_size=8,
        log_every=1,
        steps=20,
    )  # fmt: skip


PRESETS: dict[str, Preset] = {
    preset.__name__: preset
    for preset in (default, town_small, town_live, car_racing_live, metadrive_live, tiny)
}
"""All presets by name."""


_PEDAL_EDGES = (0.0, 0.2, 0.8, 1.0)
_STEERING_EDGES = (-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0)
"""Bins of balancing v1; the ends and 0 are bins of their own."""

_JOINT_SET_SLOTS = 320
"""Slots of a collector whose sets have a sample for every combination of bins: 225, and some."""


def of_model(name: str, spec: ModelSpec) -> TrainConfig:
    """The documented system with a documented model.

    Frames are shown whole at 480x270, the past is 60 instants long, and Adam's rate is 0.001. Line
    0012, which is ours, is shown and trained as the compact driver is.
    """
    frame = FrameConfig(num_frames=spec.frames, frame_stride=spec.frame_stride)
    if spec.neck:
        return TrainConfig(
            frame=frame,
            data=DataConfig(history_length=spec.history_length),
            network=NetworkConfig(model=name),
        )
    outputs = tuple(_documented_output(each, spec) for each in spec.outputs)
    share = 32 if spec.balancing == "v2" else 16  # v2 takes a whole batch for every output
    is_joint = spec.balancing == "v1"
    return TrainConfig(
        batch_size=share * len(outputs),
        outputs=outputs,
        frame=frame,
        data=DataConfig(
            history_length=HISTORY_LENGTH,
            slots_per_collector=_JOINT_SET_SLOTS if is_joint else DataConfig.slots_per_collector,
            balancing=BalancingConfig(version=spec.balancing),
        ),
        network=NetworkConfig(model=name, input_height=270, input_width=480, crop_top=0.0,
                              frozen=spec.frozen),
        augment=AugmentConfig(shift=0),
        optimizer=OptimizerConfig(kind="adam", weight_decay=0.0, warmup_steps=spec.warmup_steps),
        play=PlayConfig(smoothing=0.0),
    )  # fmt: skip


def _documented_output(name: str, spec: ModelSpec) -> OutputConfig:
    """An output of a documented model, with the bins of its balancing."""
    is_half = name in ("acceleration", "braking")
    low = 0.0 if is_half else -1.0
    if spec.output_type == "discrete_delta":
        is_blind = spec.past is None
        return OutputConfig(name=name, low=low, type="discrete_delta", is_blind=is_blind)
    if not is_half:
        known = {each.name: each for each in (ACCELERATION_BRAKING, STEERING)}[name]
        is_coarse = spec.balancing == "v1"
        return replace(known, edges=_STEERING_EDGES, exact=(-1.0, 0.0, 1.0)) if is_coarse else known
    edges = _PEDAL_EDGES if spec.balancing == "v1" else ()
    return OutputConfig(name=name, low=low, edges=edges, exact=(0.0, 1.0))


def get(name: str) -> TrainConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: There is no preset of that name; the text names the nearest.
    """
    if name in MODELS:
        return of_model(name, MODELS[name])
    known = f"{', '.join(PRESETS)} or a documented model, model_0001_xception_v1 and so on"
    hint = did_you_mean(name, [*PRESETS, *MODELS])
    require(name in PRESETS, "preset", f"be one of {known}", name, hint)
    return PRESETS[name]()
