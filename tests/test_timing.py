"""Rate keeping on absolute deadlines, and what the cadence counts."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.errors import ConfigError
from charles.timing import (
    MOST_INSTANTS,
    NS_PER_S,
    Cadence,
    InstantClock,
    JitterBuffer,
    Quantiles,
    RateKeeper,
    clock_ns,
)

PERIOD_NS = NS_PER_S // 30


def test_errors_do_not_add_up_over_many_ticks():
    keeper = RateKeeper(200.0)
    started_ns = clock_ns()
    ticks = 100
    for _ in range(ticks):
        keeper.wait()
        time.sleep(0.002)  # work that varies must not shift the deadlines
    total = clock_ns() - started_ns
    expected = (ticks + keeper.missed) * keeper.period_ns
    assert expected <= total < expected + 2 * keeper.period_ns + NS_PER_S // 20


def test_a_loop_never_wakes_before_its_deadline():
    keeper = RateKeeper(500.0)
    assert all(keeper.wait() >= 0 for _ in range(50))


def test_a_late_loop_skips_deadlines_and_counts_them():
    keeper = RateKeeper(50.0)
    keeper.wait()
    before = keeper.missed
    time.sleep(0.11)  # five and a half periods
    keeper.wait()
    skipped = keeper.missed - before
    assert 4 <= skipped <= 20
    started_ns = clock_ns()
    for _ in range(5):  # no race to catch up: the deadlines that follow are waited for
        keeper.wait()
    assert clock_ns() - started_ns > 4 * keeper.period_ns


def test_a_wanted_pause_is_not_counted_as_missed():
    keeper = RateKeeper(100.0)
    time.sleep(0.1)
    keeper.restart()
    keeper.wait()
    assert keeper.missed <= 2


def deliveries(jitter, took_ms):
    """When results that took ``took_ms`` are delivered, in milliseconds after their deadlines."""
    after_ms = []
    for ms in took_ms:
        deadline_ns = clock_ns() - round(ms * 1e6)
        jitter.wait(deadline_ns)
        after_ms.append((clock_ns() - deadline_ns) / 1e6)
    return after_ms


def test_results_that_take_now_longer_now_shorter_are_delivered_evenly():
    jitter = JitterBuffer(most_ns=30_000_000)
    after_ms = deliveries(jitter, [29.0, 2.0, 15.0, 1.0, 28.0, 5.0, 2.0])
    assert min(after_ms) > 28.0
    assert np.median(after_ms) < 31.0  # the machine may oversleep now and then


def test_the_hold_shortens_again_after_a_slow_result():
    jitter = JitterBuffer(most_ns=30_000_000)
    jitter.wait(clock_ns() - 20_000_000)
    first_ns = jitter.hold_ns
    for _ in range(140):
        jitter.wait(clock_ns() - 19_900_000 + first_ns - jitter.hold_ns)
    assert jitter.hold_ns < 0.55 * first_ns


def test_a_result_that_takes_too_long_is_delivered_when_it_is_ready():
    jitter = JitterBuffer(most_ns=2_000_000)
    assert jitter.wait(clock_ns() - 25_000_000) < 1_000_000
    assert jitter.hold_ns == 2_000_000
    assert min(deliveries(jitter, [1.0] * 5)) >= 2.0
    assert JitterBuffer(0).wait(clock_ns()) < 1_000_000


@pytest.mark.parametrize("rate_hz", [0.0, -30.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate_hz):
    with pytest.raises(ConfigError, match="rate_hz must be positive"):
        RateKeeper(rate_hz)


def fed(times_ns, rate_hz=30.0, **rest):
    cadence = Cadence(rate_hz, **rest)
    for moment in times_ns:
        cadence.add(moment)
    return cadence.report()


def test_an_even_stream_has_its_rate_and_no_faults():
    report = fed(range(PERIOD_NS, 100 * PERIOD_NS, PERIOD_NS))
    assert report.rate_hz == pytest.approx(30.0, rel=1e-6)
    assert (report.instants, report.late, report.duplicate, report.stale) == (99, 0, 0, 0)
    assert report.period_ms.max == pytest.approx(1000 / 30, rel=1e-6)


def test_late_duplicate_and_stale_instants_are_told_apart():
    cadence = Cadence(30.0)
    for moment in (1, 2, 3.4, 5.0, 5.0, 6.0):  # 5.0 is late by 0.6 of a period, then comes again
        cadence.add(round(moment * PERIOD_NS))
    cadence.add(7 * PERIOD_NS, is_stale=True)
    report = cadence.report()
    assert (report.instants, report.late, report.duplicate, report.stale) == (7, 1, 1, 1)


def test_nothing_is_late_in_a_stepped_game():
    assert fed([0, 10 * NS_PER_S, 90 * NS_PER_S], rate_hz=0.0).late == 0


def test_a_pause_is_no_lateness():
    cadence = Cadence(30.0)
    cadence.add(PERIOD_NS)
    cadence.pause()
    cadence.add(100 * PERIOD_NS)
    assert cadence.report().late == 0


@given(st.lists(st.integers(0, 10**12), max_size=80), st.integers(1, 20))
def test_cadence_takes_any_stream_with_bounded_memory(times_ns, window):
    report = fed(times_ns, window=window)
    assert report.instants == len(times_ns)
    assert report.duplicate + report.late <= max(0, len(times_ns) - 1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_quantiles_rise(values):
    found = Quantiles.of(np.array(values))
    assert min(values) <= found.p50 <= found.p95 <= found.p99 <= found.max == max(values)


def test_quantiles_of_nothing_are_zero():
    assert Quantiles.of(np.empty(0)) == Quantiles(p50=0, p95=0, p99=0, max=0)


def test_a_stepped_games_instants_come_when_asked_for_and_its_time_is_counted():
    clock = InstantClock(50.0, is_realtime=False)
    assert [(clock.wait(), clock.stamp()) for _ in range(3)] == [
        (1, 20_000_000), (1, 40_000_000), (1, 60_000_000)
    ]  # fmt: skip
    clock.restart()
    assert clock.stamp() == 80_000_000
    assert clock.missed == 0


def test_a_late_caller_of_a_real_time_game_is_told_of_the_instants_that_passed_up_to_a_limit():
    clock = InstantClock(100.0, is_realtime=True)
    clock.restart()
    time.sleep(0.1)
    assert clock.wait() == MOST_INSTANTS
    assert clock.missed >= 8
    before_ns = clock_ns()
    assert clock.stamp() >= before_ns
