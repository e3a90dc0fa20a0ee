"""The wire with keys, over real sockets: who knows each other talks, and nobody else hears it."""

import os
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager

import msgspec
import pytest
from tests.ports import free_port

from charles.io.keys import AllowedKeys, ClientKeys, ServerKeys, load_or_make_keys
from charles.io.wire import ClientSocket, Limits, ServerSocket

HOST = "127.0.0.1"
SECRET = "the words that nobody may read"


class Tell(msgspec.Struct, tag=True, frozen=True):
    text: str


@pytest.fixture
def pair(tmp_path):
    return load_or_make_keys(tmp_path / "server.key")


@pytest.fixture
def player(tmp_path, allowed):
    """Keys of a player that is on the list."""
    made = load_or_make_keys(tmp_path / "player.key")
    allowed.add([made.public])
    return made


@pytest.fixture
def allowed(tmp_path):
    return AllowedKeys(tmp_path / "players.keys")


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def server(port, pair, allowed):
    keys = ServerKeys(pair=pair, may_connect=allowed)
    with closing(ServerSocket(HOST, port, Tell, keys=keys)) as end:
        yield end


def talk(server, client, text, *, for_s):
    """What the server hears of a client that keeps trying, until it hears anything."""
    ends_s = time.monotonic() + for_s
    arrived = []
    while not arrived and time.monotonic() < ends_s:
        client.send(Tell(text))
        arrived = server.poll(0.02)
        client.poll(0)
    return [message.text for _, message in arrived]


def test_those_who_know_each_other_talk(server, port, pair, player):
    keys = ClientKeys(pair=player, server=pair.public)
    with closing(ClientSocket(HOST, port, Tell, keys=keys)) as client:
        assert "hello" in talk(server, client, "hello", for_s=10)
        assert server.strangers == {}


def test_a_stranger_is_named_and_gets_in_once_it_is_on_the_list(
    server, port, pair, allowed, tmp_path
):
    stranger = load_or_make_keys(tmp_path / "stranger.key")
    keys = ClientKeys(pair=stranger, server=pair.public)
    with closing(ClientSocket(HOST, port, Tell, keys=keys)) as client:
        ends_s = time.monotonic() + 10
        while not client.num_refused:
            assert talk(server, client, "let me in", for_s=0.1) == []
            assert time.monotonic() < ends_s
        assert server.strangers == {stranger.public: HOST}
        allowed.add([stranger.public])
        assert "let me in" in talk(server, client, "let me in", for_s=10)


def test_a_server_with_another_key_hears_nothing(server, port, player):
    keys = ClientKeys(pair=player, server=player.public)
    with closing(ClientSocket(HOST, port, Tell, keys=keys)) as client:
        assert talk(server, client, SECRET, for_s=0.7) == []


def test_a_client_without_keys_is_not_heard(server, port):
    with closing(ClientSocket(HOST, port, Tell)) as client:
        assert talk(server, client, "hello", for_s=0.7) == []


def test_a_client_with_keys_does_not_talk_to_a_server_without(port, pair, player):
    keys = ClientKeys(pair=player, server=pair.public)
    with (
        closing(ServerSocket(HOST, port, Tell)) as server,
        closing(ClientSocket(HOST, port, Tell, keys=keys)) as client,
    ):
        assert talk(server, client, SECRET, for_s=0.7) == []


def test_with_keys_other_machines_may_be_listened_to(port, pair, allowed):
    keys = ServerKeys(pair=pair, may_connect=allowed)
    with closing(ServerSocket("0.0.0.0", port, Tell, keys=keys)):
        pass


def test_raw_bytes_and_half_a_handshake_do_not_disturb_others(server, port, pair, player):
    keys = ClientKeys(pair=player, server=pair.public)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01CURVE" + b"\0" * 49
    with ExitStack() as stack:
        for content in (os.urandom(4096), greeting, greeting + b"\x04\xc8" + os.urandom(200)):
            stranger = stack.enter_context(socket.create_connection((HOST, port)))
            stranger.sendall(content)
        client = stack.enter_context(closing(ClientSocket(HOST, port, Tell, keys=keys)))
        assert "well" in talk(server, client, "well", for_s=10)


def test_a_message_that_is_too_large_never_arrives(port, pair, player, allowed):
    limits = Limits(largest_bytes=10_000)
    server_keys = ServerKeys(pair=pair, may_connect=allowed)
    keys = ClientKeys(pair=player, server=pair.public)
    with (
        closing(ServerSocket(HOST, port, Tell, keys=server_keys, limits=limits)) as server,
        closing(ClientSocket(HOST, port, Tell, keys=keys)) as client,
    ):
        assert "small" in talk(server, client, "small", for_s=10)
        assert talk(server, client, "x" * 20_000, for_s=0.3) == []
        assert "small" in talk(server, client, "small", for_s=10)


@contextmanager
def wire_tap(port, change=lambda data: data):
    """A machine between client and server; yields its port and what it saw."""
    seen, stop = bytearray(), threading.Event()
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0.05)

        def pump(source, target, is_changed):
            source.settimeout(0.05)
            while not stop.is_set():
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                seen.extend(data)
                try:
                    target.sendall(change(data) if is_changed else data)
                except OSError:
                    return

        def accept():
            with ExitStack() as stack:
                while not stop.is_set():
                    try:
                        near, _ = listener.accept()
                    except TimeoutError:
                        continue
                    far = socket.create_connection((HOST, port))
                    stack.enter_context(near)
                    stack.enter_context(far)
                    for ends in ((near, far, True), (far, near, False)):
                        thread = threading.Thread(target=pump, args=ends)
                        thread.start()
                        stack.callback(thread.join)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], seen
        finally:
            stop.set()
            thread.join()


def test_who_sits_between_reads_nothing(server, port, pair, player):
    keys = ClientKeys(pair=player, server=pair.public)
    with (
        wire_tap(port) as (tapped, seen),
        closing(ClientSocket(HOST, tapped, Tell, keys=keys)) as client,
    ):
        assert SECRET in talk(server, client, SECRET, for_s=10)
    assert len(seen) > len(SECRET)
    assert SECRET.encode() not in seen


def test_who_sits_between_without_encryption_reads_everything(port):
    with (
        closing(ServerSocket(HOST, port, Tell)) as server,
        wire_tap(port) as (tapped, seen),
        closing(ClientSocket(HOST, tapped, Tell)) as client,
    ):
        assert SECRET in talk(server, client, SECRET, for_s=10)
    assert SECRET.encode() in seen


def test_what_was_changed_on_the_way_never_arrives(server, port, pair, player):
    keys = ClientKeys(pair=player, server=pair.public)
    change_from_now = threading.Event()

    def flip(data):
        return data[:-1] + bytes([data[-1] ^ 1]) if change_from_now.is_set() else data

    with (
        wire_tap(port, flip) as (tapped, _),
        closing(ClientSocket(HOST, tapped, Tell, keys=keys)) as client,
    ):
        assert "before" in talk(server, client, "before", for_s=10)
        while server.poll(0.05):
            pass
        change_from_now.set()
        assert talk(server, client, "changed", for_s=0.7) == []
