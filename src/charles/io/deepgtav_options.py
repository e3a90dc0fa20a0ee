"""What is known about a DeepGTAV game's habits, and the count of what it went through."""

import os
import shlex
from dataclasses import dataclass, field

from charles.errors import require
from charles.pad_config import ZonesConfig


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the picture is taken, relative to the car."""

    right_m: float = 0.0
    ahead_m: float = 0.5
    up_m: float = 0.8
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Turned about the axes to the right, ahead and up."""


@dataclass(frozen=True, kw_only=True)
class DeepGTAVOptions:
    """What is known about the game's habits, and how patient to be with it."""

    timeout_s: float = 60.0
    """How long a silence may last; building a scene takes seconds."""
    connect_s: float = 5.0
    """How long the first connection is tried for."""
    reconnect_s: float = 30.0
    """How long a lost connection is tried for again."""
    settle_s: float = 0.25
    """Pairs that come this soon after a change of scene may be older than it and are dropped."""
    dead_start_s: float = 15.0
    """A car that has not moved this long after its NPC began never will."""
    constant_s: float = 5.0
    """Controls that stay exactly the same for so long while the car moves are garbage."""
    num_turning: int = 90
    """Pairs of a turning car by which steering is judged that does not say where it turns. There
    are no labels before a sixth of them to each side."""
    blind_s: float = 10.0
    """Pictures that stay black, or the same while the car moves, for so long are no pictures."""
    refused_limit: int = 60
    """So many unusable pairs in a row are not an accident."""
    retries: int = 4
    """So many dead starts, restarts, or connections without one good pair, in a row are too
    many."""
    needs_labels: bool = True
    """Somebody learns from the NPC's controls: what cannot be its controls is an error. Without,
    they are no longer told from then on."""
    restart_command: str = ""
    """Restarts the game when it is gone, silent or blind: a command line, run without a shell, that
    ends by itself once the game is on its way. Empty: that is an error instead."""
    restart_s: float = 300.0
    """How long that command may run, and how long the game may then take until it answers."""
    restart_after: int = 0
    """Scenes after which the game is restarted before it fails: each leaks a little of what it
    captures with. 0 for never, and without effect if there is no command."""
    cruise_mps: float = 15.0
    """The NPC's speed; the mod of the public build draws one by itself instead."""
    car: str = "blista"
    """The vehicle where a scene names none. A name that the game does not know hangs it."""
    area_m: tuple[tuple[float, float], tuple[float, float]] = ((-2500.0, 2500.0), (-2000.0, 6000.0))
    """Where random places are drawn from: x, then y."""
    zones: ZonesConfig = field(default_factory=ZonesConfig)
    """How the game treats commands; :meth:`charles.io.deepgtav.DeepGTAVGame.act` undoes it."""
    trust_controls: bool = False
    """Somebody has looked at the controls: take them as labels also of a mod that is known to read
    them wrongly, and before they are proven. They are checked all the same."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "connect_s", "dead_start_s", "constant_s", "blind_s",
                     "restart_s", "refused_limit", "num_turning"):  # fmt: skip
            value = getattr(self, name)
            require(value > 0, name, "be positive", value)
        for name in ("reconnect_s", "settle_s", "retries", "restart_after"):
            value = getattr(self, name)
            require(value >= 0, name, "be 0 or more", value)
        command = self.restart_command
        require(is_command_line(command), "restart_command", "be a command line", command,
                "Close its quotes.")  # fmt: skip


def is_command_line(text: str) -> bool:
    """Whether a text can be taken apart into a program and its arguments, or is empty."""
    try:
        shlex.split(text, posix=os.name != "nt")
    except ValueError:
        return False
    return True


@dataclass
class Tally:
    """What the game went through."""

    builds: int = 0
    """Scenes that it was asked to build since it was started last, as far as we started it."""
    skipped: int = 0
    """Pairs that a newer one replaced before they were asked for."""
    broken: int = 0
    """Pairs whose telemetry could not be read."""
    refused: int = 0
    """Pairs whose controls could not be the car's."""
    black: int = 0
    """Pairs whose picture was black throughout."""
    reconnects: int = 0
    """Connections that replaced a lost one."""
    restarts: int = 0
    """Times that the game was restarted."""
    dead_starts: int = 0
    """Starts after which the car never moved."""
