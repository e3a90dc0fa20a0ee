"""Dead zones: the inverse meets the game's side, and the published figures come out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.errors import ConfigError
from charles.io.deadzones import (
    DeadZone,
    from_axis,
    to_axis,
    translated_acceleration_braking,
    translated_steering,
)
from charles.town.protocol import through_dead_zone

CONTROLS = st.floats(-1.0, 1.0)
ZONES = st.builds(DeadZone, game=st.floats(0.0, 0.9), neutral=st.floats(0.0, 0.1))


@given(CONTROLS, ZONES)
def test_game_applies_what_was_wanted_outside_the_neutral_zone(control, zone):
    applied = float(from_axis(to_axis(control, zone), zone))
    expected = 0.0 if abs(control) < zone.neutral else control
    assert applied == pytest.approx(expected, abs=1e-9)


@given(CONTROLS, ZONES)
def test_axis_never_leaves_its_range_and_keeps_the_sign(control, zone):
    axis = float(to_axis(control, zone))
    assert abs(axis) <= zone.limit
    assert axis == 0.0 or np.sign(axis) == np.sign(control)


@given(CONTROLS, st.floats(0.0, 0.9))
def test_both_statements_of_the_games_side_agree(axis, size):
    expected = through_dead_zone(axis, size)
    assert float(from_axis(axis, DeadZone(game=size))) == pytest.approx(expected, abs=1e-12)


def test_a_lower_limit_caps_the_axis():
    zone = DeadZone(game=0.25, limit=0.9)
    np.testing.assert_allclose(to_axis(np.array([-1.0, 1.0]), zone), [-0.9, 0.9])


def test_published_console_figures_come_out():
    assert float(translated_acceleration_braking(0.5609)) == pytest.approx(0.4146, abs=1e-4)
    assert float(translated_steering(-0.3056)) == pytest.approx(-0.0593, abs=1e-4)
    assert float(translated_steering(0.2)) == 0.0


@pytest.mark.parametrize("values", [{"game": 1.0}, {"neutral": -0.1}, {"limit": 0.2}])
def test_impossible_zones_are_refused(values):
    with pytest.raises(ConfigError, match="dead_zone"):
        DeadZone(**values)
