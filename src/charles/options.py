"""What commands are told on their command lines, as frozen dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charles.config import ServerConfig
from charles.errors import require
from charles.game_config import Weather
from charles.human_config import HumanConfig
from charles.pad_config import PadConfig
from charles.takeover_config import TakeoverConfig


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
    human: HumanConfig = field(default_factory=HumanConfig)
    """A person's pad or wheel on this host: the person drives, and is learned from instead of the
    game's own driver."""


BackendName = Literal["jax", "onnx", "openvino", "openvino_bfloat16"]


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What ``charles-play`` is told; everything else comes from the server, or from the run."""

    server: ServerConfig = field(default_factory=ServerConfig)
    pad: PadConfig = field(default_factory=PadConfig)
    takeover: TakeoverConfig = field(default_factory=TakeoverConfig)
    checkpoint: Path | None = None
    """A run's directory, to drive with what it holds instead of looking for a server."""
    backend: BackendName = "jax"
    """What computes the predictions: JAX, or ONNX Runtime or OpenVINO, which are faster with large
    backbones on a CPU; in bfloat16 OpenVINO is twice as fast where the processor has it, and
    predictions differ in the third digit."""
    seed: int = 100_000
    """World to drive in, for games that generate one. Where a person may take the wheel beside a
    trainer, it stands for one of the worlds that are trained in."""
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
        pressed = set(vars(self.pad.keys).values()) if self.pad.kind == "keyboard" else set()
        both = tuple(sorted(pressed.intersection(self.takeover.used_keys())))
        require(not both, "takeover.keys and takeover.hotkey", "be none that pad.keys presses",
                both)  # fmt: skip
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
