"""The DeepGTAV client against games that misbehave: scripted bytes, and Town's own server."""

import math
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.io.gta import HEIGHT, SCENE, STRIDE, WIDTH, Script, drive, playing, scripted, wait_for
from tests.ports import free_port
from tests.town.serving import serving

from charles.errors import ConfigError, GameError, GameProtocolError
from charles.io.deepgtav_options import DeepGTAVOptions
from charles.io.deepgtav_pairs import Data
from charles.io.deepgtav_watch import ControlCheck, RandomTarget, StartWatch
from charles.io.game import Scene
from charles.town.server_config import ServerFaults

# What is sent


def test_a_start_asks_for_everything_explicitly():
    with scripted() as (script, _):
        key, body, text = script.start
    assert key == "start"
    assert len(text) <= 4095
    scenario, dataset = body["scenario"], body["dataset"]
    assert scenario["location"] == [0.0, 0.0]
    assert scenario["time"] == [12, 0]
    assert scenario["weather"] == "CLEAR"
    assert scenario["vehicle"] == "blista"
    assert scenario["drivingMode"] == [786603, 15.0]
    assert dataset["rate"] == 40
    assert dataset["frame"] == [WIDTH, HEIGHT]
    for name in ("throttle", "brake", "steering", "speed", "yawRate", "location", "time"):
        assert dataset[name] is True
    # Integers must look like integers: the mod reads the low half of a double.
    integers = [*scenario["time"], scenario["drivingMode"][0], dataset["rate"], *dataset["frame"]]
    assert all(type(value) is int for value in integers)
    assert "direction" not in dataset
    assert "reward" not in dataset


def test_every_change_is_a_config_that_names_weather_vehicle_place_and_driver():
    with scripted() as (script, game):
        script.send(script.pair(location=[7.0, 8.0, 9.0]))
        game.tick()
        game.set_npc(False)
        key, body, _ = script.message()
        assert key == "config"
        assert body["scenario"]["drivingMode"] == [-1, 0.0]
        assert body["scenario"]["location"] == [7.0, 8.0]
        game.teleport((-30.0, 40.0))
        key, body, _ = script.message()
        assert body["scenario"]["location"] == [-30.0, 40.0]
        assert body["scenario"]["drivingMode"] == [-1, 0.0]
        game.teleport()
        key, body, _ = script.message()
        x, y = body["scenario"]["location"]
        assert -2500 <= x <= 2500
        assert -2000 <= y <= 6000
        game.reset(Scene(weather="fog", time_of_day_h=23.99, car="voltic", place=(1.0, 1.0)))
        key, body, _ = script.message()
        assert key == "config"
        assert body["scenario"]["weather"] == "FOGGY"
        assert body["scenario"]["vehicle"] == "voltic"
        assert body["scenario"]["time"] == [23, 59]
        assert body["scenario"]["drivingMode"] == [786603, 15.0]


def test_commands_undo_the_dead_zone_and_are_not_repeated():
    with scripted() as (script, game):
        script.send(script.pair())
        game.tick()
        game.act(np.array([1.0, 1.0], np.float32))  # the NPC drives: nothing is sent
        game.set_npc(False)
        assert script.message()[0] == "config"
        for _ in range(3):
            game.act(np.array([0.2, -1.0], np.float32))
        game.act(np.array([-0.4, 0.0], np.float32))
        first, second = script.message(), script.message()
    assert first[0] == second[0] == "commands"
    assert first[1] == pytest.approx({"throttle": 0.4, "brake": 0.0, "steering": -1.0})
    assert second[1] == pytest.approx({"throttle": 0.0, "brake": 0.55, "steering": 0.0})


def test_closing_leaves_the_car_neutral_and_the_game_stopped():
    with scripted() as (script, game):
        game.set_npc(False)
        game.act(np.array([1.0, 0.0], np.float32))
        threading.Timer(0.1, script.peer.shutdown, (socket.SHUT_WR,)).start()
        game.close()
        keys = [script.message() for _ in range(4)]
    assert [key for key, _, _ in keys] == ["config", "commands", "commands", "stop"]
    assert keys[2][1] == {"throttle": 0.0, "brake": 0.0, "steering": 0.0}


def test_a_message_too_long_for_the_mod_is_refused_before_it_crashes_it():
    with scripted() as (_, game), pytest.raises(GameError, match="4095"):
        game.reset(Scene(car="x" * 5000))


# What is received


def test_bgr_with_padded_rows_becomes_rgb():
    rows = np.full((HEIGHT, STRIDE), 255, np.uint8)
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows[:, : 3 * WIDTH] = pixels[:, :, ::-1].reshape(HEIGHT, -1)
    with scripted() as (script, game):
        script.send(script.pair(rows.tobytes()))
        telemetry = game.tick()
        out = np.zeros(game.frame_shape, np.uint8)
        game.grab(out)
    np.testing.assert_array_equal(out, pixels)
    np.testing.assert_allclose(telemetry.controls, [0.5, 0.1], atol=1e-6)
    np.testing.assert_array_equal(telemetry.label, telemetry.controls)
    assert telemetry.location == (1.0, 2.0, 3.0)


def test_the_newest_pair_wins_and_the_others_are_counted():
    with scripted() as (script, game):
        script.send(*(script.pair(bytes([n]) * STRIDE * HEIGHT, speed=n) for n in range(1, 11)))
        wait_for(lambda: game.tally.skipped == 9)
        assert game.tick().speed_mps == 10
        out = np.zeros(game.frame_shape, np.uint8)
        script.send(*(script.pair(speed=20 + n) for n in range(5)))
        wait_for(lambda: game.tally.skipped == 13)
        game.grab(out)
        assert (out == 10).all(), "a grab belongs to the last tick, not to what came since"
        assert game.tick().speed_mps == 24


@pytest.mark.parametrize(
    "text",
    [b'{"throttle": 0.5, "bra', b"", b"{}", b'{"throttle": NaN}', b"\xff\xfe", b"[1]"],
)
def test_telemetry_that_cannot_be_read_is_dropped_and_the_stream_stays_in_step(text):
    with scripted() as (script, game):
        script.send(script.pair(text=text), script.pair(speed=5.0))
        assert game.tick().speed_mps == 5.0
        assert game.tally.broken == 1


def test_pairs_from_before_a_change_are_not_handed_out():
    with scripted(settle_s=0.3) as (script, game):
        time.sleep(0.35)
        script.send(script.pair(speed=1.0))
        game.tick()
        game.teleport((50.0, 60.0))
        script.send(script.pair(speed=2.0))
        time.sleep(0.35)
        script.send(script.pair(speed=3.0))
        assert game.tick().speed_mps == 3.0


def test_the_hour_of_the_game_is_told_once_it_differs_from_the_one_asked_for():
    with scripted() as (script, game):
        game.reset(Scene(time_of_day_h=12.75))
        script.send(script.pair(time=12))
        assert game.tick().time_of_day_h == 12.75
        script.send(script.pair(time=13))
        assert game.tick().time_of_day_h == 13.0


# What is refused


def test_single_impossible_controls_are_dropped_and_counted():
    with scripted() as (script, game):
        script.send(script.pair(throttle=1e30))
        wait_for(lambda: game._session._link.pairs._newest is not None)
        threading.Timer(0.2, script.send, (script.pair(speed=6.0),)).start()
        assert game.tick().speed_mps == 6.0
        assert game.tally.refused == 1


@pytest.mark.parametrize("controls", ["out_of_range", "not_finite"])
def test_garbage_controls_are_refused_with_the_build_and_the_fix(controls):
    faults = ServerFaults(controls=controls)
    with serving(faults) as server, playing(server.port, refused_limit=8) as game:
        game.reset(SCENE)
        with pytest.raises(GameProtocolError, match=r"1\.0\.1180\.2") as caught:
            game.tick()
        assert "Run that build" in str(caught.value)
        assert max(game.tally.refused, game.tally.broken) >= 8


def test_constant_controls_of_a_moving_car_are_refused():
    faults = ServerFaults(controls="constant")
    with serving(faults) as server, playing(server.port, constant_s=1.0) as game:
        game.reset(SCENE)
        with pytest.raises(GameProtocolError, match="must change while the car moves"):
            drive(game, lambda telemetry: False)


def test_a_car_can_be_driven_although_its_controls_are_garbage():
    faults = ServerFaults(controls="out_of_range")
    with serving(faults) as server, playing(server.port, refused_limit=8) as game:
        game.reset(SCENE)
        game.set_npc(False)
        telemetry = drive(game, lambda telemetry: telemetry.speed_mps > 0.5, controls=[1.0, 0.25])
        np.testing.assert_allclose(telemetry.controls, [1.0, 0.25])
        assert telemetry.label is None


@pytest.mark.parametrize("controls", ["out_of_range", "constant", "random"])
def test_who_only_drives_is_soon_told_no_controls_of_a_wrong_build(controls):
    faults = ServerFaults(controls=controls)
    options = {"refused_limit": 8, "constant_s": 0.5, "num_turning": 20, "needs_labels": False}
    with serving(faults) as server, playing(server.port, **options) as game:
        game.reset(SCENE)  # the NPC drives, as before a hand-over
        drive(game, lambda telemetry: not telemetry.has_controls, seconds=60.0)
        assert game.tick().label is None
        assert game.tally.refused == 0
        game.set_npc(False)
        told = drive(game, lambda telemetry: telemetry.controls.any(), controls=[0.5, 0.25])
        assert not told.has_controls
        np.testing.assert_allclose(told.controls, [0.5, 0.25])  # what it was told itself


def test_controls_are_no_labels_before_they_have_said_where_the_car_turns():
    options = {"trust_controls": False, "num_turning": 24}
    with serving() as server, playing(server.port, **options) as game:
        game.reset(replace(SCENE, place=None))  # where there are bends to both sides
        told = [game.tick() for _ in range(10)]
        assert all(each.label is None for each in told)
        assert all(each.has_controls for each in told)
        drive(game, lambda telemetry: telemetry.label is not None, seconds=100.0)


def test_no_label_of_a_wrong_build_is_ever_handed_out():
    faults, options = ServerFaults(controls="constant"), {"constant_s": 1.0}
    with serving(faults) as server, playing(server.port, trust_controls=False, **options) as game:
        game.reset(SCENE)

        def has_label(telemetry):
            assert telemetry.label is None
            return False

        with pytest.raises(GameProtocolError, match="Run that build"):
            drive(game, has_label, seconds=60.0)


# Silence, and being left


def commands(script):
    """Commands until one is neutral."""
    found = []
    while not found or any(found[-1].values()):
        key, body, _ = script.message()
        if key == "commands":
            found.append(body)
    return found


@pytest.mark.parametrize("is_black", [False, True], ids=["silence", "black pictures"])
def test_a_car_that_nobody_sees_is_let_go_of_before_the_game_is_given_up(is_black):
    with scripted(timeout_s=30.0, blind_s=30.0) as (script, game):
        game.set_npc(False)
        game.act(np.array([1.0, 0.5], np.float32))
        began_s, stop = time.monotonic(), threading.Event()

        def show_nothing():
            while is_black and not stop.wait(0.05):
                script.send(script.pair(bytes(STRIDE * HEIGHT)))

        sender = threading.Thread(target=show_nothing)
        waiter = threading.Thread(target=game.tick)
        sender.start()
        waiter.start()
        held = commands(script)
        assert 0.4 < time.monotonic() - began_s < 4.0
        assert held[-2]["throttle"] > 0.9
        stop.set()
        sender.join()
        script.send(script.pair(speed=6.0))
        waiter.join(10.0)
        assert not waiter.is_alive()


def test_silence_after_a_start_is_waited_out_and_endless_silence_is_an_error():
    with serving(silence_s=0.8) as server:
        with playing(server.port) as game:
            began = time.monotonic()
            game.reset(SCENE)
            game.tick()
            assert time.monotonic() - began > 0.8
        with playing(server.port, timeout_s=0.2) as game:
            game.reset(SCENE)
            with pytest.raises(GameError, match=r"no frame for 0\.2 s"):
                game.tick()


def test_a_stall_in_the_middle_is_waited_out():
    with serving(ServerFaults(stall_at=4, stall_s=0.7)) as server, playing(server.port) as game:
        game.reset(SCENE)
        times = [game.tick().captured_ns for _ in range(8)]
        assert max(np.diff(times)) > 0.6e9
        assert game.tally.reconnects == 0


def test_a_dead_start_is_started_anew():
    faults = ServerFaults(dead_starts=2)
    with serving(faults) as server, playing(server.port, dead_start_s=0.4) as game:
        game.reset(SCENE)
        drive(game, lambda telemetry: telemetry.speed_mps > 1.0)
        assert game.tally.dead_starts == 2


def test_a_car_that_never_starts_is_an_error():
    faults = ServerFaults(dead_starts=99)
    with serving(faults) as server, playing(server.port, dead_start_s=0.2, retries=1) as game:
        game.reset(SCENE)
        with pytest.raises(GameError, match="stood still after 2 starts"):
            game.tick() and drive(game, lambda telemetry: False)


def test_truncated_telemetry_costs_single_pairs():
    with serving(ServerFaults(truncate_every=3)) as server, playing(server.port) as game:
        game.reset(SCENE)
        for _ in range(12):
            game.tick()
        assert 4 <= game.tally.broken <= 12
        assert game.tally.reconnects == 0


def test_partial_sends_are_put_together():
    faults = ServerFaults(chunk_bytes=61, chunk_pause_s=0.0005)
    with serving(faults) as server, playing(server.port) as game:
        game.reset(SCENE)
        for _ in range(8):
            game.tick()
        assert game.tally.broken == 0
        assert game.tally.reconnects == 0


def test_a_connection_cut_in_the_middle_of_a_frame_is_made_again_with_the_same_driver():
    with serving(ServerFaults(cut_at=12)) as server, playing(server.port) as game:
        game.reset(SCENE)
        game.set_npc(False)
        last = [game.tick() for _ in range(30)][-1]
        assert game.tally.reconnects == 1
        assert last.label is None
        assert math.dist(last.location, (0.0, 0.0, 0.0)) < 100.0


def test_a_game_that_is_gone_for_good_is_an_error_in_bounded_time():
    with serving() as server:
        game = playing(server.port, reconnect_s=0.3).thing
        game.reset(SCENE)
        game.tick()
    began = time.monotonic()
    with pytest.raises(GameError, match=r"lost the game .* nothing answers at 127\.0\.0\.1"):
        drive(game, lambda telemetry: False)
    assert time.monotonic() - began < 5.0
    game.close()


def test_a_closed_port_is_named():
    port = free_port()
    with playing(port, connect_s=0.2) as game, pytest.raises(GameError, match=f":{port}") as caught:
        game.reset(SCENE)
    assert "game.port" in str(caught.value)


def test_something_else_on_the_port_is_an_error_in_bounded_time():
    with Script() as script:
        answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"

        def answer_all():
            for _ in range(3):
                script.accept()
                script.peer.sendall(answer)

        thread = threading.Thread(target=answer_all)
        thread.start()
        with playing(script.port, retries=2) as game:
            game.reset(SCENE)
            with pytest.raises(GameProtocolError, match=f"a frame must have {STRIDE * HEIGHT}"):
                game.tick()
        thread.join()


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="timeout_s must be positive"):
        DeepGTAVOptions(timeout_s=0.0)


# Bookkeeping


def data(**values):
    values = {"throttle": 0.1, "brake": 0.0, "steering": 0.0, "speed": 5.0} | values
    return Data(**values, location=(0.0, 0.0, 0.0), time=12)


def test_controls_of_a_waiting_car_may_stay_the_same():
    check = ControlCheck(constant_s=1.0)
    second = 1_000_000_000
    assert not any(check.is_frozen(data(speed=0.0), n * second) for n in range(9))
    assert not check.is_frozen(data(), 9 * second)
    assert check.is_frozen(data(), 9 * second + 1)
    assert not check.is_frozen(data(steering=1e-7), 12 * second)


@pytest.mark.parametrize(
    ("values", "is_possible"),
    [
        ({"steering": 1.2}, True),
        ({"throttle": -1.0}, True),
        ({"steering": 1.6}, False),
        ({"throttle": 1.1}, False),
        ({"brake": -0.2}, False),
        ({"brake": math.inf}, False),
    ],
)
def test_what_counts_as_possible_controls(values, is_possible):
    assert ControlCheck(constant_s=1.0).is_possible(data(**values)) is is_possible


def test_a_car_that_has_moved_once_may_wait_for_ever():
    watch = StartWatch(1.0)
    assert not watch.is_dead((0.0, 0.0, 0.0), 0)
    assert watch.is_dead((1.0, 0.0, 0.0), 1_100_000_000)
    assert not watch.is_dead((3.0, 0.0, 0.0), 1_200_000_000)
    assert not watch.is_dead((0.0, 0.0, 0.0), 9_000_000_000)


def test_a_random_target_is_known_once_the_car_moves_and_replaced_once_reached():
    target = RandomTarget(np.random.default_rng(0))
    assert not target.purpose((0.0, 0.0, 0.0)).any()
    direction, distance = target.purpose((0.0, 1.0, 0.0))  # northwards
    assert 150.0 < distance < 650.0
    bearing = math.pi / 2 - direction  # positive direction is to the right
    x, y = distance * math.cos(bearing), 1.0 + distance * math.sin(bearing)
    assert target.purpose((x, y - 31.0, 0.0))[1] == pytest.approx(31.0, abs=0.1)
    assert target.purpose((x, y - 29.0, 0.0))[1] > 150.0
