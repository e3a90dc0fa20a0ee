"""Spectators see every camera at the network's rate, and never hold the player up."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
from tests.tiny_run import TinyRun

from charles.errors import ConfigError, GameError
from charles.io.abilities import ManyCameras
from charles.io.game import Scene
from charles.io.pads.command import CommandPad
from charles.io.town import TownGame
from charles.options import PlayOptions
from charles.play import describe, play
from charles.play_config import PlayConfig
from charles.spectators import Spectators
from charles.timing import clock_ns

SCENE = Scene(seed=100_000, weather="clear", time_of_day_h=12.0)


class StoppingPad(CommandPad):
    """A pad that ends the drive after so many updates, however long they take."""

    def __init__(self, game, stop, updates):
        super().__init__(game)
        self.stop, self.left = stop, updates

    def update(self, controls):
        super().update(controls)
        self.left -= 1
        if self.left == 0:
            self.stop.set()


class Cameras:
    """A game that shows which camera and which time was asked for, and is slow if told to be."""

    frame_shape = (2, 2, 3)
    cameras = ("hood", "chase", "rear")

    def __init__(self, takes_s=0.0):
        self.takes_s = takes_s

    def grab_camera(self, camera, out):
        time.sleep(self.takes_s)
        out[:] = self.cameras.index(camera)
        return clock_ns()


def show(spectators, ticks, rate_hz):
    """So many ticks of a player that takes no time itself."""
    deadline_ns = clock_ns()
    for _ in range(ticks):
        spectators.show(deadline_ns, state="driving")
        deadline_ns += round(1e9 / rate_hz)


def test_each_other_camera_comes_once_between_two_deadlines_in_turn():
    spectators, seen = Spectators(Cameras(), 5.0), []
    spectators.subscribe(lambda shown: seen.append((shown.camera, int(shown.picture[0, 0, 0]))))
    show(spectators, ticks=5, rate_hz=5.0)
    counts = {camera: report.instants for camera, report in spectators.report().items()}
    assert sum(counts.values()) + spectators.dropped == 10
    if not spectators.dropped:  # as on any machine that is not overloaded
        assert seen == [("chase", 1), ("rear", 2)] * 5
        assert spectators.newest["chase"].captured_ns < spectators.newest["rear"].captured_ns


def test_a_picture_for_which_there_is_no_time_is_dropped_and_counted():
    spectators = Spectators(Cameras(), 50.0)
    spectators.show(clock_ns() - 10**9, state="driving")
    assert spectators.dropped == 2
    assert spectators.newest == {}


def test_pictures_belong_to_those_who_were_shown_them():
    spectators = Spectators(Cameras(), 5.0)
    show(spectators, ticks=1, rate_hz=5.0)
    first = dict(spectators.newest)
    show(spectators, ticks=1, rate_hz=5.0)
    for camera, shown in first.items():
        assert not np.shares_memory(shown.picture, spectators.newest[camera].picture)


def test_a_game_with_one_camera_has_nothing_for_spectators():
    class Plain:
        frame_shape = (2, 2, 3)

    with pytest.raises(ConfigError, match="cameras must be 1"):
        Spectators(Plain(), 30.0)


def test_town_shows_three_cameras(tmp_path):
    with closing(TinyRun(tmp_path / "run")) as run:
        game = TownGame(run.config.game, height=36, width=64, seed=0)
    pictures = []
    with closing(game):
        assert isinstance(game, ManyCameras)
        game.reset(SCENE)
        game.tick()
        for camera in game.cameras:
            pictures.append(np.empty((36, 64, 3), np.uint8))
            game.grab_camera(camera, pictures[-1])
        hood = np.empty((36, 64, 3), np.uint8)
        game.grab(hood)
        with pytest.raises(GameError, match="camera must be one of"):
            game.grab_camera("roof", hood)
    assert np.array_equal(pictures[0], hood)
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert np.abs(pictures[one].astype(int) - pictures[other]).mean() > 5.0


def test_a_player_of_three_cameras_reports_the_cadence_of_each(tmp_path, capsys):
    with closing(TinyRun(tmp_path / "run", play=PlayConfig(rate_hz=10.0))) as run:
        run.save(1)
        options = PlayOptions(checkpoint=run.directory, cameras=3)
        stop = threading.Event()
        report = play(options, make_pad=lambda game: StoppingPad(game, stop, 20), stop=stop)
    assert report is not None
    assert set(report.cameras) == {"chase", "rear"}
    shown = sum(each.instants for each in report.cameras.values())
    assert shown + report.unshown == 2 * (report.tally.ticks + report.tally.passed) > 0
    text = capsys.readouterr().out
    assert "chase: period p50" in text
    assert describe(report) in text
