"""Dead zones: the inverse meets the game's side to quantisation, neutral does not chatter."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import ConfigError
from charles.io.deadzones import (
    Axis,
    DeadZone,
    active_side,
    from_axis,
    to_axis,
    translated_acceleration_braking,
    translated_steering,
)
from charles.town.habits import answer
from charles.town.protocol import DEAD_ZONE, through_dead_zone

CONTROLS = st.floats(-1.0, 1.0)
CURVES = st.floats(0.3, 3.0)
ZONES = st.builds(DeadZone, game=st.floats(0.0, 0.9), neutral=st.floats(0.0, 0.1))
CURVED = st.builds(
    DeadZone, game=st.floats(0.0, 0.8), limit=st.floats(0.85, 1.0), curve=CURVES,
    neutral=st.just(0.0),
)  # fmt: skip
TRIGGER, STICK = 255, 32767
"""Steps of an axis from rest to its end."""


@settings(deadline=None)
@given(CONTROLS, ZONES)
def test_game_applies_what_was_wanted_outside_the_neutral_zone(control, zone):
    applied = float(from_axis(to_axis(control, zone), zone))
    expected = 0.0 if abs(control) < zone.neutral else control
    assert applied == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(CONTROLS, CURVED)
def test_curve_and_limit_are_undone_up_to_the_limit(control, zone):
    most = float(from_axis(zone.limit, zone))
    applied = float(from_axis(to_axis(control, zone), zone))
    assert applied == pytest.approx(np.clip(control, -most, most), abs=1e-6)


@pytest.mark.parametrize("steps", [TRIGGER, STICK])
@settings(deadline=None)
@given(control=CONTROLS, zone=CURVED)
def test_round_trip_from_a_control_is_exact_to_half_a_step_of_the_axis(steps, control, zone):
    axis = float(to_axis(control, zone))
    level = round(axis * steps)
    near, far = (from_axis((abs(level) + half) / steps, zone) for half in (-0.5, 0.5))
    most = float(from_axis(zone.limit, zone))
    assert near - 1e-6 <= min(abs(control), most) <= far + 1e-6


@pytest.mark.parametrize("steps", [TRIGGER, STICK])
@settings(deadline=None)
@given(zone=CURVED, share=st.floats(-1.0, 1.0))
def test_round_trip_from_a_level_of_the_axis_is_exact(steps, zone, share):
    level = round(share * steps)
    if zone.game * steps < abs(level) <= zone.limit * steps:
        axis = float(to_axis(from_axis(level / steps, zone), zone))
        assert round(axis * steps) == level


def test_gta_keeps_a_trigger_to_half_a_percent_and_a_stick_to_a_thousandth():
    controls, zone = np.linspace(-1, 1, 2001), DeadZone(neutral=0.0)
    for steps, most in ((TRIGGER, 0.5 / TRIGGER / 0.75), (STICK, 0.00003)):
        applied = from_axis(np.round(to_axis(controls, zone) * steps) / steps, zone)
        assert np.abs(applied - controls).max() <= most


@settings(deadline=None)
@given(CONTROLS, CURVED, CURVED)
def test_more_control_never_shows_less(control, zone, other):
    assert float(to_axis(abs(control), zone)) <= float(to_axis(1.0, zone))
    assert float(to_axis(control, other)) == -float(to_axis(-control, other))


def test_the_usual_zone_is_that_of_gta():
    assert DeadZone().game == DEAD_ZONE


def test_an_axis_leaves_neutral_and_enters_it_at_two_values():
    axis = Axis(DeadZone(game=0.25, neutral=0.02, hysteresis=0.01))
    shown = [axis.show(control) for control in (0.015, 0.02, 0.015, 0.011, 0.009, 0.015)]
    assert [value > 0 for value in shown] == [False, True, True, True, False, False]
    assert shown[2] == pytest.approx(0.25 + 0.75 * 0.015)
    axis.show(0.5)
    axis.rest()
    assert axis.show(0.015) == 0.0


def test_an_axis_does_not_chatter_from_side_to_side():
    zone = DeadZone(neutral=0.02, hysteresis=0.01)
    axis = Axis(zone)
    noise = 0.018 * np.sin(np.arange(200))
    assert not any(axis.show(float(control)) for control in noise)
    assert active_side(-0.015, 1, zone) == 0
    assert active_side(-0.02, 1, zone) == -1


@settings(deadline=None)
@given(st.lists(CONTROLS, max_size=30), ZONES)
def test_an_axis_shows_what_the_pure_function_says_or_lets_go_later(controls, zone):
    axis = Axis(zone)
    for control in controls:
        plain, shown = float(to_axis(control, zone)), axis.show(control)
        if plain:
            assert shown == plain
        elif shown:
            assert zone.neutral - zone.hysteresis <= abs(control) < zone.neutral


@settings(deadline=None)
@given(CONTROLS, ZONES)
def test_axis_never_leaves_its_range_and_keeps_the_sign(control, zone):
    axis = float(to_axis(control, zone))
    assert abs(axis) <= zone.limit
    assert axis == 0.0 or np.sign(axis) == np.sign(control)


@settings(deadline=None)
@given(CONTROLS, st.floats(0.0, 0.9))
def test_both_statements_of_the_games_side_agree(axis, size):
    expected = through_dead_zone(axis, size)
    assert float(from_axis(axis, DeadZone(game=size))) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.floats(-1.0, 1.0), CURVED)
def test_beyond_its_limit_an_axis_does_no_more_and_is_answered_by_the_limit(axis, zone):
    most = float(from_axis(zone.limit, zone))
    applied = float(from_axis(axis, zone))
    assert abs(applied) <= most
    shown = float(to_axis(applied, zone))
    if abs(axis) > zone.limit:
        assert shown == pytest.approx(np.sign(axis) * zone.limit, abs=1e-9)
    elif abs(axis) > zone.game:
        assert shown == pytest.approx(axis, abs=1e-6)


@pytest.mark.parametrize("steps", [TRIGGER, STICK])
@settings(deadline=None)
@given(zone=CURVED, controls=st.lists(CONTROLS, min_size=1, max_size=20))
def test_what_an_axis_shows_is_read_back_by_the_same_table_over_any_path(steps, zone, controls):
    zone = replace(zone, neutral=0.02, hysteresis=0.01)
    axis, most = Axis(zone), float(from_axis(zone.limit, zone))
    for control in controls:
        shown = axis.show(control)
        level = round(shown * steps)
        if shown == 0.0:
            assert abs(control) < zone.neutral
            continue
        assert abs(control) >= zone.neutral - zone.hysteresis
        near, far = (float(from_axis((abs(level) + half) / steps, zone)) for half in (-0.5, 0.5))
        assert near - 1e-6 <= min(abs(control), most) <= far + 1e-6
        assert level == 0 or np.sign(level) == np.sign(control)


@settings(deadline=None)
@given(CONTROLS, CURVED)
def test_the_game_itself_answers_as_the_table_says(axis, zone):
    assert answer(axis, zone) == pytest.approx(float(from_axis(axis, zone)), abs=1e-12)


def test_a_lower_limit_caps_the_axis():
    zone = DeadZone(game=0.25, limit=0.9)
    np.testing.assert_allclose(to_axis(np.array([-1.0, 1.0]), zone), [-0.9, 0.9])


def test_published_console_figures_come_out():
    assert float(translated_acceleration_braking(0.5609)) == pytest.approx(0.4146, abs=1e-4)
    assert float(translated_steering(-0.3056)) == pytest.approx(-0.0593, abs=1e-4)
    assert float(translated_steering(0.2)) == 0.0


@pytest.mark.parametrize(
    "values",
    [{"game": 1.0}, {"neutral": -0.1}, {"limit": 0.2}, {"curve": 0.0}, {"hysteresis": -0.1}],
)
def test_impossible_zones_are_refused(values):
    with pytest.raises(ConfigError, match="dead_zone"):
        DeadZone(**values)
