"""Stuck means too little distance travelled, wherever the car ends up."""

import pytest

from charles.errors import ConfigError
from charles.play_config import UnstuckConfig
from charles.unstuck import Unstuck

CONFIG = UnstuckConfig(window_s=2.0, distance_m=3.0)


def test_a_car_that_stands_is_stuck_after_the_window_and_not_before():
    unstuck = Unstuck(CONFIG, rate_hz=10.0)
    answers = [unstuck.add(0.0) for _ in range(25)]
    assert answers.index(True) == 19


def test_a_car_that_circles_back_to_its_place_is_not_stuck():
    unstuck = Unstuck(CONFIG, rate_hz=10.0)
    assert not any(unstuck.add(4.0) for _ in range(100))  # only the distance travelled counts


def test_driving_off_frees_a_stuck_car_and_standing_again_sticks_it():
    unstuck = Unstuck(CONFIG, rate_hz=10.0)
    assert [unstuck.add(0.0) for _ in range(20)][-1]
    assert not [unstuck.add(10.0) for _ in range(20)][-1]
    assert [unstuck.add(0.0) for _ in range(20)][-1]


def test_reset_gives_a_whole_new_window():
    unstuck = Unstuck(CONFIG, rate_hz=10.0)
    for _ in range(20):
        unstuck.add(0.0)
    unstuck.reset()
    assert not any(unstuck.add(0.0) for _ in range(19))


def test_a_rate_must_be_positive():
    with pytest.raises(ConfigError, match="rate_hz must be positive"):
        Unstuck(CONFIG, rate_hz=0.0)


def test_a_car_of_unknown_speed_is_never_stuck():
    unstuck = Unstuck(UnstuckConfig(window_s=1.0, distance_m=3.0), rate_hz=10.0)
    assert not any(unstuck.add(None) for _ in range(100))
    assert not any(unstuck.add(0.0) for _ in range(9))
    assert unstuck.add(0.0)  # known again for a whole window, and standing still
