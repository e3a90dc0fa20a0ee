"""Pushes on the wheel are found in the frames when they are there, and only then."""

import numpy as np
import pytest

from charles.latency_offset import Pulse, find, shifts, spread

PERIOD_NS = 33_333_333
NUM, PUSHED_AT = 80, 30


def pulse(late=0, *, lag=0.0, noise=0.0, told_late=0, sign=1.0, seed=0, missing=()):
    """A push after instant ``PUSHED_AT``: the picture turns ever faster from the next one on."""
    rng = np.random.default_rng(seed)
    at = np.arange(NUM, dtype=float)
    since = np.clip(at - PUSHED_AT - late - lag, 0.0, 12.0)
    shift = sign * 0.6 * since * (at < PUSHED_AT + 14 + late) + rng.normal(0.4, noise, NUM)
    told = 0.7 * ((at > PUSHED_AT + told_late) & (at < PUSHED_AT + 13 + told_late))
    times = np.round(at * PERIOD_NS).astype(np.int64)
    if len(missing):
        shift = np.cumsum(shift)
        keep = np.setdiff1d(np.arange(NUM), missing)
        shift, told, times = np.diff(shift[keep], prepend=0.0), told[keep], times[keep]
    shift[0] = 0.0
    return Pulse(times, told, shift, PUSHED_AT * PERIOD_NS, 1)


@pytest.mark.parametrize("late", [0, 1, 4, 15])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_delay_of_frames_is_found_to_a_fraction_of_an_instant(late, sign):
    found = find(pulse(late, noise=0.1, sign=sign))
    assert found is not None
    assert (found.frames_ns - found.told_ns) / PERIOD_NS == pytest.approx(late, abs=0.5)
    assert found.is_to_the_right == (sign > 0)


def test_controls_that_are_told_late_make_it_negative():
    found = find(pulse(0, told_late=3, noise=0.05))
    assert (found.frames_ns - found.told_ns) / PERIOD_NS == pytest.approx(-3, abs=0.5)


def test_frames_that_were_missed_do_not_move_it():
    found = find(pulse(4, noise=0.05, missing=(7, 33, 40, 41)))
    assert (found.frames_ns - found.told_ns) / PERIOD_NS == pytest.approx(4, abs=0.5)


def test_a_game_that_tells_no_controls_is_measured_from_the_pad():
    silent = pulse(2)
    found = find(Pulse(silent.times_ns, 0 * silent.told, silent.shift_px, silent.injected_ns, 1))
    assert found.told_ns is None
    assert found.frames_ns / PERIOD_NS == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_where_nothing_is(seed):
    rng = np.random.default_rng(seed)
    still = pulse()
    noise = rng.normal(0.0, 0.3, NUM)
    assert find(Pulse(still.times_ns, still.told, noise, still.injected_ns, 1)) is None
    assert find(Pulse(still.times_ns, still.told, 0 * noise, still.injected_ns, 1)) is None


def test_shifts_of_a_picture_are_found_below_a_pixel():
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (20, 80)), np.ones((4, 4))).astype(np.float32)
    smooth = np.stack([np.convolve(row, np.ones(5) / 5, "same") for row in wide])
    starts = (40, 38, 38, 33)
    frames = np.stack([smooth[:, s : s + 200] for s in starts]).astype(np.uint8)
    np.testing.assert_allclose(shifts(frames), [0.0, 2.0, 0.0, 5.0], atol=0.1)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [s.low <= 0.0 <= s.high for s in (spread(rng.normal(size=12)) for _ in range(2000))]
    assert 0.94 <= np.mean(held) <= 0.99
    assert spread(np.array([3.0])).low == spread(np.array([3.0])).high == 3.0
