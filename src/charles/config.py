"""Every setting, as frozen dataclasses. A field's docstring is its help text on the command line.

Values are checked when a config is made; nothing is assigned afterwards. The server sends a whole
:class:`TrainConfig` to those who connect, so a collector or a player needs no settings of its own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charles.errors import require
from charles.game_config import FrameConfig, GameConfig, Weather
from charles.network_config import NetworkConfig
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig, check_deltas
from charles.pad_config import PadConfig
from charles.sample import is_held_out
from charles.training_config import (
    AugmentConfig,
    CheckpointConfig,
    OptimizerConfig,
    Precision,
    ValidationConfig,
)


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    """Pushing the car off the expert's path, so that its way back is recorded."""

    every_s: float = 4.0
    """Mean time between two pushes; 0 switches them off."""
    duration_s: tuple[float, float] = (0.3, 1.0)
    """Shortest and longest push."""
    steering: float = 0.5
    """Standard deviation of the steering that is added."""
    acceleration_braking: float = 0.3
    """Standard deviation of the acceleration/braking that is added."""

    def __post_init__(self) -> None:
        require(self.every_s >= 0, "perturb.every_s", "be 0 or more", self.every_s)
        low, high = self.duration_s
        require(0 < low <= high, "perturb.duration_s", "be two rising times", self.duration_s)


@dataclass(frozen=True, kw_only=True)
class DaggerConfig:
    """Letting the network drive a collector in turns with the expert, who says what it would do."""

    share: float = 0.0
    """Share of the time that the network drives, once there is a checkpoint; 0 switches it off."""
    turn_s: tuple[float, float] = (3.0, 12.0)
    """Shortest and longest turn of the network."""
    rate_hz: float = 10.0
    """Predictions per second; between two, the controls stay. Fewer leave more time to collect."""

    def __post_init__(self) -> None:
        require(0 <= self.share < 1, "dagger.share", "lie in [0, 1)", self.share)
        low, high = self.turn_s
        require(0 < low <= high, "dagger.turn_s", "be two rising times", self.turn_s)
        require(self.rate_hz > 0, "dagger.rate_hz", "be positive", self.rate_hz)


@dataclass(frozen=True, kw_only=True)
class UnstuckConfig:
    """When a car counts as stuck: too little distance travelled in the last seconds."""

    window_s: float = 8.0
    """How far back to look."""
    distance_m: float = 3.0
    """Least distance travelled in that time."""

    def __post_init__(self) -> None:
        require(self.window_s > 0, "unstuck.window_s", "be positive", self.window_s)
        require(self.distance_m > 0, "unstuck.distance_m", "be positive", self.distance_m)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What a collector does."""

    rate_hz: float = 30.0
    """Instants per second of game time."""
    scene_s: float = 40.0
    """Game time after which world, weather and time of day change."""
    traffic: tuple[float, float] = (1.0, 1.0)
    """Least and most traffic of a scene, relative to the game's; more of it shows more braking."""
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    dagger: DaggerConfig = field(default_factory=DaggerConfig)
    unstuck: UnstuckConfig = field(default_factory=UnstuckConfig)

    def __post_init__(self) -> None:
        require(self.rate_hz > 0, "collect.rate_hz", "be positive", self.rate_hz)
        require(self.scene_s > 0, "collect.scene_s", "be positive", self.scene_s)
        low, high = self.traffic
        require(0 <= low <= high, "collect.traffic", "be two rising numbers", self.traffic)


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


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """What a player does."""

    rate_hz: float = 30.0
    """Predictions per second."""
    swap_at: Literal["tick", "unstuck"] = "tick"
    """When new parameters take over: between two ticks, or only when the car is put elsewhere."""
    smoothing: float = 0.6
    """Share that the controls before have in the next: the network errs a little differently on
    every picture, the mean of a few errs less. 0 takes every prediction as it is."""
    longest_hold: float = 0.5
    """Share of a period after whose end the pad is updated as soon as a prediction is ready; before
    it, the pad waits for the time that predictions lately took, so that its updates come evenly. 0
    never waits: less delay, more jitter."""
    unstuck: UnstuckConfig = field(default_factory=UnstuckConfig)

    def __post_init__(self) -> None:
        require(self.rate_hz > 0, "play.rate_hz", "be positive", self.rate_hz)
        require(0 <= self.smoothing < 1, "play.smoothing", "lie in [0, 1)", self.smoothing)
        require(0 <= self.longest_hold < 1, "play.longest_hold", "lie in [0, 1)",
                self.longest_hold)  # fmt: skip


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
        """A change is learned as that of one instant of a collector, and holds for one as long."""
        if any(output.is_by_change for output in self.outputs):
            rate_hz, dagger = self.collect.rate_hz, self.collect.dagger
            rule = f"be collect.rate_hz ({rate_hz}) where an output is a discrete delta"
            require(self.play.rate_hz == rate_hz, "play.rate_hz", rule, self.play.rate_hz)
            is_even = dagger.share == 0 or dagger.rate_hz >= rate_hz
            require(is_even, "collect.dagger.rate_hz", rule, dagger.rate_hz)


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """What ``charles-collect`` is told; everything else comes from the server."""

    server: ServerConfig = field(default_factory=ServerConfig)
    console: bool = True
    """Show what is being collected."""
    plot: Path | None = None
    """A PNG of how balanced the samples are that were kept, written every minute and at the end."""
    restart_command: str = ""
    """Command line that restarts a game that has died, run without a shell (GTA V)."""


BackendName = Literal["jax", "onnx", "openvino", "openvino_bfloat16"]


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What ``charles-play`` is told; everything else comes from the server, or from the run."""

    server: ServerConfig = field(default_factory=ServerConfig)
    pad: PadConfig = field(default_factory=PadConfig)
    checkpoint: Path | None = None
    """A run's directory, to drive with what it holds instead of looking for a server."""
    backend: BackendName = "jax"
    """What computes the predictions: JAX, or ONNX Runtime or OpenVINO, which are faster with large
    backbones on a CPU; in bfloat16 OpenVINO is twice as fast where the processor has it, and
    predictions differ in the third digit."""
    seed: int = 100_000
    """World to drive in, for games that generate one."""
    weather: Weather | None = None
    """Weather to drive in; by default the game chooses."""
    time_of_day_h: float | None = None
    """Hour to drive at, 0 to 24; by default the game chooses."""
    seconds: float = 0.0
    """Seconds after which the drive ends; 0 for no limit."""
    console: bool = True
    """Show predictions and rates."""
    restart_command: str = ""
    """Command line that restarts a game that has died, run without a shell (GTA V)."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", "be 0 or more", self.seed)
        require(self.seconds >= 0, "seconds", "be 0 or more", self.seconds)
        _require_hour(self.time_of_day_h)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What ``charles-evaluate`` is told."""

    checkpoint: Path
    """A run's directory, or the checkpoints in it."""
    routes: int = 20
    """Routes to drive, each in a town of its own."""
    first_seed: int = 100_000
    """Town of the first route; the others follow. None may be one that was trained on."""
    workers: int = 2
    """Processes that share the work."""
    json: Path | None = None
    """Where to write the report as JSON."""

    def __post_init__(self) -> None:
        require(self.routes > 0, "routes", "be positive", self.routes)
        require(self.first_seed >= 0, "first_seed", "be 0 or more", self.first_seed)
        require(self.workers > 0, "workers", "be positive", self.workers)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What ``charles-export`` is told."""

    checkpoint: Path
    """A run's directory, or the checkpoints in it."""
    out: Path
    """Where to write the weights, for example ``xception.safetensors``."""
    part: str = "backbone"
    """``backbone``, or ``backbone.OUTPUT`` of a model that has one for each output."""
    step: int | None = None
    """Which checkpoint; the newest by default."""

    def __post_init__(self) -> None:
        is_known = self.out.suffix == ".safetensors"
        require(is_known, "out", "end in .safetensors", str(self.out))


@dataclass(frozen=True, kw_only=True)
class TownOptions:
    """What ``charles-town`` is told: how to serve, or film, the built-in game."""

    protocol: Literal["deepgtav", "zmq"] = "deepgtav"
    """Which mod to answer like: DeepGTAV v2, or its ZeroMQ fork."""
    host: str = "127.0.0.1"
    """Address to listen on. The protocols have no password: keep to loopback."""
    port: int = 8000
    """Port to listen on."""
    seed: int = 0
    """Which town."""
    weather: Weather = "clear"
    """The weather."""
    time_of_day_h: float = 12.0
    """Hour, 0 to 24."""
    show: Path | None = None
    """Film a drive of the town's own driver into this MP4 instead of serving."""
    seconds: float = 20.0
    """Length of that film."""

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, "port", "lie in 1..65535", self.port)
        require(self.seed >= 0, "seed", "be 0 or more", self.seed)
        require(self.seconds > 0, "seconds", "be positive", self.seconds)
        _require_hour(self.time_of_day_h)


def _require_hour(hour: float | None) -> None:
    require(hour is None or 0 <= hour <= 24, "time_of_day_h", "lie in 0..24", hour)
