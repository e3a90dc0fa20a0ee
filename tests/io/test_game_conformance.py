"""One suite for every game: each does what :class:`charles.io.game.Game` promises."""

import contextlib
import importlib.util
import math
import time
from pathlib import Path

import numpy as np
import pytest
from tests.town.serving import serving, serving_zmq

from charles.config import FrameConfig, GameConfig, TrainConfig
from charles.errors import ConfigError, GameError
from charles.io.deepgtav import DeepGTAVGame
from charles.io.deepgtav_options import DeepGTAVOptions
from charles.io.deepgtav_zmq import make_zmq_game
from charles.io.game import WEATHERS, Game, Scene
from charles.io.games import make_game
from charles.io.town import TownGame
from charles.timing import clock_ns

HEIGHT, WIDTH = 26, 47  # odd, so that rows are padded on the wire
NPC_S = 20.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "plug_in_a_game.py"
TOWN = GameConfig(seeds=(3, 4), vehicles=0, pedestrians=0)


@contextlib.contextmanager
def town(_ports=None):
    with contextlib.closing(TownGame(TOWN, height=HEIGHT, width=WIDTH, seed=1)) as game:
        yield game


@contextlib.contextmanager
def town_in_real_time(_ports=None):
    config = GameConfig(seeds=(3, 4), vehicles=0, pedestrians=0, is_realtime=True)
    with contextlib.closing(TownGame(config, height=HEIGHT, width=WIDTH, seed=1)) as game:
        yield game


@contextlib.contextmanager
def deepgtav(ports):
    config = GameConfig(name="deepgtav", port=ports["deepgtav"])
    options = DeepGTAVOptions(settle_s=0.15, trust_controls=True)
    game = DeepGTAVGame(config, height=HEIGHT, width=WIDTH, options=options)
    with contextlib.closing(game):
        yield game


@contextlib.contextmanager
def deepgtav_zmq(ports):
    config = GameConfig(name="deepgtav_zmq", port=ports["deepgtav_zmq"])
    options = DeepGTAVOptions(settle_s=0.15, trust_controls=True)
    game = make_zmq_game(config, height=HEIGHT, width=WIDTH, screen=(141, 78), options=options)
    with contextlib.closing(game):
        yield game


@contextlib.contextmanager
def example(_ports):
    spec = importlib.util.spec_from_file_location("plug_in_a_game", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = TrainConfig(frame=FrameConfig(height=HEIGHT, width=WIDTH, pixel_format="rgb"))
    with contextlib.closing(module.LaneGame(config, 0)) as game:
        yield game


@contextlib.contextmanager
def car_racing(_ports=None, **changes):
    config = GameConfig(name="gymnasium", seeds=(3, 4), **changes)
    frame = FrameConfig(height=HEIGHT, width=WIDTH)
    with contextlib.closing(make_game(config, frame, seed=1)) as game:
        yield game


@contextlib.contextmanager
def car_racing_in_real_time(_ports=None):
    with car_racing(is_realtime=True) as game:
        yield game


GAMES = (
    town, town_in_real_time, deepgtav, deepgtav_zmq, example, car_racing, car_racing_in_real_time,
)  # fmt: skip
SCENE = Scene(seed=3, weather="overcast", time_of_day_h=9.5, place=(10.0, 20.0))


@pytest.fixture(scope="module")
def ports():
    """Where the games listen that do, by their names."""
    with serving() as tcp, serving_zmq() as fork:
        yield {"deepgtav": tcp.port, "deepgtav_zmq": fork.port}


@pytest.fixture(params=GAMES, ids=lambda make: make.__name__)
def game(request, ports):
    with request.param(ports) as game:
        game.reset(SCENE)
        yield game


def frame_of(game):
    out = np.full(game.frame_shape, 77, np.uint8)
    game.grab(out)
    return out


def ticks_until(game, is_wanted, seconds=NPC_S):
    """Tick until an instant is as wanted; the bound is in the game's own time."""
    first = telemetry = game.tick()
    while not is_wanted(telemetry):
        waited_s = (telemetry.captured_ns - first.captured_ns) / 1e9
        assert waited_s < seconds, f"not within {seconds} s, the last: {telemetry}"
        telemetry = game.tick()
    return telemetry


def check_instant(game, telemetry):
    num = len(game.controls)
    assert telemetry.controls.shape == (num,)
    assert telemetry.controls.dtype == np.float32
    assert (np.abs(telemetry.controls) <= 1.0).all()
    if telemetry.label is not None:
        assert telemetry.label.shape == (num,)
        assert telemetry.label.dtype == np.float32
        assert (np.abs(telemetry.label) <= 1.0).all()
    assert telemetry.purpose.shape == (2,)
    assert telemetry.purpose.dtype == np.float32
    assert np.isfinite(telemetry.purpose).all()
    assert abs(telemetry.purpose[0]) <= math.pi + 1e-6
    assert telemetry.purpose[1] >= 0.0
    assert telemetry.speed_mps is None or telemetry.speed_mps >= 0.0
    assert np.isfinite(telemetry.location).all()
    assert telemetry.weather in WEATHERS
    assert 0.0 <= telemetry.time_of_day_h <= 24.0


def test_a_game_keeps_the_protocol_and_its_npc_drives(game):
    assert isinstance(game, Game)
    assert game.frame_shape == (HEIGHT, WIDTH, 3)
    assert len(set(game.controls)) == len(game.controls)
    start = game.tick()
    first = frame_of(game)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 3
    times, moved = [start.captured_ns], start
    while math.dist(start.location, moved.location) < 2.0:
        moved = game.tick()
        check_instant(game, moved)
        assert moved.label is not None
        times.append(moved.captured_ns)
        assert times[-1] - times[0] < NPC_S * 1e9
    assert (np.diff(times) > 0).all()
    assert (frame_of(game) != first).any()


def test_pixels_are_those_of_the_last_instant_however_late_they_are_asked_for(game):
    game.tick()
    at_once = frame_of(game)
    if game.is_realtime:
        time.sleep(0.15)
    np.testing.assert_array_equal(frame_of(game), at_once)


def test_acting_has_no_effect_while_the_npc_drives(game):
    brake = np.array([-1.0, 1.0], np.float32)

    def is_driving(telemetry):
        game.act(brake)
        assert not np.array_equal(telemetry.controls, brake)
        return telemetry.speed_mps > 1.5

    ticks_until(game, is_driving)


def test_stopping_the_npc_begins_with_neutral_controls_and_acting_then_applies(game):
    game.set_npc(False)
    for _ in range(3):
        assert not game.tick().controls.any()
    wanted = np.array([0.8, -0.3], np.float32)

    def after_acting(is_wanted):
        game.act(wanted)  # each time, as a player: games let go of what nobody renews
        return ticks_until(game, lambda now: game.act(wanted) or is_wanted(now))

    acting = after_acting(lambda telemetry: telemetry.controls.any())
    np.testing.assert_allclose(acting.controls, wanted, atol=1e-5)
    check_instant(game, acting)
    after_acting(lambda telemetry: telemetry.speed_mps > 0.5)
    for bad in ([np.nan, 0.0], [0.0, np.inf], [1.01, 0.0], [0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(GameError, match="controls must"):
            game.act(np.array(bad, np.float32))
    np.testing.assert_allclose(game.tick().controls, wanted, atol=1e-5)
    game.set_npc(True)
    game.set_npc(False)
    assert not game.tick().controls.any()


def test_a_teleport_puts_the_car_elsewhere_and_keeps_scene_and_driver(game):
    before = game.tick()
    game.teleport((120.0, 130.0))
    there = game.tick()
    game.teleport((-120.0, -130.0))
    back = game.tick()
    assert math.dist(there.location[:2], back.location[:2]) > 100.0
    game.teleport()
    after = game.tick()
    assert math.dist(after.location[:2], back.location[:2]) > 1.0
    assert (after.weather, after.time_of_day_h) == (before.weather, before.time_of_day_h)
    assert after.captured_ns > back.captured_ns > there.captured_ns > before.captured_ns
    ticks_until(game, lambda telemetry: telemetry.speed_mps > 0.5)


def test_a_second_reset_begins_anew_with_the_npc_and_closing_twice_is_allowed(game):
    before = game.tick()
    game.set_npc(False)
    game.reset(SCENE)
    assert game.tick().captured_ns > before.captured_ns
    ticks_until(game, lambda telemetry: telemetry.speed_mps > 0.5)
    game.close()
    game.close()


@pytest.mark.parametrize("make", [town, deepgtav, deepgtav_zmq], ids=lambda make: make.__name__)
def test_the_scene_that_was_asked_for_is_the_one_that_is_built(make, ports):
    with make(ports) as game:
        game.reset(Scene(weather="clear", time_of_day_h=12.25))
        noon = game.tick()
        bright = frame_of(game).mean()
        game.reset(Scene(weather="rain", time_of_day_h=23.0))
        night = game.tick()
        assert (noon.weather, noon.time_of_day_h) == ("clear", 12.25)
        assert (night.weather, night.time_of_day_h) == ("rain", 23.0)
        assert frame_of(game).mean() < 0.7 * bright
        with pytest.raises(GameError, match="'hail'"):
            game.reset(Scene(weather="hail"))
        with pytest.raises(GameError, match="traffic"):
            game.reset(Scene(seed=1, traffic=-1.0))
        with pytest.raises(GameError, match="time_of_day_h"):
            game.reset(Scene(time_of_day_h=25.0))
        with pytest.raises(GameError, match=rf"uint8 \[{HEIGHT}, {WIDTH}, 3\]"):
            game.grab(np.empty((WIDTH, HEIGHT, 3), np.uint8))


def test_a_game_that_was_not_reset_or_is_closed_says_so():
    game = TownGame(TOWN, height=HEIGHT, width=WIDTH, seed=0)
    with pytest.raises(GameError, match="reset"):
        game.tick()
    game.close()
    with pytest.raises(GameError, match="closed"):
        game.reset(Scene())


@pytest.mark.parametrize("make", [town, car_racing], ids=lambda make: make.__name__)
def test_a_stepped_game_repeats_itself_under_a_seed(make):
    def drive():
        with make() as game:
            game.reset(Scene(seed=3))
            return [game.tick() for _ in range(20)], frame_of(game)

    (first, picture), (second, again) = drive(), drive()
    assert [t.location for t in first] == [t.location for t in second]
    assert first[0].weather == second[0].weather
    np.testing.assert_array_equal(picture, again)
    periods = np.diff([t.captured_ns for t in first])
    assert (periods == round(1e9 / 30)).all()


def test_real_time_keeps_the_clock_and_moves_on_when_the_caller_was_late():
    with town_in_real_time() as game:
        game.reset(SCENE)
        game.tick()
        before_s = game.world.time_s
        assert abs(clock_ns() - game.tick().captured_ns) < 1e9
        time.sleep(0.12)
        game.tick()
        assert game.missed >= 2
        assert game.world.time_s - before_s > 3.5 / 30


def test_games_are_made_by_name():
    frame = FrameConfig(height=HEIGHT + 1, width=WIDTH + 1)
    kinds = {"town": TownGame, "deepgtav": DeepGTAVGame, "deepgtav_zmq": DeepGTAVGame}
    for name, kind in kinds.items():
        with contextlib.closing(make_game(GameConfig(name=name), frame, seed=1)) as game:
            assert isinstance(game, kind)
            assert game.frame_shape == (HEIGHT + 1, WIDTH + 1, 3)
    with pytest.raises(ConfigError, match=r"game\.name"):
        make_game(GameConfig(name="pong"), frame, seed=1)
