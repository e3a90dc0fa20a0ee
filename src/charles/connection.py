"""A collector's or a player's end of the conversation with the server of a run."""

import random
import sys
import threading
import time
from collections.abc import Mapping

import psutil

from charles.config import ServerConfig
from charles.contract import CaptureContract, require_same
from charles.data.balancing import BalanceReport
from charles.errors import ContractError, WireError
from charles.io.wire import ClientSocket
from charles.messages import (
    PING_S,
    POLL_S,
    SILENT_S,
    Agreed,
    Bye,
    Captures,
    Hello,
    News,
    Refused,
    Role,
    Status,
    ToPeer,
    Welcome,
)

STATUS_S = 0.5
"""Least time between two status messages."""


class Connection:
    """A collector's or a player's end. Use from one thread; no call blocks but ``wait_welcome``.

    Args:
        server: Where the server listens, or will listen.
        role: What this process is.
        wants_lane: Whether a player asks for a way into the frame pool.

    Raises:
        ConfigError: The address is not of this host.
    """

    def __init__(self, server: ServerConfig, role: Role, *, wants_lane: bool = False) -> None:
        self._where = f"tcp://{server.host}:{server.port}"
        self._role: Role = role
        self._wants_lane = wants_lane
        self._socket = ClientSocket(server.host, server.port, ToPeer)
        self._news: list[News] = []
        self._is_member = False
        self._num_lost = 0
        self._session = 0
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

    def agree(
        self, contract: CaptureContract, *, is_accepted: bool, stop: threading.Event | None = None
    ) -> CaptureContract | None:
        """Tell the server how this collector's game is captured, and wait for its answer.

        Args:
            contract: Of this collector's game.
            is_accepted: Whether differences from the run's are accepted.
            stop: Ends the wait when set.

        Returns:
            The run's contract; ``None`` if the server was lost or ``stop`` was set.

        Raises:
            ContractError: It differs from the run's, or the server cannot keep it.
        """
        captures = Captures(session=self._session, contract=contract, is_accepted=is_accepted)
        self._socket.send(captures)
        while not self.is_lost and (stop is None or not stop.is_set()):
            for message in self._read(POLL_S):
                if isinstance(message, Agreed) and message.session == self._session:
                    require_same(
                        message.contract, contract, who="this collector", is_accepted=is_accepted
                    )
                    return message.contract
                if isinstance(message, Refused) and message.session == self._session:
                    raise ContractError(message.reason)
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
        self._read(0)
        news, self._news = self._news, []
        return news

    def _read(self, timeout_s: float) -> list[ToPeer]:
        """What arrived; news are kept for :meth:`poll`, and a lost server is noticed."""
        arrived = self._socket.poll(timeout_s)
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
        return arrived

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
            wants_lane=self._wants_lane,
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
                self._session = session
                self._heard_s = time.monotonic()
                self._told_state = ""
                return message
        return None
