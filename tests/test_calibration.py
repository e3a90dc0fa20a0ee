"""The fit of an axis finds the truth it was made of, and says when there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.calibration import fit_axis
from charles.errors import CalibrationError
from charles.io.deadzones import from_axis
from charles.pad_config import DeadZone

TRIGGER = 255
LEVELS = np.linspace(0.0, 1.0, 31)[1:]
ZONES = st.builds(
    DeadZone, game=st.floats(0.0, 0.5), limit=st.floats(0.8, 1.0), curve=st.floats(0.5, 2.0)
)
GAINS = st.lists(st.floats(0.3, 1.0), min_size=1, max_size=3)


def measured(zone, gains, *, levels=LEVELS):
    """Axis, effect and speed at each level and each knot, axes in a trigger's steps."""
    knots = 8.0 * np.arange(len(gains))
    axis = np.tile(np.round(levels * TRIGGER) / TRIGGER, len(gains))
    speed = np.repeat(knots, len(levels))
    return axis, from_axis(axis, zone) * np.interp(speed, knots, gains), speed, knots


@settings(deadline=None, max_examples=25)
@given(ZONES, GAINS)
def test_a_fit_answers_as_the_game_does_to_quantisation(zone, gains):
    axis, applied, speed, knots = measured(zone, gains)
    fit = fit_axis("steering", axis, applied, speed, knots)
    shown = np.linspace(0.0, 1.0, 200)
    for knot, gain in zip(knots, gains, strict=True):
        ours = from_axis(shown, fit.zone) * fit.gain(knot)
        assert np.abs(ours - gain * from_axis(shown, zone)).max() < 0.02
    assert fit.does_fit
    assert fit.num == len(axis)


def test_a_plain_dead_zone_is_found_exactly_with_a_tenth_of_wild_readings():
    zone = DeadZone(game=0.25)
    axis, applied, speed, knots = measured(zone, [1.0])
    rng = np.random.default_rng(1)
    noisy = applied + rng.normal(0.0, 0.003, len(applied))
    noisy[[5, 20, 27]] = 0.0  # taken at a wall
    fit = fit_axis("accelerate", axis, noisy, speed, knots)
    assert fit.zone.game == pytest.approx(0.25, abs=0.01)
    assert fit.zone.curve == pytest.approx(1.0, abs=0.03)
    assert fit.gain(0.0) == pytest.approx(1.0, abs=0.01)
    exact = fit_axis("accelerate", axis, applied, speed, knots)
    assert exact.zone == zone
    assert exact.residual < 1e-4


def test_an_axis_that_answers_otherwise_does_not_fit():
    axis = LEVELS
    steps = np.floor(4 * axis) / 4 + 0.3 * np.sin(25 * axis)
    fit = fit_axis("steering", axis, steps, np.zeros(30), [0.0])
    assert not fit.does_fit
    assert fit.worst > 0.08


@pytest.mark.parametrize(
    ("num", "effect", "text"),
    [(30, 0.0, r"applied 0\.000 at most"), (30, 0.05, "--pad.kind"), (4, 1.0, "--levels")],
)
def test_what_cannot_be_fitted_is_refused(num, effect, text):
    axis = LEVELS[:num]
    with pytest.raises(CalibrationError, match=text):
        fit_axis("brake", axis, effect * axis, np.zeros(num), [0.0])
