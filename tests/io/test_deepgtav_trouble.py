"""Games that show nothing, hang, leak or report nonsense; and restarting them."""

import os
import signal
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.io.gta import HEIGHT, SCENE, STRIDE, drive, playing, scripted, wait_for
from tests.ports import free_port
from tests.town.serving import serving

from charles.errors import ConfigError, GameError, GameProtocolError
from charles.io.deepgtav import hour_of
from charles.io.deepgtav_options import Camera, DeepGTAVOptions
from charles.io.deepgtav_pairs import Data, Mailbox, Pair
from charles.io.deepgtav_restart import run_restart_command
from charles.io.deepgtav_watch import ControlCheck, PictureCheck
from charles.io.game import Scene
from charles.town.mod import Mod
from charles.town.server_config import ServerFaults, TownServerConfig

SECOND = 1_000_000_000
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def data(**values):
    values = {"throttle": 0.1, "brake": 0.0, "steering": 0.0, "speed": 5.0} | values
    return Data(**values, location=(0.0, 0.0, 0.0), time=12)


def pair(picture, time_s=0.0, **values):
    return Pair(bytearray([picture]) * 100, data(**values), round(time_s * SECOND))


# Pictures


def test_pictures_that_stay_black_are_found_also_while_the_car_waits():
    check = PictureCheck(2.0)
    for time_s in (0.0, 1.0, 2.0):
        assert check.is_black(pair(0, time_s, speed=0.0))
        assert not check.is_blind(pair(0, time_s, speed=0.0))
    assert check.is_black(pair(0, 2.1, speed=0.0))
    assert "black" in check.is_blind(pair(0, 2.1, speed=0.0))


def test_a_screen_that_fades_is_dropped_and_forgiven():
    check = PictureCheck(2.0)
    assert check.is_black(pair(0, 0.0))
    assert not check.is_black(pair(1, 1.5))
    assert check.is_black(pair(0, 3.0))
    assert not check.is_blind(pair(0, 3.0))


def test_one_bright_pixel_is_a_picture():
    one = pair(0)
    one.frame[50] = 1
    assert not PictureCheck(1.0).is_black(one)


@pytest.mark.parametrize(
    ("pictures", "speed", "is_blind"),
    [((5, 5, 5, 5), 5.0, True), ((5, 5, 5, 5), 0.0, False), ((5, 6, 5, 6), 5.0, False)],
    ids=["frozen", "waiting", "moving"],
)
def test_pictures_that_stay_the_same_are_found_while_the_car_moves(pictures, speed, is_blind):
    check = PictureCheck(2.0)
    found = [check.is_blind(pair(picture, time_s, speed=speed))
             for time_s, picture in enumerate(pictures)]  # fmt: skip
    assert any(found) is is_blind


@pytest.mark.parametrize(("picture", "text"), [("black", "are black"), ("frozen", "stay the same")])
def test_a_blind_game_is_an_error_that_says_what_to_do(picture, text):
    with (
        serving(ServerFaults(picture=picture)) as server,
        playing(server.port, blind_s=0.5) as game,
    ):
        game.reset(SCENE)
        with pytest.raises(GameError, match=text) as caught:
            drive(game, lambda telemetry: False, seconds=60.0)
        assert (game.tally.black > 0) is (picture == "black")
    for words in ("Alt+Enter", "top left", "after 1 scenes", "--restart-command"):
        assert words in str(caught.value)


def test_a_black_picture_is_never_handed_out():
    with scripted() as (script, game):
        script.send(script.pair(bytes(STRIDE * HEIGHT), speed=4.0))
        wait_for(lambda: game._session._link.pairs._newest is not None)
        script.send(script.pair(speed=5.0))
        assert game.tick().speed_mps == 5.0


@pytest.mark.parametrize(("ends", "text"), [("black", "are black"), ("closed", "in a row ended")])
def test_a_game_that_has_leaked_all_it_captures_with_is_an_error(ends, text):
    faults = ServerFaults(leak_after=2, leak_ends=ends)
    with serving(faults) as server, playing(server.port, blind_s=0.3, retries=2) as game:
        game.reset(SCENE)
        game.tick()
        game.teleport()
        game.tick()
        game.teleport()
        with pytest.raises(GameError, match=text):
            drive(game, lambda telemetry: False, seconds=60.0)
        assert game.tally.builds >= 3


# Controls


def test_steering_that_says_where_the_car_turns_is_believed_and_noise_is_not():
    mod = Mod(TownServerConfig(seed=3, vehicles=0, pedestrians=0))
    scenario = {"location": [0.0, 0.0], "drivingMode": [786603, 15.0]}
    keys = ("throttle", "brake", "steering", "speed", "yawRate", "location", "time")
    dataset = {"frame": [8, 8]} | dict.fromkeys(keys, True)
    mod.handle({"start": {"scenario": scenario, "dataset": dataset}})
    true, false = (ControlCheck(constant_s=9.0, num_turning=40) for _ in range(2))
    noise = np.random.default_rng(0)
    found = []
    for _ in range(30 * 40):
        mod.step(1)
        told = mod.telemetry()
        told["yaw_rate"] = told.pop("yawRate")
        seen = Data(**told)
        assert not true.is_contradicted(seen), told
        seen.steering = float(noise.uniform(-1.0, 1.0))
        found.append(false.is_contradicted(seen))
    mod.close()
    assert any(found)


@UNHURRIED
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(5, 90), st.floats(0, 30)), max_size=300))
def test_a_car_that_turns_where_it_steers_is_never_contradicted(instants):
    check = ControlCheck(constant_s=1.0, num_turning=5)
    for steering, turn, speed in instants:
        yaw_rate = -turn if steering > 0 else turn
        assert not check.is_contradicted(data(steering=steering, yaw_rate=yaw_rate, speed=speed))
        # Backwards, wheels to the right turn the car to the left.
        backwards = data(throttle=-0.5, steering=steering, yaw_rate=-yaw_rate, speed=speed)
        assert not check.is_contradicted(backwards)


@pytest.mark.parametrize("seed", range(20))
def test_steering_is_proven_by_a_car_that_turns_where_it_says_and_by_no_other(seed):
    rng = np.random.default_rng(seed)
    honest, constant, slow, random = (ControlCheck(constant_s=1.0) for _ in range(4))
    for number in range(80):  # bends of a second, to the one side and to the other
        yaw_rate = float(rng.uniform(6.0, 30.0)) * (1 if number // 20 % 2 else -1)
        assert not honest.is_contradicted(data(steering=-yaw_rate / 60.0, yaw_rate=yaw_rate))
        assert honest.is_proven is (number >= 34)
        constant.is_contradicted(data(steering=0.3, yaw_rate=yaw_rate))
        slow.is_contradicted(data(steering=0.5 * np.sin(number / 25.0), yaw_rate=yaw_rate))
        random.is_contradicted(data(steering=float(rng.uniform(-1, 1)), yaw_rate=yaw_rate))
        assert not any(check.is_proven for check in (constant, slow, random))


def test_labels_that_contradict_how_the_car_turns_are_refused():
    with scripted(num_turning=10) as (script, game):

        def turn(number):
            script.send(script.pair(steering=0.3, yawRate=20.0, throttle=number / 20))
            return game.tick()

        for number in range(9):
            turn(number)
        with pytest.raises(GameProtocolError, match="steering must say where the car turns"):
            turn(9)
        game.set_npc(False)  # driving needs no labels
        assert all(turn(number).label is None for number in range(20))


# Silence, other clients, and what the mod forgets


def test_a_vehicle_that_hangs_the_game_is_an_error_that_asks_for_it():
    faults = ServerFaults(unknown_vehicle="batmobile")
    with serving(faults) as server, playing(server.port, timeout_s=0.6) as game:
        game.reset(Scene(car="batmobile"))
        with pytest.raises(GameError, match="does it know the vehicle"):
            game.tick()


def test_a_second_client_is_told_so_and_served_once_the_first_has_left():
    with serving() as server, playing(server.port) as first:
        first.reset(SCENE)
        first.tick()
        with playing(server.port, timeout_s=0.4) as second:
            second.reset(SCENE)
            with pytest.raises(GameError, match="is another client served"):
                second.tick()
            first.tick()
        with playing(server.port) as third:
            first.close()
            third.reset(SCENE)
            third.tick()


def test_nothing_is_left_to_what_the_mod_remembers():
    faults = ServerFaults(dangling_strings=True)
    with serving(faults) as server, playing(server.port, settle_s=0.1) as game:
        game.reset(SCENE)
        game.tick()
        for change in (game.teleport, lambda: game.set_npc(False), lambda: game.reset(SCENE)):
            change()
            game.tick()
        assert not server.is_hung


def test_single_bytes_are_put_together():
    with serving(ServerFaults(chunk_bytes=1)) as server, playing(server.port) as game:
        game.reset(SCENE)
        game.tick()
        game.tick()
        assert game.tally.broken == game.tally.reconnects == 0


# Light and camera


def test_the_light_is_changed_where_the_car_is():
    with scripted() as (script, game):
        script.send(script.pair(location=[7.0, 8.0, 9.0]))
        game.tick()
        game.set_light(weather="rain")
        key, body, _ = script.message()
        assert (key, body["scenario"]["weather"]) == ("config", "RAIN")
        assert body["scenario"]["location"] == [7.0, 8.0]
        assert body["scenario"]["time"] == [12, 0]
        with pytest.raises(GameError, match="'hail'"):
            game.set_light(weather="hail")
        with pytest.raises(GameError, match="camera is fixed"):
            game.aim(Camera())


@pytest.mark.parametrize(
    ("clock", "asked_h", "hour_h"),
    [
        (9, 9.5, 9.5),
        (10, 9.5, 10.0),
        (0, 24.0, 24.0),
        ((9, 30, 0), 9.505, 9.505),
        ((9, 45, 36), 9.5, 9.76),
        ((0, 0, 0), 24.0, 24.0),
    ],
)
def test_the_hour_that_was_asked_for_is_told_until_the_clock_differs(clock, asked_h, hour_h):
    assert hour_of(clock, asked_h=asked_h) == pytest.approx(hour_h)


# Restarting


def python(program):
    """A command line that runs ``program``."""
    return f'{sys.executable} -c "{program}"'


def test_a_restart_command_that_fails_is_shown_with_what_it_said():
    with pytest.raises(GameError, match="exit status 3") as caught:
        run_restart_command(python("import sys; print('no disc'); sys.exit(3)"), timeout_s=60.0)
    assert "no disc" in str(caught.value)


def test_a_restart_command_that_cannot_run_is_named():
    with pytest.raises(GameError, match="'/no/such/game'"):
        run_restart_command("/no/such/game", timeout_s=1.0)


def test_a_restart_command_is_no_shell():
    with pytest.raises(GameError, match="exit status"):
        run_restart_command(f"{sys.executable} -c pass_ ; echo", timeout_s=60.0)


def test_a_restart_command_that_does_not_end_is_stopped():
    began_s = time.monotonic()
    with pytest.raises(GameError, match="in the background"):
        run_restart_command("sleep 60", timeout_s=0.3)
    assert time.monotonic() - began_s < 30.0


@pytest.mark.skipif(os.name == "nt", reason="the shell's & is used to start a background process")
def test_what_a_restart_command_starts_outlives_it_and_is_not_waited_for(tmp_path):
    pid_path = tmp_path / "pid"
    began_s = time.monotonic()
    run_restart_command(f"sh -c 'sleep 60 & echo $! > {pid_path}'", timeout_s=30.0)
    assert time.monotonic() - began_s < 30.0
    pid = int(pid_path.read_text())
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def test_a_command_line_with_an_open_quote_is_refused():
    with pytest.raises(ConfigError, match="restart_command"):
        DeepGTAVOptions(restart_command="restart 'gta")


def test_a_game_that_a_restart_does_not_help_is_an_error():
    port, command = free_port(), python("pass")
    with (
        playing(port, connect_s=0.1, restart_s=8.0, restart_command=command) as game,
        pytest.raises(GameError, match=rf"nothing answers at 127\.0\.0\.1:{port} for 8 s"),
    ):
        game.reset(SCENE)


def test_a_game_is_restarted_before_it_fails_if_that_is_wanted():
    command = python("pass")
    with (
        serving() as server,
        playing(server.port, restart_command=command, restart_after=2) as game,
    ):
        game.reset(SCENE)
        game.tick()
        game.reset(SCENE)
        game.tick()
        assert (game.tally.restarts, game.tally.builds) == (0, 2)
        game.reset(SCENE)
        game.tick()
        assert (game.tally.restarts, game.tally.builds) == (1, 1)
        for _ in range(2):  # a player asks for no other scenes, and puts cars elsewhere
            game.teleport()
            game.tick()
        assert (game.tally.restarts, game.tally.builds) == (2, 1)


RESTART = """
    import os, signal, subprocess, sys
    from pathlib import Path
    port, pid_path = sys.argv[1:]
    if Path(pid_path).exists():
        os.kill(int(Path(pid_path).read_text()), signal.SIGKILL)
    program = (
        "import threading\\n"
        "from charles.town.server import TownServer\\n"
        "from charles.town.server_config import ServerFaults, TownServerConfig\\n"
        "faults = ServerFaults(leak_after=2)\\n"
        f"config = TownServerConfig(port={port}, vehicles=0, pedestrians=0, faults=faults)\\n"
        "TownServer(config).run(threading.Event())\\n"
    )
    game = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    Path(pid_path).write_text(str(game.pid))
"""


@pytest.mark.timeout(300)  # three games are started one after the other
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals end the game")
def test_a_game_that_fails_is_restarted_and_the_scene_goes_on(tmp_path):
    script, pid_path, port = tmp_path / "restart.py", tmp_path / "pid", free_port()
    script.write_text(textwrap.dedent(RESTART))
    command = f"{sys.executable} {script} {port} {pid_path}"
    options = {"connect_s": 0.1, "restart_s": 120.0, "blind_s": 0.4, "timeout_s": 60.0}
    try:
        with playing(port, restart_command=command, **options) as game:
            game.reset(SCENE)  # nothing answers yet: the command starts the game as well
            assert game.tick().weather == "clear"
            first_pid = pid_path.read_text()
            game.set_npc(False)
            game.tick()
            game.teleport((50.0, 60.0))  # the third scene, of which there will be no picture
            telemetry = game.tick()
            assert game.tally.restarts == 2
            assert game.tally.builds <= 2, "the game that went may have been met once more"
            assert telemetry.label is None, "the driver is who it was"
            assert game.tally.black > 0
            assert pid_path.read_text() != first_pid
    finally:
        if pid_path.exists():
            os.kill(int(pid_path.read_text()), signal.SIGKILL)


# What of a stream is handed out


def test_a_mailbox_forgets_what_was_there_what_is_too_early_and_what_is_stale():
    box = Mailbox(4)

    def publish(time_ns):
        frame = box.claim()
        frame[:] = bytes([time_ns] * 4)
        box.publish(Pair(frame, data(), time_ns))

    publish(1)
    box.forget(10, 2)
    assert box.take(0.0) is None
    for time_ns in (2, 9, 10, 11):
        publish(time_ns)
    assert box.take(0.0) is None
    publish(12)
    taken = box.take(0.0)
    assert taken is not None
    for time_ns in range(20, 30):
        publish(time_ns)
    assert bytes(taken.frame) == bytes([12] * 4), "a frame is the caller's until the next one"
    newest = box.take(0.0)
    assert newest is not None
    assert (newest.captured_ns, newest.frame[0], box.skipped) == (29, 29, 9)


@UNHURRIED
@given(st.lists(st.sampled_from(["publish", "drop", "take", "forget"]), max_size=60))
def test_a_mailbox_never_runs_out_of_buffers_nor_hands_one_out_twice(steps):
    box = Mailbox(1)
    for step in steps:
        if step == "take":
            box.take(0.0)
        elif step == "forget":
            box.forget(0, 1)
        else:
            frame = box.claim()
            assert frame is not box._held
            assert box._newest is None or frame is not box._newest.frame
            if step == "publish":
                box.publish(Pair(frame, data(), 0))
            else:
                box.drop(frame, "broken")
