"""The server of a run: who is there, and what they are told.

It lives in the trainer's process, in a thread of its own, so that it keeps answering while the
trainer compiles. It hands out the whole configuration, lets collectors into the frame pool, and
knows who is there. Frames never pass through it. What is said, and in which order, is in
:mod:`charles.messages`; the other end is :mod:`charles.connection`.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil

from charles.config import TrainConfig
from charles.contract import CaptureContract, require_same
from charles.data.balancing import BalanceReport
from charles.data.pool import LaneSpec
from charles.errors import CharlesError, WireError
from charles.io.wire import ServerSocket
from charles.messages import (
    PING_S,
    POLL_S,
    PROTOCOL,
    SILENT_S,
    Agreed,
    Bye,
    Captures,
    Hello,
    News,
    Ping,
    Refused,
    Role,
    Status,
    ToPeer,
    ToServer,
    Welcome,
)


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


def _no_keeper(_contract: CaptureContract) -> None:
    return None


class Server:
    """Listens from the moment it is made, answers from :meth:`start` on.

    Set the attributes before starting. Lanes are opened and closed from the server's thread, in the
    order in which collectors come and go.

    Args:
        config: The run's settings, handed out as they are.

    Attributes:
        open_lane: Gives a lane to a new collector, or to a player that asks, by the peer's id. A
            ``CharlesError`` of it refuses the peer, with its text as the reason.
        close_lane: Told that a peer will never touch its lane again.
        first_step: Step that training goes on from.
        contract: How the run's pictures are captured; of the first collector if ``None`` at first.
        keep_contract: Told the contract of the first collector.

    Raises:
        ConfigError: The address could be reached from other machines.
        WireError: The port is busy.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.open_lane: Callable[[int], LaneSpec | None] = _no_lane
        self.close_lane: Callable[[int], object] = _no_lane
        self.first_step = 0
        self.contract: CaptureContract | None = None
        self.keep_contract: Callable[[CaptureContract], object] = _no_keeper
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
        elif isinstance(message, Captures):
            self._agree(address, message)
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

    def _agree(self, address: bytes, captures: Captures) -> None:
        """Hold a collector to the run's contract; the first one's is the run's."""
        who = f"collector {self._peers[address].welcome.peer_id}"
        try:
            if self.contract is None:
                self.contract = captures.contract
                self.keep_contract(captures.contract)
            require_same(
                self.contract, captures.contract, who=who, is_accepted=captures.is_accepted
            )
        except CharlesError as refusal:
            self._drop(address)
            self._socket.send(address, Refused(session=captures.session, reason=str(refusal)))
            return
        self._socket.send(address, Agreed(session=captures.session, contract=self.contract))

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
        has_lane = hello.role == "collector" or hello.wants_lane
        welcome = Welcome(
            session=hello.session,
            peer_id=peer_id,
            seed=self._make_seed(hello.role),
            config=self._config,
            lane=self.open_lane(peer_id) if has_lane else None,
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
        if peer.role == "collector" or peer.welcome.lane is not None:
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
