"""Every setting, as frozen dataclasses. A field's docstring is its help text on the command line.

Values are checked when a config is made; nothing is assigned afterwards. The server sends a whole
:class:`TrainConfig` to those who connect, so a collector or a player needs no settings of its own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charles.collect_config import CollectConfig
from charles.errors import require
from charles.game_config import FrameConfig, GameConfig
from charles.network_config import NetworkConfig
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig, check_deltas
from charles.play_config import PlayConfig
from charles.sample import is_held_out
from charles.training_config import (
    AugmentConfig,
    CheckpointConfig,
    OptimizerConfig,
    Precision,
    RateGuardConfig,
    ValidationConfig,
)


@dataclass(frozen=True, kw_only=True)
class BalancingConfig:
    """How samples are balanced while they are collected."""

    version: Literal["none", "v1", "v2", "v3", "v4"] = "v3"
    """``none``: every sample counts. ``v1``: a set has a sample for each combination of the
    outputs' bins. ``v2``: a set has one for each bin of one output, which alone is trained on it.
    ``v3``: as v2, but all outputs are trained on it. ``v4``: as v3, and of two samples of a bin the
    set keeps the one that leaves the other outputs more even."""
    patience: int = 600
    """Candidates seen without progress after which a set goes out without its missing bins."""

    def __post_init__(self) -> None:
        require(self.patience > 0, "balancing.patience", "be positive", self.patience)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Buffers, history and the disk copy."""

    buffer_capacity: int = 25_000
    """Samples per output's buffer."""
    keep_fraction: float = 0.9
    """Training pauses while a buffer holds less than this share of its capacity."""
    start_fraction: float = 1.0
    """Training first starts when every buffer holds this share; 1 waits for full buffers."""
    replay_ratio: float = 0.0
    """Draws for each collected sample: samples then stay until newer ones replace them, and
    ``keep_fraction`` says nothing. 0: a sample is removed when it is drawn."""
    history_length: int = 60
    """Past instants that a sample remembers."""
    slots_per_collector: int = 160
    """Frame slots that one collector may hold."""
    max_collectors: int = 8
    """Most collectors at once."""
    is_stored: bool = True
    """Keep a disk copy of the buffers, so that a restart refills them at once."""
    validation_share: float = 0.0
    """Share of the worlds (``game.seeds``) that is never trained on; what is collected there
    measures what was learned. A world's seed alone decides, so a resumed run holds out the same
    ones; settle it before the first start. In a game with one world it is a share of the scenes.
    0: all are trained on."""
    validation_capacity: int = 512
    """Held-out samples kept, in equal parts for every output; once there are as many, they stay."""
    human_share: float = 0.25
    """Share of a batch that is drawn from samples of a person who took the wheel from a player,
    while there are any. 0: nothing is learned from that."""
    human_capacity: int = 2_000
    """Such samples kept; newer ones replace the oldest. About a minute of driving."""
    human_draws: int = 16
    """Draws after which such a sample is let go, so that little driving is not learned by heart."""
    balancing: BalancingConfig = field(default_factory=BalancingConfig)

    def __post_init__(self) -> None:
        require(self.buffer_capacity > 0, "data.buffer_capacity", "be positive",
                self.buffer_capacity)  # fmt: skip
        require(0 < self.keep_fraction <= 1, "data.keep_fraction", "lie in (0, 1]",
                self.keep_fraction)  # fmt: skip
        require(self.keep_fraction <= self.start_fraction <= 1, "data.start_fraction",
                f"lie in [keep_fraction, 1], keep_fraction is {self.keep_fraction}",
                self.start_fraction)  # fmt: skip
        require(self.replay_ratio >= 0, "data.replay_ratio", "be 0 or more", self.replay_ratio)
        require(self.history_length >= 0, "data.history_length", "be 0 or more",
                self.history_length)  # fmt: skip
        require(self.slots_per_collector > 0, "data.slots_per_collector", "be positive",
                self.slots_per_collector)  # fmt: skip
        require(self.max_collectors > 0, "data.max_collectors", "be positive",
                self.max_collectors)  # fmt: skip
        require(0 <= self.validation_share <= 0.5, "data.validation_share", "lie in [0, 0.5]",
                self.validation_share)  # fmt: skip
        require(self.validation_capacity > 0, "data.validation_capacity", "be positive",
                self.validation_capacity)  # fmt: skip
        require(0 <= self.human_share <= 0.9, "data.human_share", "lie in [0, 0.9]",
                self.human_share)  # fmt: skip
        require(self.human_capacity > 0, "data.human_capacity", "be positive", self.human_capacity)
        require(self.human_draws > 0, "data.human_draws", "be positive", self.human_draws)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where collectors and players find the server."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless told otherwise."""
    port: int = 5555
    """Port to listen on."""

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, "server.port", "lie in 1..65535", self.port)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run: game, data, network, training."""

    run_dir: Path = Path("runs/live")
    """Where checkpoints, samples, logs and the config of this run go."""
    seed: int = 0
    """Seed of everything that is random."""
    steps: int = 100_000
    """Training steps after which the run ends."""
    minutes: float = 0.0
    """Wall-clock minutes after which the run ends; 0 for no limit."""
    batch_size: int = 32
    """Samples per step, drawn in equal parts from every output's buffer."""
    accumulate: int = 1
    """Parts that a batch is trained on in, one after the other, before the parameters change: a
    larger batch than fits into the device's memory at once."""
    precision: Precision = "auto"
    """What the network computes in: bfloat16 on accelerators and float32 on a CPU (auto), or one of
    both. Parameters, statistics, loss and optimiser are float32 in any case."""
    transfer: tuple[str, ...] = ()
    """Parts of the network that begin as parts of an earlier run (``backbone=runs/first@27500``) or
    as a weight file of Keras or timm (``backbone=xception.h5``, ``.keras``, ``.safetensors``);
    ``all`` is the whole network. A run that is resumed has them already."""
    step_threads: Literal[0, 1] = 0
    """Threads of a training step on a CPU: 0 for all cores; 1 leaves cores to the others."""
    log_every: int = 10
    """Steps between two log lines."""
    outputs: tuple[OutputConfig, ...] = (ACCELERATION_BRAKING, STEERING)
    """What the network predicts."""
    game: GameConfig = field(default_factory=GameConfig)
    frame: FrameConfig = field(default_factory=FrameConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: RateGuardConfig = field(default_factory=RateGuardConfig)
    play: PlayConfig = field(default_factory=PlayConfig)
    server: ServerConfig = field(default_factory=ServerConfig)

    def __post_init__(self) -> None:
        require(self.steps > 0, "steps", "be positive", self.steps)
        require(self.minutes >= 0, "minutes", "be 0 or more", self.minutes)
        require(self.log_every > 0, "log_every", "be positive", self.log_every)
        require(len(self.outputs) > 0, "outputs", "name at least one output", self.outputs)
        require(self.accumulate > 0, "accumulate", "be positive", self.accumulate)
        parts = len(self.outputs)
        rule = f"be a positive multiple of the number of outputs ({parts})"
        if self.accumulate > 1:
            rule += f" times accumulate ({self.accumulate})"
        is_multiple = self.batch_size > 0 and self.batch_size % (parts * self.accumulate) == 0
        require(is_multiple, "batch_size", rule, self.batch_size)
        share = self.batch_size // parts
        require(share <= self.data.buffer_capacity, "data.buffer_capacity",
                f"hold a batch's share ({share})", self.data.buffer_capacity,
                "Use larger buffers or a smaller batch_size.")  # fmt: skip
        self._check_history()
        self._check_rates()
        self._check_validation()

    def _check_validation(self) -> None:
        """Refuse held-out samples that no batch can be made of, or worlds all of one kind."""
        share = self.data.validation_share
        if not share:
            return
        require(self.data.validation_capacity >= self.batch_size, "data.validation_capacity",
                f"be at least batch_size ({self.batch_size})",
                self.data.validation_capacity)  # fmt: skip
        # Both end with the first world found, so that it does not matter how many there are.
        for is_wanted in (True, False):
            has_any = any(is_held_out(seed, share) == is_wanted for seed in range(*self.game.seeds))
            kind = "held-out" if is_wanted else "training"
            require(has_any, "game.seeds", f"have {kind} worlds at data.validation_share {share:g}",
                    self.game.seeds, "Take a wider range.")  # fmt: skip

    def _check_history(self) -> None:
        """Refuse a network that is shown more of the past, or less, than samples remember."""
        given, network = self.data.history_length, self.network
        if network.spec is not None and network.spec.backbone != "none":
            require(self.frame.num_frames == network.spec.frames, "frame.num_frames",
                    f"be {network.spec.frames} for {network.model}",
                    self.frame.num_frames)  # fmt: skip
        rule = f"be at least {network.history_length}, which {network.model} reads"
        require(given >= network.history_length, "data.history_length", rule, given)
        check_deltas(self.outputs, history_length=given, controls_read=network.controls_read)

    def _check_rates(self) -> None:
        """An instant is as long for a game as for who counts them. A change is learned as that of
        one instant of a collector, and holds for one as long."""
        name, rate_hz = self.game.name, self.collect.rate_hz
        if name in ("window", "gymnasium"):
            given_hz = getattr(self.game, name).rate_hz
            require(given_hz == rate_hz, f"game.{name}.rate_hz",
                    f"be collect.rate_hz ({rate_hz:g})", given_hz, "Set both.")  # fmt: skip
        if any(output.is_by_change for output in self.outputs):
            dagger = self.collect.dagger
            rule = f"be collect.rate_hz ({rate_hz}) where an output is a discrete delta"
            require(self.play.rate_hz == rate_hz, "play.rate_hz", rule, self.play.rate_hz)
            is_even = dagger.share == 0 or dagger.rate_hz >= rate_hz
            require(is_even, "collect.dagger.rate_hz", rule, dagger.rate_hz)
