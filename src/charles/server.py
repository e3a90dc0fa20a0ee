"""The server of a run, and the connection of a collector or a player to it.

The server lives in the trainer's process, in a thread of its own, so that it keeps answering while
the trainer compiles. It hands out the whole configuration, lets collectors into the frame pool,
and knows who is there. Frames never pass through it.

One membership, in order::

    peer → Hello, repeated until answered     server → Welcome, or Refused
    peer → Status, at most twice a second     server → Ping every second, Demand, Checkpoint
    peer → Bye, or its process ends           server → Bye: it is going, or does not know the peer

A peer that is silent is shown as such and keeps everything: a stopped process may wake up and go
on writing to its slots. It is gone, and its lane is closed, only when it said Bye or Hello anew, or
its process is dead. A peer whose connection ends, who is told Bye, or who hears nothing for
:data:`SILENT_S`, has lost its server; it lets go of its lane and says Hello again, to whichever
server listens by then.
"""

import queue
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import psutil

from charles.config import ServerConfig, TrainConfig
from charles.data.balancing import BalanceReport
from charles.data.pool import LaneSpec
from charles.errors import CharlesError, WireError
from charles.io.wire import ClientSocket, ServerSocket

PROTOCOL = 2
"""Raised whenever a message changes."""

PING_S = 1.0
"""Between two pings, and between two looks at which processes are alive."""

SILENT_S = 5.0
"""Silence after which a peer counts as silent, and a server as lost."""

STATUS_S = 0.5
"""Least time between two status messages."""

POLL_S = 0.05

Role = Literal["collector", "player"]


class Hello(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A peer asks to be let in."""

    role: Role
    pid: int
    started: float
    """When its process was made (seconds since 1970); with ``pid`` it names a process for good."""
    session: int
    """A new random number for every membership; the answer repeats it."""
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
    """A collector's way into the frame pool; ``None`` for a player."""
    run_dir: Path
    """Where the run keeps its checkpoints; absolute."""


class Refused(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The peer is not let in."""

    session: int
    reason: str


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


class Checkpoint(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A checkpoint is being written."""

    step: int


class Ping(msgspec.Struct, tag=True, frozen=True):
    """The server is there."""


class Bye(msgspec.Struct, tag=True, frozen=True):
    """The sender is going, or does not know the receiver (any more)."""


ToServer = Hello | Status | Bye
ToPeer = Welcome | Refused | Demand | Checkpoint | Ping | Bye
News = Demand | Checkpoint
"""What a peer is told after its welcome."""


@dataclass(frozen=True, kw_only=True)
class PeerInfo:
    """One connected collector or player, as the console shows it."""

    id: int
    role: Role
    pid: int
    state: str
    """What it last said, or ``silent``."""
    rate_hz: float
    age_s: float
    """Time since it was let in."""
    detail: Mapping[str, str | float]
    bins: tuple[BalanceReport, ...] | None


@dataclass(kw_only=True)
class _Peer:
    """What the server keeps of a peer."""

    welcome: Welcome
    role: Role
    process: psutil.Process
    joined_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    status: Status = field(default_factory=lambda: Status(state="joining"))

    def info(self, now_s: float) -> PeerInfo:
        is_silent = now_s - self.heard_s > SILENT_S
        return PeerInfo(
            id=self.welcome.peer_id,
            role=self.role,
            pid=self.process.pid,
            state="silent" if is_silent else self.status.state,
            rate_hz=0.0 if is_silent else self.status.rate_hz,
            age_s=now_s - self.joined_s,
            detail=self.status.detail,
            bins=self.status.bins,
        )


def _no_lane(_peer_id: int) -> None:
    return None


class Server:
    """Listens from the moment it is made, answers from :meth:`start` on.

    Set the attributes before starting. Lanes are opened and closed from the server's thread, in the
    order in which collectors come and go.

    Args:
        config: The run's settings, handed out as they are.

    Attributes:
        open_lane: Gives a new collector's lane, by the peer's id. A ``CharlesError`` of it refuses
            the collector, with its text as the reason.
        close_lane: Told that a collector will never touch its lane again.
        first_step: Step that training goes on from.

    Raises:
        ConfigError: The address could be reached from other machines.
        WireError: The port is busy.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.open_lane: Callable[[int], LaneSpec | None] = _no_lane
        self.close_lane: Callable[[int], object] = _no_lane
        self.first_step = 0
        self._config = config
        self._run_dir = config.run_dir.resolve()
        self._socket = ServerSocket(config.server.host, config.server.port, ToServer)
        self._peers: dict[bytes, _Peer] = {}
        self._next_id = 1
        self._joined: Counter[Role] = Counter()
        self._outbox: queue.SimpleQueue[tuple[Role | None, News]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def peers(self) -> list[PeerInfo]:
        """Who is there, in the order of arrival; from any thread.

        Raises:
            Exception: Whatever ended the server's thread, if anything did.
        """
        self._raise_error()
        now_s = time.monotonic()
        with self._lock:
            return [peer.info(now_s) for peer in self._peers.values()]

    @property
    def malformed(self) -> int:
        """Messages that could not be decoded and were dropped."""
        return self._socket.malformed

    def broadcast(self, message: News, role: Role | None = None) -> None:
        """Tell everybody, or everybody of one role; from any thread, without blocking.

        Raises:
            Exception: Whatever ended the server's thread, if anything did.
        """
        self._raise_error()
        self._outbox.put((role, message))

    def close(self) -> None:
        """Tell everybody that the server is going, and stop. May be called twice.

        Lanes are left as they are: who owns the frame pool closes it after this.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        beat_s = 0.0
        try:
            while not self._stop.is_set():
                for address, message in self._socket.poll(POLL_S):
                    self._take(address, message)
                self._send_outbox()
                if time.monotonic() >= beat_s:
                    beat_s = time.monotonic() + PING_S
                    self._drop_dead()
                    self._send(Ping())
            self._send_outbox()
            self._send(Bye())
        except Exception as error:
            self._error = error

    def _take(self, address: bytes, message: ToServer) -> None:
        """Handle one message."""
        peer = self._peers.get(address)
        if isinstance(message, Hello):
            self._let_in(address, message)
        elif peer is None:
            self._socket.send(address, Bye())
        elif isinstance(message, Bye):
            self._drop(address)
        else:
            with self._lock:
                peer.status = message
                peer.heard_s = time.monotonic()

    def _let_in(self, address: bytes, hello: Hello) -> None:
        """Answer a Hello, again if its first answer was lost."""
        known = self._peers.get(address)
        if known is not None and known.welcome.session == hello.session:
            self._socket.send(address, known.welcome)
            return
        if known is not None:
            self._drop(address)  # it let go of its old membership before it asked for a new one
        self._drop_dead()  # so that a successor finds the place of a collector that just died
        try:
            peer = self._make_peer(hello)
        except CharlesError as refusal:
            self._socket.send(address, Refused(session=hello.session, reason=str(refusal)))
            return
        with self._lock:
            self._peers[address] = peer
        self._socket.send(address, peer.welcome)

    def _make_peer(self, hello: Hello) -> _Peer:
        """A new member.

        Raises:
            CharlesError: It cannot be let in; the text says why.
        """
        if hello.protocol != PROTOCOL:
            raise WireError(
                f"The protocol must be {PROTOCOL}, got {hello.protocol}. "
                "Run the same version of Charles on both ends."
            )
        process = _find_process(hello)
        peer_id, self._next_id = self._next_id, self._next_id + 1
        welcome = Welcome(
            session=hello.session,
            peer_id=peer_id,
            seed=self._make_seed(hello.role),
            config=self._config,
            lane=self.open_lane(peer_id) if hello.role == "collector" else None,
            run_dir=self._run_dir,
        )
        return _Peer(welcome=welcome, role=hello.role, process=process)

    def _make_seed(self, role: Role) -> int:
        """The next seed of a role: who else joins does not change it."""
        self._joined[role] += 1
        key = (self._config.seed, self.first_step, self._joined[role])
        return int(np.random.SeedSequence(key).generate_state(1)[0] >> 1)

    def _drop_dead(self) -> None:
        """Drop every peer whose process has ended."""
        for address in [each for each, peer in self._peers.items() if not _is_alive(peer.process)]:
            self._drop(address)

    def _drop(self, address: bytes) -> None:
        with self._lock:
            peer = self._peers.pop(address)
        if peer.role == "collector":
            self.close_lane(peer.welcome.peer_id)

    def _send(self, message: ToPeer, role: Role | None = None) -> None:
        for address, peer in self._peers.items():
            if role in (None, peer.role):
                self._socket.send(address, message)

    def _send_outbox(self) -> None:
        while not self._outbox.empty():
            role, message = self._outbox.get()
            self._send(message, role)


def _find_process(hello: Hello) -> psutil.Process:
    """The process that says Hello.

    Raises:
        WireError: It does not run on this host.
    """
    try:
        process = psutil.Process(hello.pid)
        if abs(process.create_time() - hello.started) < 1.0:
            return process
    except psutil.Error:
        pass
    raise WireError(
        f"pid must be a process of the server's host, got {hello.pid}, which is none or another. "
        "Frames travel through shared memory: run on the server's host, outside containers."
    )


def _is_alive(process: psutil.Process) -> bool:
    """Whether a process may still write to its memory; a zombie cannot."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Connection:
    """A collector's or a player's end. Use from one thread; no call blocks but ``wait_welcome``.

    Args:
        server: Where the server listens, or will listen.
        role: What this process is.

    Raises:
        ConfigError: The address is not of this host.
    """

    def __init__(self, server: ServerConfig, role: Role) -> None:
        self._where = f"tcp://{server.host}:{server.port}"
        self._role: Role = role
        self._socket = ClientSocket(server.host, server.port, ToPeer)
        self._news: list[News] = []
        self._is_member = False
        self._num_lost = 0
        self._heard_s = self._told_s = 0.0
        self._told_state = ""
        self._waiting_s: float | None = None
        """Since when there is no server; 0 once that was said, ``None`` while there is one."""

    @property
    def is_lost(self) -> bool:
        """Whether the server went, forgot this peer or fell silent, as :meth:`poll` noticed.

        Let go of the lane, then call :meth:`wait_welcome` again.
        """
        return not self._is_member

    def wait_welcome(
        self, timeout_s: float | None = None, stop: threading.Event | None = None
    ) -> Welcome | None:
        """Wait for a server to let this peer in. Says so once, on stderr, if there is none yet.

        Args:
            timeout_s: How long to wait; ``None`` for as long as it takes.
            stop: Ends the wait when set.

        Returns:
            The welcome, or ``None`` if ``stop`` was set or no server answered in time.

        Raises:
            WireError: The server refused this peer.
        """
        self._is_member = False
        self._news.clear()
        self._num_lost = self._socket.num_lost
        hello = self._hello()
        ends_s = time.monotonic() + (float("inf") if timeout_s is None else timeout_s)
        hello_s = 0.0
        while time.monotonic() < ends_s and (stop is None or not stop.is_set()):
            if time.monotonic() >= hello_s and self._socket.send(hello):
                hello_s = time.monotonic() + PING_S
            welcome = self._take_answer(hello.session)
            if welcome is not None:
                self._waiting_s = None
                return welcome
            self._say_waiting()
        return None

    def _say_waiting(self) -> None:
        """Say once that there is no server, when that has been so for a moment."""
        if self._waiting_s is None:
            self._waiting_s = time.monotonic()
        elif 0 < self._waiting_s < time.monotonic() - PING_S / 2:
            self._waiting_s = 0.0
            print(f"waiting for a server at {self._where} ...", file=sys.stderr, flush=True)

    def status(
        self,
        *,
        state: str,
        rate_hz: float = 0.0,
        detail: Mapping[str, str | float] | None = None,
        bins: tuple[BalanceReport, ...] | None = None,
    ) -> None:
        """Tell the server how it goes; dropped if told less than half a second ago, unless the
        state is a new one. See :class:`Status` for the arguments."""
        now_s = time.monotonic()
        if self.is_lost or (state == self._told_state and now_s - self._told_s < STATUS_S):
            return
        self._told_s, self._told_state = now_s, state
        self._socket.send(
            Status(state=state, rate_hz=rate_hz, detail=dict(detail or {}), bins=bins)
        )

    def poll(self) -> list[News]:
        """What the server told since the last call; also keeps :attr:`is_lost` up to date."""
        arrived = self._socket.poll(0)
        if arrived:
            self._heard_s = time.monotonic()
        for message in arrived:
            if isinstance(message, Bye):
                self._is_member = False
            elif isinstance(message, News):
                self._news.append(message)
        is_silent = time.monotonic() - self._heard_s > SILENT_S
        if is_silent or self._socket.num_lost > self._num_lost:
            self._is_member = False
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Say goodbye; the lane must be let go of before. May be called twice."""
        if self._is_member:
            self._socket.send(Bye())
            self._is_member = False
        self._socket.close()

    def _hello(self) -> Hello:
        process = psutil.Process()
        return Hello(
            role=self._role,
            pid=process.pid,
            started=process.create_time(),
            session=random.SystemRandom().getrandbits(63),
        )

    def _take_answer(self, session: int) -> Welcome | None:
        """The answer to this session's Hello, if it comes within a moment.

        Raises:
            WireError: It is a refusal.
        """
        for message in self._socket.poll(POLL_S):
            if isinstance(message, Refused) and message.session == session:
                raise WireError(f"{self._where} refused this {self._role}: {message.reason}")
            if isinstance(message, Welcome) and message.session == session:
                self._is_member = True
                self._heard_s = time.monotonic()
                self._told_state = ""
                return message
        return None
