"""Outputs and the bins that follow from them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charles.errors import ConfigError
from charles.outputs import (
    ACCELERATION_BRAKING,
    STEERING,
    Bins,
    OutputConfig,
    control_of,
    make_output,
)

NAMES = ("acceleration_braking", "steering")
REST = np.float32(0)


@st.composite
def output_configs(draw):
    """Outputs of any range, bin width and exact values, spaced wider than their tolerance."""
    low = draw(st.floats(-10, 9))
    span = draw(st.floats(0.5, 10))
    parts = draw(st.integers(1, 30))
    width = span / parts
    picked = draw(st.sets(st.integers(0, parts), max_size=4))
    exact = tuple(sorted(float(np.round(low + number * width, 9)) for number in picked))
    assume(all(low <= value <= low + span for value in exact))
    return OutputConfig(name="any", low=low, high=low + span, bin_width=width, exact=exact,
                        exact_tolerance=width / 10)  # fmt: skip


@given(output_configs(), st.lists(st.floats(-20, 20), min_size=2, max_size=50))
def test_bin_numbers_rise_with_the_value_and_stay_in_range(config, values):
    bins = Bins.of(config)
    numbers = bins.index(np.sort(values))
    assert (np.diff(numbers) >= 0).all()
    assert numbers.min() >= 0
    assert numbers.max() < len(bins)


@given(output_configs())
def test_bins_cover_the_range_without_gap_or_overlap(config):
    bins = Bins.of(config)
    assert (bins.lows < bins.highs).all()
    assert np.allclose(bins.lows[1:], bins.highs[:-1])
    slack = config.exact_tolerance + 1e-8
    assert bins.lows[0] <= config.low + 1e-8
    assert bins.lows[0] >= config.low - slack
    assert config.high - 1e-8 <= bins.highs[-1] <= config.high + slack


@given(output_configs())
def test_the_middle_of_every_bin_lies_in_that_bin(config):
    bins = Bins.of(config)
    middles = (bins.lows + bins.highs) / 2
    assert bins.index(middles).tolist() == list(range(len(bins)))


@given(output_configs())
def test_exact_values_and_what_is_near_them_have_bins_of_their_own(config):
    bins = Bins.of(config)
    for value in config.exact:
        near = value + 0.9 * config.exact_tolerance * np.array([-1.0, 0.0, 1.0])
        (number,) = set(bins.index(near).tolist())
        assert bins.highs[number] - bins.lows[number] == pytest.approx(2 * config.exact_tolerance)


def test_documented_outputs_have_the_documented_bins():
    acceleration, steering = Bins.of(ACCELERATION_BRAKING), Bins.of(STEERING)
    assert len(acceleration) == 20 + 3
    assert len(steering) == 20 + 1
    assert steering.names[10] == "0"
    assert acceleration.names[0] == "-1"
    assert acceleration.names[-1] == "1"
    assert steering.names[0] == "(-1, -0.9)"
    assert int(steering.index(0.004)) == 10
    assert int(steering.index(0.006)) == 11


def test_halves_of_a_joint_control_can_be_outputs_of_their_own():
    controls = np.array([[0.4, 0.1], [-0.7, 0.2]], np.float32)
    assert control_of(controls, NAMES, "acceleration").tolist() == pytest.approx([0.4, 0.0])
    assert control_of(controls, NAMES, "braking").tolist() == pytest.approx([0.0, 0.7])
    assert control_of(controls, NAMES, "steering").tolist() == pytest.approx([0.1, 0.2])


def test_a_control_that_the_game_lacks_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"acceleration_braking.*got 'clutch'"):
        control_of(np.zeros((1, 2), np.float32), NAMES, "clutch")


def test_regression_target_loss_metric_and_decoding_fit_together():
    output = make_output(OutputConfig(name="steering", low=-0.5, high=0.5))
    labels = np.array([[0.0, 0.9], [0.0, -0.25]], np.float32)
    target = output.target(labels, NAMES, REST)
    assert target.dtype == np.float32
    assert target.tolist() == [0.5, -0.25]
    prediction = np.array([[0.25], [0.25]], np.float32)
    assert output.loss(prediction, target).tolist() == [0.0625, 0.25]
    assert output.decode(prediction, REST).tolist() == [0.25, 0.25]
    assert output.metric(prediction, target, REST).tolist() == [0.25, 0.5]


def test_too_much_can_cost_more_than_too_little():
    output = make_output(OutputConfig(name="steering", excess_weight=3.0))
    prediction, target = np.array([[0.5], [-0.5], [2.0]]), np.array([0.0, 0.0, 1.0])
    assert output.loss(prediction, target).tolist() == [0.75, 0.25, 0.0]
    # In doubt between -1 (once in four) and 1, the best guess is even instead of 0.5.
    labels = np.array([-1.0, 1.0, 1.0, 1.0])
    guesses = np.linspace(-0.9, 0.9, 181)
    costs = [output.loss(np.full((4, 1), guess), labels).mean() for guess in guesses]
    assert guesses[np.argmin(costs)] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("target", "prediction", "loss"),
    [(0.5, 0.75, 0.0), (-0.5, -2.0, 0.0), (0.5, -0.75, 1.5625), (0.25, 0.75, 0.25)],
)
def test_beyond_the_end_of_the_range_only_the_wrong_way_costs(target, prediction, loss):
    output = make_output(OutputConfig(name="steering", low=-0.5, high=0.5))
    given = np.array([[prediction]], np.float32), np.array([target], np.float32)
    assert output.loss(*given).tolist() == [loss]
    assert output.metric(*given, REST).tolist() == [abs(np.clip(prediction, -0.5, 0.5) - target)]
