"""A policy whose network is on a server: what is seen goes there, predictions come back.

For a machine without an accelerator; nothing here imports JAX. One instant is on its way at a time.
An answer that does not come before its deadline is dropped and counted, and so the driving loop
never waits longer than that, whatever happens to server and network. Everything heals by itself:
the connection is made anew when it has to be, and a server that was restarted needs not be told.

The server stages and swaps the parameters; here their step is only read from its answers.
"""

import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from charles.config import ServerConfig
from charles.errors import WireError, require
from charles.intake import sample_spec
from charles.io.keys import ClientKeys, load_or_make_keys
from charles.io.wire import ClientSocket, Limits, is_loopback
from charles.observer import Inputs
from charles.remote_config import RemoteConfig
from charles.remote_messages import (
    Instant,
    Join,
    Joined,
    Moved,
    NotJoined,
    Prediction,
    ToPlayer,
)
from charles.staging import Refusal, Staged
from charles.timing import Quantiles

SILENT_S = 2.0
"""Silence after which a connection is given up and made anew."""

UNANSWERED_S = 1.0
"""Age from which an instant without an answer no longer keeps the next one from being sent."""

AGAIN_S = 0.5
"""Between two questions what is served."""

POLL_S = 0.1

REMEMBERED = 36_000
"""Answers whose times are kept: 20 minutes at 30 a second."""

LIMITS = Limits(most_waiting=4, silent_s=SILENT_S)


@dataclass(frozen=True, kw_only=True)
class RemoteReport:
    """How the conversation with the server went."""

    answered: int
    """Instants that were answered in time."""
    late: int
    """Answers that came after their deadline and were dropped."""
    unanswered: int
    """Instants without an answer in time, those that could not be sent included."""
    lost: int
    """Connections that ended."""
    network_ms: Quantiles
    """Both ways, with packing and encryption."""
    queued_ms: Quantiles
    """Waiting at the server for other players."""
    predict_ms: Quantiles
    """The server's prediction."""


class RemoteLink:
    """A player's connection to a server that predicts. Use from one thread; close it.

    Args:
        server: Where it is; the port is that of ``remote``.
        remote: How to talk to it.

    Raises:
        ConfigError: The address is of another machine and no key of the server is given, or a key
            cannot be used.
    """

    def __init__(self, server: ServerConfig, remote: RemoteConfig) -> None:
        self.deadline_s = remote.deadline_ms / 1000
        self.where = f"tcp://{server.host}:{remote.port}"
        self._keys = _client_keys(server, remote)
        self.socket = ClientSocket(
            server.host, remote.port, ToPlayer, keys=self._keys, limits=LIMITS
        )
        self._said = ""

    def join(self, is_over: Callable[[], bool]) -> Joined | None:
        """Ask what is served until there is something; says on stderr what it waits for.

        Returns:
            The answer, with parameters that can drive; ``None`` if it was over before.

        Raises:
            WireError: The server cannot serve this player.
        """
        begun_s, ask_s = time.monotonic(), 0.0
        session = random.SystemRandom().getrandbits(63)
        while not is_over():
            if time.monotonic() >= ask_s and self.socket.send(Join(session=session)):
                ask_s = time.monotonic() + AGAIN_S
            for message in self.socket.poll(POLL_S):
                if isinstance(message, NotJoined) and message.session == session:
                    raise WireError(f"{self.where} does not serve this player: {message.reason}")
                if isinstance(message, Joined) and message.session == session:
                    if message.step >= 0:
                        self._said = ""
                        return message
                    self._say(f"{self.where} has no checkpoint yet; waiting ...")
            self._say_why(time.monotonic() - begun_s)
        return None

    def close(self) -> None:
        """Disconnect. May be called twice."""
        self.socket.close()

    def _say_why(self, waited_s: float) -> None:
        if self.socket.num_refused and self._keys is not None:
            self._say(
                f"{self.where} does not know this player yet; waiting ... To let it in, start the "
                f"server with: --allow {self._keys.pair.public}"
            )
        elif self.socket.malformed:
            self._say(f"{self.where} is of another version: its answers cannot be read.")
        elif waited_s > AGAIN_S and not self._said:
            key = " that has the key --remote.server-key" if self._keys is not None else ""
            self._say(f"waiting for a charles-serve at {self.where}{key} ...")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            print(text, file=sys.stderr, flush=True)


def _client_keys(server: ServerConfig, remote: RemoteConfig) -> ClientKeys | None:
    if not remote.server_key:
        fix = "charles-serve shows the whole command, with its key."
        rule = f"be given for another machine ({server.host})"
        require(is_loopback(server.host), "remote.server_key", rule, "none", fix)
        return None
    return ClientKeys(pair=load_or_make_keys(remote.key), server=remote.server_key)


class RemotePolicy:
    """What a :class:`charles.player.Player` asks of a policy and of a stager, by a server.

    Use from one thread.

    Args:
        link: The connection.
        joined: What is served there.

    Attributes:
        config: The run's settings. Parameters are swapped at the server, for all of its players:
            whenever there are new ones, and with no way back for one player alone.
        is_moved: Whether the server serves something else by now: join again.
    """

    refusals: tuple[Refusal, ...] = ()
    """The server's own affair."""

    def __init__(self, link: RemoteLink, joined: Joined) -> None:
        play = joined.config.play
        rollback = replace(play.rollback, is_enabled=False)
        play = replace(play, swap_at="tick", rollback=rollback)
        self.config = replace(joined.config, play=play)
        self.spec = sample_spec(joined.config)
        self.variables: object = None
        self.newest: Staged | None = Staged(joined.step, None)
        self.is_moved = False
        self._link, self._socket = link, link.socket
        self._contract = joined.contract
        self._outputs = {output.name for output in joined.config.outputs}
        self._number = random.SystemRandom().getrandbits(48)
        self._sent_s = self._given_up_s = 0.0
        self._is_waiting = False
        self._num_lost, self._lost_before = self._socket.num_lost, self._socket.num_lost
        self._answered = self._late = self._unanswered = 0
        self._times_ms: deque[tuple[float, float, float]] = deque(maxlen=REMEMBERED)

    def predict(self, inputs: Inputs) -> dict[str, float] | None:
        """Decoded value of every output for one instant, or ``None`` if no answer came in time.

        Blocks until the answer is there, at most for the deadline.
        """
        answer = self._ask(inputs)
        if answer is None:
            self._unanswered += 1
            return None
        self._answered += 1
        took_ms = (time.monotonic() - self._sent_s) * 1000
        network_ms = took_ms - answer.queued_ms - answer.predict_ms
        self._times_ms.append((network_ms, answer.queued_ms, answer.predict_ms))
        if self.newest is None or answer.step != self.newest.step:
            self.newest = Staged(answer.step, None)
        return answer.values

    def see(self, inputs: Inputs) -> None:
        """The server sees it anyway."""

    def num_compilations(self) -> int:
        """Nothing is compiled here."""
        return 0

    def report(self) -> RemoteReport:
        """How it went so far."""
        times_ms = np.asarray(self._times_ms, np.float64).reshape(-1, 3)
        network, queued, predict = (Quantiles.of(times_ms[:, column]) for column in range(3))
        return RemoteReport(
            answered=self._answered,
            late=self._late,
            unanswered=self._unanswered,
            lost=self._socket.num_lost - self._lost_before,
            network_ms=network,
            queued_ms=queued,
            predict_ms=predict,
        )

    def _ask(self, inputs: Inputs) -> Prediction | None:
        """Send an instant, unless another is still on its way, and wait for its answer."""
        self._take(0.0)
        if self._is_waiting and time.monotonic() - self._sent_s < UNANSWERED_S:
            return None
        self._number += 1
        if not self._socket.send(self._instant(inputs)):
            self._is_waiting = False
            return None
        self._is_waiting = True
        self._sent_s = time.monotonic()
        ends_s = self._sent_s + self._link.deadline_s
        while self._is_waiting and (left_s := ends_s - time.monotonic()) > 0:
            answer = self._take(left_s)
            if answer is not None:
                return answer
        return None

    def _take(self, timeout_s: float) -> Prediction | None:
        """The answer to the newest instant, if it arrives in time and can drive."""
        found = None
        for message in self._socket.poll(timeout_s):
            if not isinstance(message, Prediction | Moved) or message.number != self._number:
                continue  # of an earlier instant, or of somebody else's
            if not self._is_waiting:
                continue  # answered already
            self._is_waiting = False
            if isinstance(message, Moved):
                self.is_moved = True
            elif time.monotonic() - self._sent_s > self._link.deadline_s:
                self._late += 1
            elif message.values.keys() == self._outputs:
                found = message
        if self._socket.num_lost > self._num_lost:
            self._num_lost = self._socket.num_lost
            self._is_waiting = False  # what was on its way is gone
        return found

    def _instant(self, inputs: Inputs) -> Instant:
        purpose = inputs["purpose"][0]
        return Instant(
            contract=self._contract,
            number=self._number,
            speed=float(inputs["speed"][0]),
            purpose=(float(purpose[0]), float(purpose[1])),
            history=memoryview(inputs["history"].astype("<f4", copy=False).tobytes()),
            pixels=inputs["pixels"].reshape(-1).data,
        )
