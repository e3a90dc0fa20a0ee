"""Duplicates and staleness, told from pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import ConfigError
from charles.io.screen.watch import Watch
from charles.timing import clock_ns

SHAPE = (5, 7, 3)


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


@settings(deadline=None)
@given(st.integers(0, 5 * 7 * 3 - 1), st.integers(1, 255), st.integers(0, 99))
def test_any_one_pixel_that_changes_is_seen(place, change, seed):
    watch = Watch(SHAPE, 1.0)
    frame = picture(seed)
    assert watch.see(frame, 10).is_new
    assert not watch.see(frame.copy(), 20).is_new
    frame.reshape(-1)[place] ^= np.uint8(change)
    assert watch.see(frame, 30) == (30, True)


@settings(deadline=None)
@given(st.integers(1, 34), st.integers(0, 99))
def test_a_picture_that_is_shifted_is_another(by, seed):
    watch = Watch(SHAPE, 1.0)
    frame = picture(seed)
    watch.see(frame, 10)
    shifted = np.roll(frame.reshape(-1), 3 * by).reshape(SHAPE)
    assert watch.see(shifted, 20).is_new == (not np.array_equal(shifted, frame))


def test_a_duplicate_keeps_the_time_it_was_first_seen_and_gets_stale():
    watch = Watch(SHAPE, 1.0)
    second = 1_000_000_000
    start = clock_ns() - 60 * second
    assert not watch.is_stale()
    watch.see(picture(), start)
    assert watch.see(picture(), start + second) == (start, False)
    assert not watch.is_stale(start + second)
    assert watch.see_again(start + second + 1) == (start, False)
    assert watch.is_stale(start + second + 1)
    report = watch.report()
    assert (report.pictures, report.duplicates, report.stale) == (1, 2, 1)
    assert 60 <= report.age_s < 90
    watch.see(picture(1), start + 3 * second)
    assert not watch.is_stale(start + 3 * second)


def test_the_limit_must_be_positive():
    with pytest.raises(ConfigError, match="max_age_s must be positive"):
        Watch(SHAPE, 0.0)
