"""Pictures of several cameras that come in turn are told apart, also after some were lost."""

from contextlib import closing

import numpy as np
import pytest

from charles.errors import ConfigError
from charles.io.cameras import Deinterleaver
from charles.town.render import CAMERAS, Renderer
from charles.town.world import World, WorldConfig

SIZE = (90, 160)


class Synthetic:
    """Cameras that each see a pattern of their own, drifting, with noise."""

    def __init__(self, num=3, seed=0):
        self._rng = np.random.default_rng(seed)
        self._patterns = [
            np.kron(self._rng.integers(0, 256, (9, 64, 3)), np.ones((10, 10, 1)))
            for _ in range(num)
        ]
        self.turn = 0

    def picture(self, camera):
        pattern = np.roll(self._patterns[camera], -(self.turn // 3), axis=1)[:, :160]
        noise = self._rng.normal(0.0, 8.0, pattern.shape)
        return np.clip(pattern + noise, 0, 255).astype(np.uint8)

    def next(self):
        """The next picture and its camera."""
        camera = self.turn % len(self._patterns)
        self.turn += 1
        return self.picture(camera), camera


def offsets(source, deinterleaver, count, dropped=()):
    """By how much each picture's number differs from its true camera, where one is given."""
    found = []
    for number in range(count):
        picture, camera = source.next()
        if number in dropped:
            continue
        given = deinterleaver.add(picture)
        if given is not None:
            found.append((given - camera) % 3)
    return found


def test_every_camera_comes_at_a_third_of_the_rate():
    deinterleaver = Deinterleaver()
    source, numbers = Synthetic(), []
    for _ in range(99):
        number = deinterleaver.add(source.next()[0])
        numbers += [] if number is None else [number]
    assert len(numbers) >= 90
    assert numbers == [(numbers[0] + turn) % 3 for turn in range(len(numbers))]
    assert deinterleaver.dropped == 0


@pytest.mark.parametrize("dropped", [(40,), (40, 41), (40, 60, 61, 80), (1,), (2, 4)])
def test_a_lost_picture_swaps_no_cameras(dropped):
    deinterleaver = Deinterleaver()
    found = offsets(Synthetic(), deinterleaver, 150, dropped)
    assert len(found) > 120
    assert len(set(found)) == 1
    assert deinterleaver.dropped == len([number for number in dropped if number > 10])


def test_pictures_that_were_lost_three_at_a_time_do_not_matter():
    deinterleaver = Deinterleaver()
    assert len(set(offsets(Synthetic(), deinterleaver, 100, (40, 41, 42)))) == 1
    assert deinterleaver.dropped == 0  # nobody can know


class TownCameras:
    """A drive through Town, shown by its three cameras in turn, ninety pictures a second."""

    def __init__(self, renderer, seed=1):
        self._renderer = renderer
        self.world = World(WorldConfig(seed=seed, vehicles=6, pedestrians=6))
        self.turn = 0
        self.is_black = False
        for _ in range(90):
            self.world.step()

    def next(self):
        camera = self.turn % 3
        if camera == 0:
            self.world.step()
        self.turn += 1
        return self.picture(camera), camera

    def picture(self, camera):
        out = np.empty((*SIZE, 3), np.uint8)
        self._renderer.render(self.world.view(), out, CAMERAS[camera])
        return out // 40 if self.is_black else out


@pytest.fixture(scope="module")
def renderer():
    with closing(Renderer(*SIZE)) as made:
        yield made


def test_towns_cameras_are_told_apart_over_lost_pictures_jumps_and_fades(renderer):
    source, deinterleaver = TownCameras(renderer), Deinterleaver()
    found = offsets(source, deinterleaver, 150, dropped=(50, 81, 82))
    assert len(set(found)) == 1
    assert deinterleaver.dropped == 3
    source.world.place_ego(None)
    found += offsets(source, deinterleaver, 60)
    source.is_black = True
    found += offsets(source, deinterleaver, 30)
    source.is_black = False
    found += offsets(source, deinterleaver, 60, dropped=(40,))
    wrong = sum(offset != found[0] for offset in found)
    assert wrong <= 3  # a jump may cost a turn
    assert found[-10:] == [found[0]] * 10
    assert deinterleaver.dropped == 4


def test_the_networks_camera_is_found_by_a_picture_of_it_from_elsewhere(renderer):
    elsewhere = TownCameras(renderer, seed=9)
    source, deinterleaver = TownCameras(renderer), Deinterleaver()
    source.turn = 1
    while not deinterleaver.is_locked:
        number, camera = deinterleaver.add(source.picture(source.turn % 3)), source.turn % 3
        source.world.step()
        source.turn += 1
    hood = (number - camera) % 3  # the number of camera 0
    assert deinterleaver.looks_like(elsewhere.picture(0)) == hood


def test_one_camera_takes_no_turns():
    with pytest.raises(ConfigError, match="num_cameras must be 2 or more"):
        Deinterleaver(1)
