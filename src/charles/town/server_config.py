"""Settings of Town's servers: where to listen, which town, and how to misbehave."""

from dataclasses import dataclass, field
from typing import Literal

from charles.errors import require
from charles.options import TownOptions
from charles.town_config import TownConfig

Picture = Literal["true", "black", "frozen"]


@dataclass(frozen=True, kw_only=True)
class ServerFaults:
    """Ways to misbehave on purpose; all off by default. Pairs are counted from 1."""

    controls: Literal["true", "constant", "random", "out_of_range", "not_finite"] = "true"
    """What a wrong build of GTA V reports as controls: the same ones for ever, numbers that are
    possible but have nothing to do with the car, or impossible ones; ``not_finite`` cuts every JSON
    short."""
    picture: Picture = "true"
    """What is captured: ``black`` as in exclusive full screen, ``frozen`` as of a window that
    nothing draws any more."""
    leak_after: int = 0
    """So many scenes can be built in the life of the server before capturing fails, because each
    leaks what it captures with; 0 for any number."""
    leak_ends: Literal["black", "frozen", "closed"] = "black"
    """What happens then: such pictures, or a closed connection."""
    dangling_strings: bool = False
    """A config that names no weather or no vehicle takes it from memory that was freed: any
    weather, and a vehicle that cannot exist, which hangs the server."""
    unknown_vehicle: str = ""
    """A vehicle that the game does not know: the server waits for it for ever."""
    truncate_every: int = 0
    """Cut the JSON of every n-th pair short, as the mod does at a value that is not finite."""
    dead_starts: int = 0
    """So many starts leave the NPC with a cruising speed of 0."""
    chunk_bytes: int = 0
    """Send at most so many bytes at once, ``chunk_pause_s`` apart."""
    chunk_pause_s: float = 0.0
    cut_at: int = 0
    """Close the connection in the middle of the n-th pair's frame, once."""
    stall_at: int = 0
    """Stand still for ``stall_s`` before the n-th pair, once."""
    stall_s: float = 0.0


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
        habits=options.habits,
    )
