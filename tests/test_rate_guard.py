"""Training gives way to a player that falls behind, and takes back what is left over."""

import pytest

from charles.errors import ConfigError
from charles.rate_guard import HOPELESS, LET_GO, Pace, RateGuard, slowest_pace
from charles.server import PeerInfo
from charles.training_config import RateGuardConfig


class Machine:
    """A player that keeps 30 Hz while training takes at most ``room`` of the time."""

    def __init__(self, guard, room, slowest_hz=15.0):
        self.guard, self.room, self.slowest_hz = guard, room, slowest_hz
        self.ticks = self.missed = 0

    def report(self, reports=1):
        for _ in range(reports):
            excess = max(0.0, self.guard.share - self.room) / max(1e-9, 1.0 - self.room)
            rate_hz = 30.0 - (30.0 - self.slowest_hz) * min(1.0, excess)
            self.ticks += round(rate_hz)
            self.missed += 30 - round(rate_hz)
            self.guard.hear(
                Pace(player=1, ticks=self.ticks, missed=self.missed, rate_hz=rate_hz, frames_hz=0.0)
            )


def pace(ticks, missed):
    return Pace(player=1, ticks=ticks, missed=missed, rate_hz=30.0, frames_hz=30.0)


def make(room, slowest_hz=15.0, **changes):
    guard = RateGuard(RateGuardConfig(**changes), 30.0)
    return guard, Machine(guard, room, slowest_hz)


def test_training_slows_until_the_player_keeps_its_rate_and_stays_near_there():
    guard, machine = make(room=0.5)
    machine.report(20)
    shares = []
    for _ in range(100):
        machine.report()
        shares.append(guard.share)
    assert min(shares) > 0.3
    assert max(shares) < 0.65
    assert "slowed to" in guard.text
    assert "% for the player" in guard.text


def test_a_player_that_keeps_up_costs_training_nothing():
    guard, machine = make(room=1.0)
    machine.report(50)
    assert guard.share == 1.0
    assert guard.text == ""
    assert guard.pause_s(0.2) == 0.0


def test_one_bad_report_is_a_hiccup():
    guard, machine = make(room=1.0)
    machine.report(5)
    machine.room, machine.slowest_hz = 0.0, 10.0
    machine.report(1)
    machine.room = 1.0
    machine.report(1)
    assert guard.share == 1.0


def test_missed_deadlines_count_although_the_told_rate_is_fine():
    guard = RateGuard(RateGuardConfig(), 30.0)
    for second in range(6):
        guard.hear(Pace(player=1, ticks=28 * second, missed=2 * second, rate_hz=30, frames_hz=30))
    assert guard.share < 1.0


def test_a_game_that_falls_behind_counts_as_the_player_does():
    guard = RateGuard(RateGuardConfig(), 30.0)
    for second in range(6):
        guard.hear(Pace(player=1, ticks=30 * second, missed=0, rate_hz=30.0, frames_hz=24.0))
    assert guard.share < 1.0
    assert guard.text.endswith("24.0/30 Hz")


def test_the_pause_makes_a_step_take_its_share_of_the_time():
    guard = RateGuard(RateGuardConfig(), 30.0)
    guard.share = 0.25
    assert guard.pause_s(0.1) == pytest.approx(0.3)


def test_the_same_report_counts_once():
    guard = RateGuard(RateGuardConfig(), 30.0)
    for _ in range(2):
        guard.hear(Pace(player=1, ticks=10, missed=0, rate_hz=10.0, frames_hz=0.0))
    for _ in range(50):
        guard.hear(Pace(player=1, ticks=20, missed=20, rate_hz=10.0, frames_hz=0.0))
    assert guard.share == 1.0


def test_training_is_fast_again_once_nobody_drives():
    guard, machine = make(room=0.3)
    machine.report(20)
    assert guard.share < 1.0
    guard.hear(None)
    assert guard.share == 1.0
    assert guard.text == ""


def test_a_player_that_is_too_slow_by_itself_is_not_waited_for():
    guard, machine = make(room=-1.0, slowest_hz=20.0)
    machine.room = -1e9  # whatever training does, the player makes 20 Hz
    machine.report(HOPELESS + 20)
    assert guard.share == 1.0
    assert "not slowed" in guard.text
    machine.report(LET_GO)
    assert guard.share < 1.0  # and it is tried again


def test_slowing_down_that_helps_a_little_goes_on():
    guard, machine = make(room=0.0, slowest_hz=10.0, least=0.3)
    machine.report(HOPELESS + 30)  # 10 Hz at full speed, 24 Hz at the least share
    assert guard.share == 0.3


@pytest.mark.parametrize("hears_in_pauses", [False, True])
def test_steps_of_seconds_are_judged_with_their_pauses(hears_in_pauses):
    """A player makes a third of its predictions while a step runs, and all of them in a pause."""
    guard, ticks, missed = RateGuard(RateGuardConfig(), 30.0), 0, 0
    for _ in range(40):  # steps of 4 s
        ticks, missed = ticks + 40, missed + 80
        pauses = round(guard.pause_s(4.0) / 0.5)
        for _ in range(pauses):
            ticks += 15
            guard.hear(pace(ticks, missed), is_paused=not hears_in_pauses)
        guard.hear(pace(ticks, missed))
    # Heard in pauses, in which all is well, it would take back at once what it gave.
    assert (guard.share > 0.4) if hears_in_pauses else (guard.share <= 0.15)


def test_who_leaves_during_a_pause_is_noticed():
    guard = RateGuard(RateGuardConfig(), 30.0)
    for second in range(1, 9):
        guard.hear(pace(10 * second, 20 * second))
    assert guard.share < 1.0
    guard.hear(None, is_paused=True)
    assert guard.share == 1.0


def test_switched_off_it_never_slows():
    guard, machine = make(room=0.0, is_enabled=False)
    machine.report(30)
    assert guard.share == 1.0


def peer(**changes):
    given = {"id": 1, "role": "player", "pid": 1, "state": "driving", "rate_hz": 30.0, "age_s": 1.0,
             "detail": {"ticks": 30.0, "missed": 1.0, "fps": 29.0}, "bins": None}  # fmt: skip
    return PeerInfo(**(given | changes))


def test_the_slowest_player_that_drives_is_what_counts():
    others = [peer(id=2, role="collector"), peer(id=3, state="waiting", rate_hz=0.0)]
    assert slowest_pace(others) is None
    slow = slowest_pace([*others, peer(), peer(id=4, rate_hz=20.0)])
    assert slow == Pace(player=4, ticks=30, missed=1, rate_hz=20.0, frames_hz=29.0)


@pytest.mark.parametrize("changes", [{"target": 0.0}, {"target": 1.1}, {"least": 0.0}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError, match=r"guard\."):
        RateGuardConfig(**changes)
