"""Pushes come at the asked-for rate, keep their offset, and are marked."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.collect_config import PerturbConfig
from charles.perturb import RECOVERY_S, Perturber
from charles.sample import DRIVING_CONTROLS, SampleFlag


def make(seed=0, **changes):
    config = PerturbConfig(**changes)
    rng = np.random.default_rng(seed)
    return Perturber(config, DRIVING_CONTROLS, rate_hz=30.0, rng=rng)


def test_no_push_when_switched_off():
    perturber = make(every_s=0)
    assert not any(perturber.step() for _ in range(10_000))
    assert perturber.flag == SampleFlag.NONE


def test_pushes_come_as_often_as_configured():
    perturber = make(every_s=4.0, duration_s=(0.5, 0.5))
    was, begun = False, 0
    for _ in range(30 * 2000):
        now = perturber.step()
        begun += now and not was
        was = now
    cycle_s = 4.0 + 0.5 + RECOVERY_S
    assert abs(begun - 2000 / cycle_s) < 0.15 * 2000 / cycle_s


def test_a_push_keeps_its_offset_and_its_samples_are_marked():
    perturber = make(every_s=0.5, steering=0.5)
    while not perturber.step():
        pass
    action = np.zeros(2, np.float32)
    first = perturber.apply(action)
    assert perturber.flag == SampleFlag.PERTURBED
    while perturber.step():
        np.testing.assert_array_equal(perturber.apply(action), first)
    assert perturber.flag == SampleFlag.RECOVERY
    assert np.any(first != 0)


def test_reset_ends_the_push():
    perturber = make(every_s=0.5)
    while not perturber.step():
        pass
    perturber.reset()
    assert perturber.flag == SampleFlag.NONE


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_pushed_controls_stay_in_range(action, seed):
    perturber = make(seed=seed, every_s=0.1, steering=3.0, acceleration_braking=3.0)
    for _ in range(200):
        perturber.step()
    pushed = perturber.apply(np.array(action, np.float32))
    assert pushed.dtype == np.float32
    assert np.all(np.abs(pushed) <= 1)
