"""Three cameras shown in turn are watched as one, with the others for spectators."""

import time
from contextlib import closing
from itertools import count

import cv2
import numpy as np
import pytest
from tests.io.screen.slideshow import watch_cameras

from charles.errors import CaptureError, ConfigError, WindowHiddenError
from charles.io.abilities import ManyCameras
from charles.io.game import Scene
from charles.io.screen.interleaved import InterleavedSource, read_reference
from charles.io.screen.make import make_source
from charles.io.screen.source import Capture, FrameSource
from charles.io.window import WindowGame
from charles.screen_config import ScreenConfig
from charles.timing import clock_ns

SHAPE = (36, 64, 3)
RATE_HZ = 90.0


class Turns:
    """A screen that shows three patterns in turn by the wall clock; it can lose pictures."""

    def __init__(self, lost=()):
        self.frame_shape = SHAPE
        rng = np.random.default_rng(0)
        self.patterns = [
            cv2.resize(rng.integers(0, 256, (3, 4, 3), np.uint8), SHAPE[1::-1]) for _ in range(3)
        ]
        self.is_gone = self.is_hidden = self.is_closed = False
        self._numbers = (number for number in count() if number not in lost)
        self._due_s, self._number = time.monotonic(), -1

    def grab(self, out):
        if self.is_gone:
            raise CaptureError("The window 'Game' is gone.")
        if self.is_hidden:
            raise WindowHiddenError("The window 'Game' is covered by 'Mail'.")
        is_new = time.monotonic() >= self._due_s
        if is_new:  # a reader that is late gets the next picture, not a later one
            self._due_s = max(self._due_s + 1 / RATE_HZ, time.monotonic())
            self._number = next(self._numbers)
        noise = np.random.default_rng(self._number).integers(-9, 10, SHAPE)
        out[:] = np.clip(self.patterns[self._number % 3] + noise, 0, 255)
        return Capture(clock_ns(), is_new)

    def close(self):
        self.is_closed = True


def watching(screen, camera=0):
    return InterleavedSource(lambda: screen, reference=screen.patterns[camera], rate_hz=RATE_HZ)


def nearest(screen, picture):
    return int(np.argmin([np.abs(picture - each.astype(float)).mean() for each in screen.patterns]))


def wait_for(condition):
    ends_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


@pytest.mark.parametrize("camera", [0, 1, 2])
def test_the_camera_that_looks_like_the_reference_is_the_networks(camera):
    screen, out = Turns(), np.empty(SHAPE, np.uint8)
    with closing(watching(screen, camera)) as source:
        assert isinstance(source, FrameSource)
        for _ in range(5):
            source.grab(out)
            assert nearest(screen, out) == camera
            time.sleep(0.01)
        others = []
        for name in source.cameras[1:]:
            source.grab_camera(name, out)
            others.append(nearest(screen, out))
    assert others == [(camera + 1) % 3, (camera + 2) % 3]
    assert screen.is_closed


def test_a_lost_picture_is_counted_and_swaps_nothing():
    screen, out = Turns(lost=(30, 46, 47)), np.empty(SHAPE, np.uint8)
    with closing(watching(screen)) as source:
        wait_for(lambda: source.dropped == 3)
        wait_for(lambda: screen._number > 60)
        source.grab(out)
        assert nearest(screen, out) == 0
        instants = [report.instants for report in source.cadences().values()]
    assert max(instants) - min(instants) <= 2  # each came a third of the time


def test_a_window_game_shows_the_networks_camera_and_offers_the_others():
    screen, out = Turns(), np.empty(SHAPE, np.uint8)
    with closing(WindowGame(watching(screen))) as game:
        assert isinstance(game, ManyCameras)
        assert len(game.cameras) == 3
        game.reset(Scene())
        game.tick()
        game.grab(out)
        assert nearest(screen, out) == 0
        game.grab_camera("third_person", out)
        assert nearest(screen, out) == 1


def test_a_window_that_goes_away_is_told_to_whoever_grabs():
    screen, out = Turns(), np.empty(SHAPE, np.uint8)
    with closing(watching(screen)) as source:
        source.grab(out)
        screen.is_gone = True
        wait_for(lambda: not source._thread.is_alive())
        with pytest.raises(CaptureError, match="is gone"):
            source.grab(out)


def test_a_window_that_is_hidden_for_a_while_is_watched_again():
    screen, out = Turns(), np.empty(SHAPE, np.uint8)
    with closing(watching(screen)) as source:
        source.grab(out)
        source.grab_camera("third_person", out)  # whose first picture comes after the network's
        screen.is_hidden = True
        wait_for(lambda: source._hidden is not None)
        with pytest.raises(WindowHiddenError, match="Mail"):
            source.grab(out)
        source.grab_camera("third_person", out)  # spectators keep what they saw last
        screen.is_hidden = False
        wait_for(lambda: source._hidden is None)
        number = screen._number
        wait_for(lambda: screen._number > number + 6)
        source.grab(out)
        assert nearest(screen, out) == 0


def test_three_cameras_of_a_window_are_told_apart_at_90_pictures_a_second(display, tmp_path):
    """Of real pictures, through the real capture; rates are for the benchmark to judge."""
    seen, cadences, _ = watch_cameras(tmp_path, instants=45, rate_hz=RATE_HZ, grabs=90)
    rates = [report.rate_hz for report in cadences.values()]
    assert seen.count(0) >= 70
    assert seen.count(1) + seen.count(2) <= 3
    assert min(rates) > 10.0  # on a machine that is busy with tests


def test_what_cannot_be_opened_says_so_at_once(tmp_path):
    cv2.imwrite(str(tmp_path / "hood.png"), np.zeros(SHAPE, np.uint8))
    config = ScreenConfig(
        kind="replay", file=tmp_path / "none.mp4", cameras=3, reference=tmp_path / "hood.png"
    )
    with pytest.raises(CaptureError, match=r"none\.mp4"):
        make_source(config, 36, 64)


def test_three_cameras_need_a_picture_of_the_networks(tmp_path):
    with pytest.raises(ConfigError, match=r"screen\.reference must be given"):
        ScreenConfig(cameras=3)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "nothing.png"):
        with pytest.raises(ConfigError, match=r"screen\.reference must be a picture"):
            read_reference(tmp_path / name)
