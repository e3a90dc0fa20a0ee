"""Bootstrap intervals: coverage, pairing, repeatability, and ratios where nothing happened."""

import math

import numpy as np
import pytest

from charles.errors import ConfigError
from charles.statistics import compare, event_rate, interval


def test_the_mean_is_the_mean_and_lies_in_its_interval():
    values = np.random.default_rng(0).random(30)
    estimate = interval(values)
    low, high = estimate.interval
    assert estimate.mean == pytest.approx(values.mean())
    assert low < estimate.mean < high


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = interval(rng.normal(3.0, 1.0, 40)).interval
        hits += low <= 3.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_ratio_of_sums_weighs_routes_by_their_length():
    estimate = interval([1.0, 0.0], [0.1, 9.9])
    assert estimate.mean == pytest.approx(0.1)


def test_the_same_numbers_give_the_same_interval():
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])


def test_a_paired_ratio_is_tighter_than_its_parts():
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.2, 1.0, 25)  # routes differ much, the two drivers on one route little
    ours, theirs = hard * 0.9, hard
    low, high = interval(ours, theirs).interval
    assert (low, high) == (pytest.approx(0.9), pytest.approx(0.9))


def test_what_never_happened_is_infinite_and_null_in_json():
    estimate = interval([350.0, 280.0], [0, 0])
    assert math.isinf(estimate.mean)
    assert estimate.as_json() == {"mean": None, "interval": [None, None]}
    assert interval([0, 0], [0, 0]).mean == 0.0


def test_what_did_not_happen_yet_may_still_happen():
    assert event_rate([0, 0], [3.0, 4.0]).interval == (0.0, pytest.approx(3.689 / 7, rel=1e-3))
    assert event_rate([1, 0, 2], [3.0, 4.0, 1.0]) == interval([1, 0, 2], [3.0, 4.0, 1.0])
    assert event_rate([0, 0], [0.0, 0.0]).interval == (0.0, 0.0)
    # With that rate, a stretch as long passes without an event in one of forty cases.
    rate = event_rate([0], [7.0]).interval[1]
    quiet = np.random.default_rng(0).poisson(7.0 * rate, 100_000) == 0
    assert quiet.mean() == pytest.approx(1 / 40, rel=0.05)


def test_a_comparison_is_the_quotient_of_two_rates():
    ours, theirs = ([2.0, 4.0], [1.0, 1.0]), ([1.0, 2.0], [1.0, 1.0])
    estimate = compare(ours, theirs)
    assert estimate.mean == pytest.approx(2.0)
    assert estimate.interval == (pytest.approx(2.0), pytest.approx(2.0))
    assert math.isinf(compare(ours, ([0.0, 0.0], [1.0, 1.0])).mean)


@pytest.mark.parametrize(("values", "weights"), [([], None), ([1.0, 2.0], [1.0]), ([[1.0]], None)])
def test_impossible_input_is_refused(values, weights):
    with pytest.raises(ConfigError):
        interval(values, weights)
