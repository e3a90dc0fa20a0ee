"""The server keeps to the mod's habits; seen by a raw client that shares no code with it."""

import json
import math
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.ports import free_port
from tests.town.serving import serving

from charles.errors import ConfigError, WireError
from charles.options import TownOptions
from charles.parsing import parse
from charles.town.mod import folded
from charles.town.protocol import is_due, our_weather
from charles.town.render import Renderer
from charles.town.server import TownServer
from charles.town.server_config import ServerFaults, TownServerConfig, config_of
from charles.town.world import World, WorldConfig

ALL_KEYS = ("throttle", "brake", "steering", "speed", "yawRate", "location", "time")
NPC, MANUAL = [786603, 15.0], [-1, 0.0]
CENTRE = [0.0, 0.0]
PATIENCE_S = 60.0


class RawClient:
    """The client's end of the protocol, written out byte by byte."""

    def __init__(self, port, *, timeout_s=PATIENCE_S, size=(24, 16)):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.width, self.height = size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, **message):
        self.send_text(json.dumps(message).encode())

    def send_text(self, text):
        self.socket.sendall(struct.pack("<i", len(text)) + text)

    def start(self, *, keys=ALL_KEYS, rate=60, **scenario):
        scenario = {"location": CENTRE, "time": [12, 0], "weather": "CLEAR"} | scenario
        dataset = {"rate": rate, "frame": [self.width, self.height]} | dict.fromkeys(keys, True)
        self.send(start={"scenario": scenario, "dataset": dataset})

    def config(self, **scenario):
        self.send(config={"scenario": scenario})

    def read(self, count):
        parts = b""
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise ConnectionResetError("closed")
            parts += part
        return parts

    def read_part(self):
        return self.read(struct.unpack("<i", self.read(4))[0])

    def pair(self):
        """One frame's bytes and its telemetry as text."""
        frame, text = self.read_part(), self.read_part()
        stride = (3 * self.width + 3) // 4 * 4
        assert len(frame) == stride * self.height
        return frame, text

    def data(self):
        return json.loads(self.pair()[1])

    def data_until(self, is_wanted, pairs=240):
        for _ in range(pairs):
            data = self.data()
            if is_wanted(data):
                return data
        raise AssertionError(f"not within {pairs} pairs, the last: {data}")

    def is_silent(self, seconds):
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b"never"
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)

    def drain_until(self, is_true):
        """Read what comes until something is so."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < give_up_s
            if not self.is_silent(0.02):
                self.pair()

    def drain(self, seconds):
        """Read what is under way until nothing has come for ``seconds``."""
        while not self.is_silent(seconds):
            self.pair()


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def distance(a, b):
    return math.dist(a["location"][:2], b["location"][:2])


def test_nothing_is_sent_before_a_start_and_what_comes_earlier_is_swallowed(server):
    with RawClient(server.port) as client:
        client.config(location=CENTRE, drivingMode=NPC)
        client.send(commands={"throttle": 1.0})
        client.send_text(b"not json at all")
        client.send_text(b"[1, 2]")
        client.send(unknown=1)
        assert client.is_silent(0.25)
        client.start(drivingMode=NPC)
        assert client.data_until(lambda data: data["speed"] > 0.5)


def test_frames_are_bgr_with_padded_rows(server):
    world = World(WorldConfig(seed=3, vehicles=0, pedestrians=0))
    for width, height in ((24, 16), (27, 10), (33, 7)):
        with RawClient(server.port, size=(width, height)) as client:
            client.start(drivingMode=MANUAL)
            frame, text = client.pair()
        rows = np.frombuffer(frame, np.uint8).reshape(height, -1)
        assert not rows[:, 3 * width :].any()
        seen = rows[:, : 3 * width].reshape(height, width, 3)[:, :, ::-1]
        world.place_ego(tuple(json.loads(text)["location"][:2]))
        expected = picture(world, height, width)
        # The target marker may stand elsewhere; all else is the same picture, in its colours.
        assert np.mean(seen == expected) > 0.9
        assert np.mean(seen == expected[:, :, ::-1]) < 0.7


def picture(world, height, width):
    """What the hood camera shows, uint8 [H, W, 3]."""
    out = np.empty((height, width, 3), np.uint8)
    renderer = Renderer(height, width)
    renderer.render(world.view(), out)
    renderer.close()
    return out


def test_only_what_was_asked_for_is_sent(server):
    with RawClient(server.port) as client:
        client.start(keys=(), drivingMode=NPC)
        assert client.pair()[1] == b"{}"
    with RawClient(server.port) as client:
        client.start(keys=("speed", "throttle"), drivingMode=NPC)
        assert list(client.data()) == ["throttle", "speed"]
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC, time=[17, 30])
        data = client.data()
        assert tuple(data) == ALL_KEYS
        assert data["time"] == 17


def test_numbers_have_the_precision_of_float32(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        data = client.data_until(lambda data: data["speed"] > 1.0)
    for value in (data["speed"], data["throttle"], *data["location"]):
        assert isinstance(value, float)
        assert float(np.float32(value)) == value


def test_a_bare_minus_one_in_a_config_does_nothing_and_an_array_does(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        client.data_until(lambda data: data["speed"] > 1.0)
        client.config(location=CENTRE, drivingMode=-1)
        client.data_until(lambda data: data["speed"] < 0.5)
        client.data_until(lambda data: data["speed"] > 1.0)
        client.config(location=CENTRE, drivingMode=MANUAL)
        client.data_until(lambda data: data["speed"] == 0.0)
        for _ in range(20):
            assert client.data()["speed"] == 0.0


def test_a_start_without_a_driving_mode_is_manual(server):
    with RawClient(server.port) as client:
        client.start()
        assert {client.data()["speed"] for _ in range(15)} == {0.0}


def test_a_config_without_a_location_returns_to_the_last_one_asked_for(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=MANUAL)
        first = client.data()
        client.config(location=[150.0, 150.0])
        second = client.data_until(lambda data: distance(data, first) > 50.0)
        client.send(commands={"throttle": 1.0})
        client.data_until(lambda data: distance(data, second) > 3.0)
        client.config(weather="RAIN")
        client.data_until(lambda data: distance(data, second) < 0.5 and data["speed"] == 0.0)


def test_commands_latch_and_pass_the_dead_zone_in_manual_mode_only(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=MANUAL)
        client.send(commands={"throttle": 0.25, "steering": -0.2})
        assert [client.data()["throttle"] for _ in range(10)] == [0.0] * 10
        client.send(commands={"throttle": 0.7, "brake": 0.0, "steering": 0.4})
        data = client.data_until(lambda data: data["throttle"] > 0)
        assert data["throttle"] == pytest.approx(0.6)
        assert data["steering"] == pytest.approx(0.2)
        for _ in range(10):
            assert client.data()["throttle"] == pytest.approx(0.6)
        client.send(commands={"brake": 1})
        data = client.data_until(lambda data: data["brake"] > 0)
        assert (data["throttle"], data["brake"], data["steering"]) == (0.0, 1.0, 0.0)
        client.config(location=CENTRE, drivingMode=NPC)
        client.data_until(lambda data: 0.0 < data["speed"] < 1.0 and data["throttle"] > 0.0)
        client.send(commands={"brake": 1.0})
        client.data_until(lambda data: data["speed"] > 3.0)


def test_one_message_is_read_per_tick(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=MANUAL)
        client.data()
        for step in range(24):
            client.send(commands={"throttle": 0.25 + 0.03 * (step + 1)})
        seen = [client.data()["throttle"] for _ in range(20)]
    levels = [value for value in seen if value > 0]
    # A town step covers two ticks, so at most every other command is ever seen to apply.
    assert len(set(levels)) >= 5
    assert levels == sorted(levels)


def test_stop_halts_the_stream_and_keeps_the_connection(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        client.data()
        client.send(stop=None)
        client.drain(0.25)
        client.config(location=CENTRE)
        assert client.is_silent(0.25)
        client.start(drivingMode=NPC)
        assert client.data_until(lambda data: data["speed"] > 0.5)


def test_a_second_start_is_ignored_while_running(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=MANUAL)
        first = client.data()
        client.start(drivingMode=NPC, location=[150.0, 150.0])
        assert all(distance(client.data(), first) < 0.1 for _ in range(15))


def test_a_second_client_waits_until_the_first_has_left(server):
    with RawClient(server.port) as first, RawClient(server.port) as second:
        first.start(drivingMode=NPC)
        first.data()
        second.start(drivingMode=NPC)
        assert second.is_silent(0.3)
        first.socket.close()
        assert second.data()["speed"] >= 0.0


@pytest.mark.parametrize("length", [4096, 2**31 - 1, -1])
def test_a_message_that_is_too_long_ends_the_connection(server, length):
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        client.data()
        client.socket.sendall(struct.pack("<i", length) + b" " * 4096)
        with pytest.raises((ConnectionError, TimeoutError)):
            client.data_until(lambda data: False)
    assert "4095" in server.last_drop


def test_the_longest_allowed_message_is_read(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=MANUAL)
        text = json.dumps({"commands": {"throttle": 1.0}}).encode()
        client.send_text(text + b" " * (4095 - len(text)))
        assert client.data_until(lambda data: data["throttle"] == 1.0)


def test_the_rate_is_quantised_to_ticks_and_never_exceeded(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC, rate=10)
        client.data()
        times = []
        for _ in range(6):
            client.data()
            times.append(time.monotonic())
    # The clock starts when a pair is out, so a gap is 100 ms and then the rest of a tick.
    assert np.median(np.diff(times)) > 0.098


def test_a_rate_sent_as_a_double_is_read_as_the_mod_reads_it(server):
    with RawClient(server.port) as client:
        client.start(drivingMode=NPC, rate=30.0)
        assert client.is_silent(0.4)


def test_building_a_scene_is_silent_for_as_long_as_configured():
    with serving(silence_s=0.6) as server, RawClient(server.port) as client:
        began = time.monotonic()
        client.start(drivingMode=NPC)
        client.data()
        assert time.monotonic() - began > 0.6
        client.config(location=[100.0, 100.0])
        client.drain(0.35)
        began = time.monotonic()
        client.data()
        assert time.monotonic() - began < 2.0


def test_a_server_that_is_told_to_stop_lets_its_client_go_at_once():
    with serving() as server:
        client = RawClient(server.port)
        client.start(drivingMode=NPC)
        client.data()
    with client, pytest.raises(ConnectionError):
        client.data_until(lambda data: False)


def test_a_client_that_does_not_read_costs_nobody_a_torn_pair():
    with serving() as server, RawClient(server.port, size=(480, 270)) as client:
        client.start(drivingMode=NPC)
        time.sleep(1.0)
        before = server.pairs
        for _ in range(before + 5):
            json.loads(client.pair()[1])
        assert server.pairs >= before


def test_a_truncated_json_has_a_correct_length():
    with serving(ServerFaults(truncate_every=2)) as server, RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        texts = [client.pair()[1] for _ in range(6)]
    for number, text in enumerate(texts, start=1):
        if number % 2:
            json.loads(text)
        else:
            with pytest.raises(ValueError):
                json.loads(text)


@pytest.mark.parametrize(
    ("faults", "num_black"),
    [(ServerFaults(picture="black"), 0), (ServerFaults(leak_after=1), 1)],
    ids=["always", "once leaked"],
)
def test_what_cannot_be_captured_is_black(faults, num_black):
    with serving(faults) as server, RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        assert any(client.pair()[0]) is (num_black == 1)
        client.config(location=[100.0, 100.0])
        client.drain_until(lambda: server.builds == 2)
        assert not any(client.pair()[0])


def test_a_frozen_picture_stays_while_the_car_drives():
    with serving(ServerFaults(picture="frozen")) as server, RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        first = client.pair()[0]
        client.data_until(lambda data: data["speed"] > 2.0)
        assert client.pair()[0] == first


def test_a_leak_may_end_the_connection():
    faults = ServerFaults(leak_after=1, leak_ends="closed")
    with serving(faults) as server, RawClient(server.port) as client:
        client.start(drivingMode=NPC)
        client.pair()
        client.config(location=CENTRE)
        with pytest.raises(ConnectionError):
            client.data_until(lambda data: False)
    assert "capture" in server.last_drop


@pytest.mark.parametrize(
    ("faults", "start"),
    [
        (ServerFaults(unknown_vehicle="batmobile"), {"vehicle": "batmobile"}),
        (ServerFaults(), {"keys": (*ALL_KEYS, "reward")}),
    ],
    ids=["unknown vehicle", "reward"],
)
def test_what_the_game_cannot_do_hangs_it(faults, start):
    with serving(faults) as server, RawClient(server.port) as client:
        client.start(drivingMode=NPC, **start)
        assert client.is_silent(0.3)
        assert server.is_hung
        client.send(stop=None)
        client.start(drivingMode=NPC)
        assert client.is_silent(0.3), "only another process would help"


def test_a_config_that_names_no_vehicle_takes_it_from_freed_memory_and_hangs():
    with serving(ServerFaults(dangling_strings=True)) as server, RawClient(server.port) as client:
        client.start(drivingMode=NPC, vehicle="blista")
        client.config(location=CENTRE, weather="RAIN", vehicle="voltic")
        client.drain_until(lambda: server.builds == 2)
        assert not server.is_hung
        client.config(location=CENTRE)
        client.drain_until(lambda: server.is_hung)


def test_controls_that_have_nothing_to_do_with_the_car_are_possible_ones():
    with serving(ServerFaults(controls="random")) as server, RawClient(server.port) as client:
        client.start(drivingMode=MANUAL)
        seen = [client.data() for _ in range(8)]
    assert len({one["steering"] for one in seen}) == 8
    assert all(0 <= one["throttle"] <= 1 and abs(one["steering"]) <= 1 for one in seen)


def sent_at_ticks(rate_hz, frames_per_s):
    """Ticks at which pairs go out, by a clock of whole milliseconds and sends that take none."""
    clock_ms = [tick * 1000 // frames_per_s for tick in range(4 * frames_per_s)]
    sent, last_ms = [], 0
    for tick, now_ms in enumerate(clock_ms):
        if is_due((now_ms - last_ms) / 1000.0, rate_hz):
            sent.append(tick)
            last_ms = now_ms
    return np.diff(sent)


def test_a_rate_of_40_comes_out_as_a_steady_30_and_a_rate_of_30_does_not():
    assert set(sent_at_ticks(40, 60)) == {2}
    assert set(sent_at_ticks(40, 30)) == {1}
    assert 3 in sent_at_ticks(30, 60)
    assert is_due(9.0, 0) is is_due(0.0, 10) is False


def test_random_places_of_a_larger_map_are_spread_over_the_town():
    rng = np.random.default_rng(0)
    extent = (-230.0, -240.0, 230.0, 235.0)
    places = [folded((rng.uniform(-2500, 2500), rng.uniform(-2000, 6000)), extent)
              for _ in range(400)]  # fmt: skip
    xs, ys = np.array(places).T
    assert xs.min() < -200 < 200 < xs.max()
    assert ys.min() < -200 < 200 < ys.max()
    assert folded((12.0, -34.0), extent) == (12.0, -34.0)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("EXTRASUNNY", "clear"), ("thunder", "rain"), ("FOGGY", "fog"), ("SUNNY", "clear")],
)
def test_names_of_weathers_are_understood_and_unknown_ones_are_clear(theirs, ours):
    assert our_weather(theirs) == ours


def test_a_taken_port_is_refused_with_its_number(server):
    with pytest.raises(WireError, match=str(server.port)):
        TownServer(TownServerConfig(port=server.port))


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="silence_s"):
        TownServerConfig(silence_s=-1.0)


@pytest.mark.skipif(sys.platform == "win32", reason="there a signal from outside ends at once")
def test_serve_leaves_on_a_signal_while_a_client_is_served():
    port = free_port()
    options = TownOptions(port=port)
    script = (
        "import charles.town.server as s, charles.process as p, charles.options as c\n"
        f"s.serve(c.TownOptions(port={options.port}), p.stop_on_signals())"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env={"PYTHONPATH": "src"})
    try:
        client = _connected(port, give_up_s=time.monotonic() + 20.0)
        with client:
            client.start(drivingMode=NPC)
            client.data()
            process.send_signal(signal.SIGTERM)
            assert process.wait(5.0) == 0
    finally:
        process.kill()
        process.wait(5.0)


def _connected(port, *, give_up_s):
    while True:
        try:
            return RawClient(port)
        except ConnectionRefusedError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.05)


def test_how_a_server_misbehaves_is_said_on_the_command_line():
    arguments = ["--faults.picture", "black", "--faults.stall-at", "7", "--silence-s", "0.5"]
    options = parse(TownOptions, arguments, program="charles-town", text="")
    config = config_of(options)
    assert (config.faults.picture, config.faults.stall_at, config.silence_s) == ("black", 7, 0.5)
