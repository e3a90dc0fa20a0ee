"""Pulse width: the mean is the control, no pulse is too short, neutral and full hold at once."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.io.pads.pulse import Pulse

PERIOD_S = 0.1
SLACK_S = PERIOD_S / 8
SHARES = st.floats(0.01, 0.99)
LATE_S = 0.01


def run(pulse, control, seconds, starts_s=0.0, late_s=0.0):
    """Spans of one control, called whenever a change is due or a little later: start, side."""
    now_s, ends_s = starts_s, starts_s + seconds
    pulse.aim(control, now_s)
    spans = [(now_s, pulse.side)]
    while now_s < ends_s:
        now_s = min(ends_s, now_s + max(pulse.wait_s(), 1e-6) + late_s)
        pulse.advance(now_s)
        spans.append((now_s, pulse.side))
    return spans


def integral(spans):
    return sum(side * (end - start) for (start, side), (end, _) in pairwise(spans))


def pulses(spans, side):
    """Durations of whole runs with the key on that side; the first and last may be cut."""
    lengths, since_s, now = [], spans[0][0], spans[0][1]
    for time_s, one in spans[1:]:
        if one != now:
            lengths.append((now, time_s - since_s))
            since_s, now = time_s, one
    return [length for which, length in lengths[1:] if which == side]


@settings(deadline=None)
@given(SHARES, st.sampled_from([-1, 1]), st.floats(0.0, LATE_S))
def test_the_mean_is_the_control_within_an_eighth_of_a_period(share, sign, late_s):
    pulse, total_s = Pulse(PERIOD_S), 0.0
    spans = run(pulse, sign * share, 10.0, late_s=late_s)
    for (start, side), (end, _) in pairwise(spans):
        total_s += side * (end - start)
        assert abs(total_s - sign * share * end) <= SLACK_S + late_s + 1e-5


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, st.floats(0.005, 0.5)), min_size=1, max_size=30),
       st.booleans())  # fmt: skip
def test_what_is_owed_is_carried_over_changes_of_the_control(parts, is_mixed):
    pulse, now_s, wanted_s, held_s = Pulse(PERIOD_S), 0.0, 0.0, 0.0
    for number, (share, seconds) in enumerate(parts):
        control = -share if is_mixed and number % 2 else share
        held_s += integral(run(pulse, control, seconds, starts_s=now_s))
        now_s += seconds
        wanted_s += control * seconds
    assert abs(held_s - wanted_s) <= SLACK_S + 1e-4


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4, 0.5, 0.9, 0.98])
def test_no_press_and_no_pause_is_shorter_than_a_quarter_of_a_period(share):
    spans = run(Pulse(PERIOD_S), share, 20.0)
    assert min(pulses(spans, 1)) >= PERIOD_S / 4 - 1e-5
    assert min(pulses(spans, 0)) >= PERIOD_S / 4 - 1e-5


def test_at_half_deflection_press_and_pause_take_a_period():
    spans = run(Pulse(PERIOD_S), 0.5, 5.0)
    assert pulses(spans, 1) == pytest.approx([PERIOD_S / 2] * len(pulses(spans, 1)), abs=1e-4)
    assert len(pulses(spans, 1)) > 45


@pytest.mark.parametrize("before", [-1.0, -0.7, 0.0, 0.3, 0.7])
def test_neutral_and_full_take_hold_at_once_and_stay(before):
    pulse = Pulse(PERIOD_S)
    run(pulse, before, 0.33)
    for control, side in ((1.0, 1), (0.0, 0), (-1.0, -1)):
        pulse.aim(control, 0.34)
        assert pulse.side == side
        assert pulse.wait_s() == math.inf
        pulse.advance(99.0)
        assert pulse.side == side


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.05)), max_size=50))
def test_a_key_is_down_only_on_the_controls_own_side(parts):
    pulse, now_s = Pulse(PERIOD_S), 0.0
    for control, seconds in parts:
        pulse.aim(control, now_s)
        assert pulse.side * control >= 0.0
        assert pulse.wait_s() >= 0.0
        now_s += seconds


def test_a_process_that_slept_does_not_make_up_for_it():
    pulse = Pulse(PERIOD_S)
    pulse.aim(0.5, 0.0)
    pulse.advance(3600.0)
    assert pulse.side == 1
    assert pulse.wait_s() <= 3 * PERIOD_S
