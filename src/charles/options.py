"""What commands are told on their command lines, as frozen dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charles.config import ServerConfig
from charles.errors import require
from charles.game_config import FrameConfig, GameConfig, Weather
from charles.human_config import HumanConfig
from charles.pad_config import PadConfig
from charles.remote_config import RemoteConfig
from charles.takeover_config import TakeoverConfig
from charles.town_config import ServerFaults, TownConfig


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
    calibration: Path | None = None
    """File of charles-calibrate: its dead zones read a person's pad, in place of the run's."""
    accept_contract: bool = False
    """Go on, with a warning, where pictures are captured otherwise than the run's were."""
    human: HumanConfig = field(default_factory=HumanConfig)
    """A person's pad or wheel on this host: the person drives, and is learned from instead of the
    game's own driver."""


BackendName = Literal["jax", "onnx", "openvino", "openvino_bfloat16", "openvino_int8"]
"""What computes predictions on this machine."""


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What ``charles-play`` is told; everything else comes from the server, or from the run."""

    server: ServerConfig = field(default_factory=ServerConfig)
    pad: PadConfig = field(default_factory=PadConfig)
    takeover: TakeoverConfig = field(default_factory=TakeoverConfig)
    checkpoint: Path | None = None
    """A run's directory, to drive with what it holds instead of looking for a server."""
    backend: BackendName | Literal["remote"] = "jax"
    """What computes the predictions: JAX, or ONNX Runtime or OpenVINO, which are faster with large
    backbones on a CPU; in bfloat16 OpenVINO is twice as fast where the processor has it, and
    predictions differ in the third digit. In int8, scaled by the run's own samples, they
    may differ by 0.02 in the mean, else those parameters drive in float32. ``remote``: by the
    charles-serve at --server.host."""
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    seed: int = 100_000
    """World to drive in, for games that generate one. Where a person may take the wheel beside a
    trainer, it stands for one of the worlds that are trained in."""
    weather: Weather | None = None
    """Weather to drive in; by default the game chooses."""
    time_of_day_h: float | None = None
    """Hour to drive at, 0 to 24; by default the game chooses."""
    seconds: float = 0.0
    """Seconds after which it ends, compiling and waiting for a checkpoint included; 0 for no
    limit."""
    cameras: Literal[1, 3] = 1
    """3: beside the network's camera, show spectators the view from behind and a spare one, each at
    the same rate, in a game that has them."""
    console: bool = True
    """Show predictions and rates."""
    restart_command: str = ""
    """Command line that restarts a game that has died, run without a shell (GTA V)."""
    accept_contract: bool = False
    """Go on, with a warning, where pictures are captured otherwise than those learned from."""

    def __post_init__(self) -> None:
        pressed = set(vars(self.pad.keys).values()) if self.pad.kind == "keyboard" else set()
        both = tuple(sorted(pressed.intersection(self.takeover.used_keys())))
        require(not both, "takeover.keys and takeover.hotkey", "be none that pad.keys presses",
                both)  # fmt: skip
        require(self.seed >= 0, "seed", "be 0 or more", self.seed)
        require(self.seconds >= 0, "seconds", "be 0 or more", self.seconds)
        require(self.backend != "remote" or self.checkpoint is None, "checkpoint",
                "be left out with --backend remote", str(self.checkpoint),
                "The server is told what to serve.")  # fmt: skip
        _require_hour(self.time_of_day_h)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What ``charles-serve`` is told."""

    checkpoint: Path
    """A run's directory: what it holds is served, and whatever is trained there meanwhile."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback is encrypted, and only players whose keys are
    on the run's list (``players.keys``) may connect; 0.0.0.0 is every network of this machine."""
    port: int = 5556
    """Port to listen on."""
    allow: tuple[str, ...] = ()
    """Public keys of players to put on the list, as they show them."""
    encrypted: bool = False
    """Encrypt on loopback, too: for a tunnel, or a container's port."""
    backend: BackendName = "jax"
    """What computes the predictions; see charles-play."""
    seconds: float = 0.0
    """Seconds after which to stop; 0 for no limit."""
    console: bool = True
    """Say who is served, and how fast, every ten seconds."""

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, "port", "lie in 1..65535", self.port)
        require(self.seconds >= 0, "seconds", "be 0 or more", self.seconds)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What ``charles-evaluate`` is told."""

    checkpoint: Path
    """A run's directory, or the checkpoints in it."""
    routes: int = 20
    """Routes to drive, each in a town, track or map of its own."""
    first_seed: int = 100_000
    """World of the first route; the others follow. None may be one that was trained on."""
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
class CalibrateOptions:
    """What ``charles-calibrate`` is told."""

    mode: Literal["axes", "latency"] = "axes"
    """``axes``: dead zone, limit and curve of pedals and steering, and what the steering does at
    which speed. ``latency``: how much later frames show what the wheel does than it is told."""
    out: Path = Path("calibration.json")
    """Where to write it; what was measured before in the other mode stays."""
    game: GameConfig = field(default_factory=GameConfig)
    frame: FrameConfig = field(default_factory=FrameConfig)
    pad: PadConfig = field(default_factory=PadConfig)
    seed: int = 0
    """World to measure in, for games that generate one."""
    rate_hz: float = 30.0
    """Instants per second that the game gives."""
    levels: int = 20
    """Levels that each axis is held at (axes)."""
    hold_s: float = 0.6
    """How long each is held; longer than the game takes to answer and to tell (axes)."""
    speeds_mps: tuple[float, ...] = (0.0, 6.0, 12.0)
    """Rising speeds that the steering is measured at, m/s (axes)."""
    repeats: int = 12
    """Pushes on the wheel (latency)."""
    push: float = 0.7
    """How far the stick is pushed, 0 to 1, dead zone included (latency)."""
    speed_mps: float = 6.0
    """How fast the car rolls meanwhile, m/s (latency)."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", "be 0 or more", self.seed)
        require(self.levels >= 6, "levels", "be 6 or more", self.levels)
        require(self.repeats >= 3, "repeats", "be 3 or more", self.repeats)
        require(0 < self.push <= 1, "push", "lie in (0, 1]", self.push)
        for name in ("rate_hz", "hold_s", "speed_mps"):
            value = getattr(self, name)
            require(value > 0, name, "be positive", value)
        speeds = list(self.speeds_mps)
        is_rising = bool(speeds) and speeds == sorted(set(speeds)) and speeds[0] >= 0
        require(is_rising, "speeds_mps", "be rising speeds from 0 on", self.speeds_mps)


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
    habits: TownConfig = field(default_factory=TownConfig)
    silence_s: float = 0.0
    """How long building a scene silences the server; GTA V takes seconds."""
    faults: ServerFaults = field(default_factory=ServerFaults)
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
