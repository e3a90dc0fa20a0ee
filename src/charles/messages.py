"""What a server and its peers, collectors and players, say to each other.

One membership, in order::

    peer → Hello, repeated until answered     server → Welcome, or Refused
    collector → Captures, once it has a game  server → Agreed, or Refused
    peer → Status, at most twice a second     server → Ping every second, Demand, Checkpoint
    peer → Bye, or its process ends           server → Bye: it is going, or does not know the peer

A peer that is silent is shown as such and keeps everything: a stopped process may wake up and go
on writing to its slots. It is gone, and its lane is closed, only when it said Bye or Hello anew, or
its process is dead. A peer whose connection ends, who is told Bye, or who hears nothing for
:data:`SILENT_S`, has lost its server; it lets go of its lane and says Hello again, to whichever
server listens by then.
"""

from pathlib import Path
from typing import Literal

import msgspec

from charles.config import TrainConfig
from charles.contract import CaptureContract
from charles.data.balancing import BalanceReport
from charles.data.pool import LaneSpec

PROTOCOL = 6
"""Raised whenever a message changes."""

PING_S = 1.0
"""Between two pings, and between two looks at which processes are alive."""

SILENT_S = 5.0
"""Silence after which a peer counts as silent, and a server as lost."""

POLL_S = 0.05
"""How long one look for messages waits."""

Role = Literal["collector", "player"]


class Hello(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A peer asks to be let in."""

    role: Role
    pid: int
    started: float
    """When its process was made (seconds since 1970); with ``pid`` it names a process for good."""
    session: int
    """A new random number for every membership; the answer repeats it."""
    wants_lane: bool = False
    """Whether a player asks for a way into the frame pool, as a collector always has."""
    protocol: int = PROTOCOL


class Welcome(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The peer is in; this is all it needs to know."""

    session: int
    peer_id: int
    seed: int
    """Of all that this peer leaves to chance: another one for every peer of a role, and after every
    restart of the run from a later step, so that nobody sees the same scenes again."""
    config: TrainConfig
    lane: LaneSpec | None
    """Way into the frame pool; ``None`` for a player that did not ask for one."""
    run_dir: Path
    """Where the run keeps its checkpoints; absolute."""


class Refused(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The peer is not let in."""

    session: int
    reason: str


class Captures(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """How a collector's game is captured, told before it sends anything of it."""

    session: int
    contract: CaptureContract
    is_accepted: bool = False
    """Whether its user has accepted that it may differ from the run's."""


class Agreed(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The collector may send what it captures."""

    session: int
    contract: CaptureContract
    """The run's: of its first collector."""


class Status(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """How a peer is doing."""

    state: str
    """One or two words for the console: ``collecting``, ``warming up``."""
    rate_hz: float = 0.0
    """Instants or predictions per second."""
    detail: dict[str, str | float] = {}
    """Whatever else is worth showing."""
    bins: tuple[BalanceReport, ...] | None = None
    """How well a collector's outputs are balanced."""


class Demand(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What the trainer is short of and what it has enough of, for collectors to act on."""

    short: dict[str, str | float]
    """What to go and find: ``{"weather": "rain"}``."""
    full: tuple[str, ...] = ()
    """Outputs whose buffers need no more samples for now."""
    is_validation_full: bool = False
    """No more samples of held-out worlds are needed."""
    torn: int = 0
    """Samples of all collectors that were torn so far, and dropped; for collectors to report."""


class Checkpoint(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A checkpoint is being written."""

    step: int


class Ping(msgspec.Struct, tag=True, frozen=True):
    """The server is there."""


class Bye(msgspec.Struct, tag=True, frozen=True):
    """The sender is going, or does not know the receiver (any more)."""


ToServer = Hello | Captures | Status | Bye
ToPeer = Welcome | Agreed | Refused | Demand | Checkpoint | Ping | Bye
News = Demand | Checkpoint
"""What a peer is told after its welcome."""
