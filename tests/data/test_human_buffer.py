"""What a person shows is drawn at once, often, and not for ever."""

import numpy as np
import pytest

from charles.data.buffers import Buffers
from charles.data.human import Arrivals, HumanBuffer, dealt, human_ids, joined
from charles.errors import ConfigError


def make(capacity=20, draws_each=4, seed=0):
    return HumanBuffer(capacity, draws_each=draws_each, seed=seed)


def add(buffer, numbers):
    """Samples whose slot is 100 more than their id."""
    ids = np.array(numbers, np.int64)
    return buffer.add((ids + 100).astype(np.uint32), ids)


def test_new_samples_come_first_in_the_order_in_which_they_came():
    buffer = make()
    add(buffer, range(5))
    assert buffer.draw(3)["id"].tolist() == [0, 1, 2]
    add(buffer, [5])
    assert buffer.draw(3)["id"].tolist() == [3, 4, 5]


def test_each_is_drawn_a_bounded_number_of_times_and_never_twice_in_a_batch():
    buffer = make(draws_each=4)
    add(buffer, range(10))
    times = np.zeros(10, int)
    gone = []
    while len(buffer):
        drawn = buffer.draw(3)
        assert len(set(drawn["id"].tolist())) == len(drawn)
        times[drawn["id"]] += 1
        gone += drawn["id"][buffer.is_used_up(drawn)].tolist()
    assert times.tolist() == [4] * 10
    assert sorted(gone) == list(range(10))
    assert (buffer.received, buffer.drawn) == (10, 40)
    assert len(buffer.draw(3)) == 0


def test_a_full_buffer_lets_go_of_the_oldest():
    buffer = make(capacity=4)
    add(buffer, range(3))
    slots, ids = add(buffer, [3, 4, 5])
    assert (slots.tolist(), ids.tolist()) == ([100, 101], [0, 1])
    assert buffer.slots().tolist() == [102, 103, 104, 105]
    slots, ids = add(buffer, range(6, 16))
    assert ids.tolist() == [2, 3, 4, 5, *range(6, 12)]


def test_a_buffer_without_room_keeps_nothing():
    slots, _ = add(make(capacity=0), range(3))
    assert slots.tolist() == [100, 101, 102]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_restored_buffer_draws_as_the_first_would_have(steps):
    first = make(seed=3)
    add(first, range(12))
    for _ in range(steps):
        first.draw(4)
    state = first.state()
    again = make(seed=9)
    ids = human_ids(state)
    restored = again.restore(state, {one: one + 100 for one in ids} | {50: 150, 3: 103}, {3})
    assert restored.missing == 0
    assert restored.fresh.tolist() == [50]
    while len(first):
        np.testing.assert_array_equal(first.draw(4), again.draw(4))
    assert again.received == 12


def test_what_the_disk_lacks_is_counted_and_what_was_used_up_is_told():
    first = make()
    add(first, range(6))
    for _ in range(3):
        first.draw(6)
    first._entries = first._entries[2:]  # as if two had been used up
    again = make()
    found = {one: one + 100 for one in (0, 1, 3, 4, 5)}
    restored = again.restore(first.state(), found, {0})
    assert restored.missing == 1
    assert restored.used.tolist() == [1]  # 0 is in a batch that is under way
    assert len(again) == 3


def test_a_smaller_buffer_keeps_the_newest_of_a_state_and_an_old_state_leaves_it_empty():
    first = make()
    add(first, range(6))
    again = make(capacity=2)
    again.restore(first.state(), {one: one for one in range(6)}, set())
    assert again.slots().tolist() == [4, 5]
    empty = make()
    assert empty.restore({}, {7: 7}, set()).fresh.tolist() == [7]
    assert len(empty) == 0


def test_a_batch_keeps_its_parts_and_people_do_not_change_what_else_is_drawn():
    alone, mixed = (Buffers(2, 8, keep_fraction=0.1, seed=1) for _ in range(2))
    for buffers in (alone, mixed):
        for output in range(2):
            ids = np.arange(8) + 10 * output
            buffers.add(output, ids.astype(np.uint32), ids)
    human = make()
    add(human, [30, 31, 32])
    counts = dealt(3, 2)
    draw = mixed.draw(4, counts)
    drawn = human.draw(3)
    batch = joined(draw, drawn, human.is_used_up(drawn), counts)
    assert batch.outputs.tolist() == [0] * 4 + [1] * 4
    assert batch.ids[2:4].tolist() == [30, 31]
    assert batch.ids[-1] == 32
    assert batch.slots[2:4].tolist() == [130, 131]
    assert (batch.ids[[0, 1]] < 10).all()
    assert batch.is_finished.tolist() == [True, True, False, False, True, True, True, False]
    without = alone.draw(4)
    assert without.ids.shape == (8,)
    assert alone.sizes() == [4, 4]
    assert mixed.sizes() == [6, 5]


def test_the_first_sample_of_every_turn_is_waited_for_until_it_is_drawn():
    arrivals = Arrivals()
    for slot, episode, captured_ns in ((1, 7, 10), (2, 7, 20), (3, 8, 30)):
        arrivals.came(slot, episode, captured_ns)
    assert arrivals.drawn(np.array([2])) == 0
    assert arrivals.drawn(np.array([3, 1])) == 10
    assert arrivals.drawn(np.array([1, 3])) == 0
    arrivals.came(4, 9, 40)
    arrivals.gone(np.array([4]))
    assert arrivals.drawn(np.array([4])) == 0


def test_a_sample_must_be_drawn_at_least_once():
    with pytest.raises(ConfigError, match=r"data\.human_draws"):
        make(draws_each=0)
