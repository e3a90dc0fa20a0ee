"""The server and its peers: real sockets, real processes, a real frame pool."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import psutil
import pytest
from tests.ports import free_port

from charles import presets
from charles.config import ServerConfig
from charles.connection import Connection
from charles.data.balancing import make_balancer
from charles.data.exchange import Exchange
from charles.data.pool import Lane, PoolSpec
from charles.errors import SharedMemoryError, WireError
from charles.io.wire import ClientSocket, ServerSocket
from charles.messages import (
    PING_S,
    SILENT_S,
    Bye,
    Checkpoint,
    Demand,
    Hello,
    Ping,
    Status,
    ToPeer,
    ToServer,
    Welcome,
)
from charles.sample import SampleSpec
from charles.server import Server

HOST = "127.0.0.1"
SPEC = SampleSpec(height=4, width=4, history_length=0)

PEER_PROGRAM = """
import sys, time
from charles.config import ServerConfig
from charles.connection import Connection
connection = Connection(ServerConfig(port=int(sys.argv[1])), sys.argv[2])
while True:
    welcome = connection.wait_welcome()
    print("welcome", welcome.peer_id, flush=True)
    while not connection.is_lost:
        connection.poll()
        connection.status(state="busy", rate_hz=30.0)
        time.sleep(0.05)
    print("lost", flush=True)
"""

SERVER_PROGRAM = """
import sys, time
from dataclasses import replace
from charles import presets
from charles.config import ServerConfig
from charles.server import Server
server = Server(replace(presets.tiny(), server=ServerConfig(port=int(sys.argv[1]))))
server.start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def config():
    return replace(presets.tiny(), server=ServerConfig(port=free_port()))


@pytest.fixture
def exchange():
    pool = PoolSpec(num_slots=20, sample=SPEC)
    with closing(Exchange(pool, max_collectors=2, slots_per_collector=4)) as owner:
        yield owner


@pytest.fixture
def host(config, exchange):
    """A server that lets collectors into a frame pool."""
    with closing(Server(config)) as one:
        one.open_lane = exchange.open_lane
        one.close_lane = exchange.close_lane
        one.start()
        yield one


@pytest.fixture
def connect(config):
    """Makes connections of this process."""
    with contextlib.ExitStack() as stack:
        yield lambda role: stack.enter_context(closing(Connection(config.server, role)))


@pytest.fixture
def spawn(config):
    """Starts processes that connect; ends them all."""
    with contextlib.ExitStack() as stack:

        def start(role, program=PEER_PROGRAM):
            command = [sys.executable, "-c", program, str(config.server.port), role]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
            )
            stack.callback(process.kill)
            return process

        yield start


def wait_until(condition, within_s=8.0):
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


def states(host):
    return {peer.id: peer.state for peer in host.peers()}


def test_a_collector_receives_everything_it_needs(host, connect, config, exchange):
    welcome = connect("collector").wait_welcome(5.0)
    assert welcome.config == config
    assert welcome.run_dir.is_absolute()
    with closing(Lane(welcome.lane)) as lane:
        slot = lane.claim()
        with lane.writing(slot) as (header, _):
            header["speed_mps"] = 7
        lane.publish([slot])
    assert exchange.poll(welcome.peer_id).tolist() == [slot]


def test_a_player_gets_no_lane(host, connect, exchange):
    assert connect("player").wait_welcome(5.0).lane is None
    assert exchange.counts()["lanes"] == {}


def test_peers_are_listed_with_role_state_rate_and_bins(host, connect, config):
    names = ("acceleration_braking", "steering")
    bins = make_balancer(config.data.balancing, config.outputs, names, seed=0).report()
    collector, player = connect("collector"), connect("player")
    ids = [end.wait_welcome(5.0).peer_id for end in (collector, player)]
    collector.status(state="collecting", rate_hz=31.0, detail={"samples": 5}, bins=bins)
    player.status(state="driving", rate_hz=29.5)
    wait_until(lambda: set(states(host).values()) == {"collecting", "driving"})
    first, second = host.peers()
    assert [first.id, second.id] == ids
    assert (first.role, first.rate_hz, first.pid) == ("collector", 31.0, os.getpid())
    assert (first.bins, dict(first.detail)) == (bins, {"samples": 5})
    assert (second.role, second.rate_hz, second.bins) == ("player", 29.5, None)


def test_news_reach_the_role_they_are_for(host, connect):
    collector, player = connect("collector"), connect("player")
    for end in (collector, player):
        end.wait_welcome(5.0)
    host.broadcast(Demand(short={"weather": "rain"}), role="collector")
    host.broadcast(Checkpoint(step=250))
    news = {collector: [], player: []}
    deadline_s = time.monotonic() + 5
    while Checkpoint(step=250) not in news[collector] or not news[player]:
        assert time.monotonic() < deadline_s
        for end, heard in news.items():
            heard.extend(end.poll())
    assert news[collector] == [Demand(short={"weather": "rain"}), Checkpoint(step=250)]
    assert news[player] == [Checkpoint(step=250)]


def test_goodbye_closes_the_lane_and_leaves_others_alone(host, connect, exchange):
    leaving, staying = connect("collector"), connect("collector")
    leaving.wait_welcome(5.0)
    kept = staying.wait_welcome(5.0).peer_id
    leaving.close()
    wait_until(lambda: list(states(host)) == [kept])
    assert list(exchange.counts()["lanes"]) == [kept]
    staying.poll()
    assert not staying.is_lost
    exchange.check()


def test_a_killed_collector_is_noticed_and_its_slots_come_back(host, spawn, connect, exchange):
    kept = connect("collector").wait_welcome(5.0).peer_id
    killed = spawn("collector")
    wait_until(lambda: "busy" in states(host).values())
    killed.kill()  # not waited for: it is a zombie from here on
    wait_until(lambda: list(states(host)) == [kept], within_s=4 * PING_S)
    assert exchange.counts()["lanes"] == {kept: 4}
    exchange.check()


def test_a_stopped_collector_is_silent_and_keeps_its_lane(host, spawn, exchange, monkeypatch):
    monkeypatch.setattr("charles.server.SILENT_S", 0.8)
    process = spawn("collector")
    wait_until(lambda: "busy" in states(host).values())
    psutil.Process(process.pid).suspend()
    wait_until(lambda: "silent" in states(host).values())
    time.sleep(1.5 * PING_S)
    assert len(exchange.counts()["lanes"]) == 1
    psutil.Process(process.pid).resume()
    wait_until(lambda: "busy" in states(host).values())


def test_a_successor_finds_the_place_of_one_that_was_just_killed(host, spawn, connect):
    connect("collector").wait_welcome(5.0)
    killed = spawn("collector")
    wait_until(lambda: "busy" in states(host).values())
    killed.kill()
    killed.wait()
    assert connect("collector").wait_welcome(5.0).lane is not None


def test_one_collector_too_many_is_told_the_setting(host, connect):
    for _ in range(2):
        connect("collector").wait_welcome(5.0)
    with pytest.raises(WireError, match=r"refused this collector.*data\.max_collectors"):
        connect("collector").wait_welcome(5.0)


def test_seeds_differ_between_peers_and_restarts_but_not_with_who_else_joins(config, connect):
    def seeds(roles, first_step):
        with closing(Server(config)) as one:
            one.first_step = first_step
            one.start()
            connections = [connect(role) for role in roles]
            found = [connection.wait_welcome(10.0).seed for connection in connections]
            for connection in connections:
                connection.close()
        return [seed for seed, role in zip(found, roles, strict=True) if role == "collector"]

    alone = seeds(["collector", "collector"], 0)
    assert len(set(alone)) == 2
    assert seeds(["player", "collector", "player", "collector"], 0) == alone
    assert not set(seeds(["collector", "collector"], 100)) & set(alone)


def test_peers_survive_a_restart_of_the_server(config, spawn):
    def said(process):
        return process.stdout.readline().split()[0]

    peers = [spawn("collector"), spawn("player")]
    for _ in range(2):
        with closing(Server(config)) as one:
            one.start()
            assert [said(peer) for peer in peers] == ["welcome"] * 2
        assert [said(peer) for peer in peers] == ["lost"] * 2


def is_lost(connection):
    connection.poll()
    return connection.is_lost


def test_a_server_that_was_killed_is_noticed_at_once(spawn, connect):
    killed = spawn("", SERVER_PROGRAM)
    connection = connect("player")
    assert connection.wait_welcome(10.0) is not None
    assert not is_lost(connection)
    killed.kill()
    wait_until(lambda: is_lost(connection), within_s=0.5 * SILENT_S)


def test_a_server_that_hangs_is_lost_by_its_silence(spawn, connect, monkeypatch):
    monkeypatch.setattr("charles.connection.SILENT_S", 1.5)
    hanging = spawn("", SERVER_PROGRAM)
    connection = connect("player")
    assert connection.wait_welcome(10.0) is not None
    psutil.Process(hanging.pid).suspend()
    assert not is_lost(connection)
    wait_until(lambda: is_lost(connection), within_s=4.0)
    psutil.Process(hanging.pid).resume()
    assert connection.wait_welcome(5.0) is not None


def test_waiting_for_a_server_says_so_once_and_ends_in_time(connect, capfd):
    connection = connect("collector")
    for _ in range(4):
        assert connection.wait_welcome(0.4) is None
    text = capfd.readouterr().err
    assert text.count("waiting for a server at tcp://127.0.0.1:") == 1


def test_waiting_for_a_server_ends_when_asked_to_stop(connect):
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started_s = time.monotonic()
    assert connect("player").wait_welcome(stop=stop) is None
    assert time.monotonic() - started_s < 2


def test_status_is_sent_at_most_twice_a_second(config, connect):
    connection = connect("player")
    with closing(ServerSocket(HOST, config.server.port, ToServer)) as socket_:
        _answer_hello(socket_, connection, config)
        for _ in range(150):
            connection.status(state="driving")
            time.sleep(0.01)
        connection.status(state="stuck")  # what is new goes out at once
        heard = []
        while not heard or heard[-1].state != "stuck":
            heard += [each for _, each in socket_.poll(0.5) if isinstance(each, Status)]
    assert 3 <= len(heard) <= 5


def _answer_hello(socket_, connection, config):
    """Let a connection in by hand."""
    waiting = threading.Thread(target=connection.wait_welcome, args=(5.0,))
    waiting.start()
    ((peer, hello),) = _first(socket_)
    socket_.send(
        peer,
        Welcome(
            session=hello.session,
            peer_id=1,
            seed=0,
            config=config,
            lane=None,
            run_dir=config.run_dir,
        ),
    )
    waiting.join()
    assert not connection.is_lost


def _first(socket_):
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        arrived = socket_.poll(0.1)
        if arrived:
            return arrived
    raise AssertionError("nothing arrived")


@pytest.fixture
def stranger(config):
    """A peer that says whatever a test wants."""
    with closing(ClientSocket(HOST, config.server.port, ToPeer)) as end:
        yield end


def ask(stranger, message):
    """Send, and wait for the first answer that is no ping."""
    wait_until(lambda: stranger.send(message))
    answers = []
    while not answers:
        answers = [each for each in _first(stranger) if not isinstance(each, Ping)]
    return answers[0]


def hello(**changes):
    process = psutil.Process()
    known = {
        "role": "collector",
        "pid": process.pid,
        "started": process.create_time(),
        "session": 5,
    }
    return Hello(**known | changes)


def test_a_hello_that_is_repeated_gets_the_same_membership(host, stranger, exchange):
    first, again = ask(stranger, hello()), ask(stranger, hello())
    assert first == again
    assert len(exchange.counts()["lanes"]) == 1


def test_a_new_hello_of_the_same_peer_ends_its_old_membership(host, stranger, exchange):
    first, second = ask(stranger, hello(session=1)), ask(stranger, hello(session=2))
    assert first.peer_id != second.peer_id
    assert list(exchange.counts()["lanes"]) == [second.peer_id]


def test_a_peer_that_the_server_does_not_know_is_told_so(host, stranger):
    assert ask(stranger, Status(state="driving")) == Bye()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": 99}, "protocol must be"),
        ({"started": 12345.0}, "pid must be a process of the server's host"),
        ({"pid": 2**22 + 5}, "pid must be a process of the server's host"),
    ],
)
def test_who_cannot_be_let_in_is_told_why(host, stranger, changes, reason):
    answer = ask(stranger, hello(**changes))
    assert reason in answer.reason
    assert host.peers() == []


def test_garbage_is_counted_and_disturbs_nobody(host, connect, config):
    connection = connect("player")
    connection.wait_welcome(5.0)
    with closing(ClientSocket(HOST, config.server.port, ToServer)) as stranger:
        wait_until(lambda: stranger.send(Ping()))  # not for a server
        wait_until(lambda: host.malformed == 1)
    connection.status(state="driving")
    wait_until(lambda: "driving" in states(host).values())


def test_what_fails_in_the_servers_thread_is_raised_where_it_is_used(config, connect):
    def fail(_peer_id):
        raise SharedMemoryError("the lane's rings were overwritten")

    with closing(Server(config)) as one:
        one.close_lane = fail
        one.start()
        connection = connect("collector")
        connection.wait_welcome(5.0)
        connection.close()
        with pytest.raises(SharedMemoryError, match="overwritten"):
            wait_until(lambda: one.peers() == [])


def test_a_busy_port_is_refused_before_anything_else(host, config):
    with pytest.raises(WireError, match=f"server.port must be free.*{config.server.port}"):
        Server(config)


def test_closing_leaves_no_thread_and_frees_the_port(config):
    for _ in range(3):
        one = Server(config)
        one.start()
        one.close()
        one.close()
    assert "server" not in {thread.name for thread in threading.enumerate()}
