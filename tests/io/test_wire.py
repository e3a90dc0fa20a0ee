"""The wire over real sockets: typed messages, reconnection, garbage, a busy port."""

import os
import socket
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zmq
from tests.ports import free_port

from charles.errors import ConfigError, WireError
from charles.io import wire
from charles.io.wire import ClientSocket, ServerSocket


class Ask(msgspec.Struct, tag=True, frozen=True):
    number: int
    path: Path


class Tell(msgspec.Struct, tag=True, frozen=True):
    text: str


MESSAGES = Ask | Tell
HOST = "127.0.0.1"


def receive(end, *, within_s=5.0):
    """The first messages that arrive."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        arrived = end.poll(0.05)
        if arrived:
            return arrived
    raise AssertionError("nothing arrived")


def send_until_taken(client, message, *, within_s=5.0):
    deadline_s = time.monotonic() + within_s
    while not client.send(message):
        assert time.monotonic() < deadline_s, "the client never connected"
        time.sleep(0.01)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def server(port):
    with closing(ServerSocket(HOST, port, MESSAGES)) as end:
        yield end


@pytest.fixture
def client(port):
    with closing(ClientSocket(HOST, port, MESSAGES)) as end:
        yield end


def test_messages_arrive_with_their_types_both_ways(server, client):
    send_until_taken(client, Ask(7, Path("runs/live")))
    ((peer, message),) = receive(server)
    assert message == Ask(7, Path("runs/live"))
    assert server.send(peer, Tell("seven"))
    assert receive(client) == [Tell("seven")]


def test_an_answer_reaches_only_the_peer_that_asked(server, client, port):
    with closing(ClientSocket(HOST, port, MESSAGES)) as other:
        send_until_taken(other, Ask(1, Path("a")))
        send_until_taken(client, Ask(2, Path("b")))
        peers = {}
        while len(peers) < 2:
            peers |= {message.number: peer for peer, message in receive(server)}
        server.send(peers[2], Tell("two"))
        assert receive(client) == [Tell("two")]
        assert other.poll(0.1) == []


def test_client_reconnects_under_its_old_name_when_the_server_restarts(client, port):
    with closing(ServerSocket(HOST, port, MESSAGES)) as first:
        send_until_taken(client, Tell("before"))
        ((before, _),) = receive(first)
    with closing(ServerSocket(HOST, port, MESSAGES)) as second:
        deadline_s = time.monotonic() + 5
        arrived = []
        while not arrived and time.monotonic() < deadline_s:
            client.send(Tell("after"))
            arrived = second.poll(0.05)
        assert arrived[0] == (before, Tell("after"))


def test_client_notices_that_its_connection_ended(client, port):
    with closing(ServerSocket(HOST, port, MESSAGES)) as server:
        send_until_taken(client, Tell("hello"))
        receive(server)
        assert client.num_lost == 0
    deadline_s = time.monotonic() + 5
    while client.num_lost == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert client.num_lost == 1


def test_nothing_waits_for_a_server_that_is_not_there(client, port):
    assert not any(client.send(Tell(str(number))) for number in range(50))
    with closing(ServerSocket(HOST, port, MESSAGES)) as server:
        send_until_taken(client, Tell("fresh"))
        assert [message for _, message in receive(server)] == [Tell("fresh")]


GARBAGE = (
    [b""],
    [b"\xff" * 100],
    [b"\x91" * 4000],
    [msgspec.msgpack.encode({"type": "Nothing"})],
    [msgspec.msgpack.encode({"type": "Ask", "number": "seven", "path": "x"})],
    [msgspec.msgpack.encode({"type": "Tell"})],
    [msgspec.msgpack.encode(Tell("in two")), b"parts"],
)


@pytest.mark.parametrize("frames", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_counted_and_dropped(server, port, frames):
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(f"tcp://{HOST}:{port}")
        stranger.send_multipart(frames)
        stranger.send(msgspec.msgpack.encode(Tell("well")))
        assert [message for _, message in receive(server)] == [Tell("well")]
    assert server.malformed == 1


def test_raw_bytes_on_the_port_do_not_disturb_others(server, client, port):
    with socket.create_connection((HOST, port)) as stranger:
        stranger.sendall(os.urandom(4096))
        send_until_taken(client, Tell("well"))
        assert [message for _, message in receive(server)] == [Tell("well")]


def test_a_message_that_is_too_large_never_arrives(server, client):
    send_until_taken(client, Tell("x" * (wire.LIMITS.largest_bytes + 1)))
    send_until_taken(client, Tell("small"))
    deadline_s = time.monotonic() + 5
    arrived = []
    while not arrived and time.monotonic() < deadline_s:
        client.send(Tell("small"))
        arrived = server.poll(0.05)
    assert {message.text for _, message in arrived} == {"small"}


def test_sending_to_a_peer_that_does_not_read_never_blocks(server, client):
    send_until_taken(client, Tell("hello"))
    ((peer, _),) = receive(server)
    started_s = time.monotonic()
    taken = [server.send(peer, Tell("x" * 100_000)) for _ in range(3 * wire.LIMITS.most_waiting)]
    assert not all(taken), "the queue must be bounded"
    assert time.monotonic() - started_s < 5
    assert len(client.poll(1.0)) <= wire.MOST_PER_POLL


def test_sending_to_a_peer_that_is_unknown_says_so(server):
    assert not server.send(b"nobody", Tell("hello"))


def test_poll_keeps_its_timeout(server, client):
    for end in (server, client):
        started_s = time.monotonic()
        assert end.poll(0.1) == []
        assert 0.09 < time.monotonic() - started_s < 1.0


def test_the_last_word_leaves_before_the_socket_closes(server, port):
    client = ClientSocket(HOST, port, MESSAGES)
    send_until_taken(client, Tell("hello"))
    client.send(Tell("goodbye"))
    client.close()
    client.close()
    texts = []
    while "goodbye" not in texts:
        texts += [message.text for _, message in receive(server)]


def test_a_busy_port_names_the_port_its_listener_and_the_fix(server, port):
    with pytest.raises(WireError) as caught:
        ServerSocket(HOST, port, MESSAGES)
    text = str(caught.value)
    assert str(port) in text
    assert f"process {os.getpid()}" in text
    assert "--server.port" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "example.org", "", "*"])
@pytest.mark.parametrize("end", [ServerSocket, ClientSocket])
def test_addresses_that_other_machines_could_reach_are_refused(end, host, port):
    with pytest.raises(ConfigError, match=r"server\.host must be an address of this host alone"):
        end(host, port, MESSAGES)
