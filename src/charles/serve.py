"""The server that predicts for players on machines without an accelerator.

It drives nothing itself: it holds a run's newest parameters, guarded and swapped as a player's own
(:mod:`charles.staging`), and answers one instant after the other, the one that has waited longest
first. A player has one instant at a time here; a newer one takes the place of one that was not
looked at yet, whose answer would come too late. What is said is in :mod:`charles.remote_messages`.
"""

import shlex
import socket
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from charles.contract import as_data, read_contract
from charles.evaluate import find_run
from charles.intake import sample_spec
from charles.io.keys import AllowedKeys, ServerKeys, load_or_make_keys
from charles.io.wire import Limits, ServerSocket, is_loopback
from charles.observer import Inputs, blank_inputs
from charles.options import ServeOptions
from charles.policy import Policy
from charles.process import stop_on_signals
from charles.remote_messages import (
    PROTOCOL,
    Instant,
    Join,
    Joined,
    Moved,
    NotJoined,
    Prediction,
    ToServer,
    contract_id,
    largest_bytes,
)
from charles.run import read_run
from charles.sample import SampleSpec
from charles.staging import Refusal, Stager
from charles.timing import Quantiles

IDLE_S = 0.05
"""How long one look for messages waits while there is nothing to do."""

PLAYERS_FILE = "players.keys"
"""Who may connect, in the run's directory."""

SAY_S = 10.0
"""Between two lines about how it goes."""

SEE_S = 1.0
"""Between two instants that are kept to try new parameters on."""

REMEMBERED = 36_000
"""Answers whose times are kept."""

MOST_SHOWN = 20
"""Strangers that are named."""


@dataclass(frozen=True, kw_only=True)
class ServeReport:
    """What a server did."""

    answered: int = 0
    """Instants that were predicted for."""
    replaced: int = 0
    """Instants that a newer one of the same player came before."""
    malformed: int = 0
    """Messages that could not be used."""
    step: int = -1
    """Of the newest parameters."""
    queued_ms: Quantiles
    predict_ms: Quantiles


def serve(options: ServeOptions, *, stop: threading.Event | None = None) -> ServeReport:
    """Predict for whoever asks, until told to stop. Blocks.

    Args:
        options: What to serve, and where.
        stop: Set it to stop; by default SIGINT and SIGTERM do.

    Raises:
        CharlesError: The run cannot be served, or the port not be listened on.
    """
    stop = stop or stop_on_signals()
    ends_s = time.monotonic() + options.seconds if options.seconds else float("inf")
    run_dir, _ = find_run(options.checkpoint)
    config = read_run(run_dir)
    keys = make_keys(options, run_dir)
    limits = Limits(largest_bytes=largest_bytes(sample_spec(config)), most_waiting=4)
    end = ServerSocket(options.host, options.port, ToServer, keys=keys, limits=limits, section="")
    with closing(end):
        policy = Policy(config, backend=options.backend)
        policy.warm_up()
        with Stager(policy, run_dir / "checkpoints") as stager:
            desk = Desk(end, policy, stager, capture=as_data(read_contract(run_dir)))
            if options.console:
                print(f"serving {run_dir}. On the player's machine:", flush=True)
                print(f"  {player_command(options, keys)}", flush=True)
            voice = _Voice(desk, end, run_dir / PLAYERS_FILE, is_enabled=options.console)
            while not stop.is_set() and time.monotonic() < ends_s:
                desk.work()
                voice.say()
            return desk.report()


def make_keys(options: ServeOptions, run_dir: Path) -> ServerKeys | None:
    """The server's keys, in the run's directory; ``None`` where nothing is encrypted.

    Raises:
        ConfigError: They cannot be made or read.
    """
    allowed = AllowedKeys(run_dir / PLAYERS_FILE)
    allowed.add(options.allow)
    if is_loopback(options.host) and not options.encrypted:
        return None
    return ServerKeys(pair=load_or_make_keys(run_dir / "server.key"), may_connect=allowed)


def player_command(options: ServeOptions, keys: ServerKeys | None) -> str:
    """What to run on the player's machine. Holds no secret."""
    host = _own_address() if options.host == "0.0.0.0" else options.host
    command = f"bin/play --backend remote --server.host {host} --remote.port {options.port}"
    return command if keys is None else f"{command} --remote.server-key {keys.pair.public}"


def _own_address() -> str:
    """This machine's address towards other networks; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of a network that is for documents only
            return str(probe.getsockname()[0])
        except OSError:  # no way to the outside: then of whatever network there is
            ends = [end for each in psutil.net_if_addrs().values() for end in each]
            found = [end.address for end in ends if end.family == socket.AF_INET]
            others = [address for address in found if not is_loopback(address)]
            return others[0] if others else "ADDRESS-OF-THIS-MACHINE"


class Desk:
    """Takes what players send and answers it. Use from one thread.

    Args:
        end: Where players connect.
        policy: What predicts; warmed up by the caller.
        stager: Where new parameters come from.
        capture: The run's capture contract as plain data; ``None`` if it has none.
    """

    def __init__(
        self,
        end: ServerSocket,
        policy: Policy,
        stager: Stager,
        *,
        capture: dict[str, Any] | None = None,
    ) -> None:
        self.step = -1
        self.answered = self.replaced = 0
        self.last_heard_s: dict[bytes, float] = {}
        self._malformed = 0
        self._end, self._policy, self._stager = end, policy, stager
        self._capture = capture
        self._contract = contract_id(policy.config)
        self._waiting: dict[bytes, tuple[Instant, float]] = {}
        """Each player's instant to be predicted for, and when it came; oldest first."""
        self._times_ms: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._inputs = blank_inputs(policy.spec)
        self._seen_s = 0.0

    def work(self) -> None:
        """Take what has arrived, answer the instant that has waited longest, if there is any."""
        for player, message in self._end.poll(0.0 if self._waiting else IDLE_S):
            self._take(player, message)
        self._swap()
        if self._waiting:
            player = next(iter(self._waiting))
            instant, arrived_s = self._waiting.pop(player)
            self._answer(player, instant, arrived_s)

    def report(self) -> ServeReport:
        """How it went so far."""
        times_ms = np.asarray(self._times_ms, np.float64).reshape(-1, 2)
        return ServeReport(
            answered=self.answered,
            replaced=self.replaced,
            malformed=self._malformed + self._end.malformed,
            step=self.step,
            queued_ms=Quantiles.of(times_ms[:, 0]),
            predict_ms=Quantiles.of(times_ms[:, 1]),
        )

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Parameters that may not drive."""
        return self._stager.refusals

    def note(self) -> str:
        """What the backend has to say of the newest parameters; may be empty."""
        return self._policy.note()

    def _take(self, player: bytes, message: Join | Instant) -> None:
        now_s = time.monotonic()
        if isinstance(message, Join):
            self._end.send(player, self._greeting(message))
        elif message.contract != self._contract:
            self._end.send(player, Moved(number=message.number))
        elif not write_inputs(message, self._policy.spec, self._inputs):
            self._malformed += 1
        else:
            self.last_heard_s[player] = now_s
            self.replaced += self._waiting.pop(player, None) is not None
            self._waiting[player] = (message, now_s)

    def _greeting(self, join: Join) -> Joined | NotJoined:
        if join.protocol != PROTOCOL:
            reason = (
                f"The protocol must be {PROTOCOL}, got {join.protocol}. "
                "Run the same version of Charles on both ends."
            )
            return NotJoined(session=join.session, reason=reason)
        return Joined(
            session=join.session, contract=self._contract, config=self._policy.config,
            step=self.step, capture=self._capture,
        )  # fmt: skip

    def _answer(self, player: bytes, instant: Instant, arrived_s: float) -> None:
        begun_s = time.monotonic()
        values: dict[str, float] = {}
        if self.step >= 0:
            write_inputs(instant, self._policy.spec, self._inputs)
            values = self._policy.predict(self._inputs)
            if begun_s - self._seen_s > SEE_S:
                self._seen_s = begun_s
                self._stager.see(self._inputs)
        queued_ms, predict_ms = (begun_s - arrived_s) * 1000, (time.monotonic() - begun_s) * 1000
        answer = Prediction(
            number=instant.number, step=self.step, values=values,
            queued_ms=queued_ms, predict_ms=predict_ms,
        )  # fmt: skip
        self._end.send(player, answer)
        self.answered += 1
        self._times_ms.append((queued_ms, predict_ms))

    def _swap(self) -> None:
        newest = self._stager.newest
        if newest is not None and newest.step != self.step:
            self._policy.variables, self.step = newest.variables, newest.step


def write_inputs(instant: Instant, spec: SampleSpec, out: Inputs) -> bool:
    """Write what a player sent as a network's inputs; ``False`` if it is no instant of ``spec``."""
    length, features = spec.history_length, spec.history_features
    if (
        instant.pixels.nbytes != spec.pixels_bytes
        or instant.history.nbytes != 4 * length * features
    ):
        return False
    history = np.frombuffer(instant.history, "<f4")
    beside = np.array([instant.speed, *instant.purpose], np.float64)
    if not (np.isfinite(history).all() and np.isfinite(beside).all()):
        return False
    out["pixels"][0] = np.frombuffer(instant.pixels, np.uint8).reshape(spec.pixels_shape)
    out["history"][0] = history.reshape(length, features)
    out["speed"][0], out["purpose"][0] = beside[0], beside[1:]
    return True


class _Voice:
    """Says on the console who is served, and who may not be."""

    def __init__(self, desk: Desk, end: ServerSocket, players: Path, *, is_enabled: bool) -> None:
        self._desk, self._end, self._players = desk, end, players
        self._is_enabled = is_enabled
        self._named = 0
        self._said_s, self._said_answered = time.monotonic(), 0
        self._refused = 0
        self._step = -1

    def say(self) -> None:
        """After every piece of work; says something when there is something new."""
        if not self._is_enabled:
            return
        self._name_strangers()
        self._tell_of_parameters()
        now_s = time.monotonic()
        if now_s - self._said_s < SAY_S:
            return
        desk, passed_s = self._desk, now_s - self._said_s
        rate_hz = (desk.answered - self._said_answered) / passed_s
        self._said_s, self._said_answered = now_s, desk.answered
        desk.last_heard_s = {
            player: at_s for player, at_s in desk.last_heard_s.items() if now_s - at_s < SAY_S
        }
        if rate_hz > 0:
            report = desk.report()
            print(
                f"checkpoint {desk.step}: {len(desk.last_heard_s)} players, {rate_hz:.1f} "
                f"predictions/s, p50/p99 ms: waiting {report.queued_ms.p50:.1f}/"
                f"{report.queued_ms.p99:.1f}, predicting {report.predict_ms.p50:.1f}/"
                f"{report.predict_ms.p99:.1f}",
                flush=True,
            )

    def _tell_of_parameters(self) -> None:
        for refusal in self._desk.refusals[self._refused :]:
            print(f"refused checkpoint {refusal.step}: {refusal.reason}", flush=True)
        self._refused = len(self._desk.refusals)
        if self._desk.step != self._step:
            self._step = self._desk.step
            note = self._desk.note()
            if note:
                print(f"checkpoint {self._step}: {note}", flush=True)

    def _name_strangers(self) -> None:
        strangers = [*self._end.strangers.items()][self._named : MOST_SHOWN]
        self._named += len(strangers)
        for key, address in strangers:
            print(
                f"a player at {address} is not on the list. If it is yours, let it in: "
                f"echo {key} >> {shlex.quote(str(self._players))}",
                flush=True,
            )
