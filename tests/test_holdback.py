"""Samples of the seconds before an expert's crash never reach the trainer; all others do."""

import pytest

from charles.collect_config import CollectConfig
from charles.errors import ConfigError
from charles.holdback import Holdback

S = 1_000_000_000


def due(held, now_s):
    return list(held.due(round(now_s * S)))


def test_nothing_is_held_back_where_nothing_is_to_be_dropped():
    held = Holdback(0.0)
    held.capture(1, 5 * S)
    held.complete([1])
    held.crash(5 * S)
    assert due(held, 5.0) == [([1], [])]
    assert due(held, 5.0) == []


def test_a_set_waits_for_its_newest_sample_and_sets_keep_their_order():
    held = Holdback(2.0)
    for slot, at_s in ((1, 0), (2, 3), (3, 4)):
        held.capture(slot, at_s * S)
    held.complete([1, 2])
    held.complete([3])
    assert due(held, 4.9) == []
    assert due(held, 5.0) == [([1, 2], [])]
    assert due(held, 9.0) == [([3], [])]


def test_a_crash_spoils_what_was_captured_shortly_before_finished_or_not():
    held = Holdback(2.0)
    for slot, at_s in ((1, 0), (2, 3), (3, 4)):
        held.capture(slot, at_s * S)
    held.complete([1, 2])
    held.crash(round(4.5 * S))
    held.complete([3])
    assert due(held, 9.0) == [([1], [2]), ([], [3])]


def test_a_slot_that_is_used_again_after_a_crash_is_a_new_sample():
    held = Holdback(2.0)
    held.capture(1, 1 * S)
    held.crash(2 * S)
    held.capture(1, 3 * S)
    held.complete([1])
    assert due(held, 5.0) == [([1], [])]


def test_a_time_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="drop_before_crash_s"):
        CollectConfig(drop_before_crash_s=-1.0)
