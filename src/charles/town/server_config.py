"""Settings of Town's servers: where to listen, which town, and how to misbehave."""

from dataclasses import dataclass, field

from charles.errors import require
from charles.options import TownOptions
from charles.town_config import ServerFaults, TownConfig


@dataclass(frozen=True, kw_only=True)
class TownServerConfig:
    """Where to listen, which town, and how to behave."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes any that is free."""
    seed: int = 0
    """Which town; it stays the same for the life of the server."""
    vehicles: int = 14
    pedestrians: int = 14
    weather: str = "clear"
    """Weather of a start that names none."""
    time_of_day_h: float = 12.0
    """Time of a start that names none."""
    silence_s: float = 0.0
    """How long building a scene silences the server; GTA V takes seconds."""
    habits: TownConfig = field(default_factory=TownConfig)
    """How a pad is answered, and how late it shows and tells."""
    faults: ServerFaults = field(default_factory=ServerFaults)

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, "port", "lie in 0..65535", self.port)
        require(self.silence_s >= 0, "silence_s", "be 0 or more", self.silence_s)


def config_of(options: TownOptions) -> TownServerConfig:
    """The settings of a server as ``charles-town`` was told."""
    return TownServerConfig(
        host=options.host,
        port=options.port,
        seed=options.seed,
        weather=options.weather,
        time_of_day_h=options.time_of_day_h,
        silence_s=options.silence_s,
        habits=options.habits,
        faults=options.faults,
    )
