"""A player without a network of its own: late, lost, old and wrong answers, restarts, strangers."""

import signal
import subprocess
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.playing import playing, wait_for
from tests.ports import free_port
from tests.tiny_run import TinyRun, make_config
from tests.two_machines import has_namespaces, read_until, start, two_machines

from charles.config import ServerConfig
from charles.errors import ConfigError, WireError
from charles.io.wire import ServerSocket
from charles.observer import blank_inputs
from charles.options import PlayOptions, ServeOptions
from charles.play import describe
from charles.policy import Policy
from charles.remote import RemoteLink, RemotePolicy
from charles.remote_config import RemoteConfig
from charles.remote_messages import (
    Join,
    Joined,
    Moved,
    NotJoined,
    Prediction,
    ToServer,
    contract_id,
)
from charles.serve import serve

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
NEVER = 1e9


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose checkpoint 1 holds untrained parameters."""
    made = TinyRun(tmp_path_factory.mktemp("remote") / "run")
    made.save(1)
    yield made
    made.close()


@pytest.fixture
def port():
    return free_port()


@contextmanager
def serving(run, port, **options):
    """A server in a thread; yields a list that has its report once it has ended."""
    stop, reports = threading.Event(), []
    told = ServeOptions(checkpoint=run.directory, port=port, console=False, **options)
    thread = threading.Thread(target=lambda: reports.append(serve(told, stop=stop)))
    thread.start()
    try:
        yield reports
    finally:
        stop.set()
        thread.join(60)


def link_to(port, **settings):
    return closing(RemoteLink(ServerConfig(), RemoteConfig(port=port, **settings)))


def joined(link, within_s=60.0):
    ends_s = time.monotonic() + within_s
    answer = link.join(lambda: time.monotonic() > ends_s)
    assert answer is not None
    return RemotePolicy(link, answer)


def inputs_of(policy, seed=0):
    rng, inputs = np.random.default_rng(seed), blank_inputs(policy.spec)
    inputs["pixels"][:] = rng.integers(0, 256, inputs["pixels"].shape, np.uint8)
    inputs["speed"][:] = rng.uniform(0, 15)
    inputs["purpose"][:] = rng.normal(size=inputs["purpose"].shape)
    inputs["history"][:] = rng.uniform(-1, 1, inputs["history"].shape)
    return inputs


def until_answered(policy, inputs, within_s=30.0):
    ends_s = time.monotonic() + within_s
    while (values := policy.predict(inputs)) is None:
        assert time.monotonic() < ends_s, "no answer came"
        time.sleep(0.02)
    return values


def test_a_server_predicts_what_the_network_does_and_swaps_while_it_serves(run, port):
    here = Policy(run.config)
    with serving(run, port) as reports, link_to(port, deadline_ms=2000.0) as link:
        there = joined(link)
        assert there.config.network == run.config.network
        for seed in range(3):
            inputs = inputs_of(here, seed)
            trained = {"params": run.state.params, "stats": run.state.stats}
            expected = here.predict(inputs, here.place(trained))
            assert until_answered(there, inputs) == pytest.approx(expected, abs=1e-6)
        first = there.newest.step
        run.save(first + 1, lambda leaf: leaf * 1.5)
        ends_s = time.monotonic() + 30
        while there.newest.step == first:
            until_answered(there, inputs)
            assert time.monotonic() < ends_s
        assert until_answered(there, inputs) != pytest.approx(expected, abs=1e-6)
    (report,) = reports
    assert report.step == first + 1
    assert report.answered >= 4
    assert there.report().answered >= 4
    assert there.report().predict_ms.p50 > 0


def test_several_players_each_get_their_own_answers(run, port):
    with serving(run, port), ExitStack() as stack:
        policies = [
            joined(stack.enter_context(link_to(port, deadline_ms=2000.0))) for _ in range(3)
        ]
        alone = [until_answered(policies[0], inputs_of(policies[0], seed)) for seed in range(3)]
        got = [[] for _ in policies]

        def ask(number):
            inputs = inputs_of(policies[number], number)
            got[number] = [until_answered(policies[number], inputs) for _ in range(20)]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for number, answers in enumerate(got):
            assert len(answers) == 20
            assert all(each == pytest.approx(alone[number]) for each in answers)


class Peer:
    """A server that a test lets answer what it likes."""

    def __init__(self, end, config):
        self.end, self.config, self.contract = end, config, contract_id(config)
        self.instants = []

    def take(self, for_s=0.2):
        """Take what arrives for a while; greets, and remembers instants with their senders."""
        ends_s = time.monotonic() + for_s
        while time.monotonic() < ends_s:
            for player, message in self.end.poll(0.01):
                if isinstance(message, Join):
                    self.end.send(player, self.greeting(message))
                else:
                    self.instants.append((player, message))

    def greeting(self, join):
        return Joined(session=join.session, contract=self.contract, config=self.config, step=7)

    def answer(self, player, number, **changes):
        values = {output.name: 0.5 for output in self.config.outputs}
        prediction = Prediction(number=number, step=7, values=values, queued_ms=0, predict_ms=1)
        self.end.send(player, msgspec_replace(prediction, **changes))


def msgspec_replace(message, **changes):
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return type(message)(**(fields | changes))


@pytest.fixture
def peer(tmp_path, port):
    with closing(ServerSocket(HOST, port, ToServer)) as end:
        yield Peer(end, make_config(tmp_path / "run"))


@contextmanager
def connected(peer, port, **settings):
    """A player that has joined a test's server."""
    made = []
    with link_to(port, **settings) as link:
        thread = threading.Thread(target=lambda: made.append(joined(link)))
        thread.start()
        while thread.is_alive():
            peer.take(0.05)
        yield made[0]


def test_an_answer_after_the_deadline_is_dropped_and_counted(peer, port):
    with connected(peer, port, deadline_ms=50.0) as policy:
        inputs = inputs_of(policy)
        began_s = time.monotonic()
        assert policy.predict(inputs) is None
        assert 0.04 < time.monotonic() - began_s < 5
        peer.take()
        ((player, instant),) = peer.instants
        peer.answer(player, instant.number)
        time.sleep(0.2)
        peer.instants.clear()
        assert policy.predict(inputs) is None  # asks anew; the old answer is not taken for it
        peer.take()
        assert [each.number for _, each in peer.instants] == [instant.number + 1]
        report = policy.report()
        assert (report.answered, report.late, report.unanswered) == (0, 1, 2)


def test_only_one_instant_is_on_its_way_to_a_server_that_stalls(peer, port):
    with connected(peer, port, deadline_ms=20.0) as policy:
        inputs = inputs_of(policy)
        began_s = time.monotonic()
        for _ in range(50):
            assert policy.predict(inputs) is None
        assert time.monotonic() - began_s < 5
        peer.take()
        assert len(peer.instants) <= 1 + int(time.monotonic() - began_s)


def answering(peer, answer, *, for_s=10.0):
    """A thread that answers the first instant as ``answer`` does."""

    def work():
        ends_s = time.monotonic() + for_s
        while not peer.instants and time.monotonic() < ends_s:
            peer.take(0.02)
        if peer.instants:
            answer(*peer.instants.pop())

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_old_and_invented_answers_are_not_taken_for_the_present_one(peer, port):
    def answer(player, instant):
        for number in (instant.number - 1, 0, 1, instant.number + 1):
            peer.answer(player, number, values={"acceleration_braking": 9.0, "steering": 9.0})
        peer.answer(player, instant.number)
        peer.answer(player, instant.number, values={"acceleration_braking": 9.0, "steering": 9.0})

    with connected(peer, port, deadline_ms=5000.0) as policy:
        for _ in range(2):
            thread = answering(peer, answer)
            values = policy.predict(inputs_of(policy))
            thread.join()
            assert values == {"acceleration_braking": 0.5, "steering": 0.5}
        assert policy.report().answered == 2


@pytest.mark.parametrize("values", [{}, {"steering": 0.1}, {"steering": 0.1, "horn": 1.0}])
def test_an_answer_that_is_not_of_the_outputs_drives_nothing(peer, port, values):
    with connected(peer, port, deadline_ms=5000.0) as policy:
        thread = answering(
            peer, lambda player, instant: peer.answer(player, instant.number, values=values)
        )
        assert policy.predict(inputs_of(policy)) is None
        thread.join()


def test_a_server_that_serves_something_else_by_now_is_joined_again(peer, port):
    with connected(peer, port, deadline_ms=5000.0) as policy:
        thread = answering(
            peer, lambda player, instant: peer.end.send(player, Moved(number=instant.number))
        )
        assert policy.predict(inputs_of(policy)) is None
        thread.join()
        assert policy.is_moved


def test_a_server_of_another_version_says_so(peer, port):
    peer.greeting = lambda join: NotJoined(session=join.session, reason="The protocol must be 9.")
    stop = threading.Event()

    def greet():
        while not stop.is_set():
            peer.take(0.05)

    thread = threading.Thread(target=greet)
    thread.start()
    with link_to(port) as link, pytest.raises(WireError, match="player: The protocol must be 9"):
        link.join(stop.is_set)
    stop.set()
    thread.join()


def test_the_server_drops_what_is_no_instant_and_serves_on(run, port):
    with serving(run, port) as reports, link_to(port, deadline_ms=2000.0) as link:
        policy = joined(link)
        inputs = inputs_of(policy)
        until_answered(policy, inputs)
        good = policy._instant(inputs)
        for bad in (
            {"pixels": memoryview(b"few")},
            {"history": memoryview(b"")},
            {"speed": float("nan")},
            {"purpose": (float("inf"), 0.0)},
        ):
            wait_for(lambda bad=bad: policy._socket.send(msgspec_replace(good, **bad)))
        policy._socket._socket.send(b"garbage")
        until_answered(policy, inputs)
        policy._socket._socket.send(b"\0" * 1_000_000)  # too large: the connection ends
        until_answered(policy, inputs)
        policy._socket.send(msgspec_replace(good, contract="another", number=policy._number + 1))
        policy._number, policy._is_waiting = policy._number + 1, True
        wait_for(lambda: policy._take(0.05) or policy.is_moved)
    (report,) = reports
    assert report.malformed == 5


def options_for(port, **settings):
    remote = RemoteConfig(port=port, **settings)
    return PlayOptions(backend="remote", remote=remote, console=False, seed=100_000)


def is_driven(pad, since):
    return any(update.controls.any() for update in [*pad.updates][since:])


def test_a_server_that_goes_away_and_comes_back_is_driven_with_again(run, port):
    with playing(options_for(port, deadline_ms=300.0)) as (pads, reports):
        with serving(run, port):
            wait_for(lambda: pads and is_driven(pads[0], 0))
        gone = len(pads[0].updates)
        wait_for(lambda: len(pads[0].updates) > gone + 30)  # it ticks on, and has let go
        assert not any(update.controls.any() for update in [*pads[0].updates][-5:])
        back = len(pads[0].updates)
        with serving(run, port):
            wait_for(lambda: is_driven(pads[0], back))
    (report,) = reports
    assert len(pads) == 1
    assert not pads[0].updates[-1].controls.any()
    assert report.tally.lost > 0
    assert report.tally.unanswered > 0
    assert report.remote.lost >= 1
    assert "server's prediction" in describe(report)


def test_another_machine_needs_the_servers_key():
    server = ServerConfig(host="192.0.2.7")
    with pytest.raises(ConfigError, match=r"remote\.server_key must be given for another machine"):
        RemoteLink(server, RemoteConfig())


def test_what_is_shown_leads_a_player_in_and_has_no_secret(run, port, tmp_path, capfd):
    stop = threading.Event()
    told = ServeOptions(checkpoint=run.directory, port=port, encrypted=True)
    thread = threading.Thread(target=lambda: serve(told, stop=stop))
    thread.start()
    shown = ""
    try:
        while "bin/play" not in shown:
            time.sleep(0.05)
            shown += capfd.readouterr().out
        words = next(line for line in shown.splitlines() if "bin/play" in line).split()
        server_key = words[words.index("--remote.server-key") + 1]
        with link_to(port, server_key=server_key, key=tmp_path / "player.key",
                     deadline_ms=2000.0) as link:  # fmt: skip
            while "echo " not in shown:
                waited = iter(range(3))
                link.join(lambda waited=waited: next(waited, None) is None)
                out, said = capfd.readouterr()
                shown += out + said
            line = next(line for line in shown.splitlines() if "echo " in line)
            subprocess.run(["sh", "-c", line.partition("let it in: ")[2]], check=True)
            policy = joined(link)
            until_answered(policy, inputs_of(policy))
        shown += "".join(capfd.readouterr())
    finally:
        stop.set()
        thread.join(60)
    for secret in (run.directory / "server.key", tmp_path / "player.key"):
        assert secret.stat().st_mode & 0o077 == 0
        assert secret.read_text().strip() not in shown
    assert "does not know this player" in shown
    assert "server.key" not in (run.directory / "config.json").read_text()


PLAYER = """
import sys
from pathlib import Path
from charles.cli import run_command
from charles.config import ServerConfig
from charles.io.pads.recording import RecordingPad
from charles.options import PlayOptions
from charles.play import play
from charles.remote_config import RemoteConfig

class Loud(RecordingPad):
    def update(self, controls):
        super().update(controls)
        print("driven", flush=True)
    def neutral(self):
        super().neutral()
        print("neutral", flush=True)

def main(_):
    host, port, server_key, key = sys.argv[1:]
    remote = RemoteConfig(port=int(port), server_key=server_key, key=Path(key), deadline_ms=300.0)
    options = PlayOptions(backend="remote", server=ServerConfig(host=host), remote=remote,
                          console=False, seed=100_000)
    play(options, make_pad=lambda game: Loud(game.controls))
    assert "jax" not in sys.modules

run_command("player", main)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not has_namespaces(), reason="no network namespaces here")
def test_two_machines_drive_through_a_kill_a_stall_and_a_pulled_cable(run, port, tmp_path):
    script = tmp_path / "player.py"
    script.write_text(PLAYER)

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def start_server(namespace):
        words = (ROOT / "bin/serve", "--checkpoint", run.directory, "--host", "0.0.0.0")
        process = stack.enter_context(start(namespace, *map(str, words), "--port", str(port)))
        stack.callback(process.kill)
        return process, read_until(process, "bin/play").split()

    with two_machines() as (names, ends, address), ExitStack() as stack:
        server, words = start_server(names[0])
        assert address in words
        key = words[words.index("--remote.server-key") + 1]
        player = stack.enter_context(
            start(names[1], str(script), address, str(port), key, str(tmp_path / "player.key"))
        )
        stack.callback(player.kill)
        line = read_until(server, "echo ")
        subprocess.run(["sh", "-c", line.partition("let it in: ")[2]], check=True)
        read_until(player, "driven")

        server.kill()
        server.wait()
        read_until(player, "neutral")
        server, _ = start_server(names[0])
        read_until(player, "driven")

        server.send_signal(signal.SIGSTOP)
        read_until(player, "neutral")
        time.sleep(4)  # long enough for the connection to be given up
        server.send_signal(signal.SIGCONT)
        read_until(player, "driven")

        ip("-n", names[0], "link", "set", ends[0], "down")
        read_until(player, "neutral")
        time.sleep(4)
        ip("-n", names[0], "link", "set", ends[0], "up")
        read_until(player, "driven")

        player.send_signal(signal.SIGTERM)
        *_, last = player.stdout.read().splitlines()
        assert player.wait(20) == 0  # it also asserts that nothing imported JAX
        assert last == "neutral"
        server.terminate()
        server.stdout.read()
        assert server.wait(20) == 0
