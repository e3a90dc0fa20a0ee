"""Going back happens when driving got worse, and hardly ever otherwise."""

import itertools

import numpy as np
import pytest

from charles.errors import ConfigError
from charles.play_config import RollbackConfig
from charles.rollback import RECORDS, Rollback

TICK_S = 1.0
SAME_S = RollbackConfig().apart_s
CONFIG = RollbackConfig()


def drive(rollback, seconds, every_s=0.0):
    """Drive with an incident every so many seconds; the decisions that were not empty."""
    made = []
    for tick in range(1, round(seconds / TICK_S) + 1):
        is_stuck = every_s > 0 and tick % round(every_s / TICK_S) == 0
        decision = rollback.add(TICK_S, is_stuck=is_stuck, is_collision=False)
        made += [decision] if decision else []
    return made


def trusting(every_s=120.0, config=CONFIG):
    """A rollback whose checkpoint 1 is trusted."""
    rollback = Rollback(config)
    rollback.begin(1)
    assert drive(rollback, 600.0, every_s) == ["trust"]
    return rollback


def test_parameters_are_trusted_after_a_window_of_driving():
    rollback = Rollback(CONFIG)
    rollback.begin(1)
    assert drive(rollback, 599.0) == []
    assert rollback.is_on_probation
    assert drive(rollback, 1.0) == ["trust"]
    assert not rollback.is_on_probation


def test_much_worse_driving_goes_back_bans_the_step_and_says_why():
    rollback = trusting()
    rollback.begin(2)
    assert drive(rollback, 100.0, every_s=15.0) == ["back"]
    (back,) = rollback.rollbacks
    assert (back.step, back.to_step) == (2, 1)
    assert str(back).startswith("rolled back from checkpoint 2 to 1: 4 incidents/min against 0.5")
    assert not rollback.accepts(2)
    assert not rollback.accepts(1)


def test_later_parameters_may_try_again_once_the_trusted_ones_drove_as_long():
    rollback = trusting()
    rollback.begin(2)
    drive(rollback, 60.0, every_s=15.0)
    assert not rollback.accepts(3)
    drive(rollback, 59.0)
    assert not rollback.accepts(3)
    drive(rollback, 1.0)
    assert rollback.accepts(3)
    rollback.begin(3)
    assert rollback.is_on_probation
    assert drive(rollback, 60.0, every_s=15.0) == ["back"]


def test_checkpoints_that_follow_each_other_fast_are_judged_together():
    rollback = trusting()
    made = []
    for step in range(2, 12):
        rollback.begin(step)
        made += drive(rollback, 20.0, every_s=10.0)
        if made:
            break
    assert made == ["back"]
    assert rollback.rollbacks[0].to_step == 1


def test_parameters_that_turned_bad_late_in_a_window_are_not_trusted():
    rollback = trusting()
    rollback.begin(2)
    assert drive(rollback, 550.0) == []
    rollback.begin(3)
    assert drive(rollback, 400.0, every_s=12.0) == ["back"]
    assert rollback.rollbacks[0].step == 3


def test_a_crash_and_the_unstuck_after_it_are_one_incident():
    rollback = Rollback(CONFIG)
    rollback.begin(1)
    rollback.add(TICK_S, is_stuck=False, is_collision=True)
    drive(rollback, SAME_S - 2.0)
    rollback.add(TICK_S, is_stuck=True, is_collision=False)
    (record,) = rollback.records
    assert (record.unstucks, record.collisions, record.incidents) == (1, 1, 1)


def test_nothing_is_gone_back_to_before_anything_is_trusted_or_when_switched_off():
    rollback = Rollback(CONFIG)
    rollback.begin(1)
    assert drive(rollback, 200.0, every_s=11.0) == []
    off = Rollback(RollbackConfig(is_enabled=False))
    off.begin(1)
    assert drive(off, 700.0, every_s=11.0) == []
    assert off.accepts(0)


def test_memory_is_bounded():
    rollback = trusting()
    for step in range(2, 500):
        rollback.begin(step)
        rollback.add(TICK_S, is_stuck=False, is_collision=False)
    assert len(rollback.records) == RECORDS
    assert rollback.records[-1].step == 499


def minutes_until_back(rng, *, rate, trusted_rate, config=CONFIG):
    """Chance incidents per minute; driving on probation until going back, ``inf`` if trusted."""
    rollback = Rollback(config)
    rollback.begin(1)
    driven_s, is_new = 0.0, False
    while True:
        mean_s = 60.0 / (rate if is_new else trusted_rate)
        gap_s = SAME_S + rng.exponential(mean_s - SAME_S)  # what counts comes no faster than SAME_S
        for seconds in itertools.chain([5.0] * int(gap_s / 5.0), [gap_s % 5.0]):
            driven_s += seconds
            decision = rollback.add(seconds, is_stuck=False, is_collision=False)
            if decision == "trust" and is_new:
                return np.inf
            if decision == "trust":
                rollback.begin(2)
                driven_s, is_new = 0.0, True
                break
        else:
            if rollback.add(1e-6, is_stuck=True, is_collision=False) == "back":
                return driven_s / 60.0


def test_driving_as_well_as_before_is_seldom_gone_back_from():
    rng = np.random.default_rng(0)
    drives = [minutes_until_back(rng, rate=1.0, trusted_rate=1.0) for _ in range(150)]
    assert np.mean(np.isfinite(drives)) <= CONFIG.p_value


def test_three_times_as_many_incidents_are_found_out():
    rng = np.random.default_rng(1)
    drives = [minutes_until_back(rng, rate=3.0, trusted_rate=1.0) for _ in range(40)]
    assert np.mean(np.isfinite(drives)) > 0.8
    assert np.median(drives) < CONFIG.window_minutes


@pytest.mark.parametrize(
    "changes",
    [
        {"p_value": 0.0},
        {"p_value": 1.0},
        {"incidents": 0},
        {"window_minutes": 0.0},
        {"apart_s": -1.0},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError, match=r"rollback\."):
        RollbackConfig(**changes)
