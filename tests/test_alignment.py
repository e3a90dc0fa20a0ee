"""Each frame is paired with what was told of its own time, and nothing waits for nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.alignment import Alignment, Delay
from charles.io.game import Telemetry
from charles.sample import SampleFlag

PERIOD_NS = 33_333_333


def told(number):
    value = np.float32(number)
    return Telemetry(
        captured_ns=number * PERIOD_NS, controls=np.full(2, value), label=np.full(2, value),
        speed_mps=float(number), purpose=np.zeros(2, np.float32), location=(0.0, 0.0, 0.0),
    )  # fmt: skip


def frame_of(number):
    return np.full((2, 2, 3), number, np.uint8)


def run(offset_ms, num=30):
    """Pairs as (frame, told, label, flag), the frame's number ``None`` for the present one."""
    alignment, pairs = Alignment(offset_ms), []
    for number in range(num):
        flag = SampleFlag.PERTURBED if number % 7 == 0 else SampleFlag.NONE
        paired = alignment.add(told(number), flag, frame_of(number))
        if paired is None:
            pairs.append(None)
            continue
        frame = number if paired.frame is None else int(paired.frame[0, 0, 0])
        assert paired.captured_ns == frame * PERIOD_NS
        label = int(paired.label[0])
        expected = SampleFlag.PERTURBED if label % 7 == 0 else SampleFlag.NONE
        assert paired.flag == expected
        pairs.append((frame, int(paired.telemetry.controls[0]), label))
    return pairs


def test_without_an_offset_everything_is_of_one_instant():
    assert run(0.0) == [(n, n, n) for n in range(30)]
    assert not Alignment(0.0).needs_every_frame


@pytest.mark.parametrize("instants", [1, 2, 5])
def test_a_late_frame_gets_what_was_told_when_the_world_was_so(instants):
    pairs = run(instants * 1000.0 / 30.0)
    assert pairs[:instants] == [None] * instants
    assert pairs[instants:] == [(n, n - instants, n - instants) for n in range(instants, 30)]


@pytest.mark.parametrize("instants", [1, 2, 5])
def test_an_early_frame_waits_for_its_label_with_what_a_player_would_be_told(instants):
    pairs = run(-instants * 1000.0 / 30.0)
    assert pairs[:instants] == [None] * instants
    assert pairs[instants:] == [(n - instants, n - instants, n) for n in range(instants, 30)]
    assert Alignment(-1.0).needs_every_frame


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(0, 120))
def test_a_delay_hands_out_the_nearest_of_all(periods, delay):
    line, times = Delay(delay), []
    for time in np.cumsum(periods).tolist():
        times.append(time)
        found = line.add(time, time)
        wanted = time - delay
        nearest = min(times, key=lambda each: (abs(each - wanted), each))
        if found is None:  # nothing is as old as that yet
            assert nearest > wanted
            assert not [each for each in times if each <= wanted]
        else:
            assert found == nearest


def test_a_jump_forgets_what_was_before_it():
    alignment = Alignment(100.0)
    for number in range(10):
        alignment.add(told(number), SampleFlag.NONE, frame_of(number))
    alignment.clear()
    pairs = [alignment.add(told(n), SampleFlag.NONE, frame_of(n)) for n in range(10, 14)]
    assert [pair is None for pair in pairs] == [True, True, True, False]
    assert pairs[3].telemetry.speed_mps == 10.0


def test_without_a_delay_the_present_item_comes_back_even_at_the_time_of_the_one_before():
    """As a picture that came twice has it."""
    delay = Delay(0)
    assert [delay.add(time_ns, item) for item, time_ns in enumerate([5, 9, 9, 12])] == [0, 1, 2, 3]
