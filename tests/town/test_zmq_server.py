"""The server keeps to the fork's habits; seen by a raw client that shares no code with it."""

import json
import time

import pytest
import zmq
from tests.town.serving import serving_zmq

from charles.errors import WireError
from charles.town.server_config import ServerFaults, TownServerConfig
from charles.town.zmq_server import FIELDS, ZmqTownServer

NPC, MANUAL = [786603, 15.0], [-1, 0.0]
WIDTH, HEIGHT = 23, 8
FRAME_BYTES = 72 * HEIGHT
PATIENCE_MS = 90_000
"""Machines that tests run on may be busy."""


class RawClient:
    def __init__(self, port, *, buffered_bytes=None):
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.PAIR)
        self.socket.set(zmq.LINGER, 0)
        if buffered_bytes is not None:
            self.socket.set(zmq.RCVHWM, 1)
            self.socket.set(zmq.RCVBUF, buffered_bytes)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self._context.term()

    def send(self, **message):
        self.socket.send(json.dumps(message).encode())

    def start(self, location=(0.0, 0.0, None, None), **changes):
        scenario = {"location": location, "time": [12, 0], "weather": "CLEAR", "drivingMode": NPC}
        size = [WIDTH, HEIGHT]
        dataset = {"rate": 60, "frame": [4, 4], "screenResolution": size, "speed": True,
                   "location": True, "time": True} | changes  # fmt: skip
        self.send(start={"scenario": scenario, "dataset": dataset})

    def pair(self):
        """A frame and telemetry as text."""
        assert self.socket.poll(PATIENCE_MS), "no frame"
        frame = self.socket.recv()
        assert self.socket.poll(PATIENCE_MS), "no telemetry"
        assert len(frame) == FRAME_BYTES
        return frame, self.socket.recv().decode()

    def until(self, is_wanted, pairs=200):
        for _ in range(pairs):
            frame, text = self.pair()
            if is_wanted(json.loads(text)):
                return frame, text
        raise AssertionError(f"not within {pairs} pairs, the last: {text}")


def wait_for(is_true, seconds=90.0):
    give_up_s = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


@pytest.fixture
def client():
    with serving_zmq() as server, RawClient(server.port) as client:
        client.server = server
        yield client


def test_nothing_is_sent_before_a_start_and_what_is_sent_is_a_frame_and_then_its_telemetry(client):
    client.send(config={"scenario": {"location": [0, 0, 0, 0]}})
    assert not client.socket.poll(250)
    client.start()
    told = json.loads(client.pair()[1])
    assert told["time"] == [12, 0, 0]
    for key in ("index", "focalLen", "curPosition", "seriesIndex", "HeightAboveGround",
                "CameraAngle", "CameraPosition"):  # fmt: skip
        assert key in told
    assert "throttle" not in told


def test_pixels_are_stale_until_recording_begins(client):
    client.start()
    frames = {client.pair()[0] for _ in range(4)}
    assert len(frames) == 1
    client.send(StartRecording=None)
    client.until(lambda told: told["speed"] > 1.0)
    fresh = {client.pair()[0] for _ in range(4)}
    assert frames.isdisjoint(fresh)
    client.send(StopRecording=None)
    for _ in range(5):
        client.pair()
    assert len({client.pair()[0] for _ in range(4)}) == 1


def test_the_game_stands_still_while_a_picture_is_captured(client):
    client.start()
    client.send(StartRecording=None)
    _, text = client.until(lambda told: told["speed"] > 1.0)
    before, told = json.loads(text), json.loads(client.pair()[1])
    step_m = max(before["speed"], told["speed"]) / 30.0
    moved_m = abs(told["location"][0] - before["location"][0])
    moved_m += abs(told["location"][1] - before["location"][1])
    assert moved_m < 4.0 * step_m * 2**0.5


def test_the_game_stands_still_while_nobody_reads():
    with serving_zmq() as server, RawClient(server.port, buffered_bytes=1 << 16) as client:
        client.start(screenResolution=[640, 360])
        wait_for(lambda: server.pairs > 2)
        pairs = -1
        while server.pairs != pairs:  # until what may wait for a reader is waiting
            pairs = server.pairs
            time.sleep(1.0)
        time.sleep(0.5)
        assert server.pairs == pairs
        for _ in range(2 * (pairs + 1)):
            assert client.socket.poll(PATIENCE_MS)
            client.socket.recv()
        assert server.pairs > pairs


def test_requested_exports_come_twice_and_are_null_while_nothing_is_recorded(client):
    client.start(segmentationImage=True)
    _, text = client.pair()
    assert text.count('"segmentationImage"') == 2
    assert json.loads(text)["segmentationImage"] is None
    client.send(StartRecording=None)
    client.until(lambda told: told["segmentationImage"] == "")


def test_weather_and_clock_change_at_once(client):
    client.start()
    client.send(StartRecording=None)
    client.send(SetClockTime={"hour": 23, "minute": 5, "second": 7})
    frame, _ = client.until(lambda told: told["time"] == [23, 5, 7])
    assert sum(frame) < 0.5 * 255 * len(frame)
    client.send(SetWeather={"weather": "FOGGY"})
    client.send(SetCameraPositionAndRotation={"x": 0, "y": 0, "z": 1.5, "rot_x": 0, "rot_y": 9,
                                              "rot_z": 0})  # fmt: skip
    client.until(lambda told: told["CameraAngle"][1] == 9)
    assert client.server.builds == 1


def test_a_teleport_leaves_the_car_without_gravity(client):
    client.start()
    client.send(TeleportToLocation={"x": 50.0, "y": 50.0, "z": 0.0})
    client.until(lambda told: told["HeightAboveGround"] > 0.3)


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_a_message_without_one_of_its_fields_ends_the_game(client, key):
    client.start()
    client.pair()
    client.send(**{key: dict.fromkeys(FIELDS[key][1:], 1)})
    wait_for(lambda: client.server.last_drop)
    assert FIELDS[key][0] in client.server.last_drop


def test_a_location_of_two_numbers_ends_the_game(client):
    client.start(location=[0.0, 0.0])
    wait_for(lambda: client.server.last_drop)
    assert "4 elements" in client.server.last_drop


def test_a_taken_port_is_refused_with_its_number(client):
    with pytest.raises(WireError, match=str(client.server.port)):
        ZmqTownServer(TownServerConfig(port=client.server.port))


def test_a_truncated_json_arrives_as_one():
    faults = ServerFaults(controls="not_finite")
    with serving_zmq(faults) as server, RawClient(server.port) as client:
        client.start()
        _, text = client.pair()
        with pytest.raises(ValueError):
            json.loads(text)
