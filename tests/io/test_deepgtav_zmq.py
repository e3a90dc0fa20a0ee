"""The client of the ZeroMQ fork against scripted messages, and against Town's server of it."""

import contextlib
import json
import time

import cv2
import numpy as np
import pytest
import zmq
from tests.io.gta import SCENE, drive
from tests.ports import free_port
from tests.town.serving import serving_zmq

from charles.config import GameConfig
from charles.errors import GameError, GameProtocolError
from charles.io.deepgtav_options import Camera, DeepGTAVOptions
from charles.io.deepgtav_zmq import make_zmq_game
from charles.io.game import Scene
from charles.town.server_config import ServerFaults

HEIGHT, WIDTH = 10, 15
SCREEN = (45, 30)
SCREEN_BYTES = 136 * 30  # rows of 135 bytes, padded to a multiple of 4
DATA = {"throttle": 0.5, "brake": 0.0, "steering": 0.1, "speed": 3.0, "yawRate": 0.0,
        "location": [1.0, 2.0, 3.0], "time": [12, 0, 0]}  # fmt: skip


def playing(port, **options):
    options = {"settle_s": 0.0, "timeout_s": 100.0, "trust_controls": True} | options
    game = make_zmq_game(
        GameConfig(name="deepgtav_zmq", port=port),
        height=HEIGHT,
        width=WIDTH,
        screen=SCREEN,
        options=DeepGTAVOptions(**options),
    )
    return contextlib.closing(game)


class Script:
    """The fork's end of the connection, doing what a test tells it."""

    def __init__(self):
        self._context = zmq.Context()
        self.peer = self._context.socket(zmq.PAIR)
        self.peer.set(zmq.LINGER, 0)
        self.port = self.peer.bind_to_random_port("tcp://127.0.0.1")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.close()
        self._context.term()

    def message(self):
        """The next message: its one key and its body."""
        assert self.peer.poll(20_000), "nothing was sent"
        text = self.peer.recv()
        assert len(text) <= 4095
        ((key, body),) = json.loads(text).items()
        return key, body

    def keys(self, count):
        return [self.message()[0] for _ in range(count)]

    def send(self, frame=None, text=None, **values):
        text = json.dumps(DATA | values).encode() if text is None else text
        self.peer.send(b"\x07" * SCREEN_BYTES if frame is None else frame)
        self.peer.send(text)


@contextlib.contextmanager
def scripted(**options):
    """A scripted game and a client that has just started a scene in it."""
    with Script() as script, playing(script.port, **options) as game:
        game.reset(SCENE)
        script.started = [script.message() for _ in range(4)]
        yield script, game


def after_stale(script, game, **values):
    """The first instant that a client may believe."""
    for number in range(3):
        script.send(speed=90.0 + number)
    script.send(**values)
    return game.tick()


# What is sent


def test_a_start_records_places_the_camera_and_stops_what_a_client_has_left_behind():
    with scripted() as (script, _):
        keys = [key for key, _ in script.started]
        start, camera = script.started[1][1], script.started[3][1]
    assert keys == ["stop", "start", "StartRecording", "SetCameraPositionAndRotation"]
    assert start["scenario"]["location"] == [0.0, 0.0, None, None]
    assert start["scenario"]["drivingMode"] == [786603, 15.0]
    assert start["scenario"]["weather"] == "CLEAR"
    assert start["scenario"]["vehicle"] == "blista"
    assert start["dataset"]["screenResolution"] == list(SCREEN)
    assert start["dataset"]["frame"] == list(SCREEN)
    assert start["dataset"]["vehicles"] is start["dataset"]["peds"] is False
    assert camera == {"x": 0.0, "y": 0.5, "z": 0.8, "rot_x": 0.0, "rot_y": 0.0, "rot_z": 0.0}


def test_every_teleport_is_a_config():
    with scripted() as (script, game):
        game.teleport((-30.0, 40.0))
        key, body = script.message()
        assert key == "config"
        assert body["scenario"]["location"] == [-30.0, 40.0, None, None]
        assert script.keys(2) == ["StartRecording", "SetCameraPositionAndRotation"]


def test_weather_clock_and_camera_change_without_a_new_scene():
    with scripted() as (script, game):
        game.set_light(weather="fog", time_of_day_h=17.75)
        assert script.message() == ("SetWeather", {"weather": "FOGGY"})
        assert script.message() == ("SetClockTime", {"hour": 17, "minute": 45, "second": 0})
        telemetry = after_stale(script, game, time=[17, 45, 1])
        assert (telemetry.weather, telemetry.time_of_day_h) == ("fog", 17.75)
        game.aim(Camera(up_m=1.5, turn_deg=(0.0, -10.0, 0.0)))
        key, body = script.message()
        assert key == "SetCameraPositionAndRotation"
        assert (body["z"], body["rot_y"]) == (1.5, -10.0)
        game.teleport()
        assert script.keys(2) == ["config", "StartRecording"]
        assert script.message()[1]["z"] == 1.5, "a new scene keeps the camera"


def test_a_large_screen_is_read_beside_a_depth_buffer_of_the_largest_size():
    with Script() as script:
        game = make_zmq_game(GameConfig(port=script.port), height=9, width=16, screen=(3840, 2160))
        with contextlib.closing(game):
            game.reset(SCENE)
            dataset = [script.message() for _ in range(2)][1][1]["dataset"]
    assert dataset["screenResolution"] == [3840, 2160]
    assert dataset["frame"] == [1920, 1080]


def test_closing_leaves_the_car_neutral_and_the_game_stopped():
    with Script() as script:
        with playing(script.port) as game:
            game.reset(SCENE)
            game.set_npc(False)
            game.act(np.array([1.0, 0.0], np.float32))
        script.keys(4)
        assert script.keys(3) == ["config", "StartRecording", "SetCameraPositionAndRotation"]
        assert [script.message()[1]["throttle"] for _ in range(2)] == [1.0, 0.0]
        assert script.keys(2) == ["StopRecording", "stop"]


# What is received


def test_pictures_of_the_screen_are_made_small_by_the_mean_over_areas():
    screen = np.random.default_rng(0).integers(0, 256, (SCREEN[1], SCREEN[0], 3), dtype=np.uint8)
    rows = np.zeros((SCREEN[1], 136), np.uint8)
    rows[:, :135] = screen.reshape(SCREEN[1], -1)
    with scripted() as (script, game):
        after_stale(script, game, frame=rows.tobytes())
        out = np.empty(game.frame_shape, np.uint8)
        game.grab(out)
    means = screen.reshape(HEIGHT, 3, WIDTH, 3, 3).mean(axis=(1, 3))[:, :, ::-1]
    np.testing.assert_allclose(out, means, atol=1.0)
    expected = cv2.resize(screen, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(out, expected[:, :, ::-1])


def test_pictures_from_before_recording_began_are_not_handed_out():
    with scripted() as (script, game):
        assert after_stale(script, game, speed=4.0).speed_mps == 4.0
        game.teleport()
        assert after_stale(script, game, speed=5.0).speed_mps == 5.0


def test_of_keys_that_come_twice_the_last_one_counts():
    with scripted() as (script, game):
        text = b'{"throttle":null,"speed":[],' + json.dumps(DATA).encode()[1:]
        telemetry = after_stale(script, game, text=text)
        assert telemetry.speed_mps == 3.0
        np.testing.assert_allclose(telemetry.label, [0.5, 0.1], atol=1e-6)


@pytest.mark.parametrize("text", [b'{"throttle": 0.5, "bra', b"", b"{}", b"\xff\xfe", b"[1]"])
def test_telemetry_that_cannot_be_read_is_dropped(text):
    with scripted() as (script, game):
        after_stale(script, game)
        script.send(text=text)
        script.send(speed=5.0)
        assert game.tick().speed_mps == 5.0
        assert game.tally.broken == 1


def test_controls_that_are_not_numbers_are_refused():
    with scripted() as (script, game):
        after_stale(script, game)
        script.send(text=json.dumps(DATA | {"throttle": float("nan")}).encode())
        time.sleep(0.1)
        script.send(speed=5.0)
        assert game.tick().speed_mps == 5.0


def test_a_connection_that_begins_between_frame_and_telemetry_is_understood():
    with Script() as script, playing(script.port) as game:
        game.reset(SCENE)
        script.keys(4)
        script.peer.send(json.dumps(DATA).encode())  # of a pair whose frame another client got
        assert after_stale(script, game, speed=6.0).speed_mps == 6.0


def test_a_screen_of_another_size_is_an_error_that_names_both():
    with Script() as script, playing(script.port, retries=0) as game:
        game.reset(SCENE)
        script.keys(4)
        script.send(frame=bytes(1000))
        with pytest.raises(GameProtocolError, match=f"must have {SCREEN_BYTES} bytes, got 1000"):
            game.tick()


def test_controls_are_no_labels_unless_the_options_say_so():
    with scripted(trust_controls=False) as (script, game):
        telemetry = after_stale(script, game, throttle=1e30)
        assert telemetry.label is None
        assert not telemetry.controls.any()
        game.set_npc(False)
        game.act(np.array([1.0, 0.5], np.float32))
        telemetry = after_stale(script, game)
        np.testing.assert_allclose(telemetry.controls, [1.0, 0.5])


def test_a_closed_port_is_named():
    port = free_port()
    with playing(port, connect_s=0.1) as game, pytest.raises(GameError, match=f":{port}") as caught:
        game.reset(SCENE)
    assert "ZeroMQ" in str(caught.value)


# Against Town's server


def test_the_fork_is_driven_and_its_pictures_are_fresh():
    with serving_zmq() as server, playing(server.port, settle_s=0.1) as game:
        game.reset(SCENE)
        drive(game, lambda telemetry: telemetry.speed_mps > 1.0, seconds=60.0)
        before, after = (np.empty(game.frame_shape, np.uint8) for _ in range(2))
        game.grab(before)
        game.set_npc(False)
        assert game.tick().speed_mps == 0.0
        drive(game, lambda now: now.speed_mps > 1.0, seconds=60.0, controls=[1.0, 0.0])
        game.grab(after)
        assert (before != after).any()
        assert "TeleportToLocation" not in server.read
        assert server.last_drop == ""


def test_the_light_changes_in_the_picture():
    with serving_zmq() as server, playing(server.port, settle_s=0.1) as game:
        game.reset(SCENE)
        out = np.empty(game.frame_shape, np.uint8)
        game.tick()
        game.grab(out)
        noon = out.mean()
        game.set_light(time_of_day_h=0.0)
        give_up_s = time.monotonic() + 30.0
        while out.mean() > 0.7 * noon:
            assert time.monotonic() < give_up_s
            game.tick()
            game.grab(out)
        assert server.builds == 1


def test_a_second_client_is_told_so():
    with serving_zmq() as server, playing(server.port) as first:
        first.reset(SCENE)
        first.tick()
        with playing(server.port, timeout_s=0.6) as second:
            second.reset(SCENE)
            with pytest.raises(GameError, match="is another client served"):
                second.tick()
        first.tick()
        first.close()
        with playing(server.port, timeout_s=10.0) as third:  # half of it passes first
            third.reset(SCENE)
            third.tick()


def test_a_connection_that_is_never_served_is_made_once_more():
    with Script() as script, playing(script.port, timeout_s=3.0) as game:
        game.reset(SCENE)
        with pytest.raises(GameError, match="no frame for 3 s"):
            game.tick()
        assert game.tally.reconnects == 1


def test_a_fork_that_ends_is_found_and_the_scene_begun_anew():
    with serving_zmq() as server, playing(server.port, retries=2) as game:
        game.reset(SCENE)
        game.tick()
        game._session.send([b'{"SetClockTime": {"hour": 3}}'])  # crashes the game
        drive(game, lambda _: game.tally.reconnects == 1, seconds=30.0)
        assert "SetClockTime must have minute, second" in server.last_drop


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        (ServerFaults(controls="out_of_range"), r"1\.0\.1180\.2"),
        (ServerFaults(controls="not_finite"), r"1\.0\.1180\.2"),
        (ServerFaults(picture="black"), "Alt"),
        (ServerFaults(unknown_vehicle="blista"), "does it know the vehicle"),
        (ServerFaults(dead_starts=9), "stood still after 2 starts"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value)[:30],
)
def test_what_is_wrong_with_the_game_is_said(faults, text):
    options = {"refused_limit": 3, "blind_s": 0.4, "dead_start_s": 0.4, "retries": 1}
    options["timeout_s"] = 3.0 if faults.unknown_vehicle else 100.0
    with serving_zmq(faults) as server, playing(server.port, **options) as game:
        game.reset(Scene(place=(0.0, 0.0)))
        with pytest.raises(GameError, match=text):
            drive(game, lambda telemetry: False, seconds=60.0)
