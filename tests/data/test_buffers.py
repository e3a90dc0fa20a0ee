import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.data.buffers import Buffers, Draw
from charles.errors import ConfigError


def make(capacity=10, outputs=2, ratio=0.0, keep=0.8, start=1.0, seed=0):
    return Buffers(outputs, capacity, keep_fraction=keep, start_fraction=start, replay_ratio=ratio,
                   seed=seed)  # fmt: skip


def fill(buffers, first=0):
    """Fill every buffer; slot and id of a sample are the same number."""
    for output in range(len(buffers.sizes())):
        numbers = np.arange(first, first + buffers.capacity)
        buffers.add(output, numbers, numbers)
        first += buffers.capacity
    return first


def test_training_starts_when_all_are_full_and_goes_on_while_each_holds_its_share():
    buffers = make(capacity=10, keep=0.8)
    buffers.add(0, np.arange(10), np.arange(10))
    buffers.add(1, np.arange(10, 19), np.arange(10, 19))
    assert buffers.shortfall() == {1: "90% < 100%"}
    assert buffers.draw(1) is None
    buffers.add(1, np.array([19]), np.array([19]))
    assert buffers.shortfall() == {}
    for _ in range(3):  # 10 -> 7 < 8
        assert buffers.draw(1) is not None
    assert buffers.shortfall() == {0: "70% < 80%", 1: "70% < 80%"}
    assert buffers.draw(1) is None
    buffers.add(0, np.array([20]), np.array([20]))
    buffers.add(1, np.array([21]), np.array([21]))
    assert buffers.draw(1) is not None  # it need not be full again


def test_training_may_start_before_the_buffers_are_full():
    buffers = make(capacity=10, keep=0.3, start=0.5)
    buffers.add(0, np.arange(10), np.arange(10))
    buffers.add(1, np.arange(10, 14), np.arange(10, 14))
    assert buffers.shortfall() == {1: "40% < 50%"}
    buffers.add(1, np.array([14]), np.array([14]))
    for _ in range(3):  # 5 -> 2 < 3
        assert buffers.draw(1) is not None
    assert buffers.shortfall() == {1: "20% < 30%"}


def test_draw_takes_as_many_from_each_buffer_and_removes_them():
    buffers = make()
    fill(buffers)
    draw = buffers.draw(2)
    assert draw.outputs.tolist() == [0, 0, 1, 1]
    assert (draw.slots // 10 == draw.outputs).all()
    assert buffers.sizes() == [8, 8]
    assert not set(draw.slots.tolist()) & set(buffers.slots().tolist())
    assert draw.finished_slots.tolist() == draw.slots.tolist()
    assert draw.finished_ids.tolist() == draw.ids.tolist()


def test_share_of_a_batch_that_a_buffer_cannot_give_is_a_shortfall():
    buffers = make(capacity=10, keep=0.5)
    fill(buffers)
    assert buffers.draw(4) is not None
    assert buffers.shortfall() == {}
    assert buffers.shortfall(7) == {0: "60% < 70%", 1: "60% < 70%"}
    assert buffers.draw(7) is None


def test_full_buffer_replaces_its_oldest():
    buffers = make(capacity=4, outputs=1)
    slots, ids = buffers.add(0, np.arange(6), np.arange(100, 106))
    assert sorted(slots.tolist()) == [0, 1]
    assert sorted(ids.tolist()) == [100, 101]
    slots, ids = buffers.add(0, np.arange(6, 9), np.arange(106, 109))
    assert sorted(slots.tolist()) == [2, 3, 4]
    assert buffers.sizes() == [4]


def test_replayed_samples_stay_and_what_came_in_paces_the_draws():
    buffers = make(capacity=10, ratio=3, start=0.5)
    buffers.add(0, np.arange(6), np.arange(6))
    buffers.add(1, np.arange(10, 14), np.arange(10, 14))
    assert buffers.shortfall(2) == {1: "40% < 50%"}
    buffers.add(1, np.array([14]), np.array([14]))
    draws = []
    while (draw := buffers.draw(2)) is not None:
        assert not draw.is_finished.any()
        draws.append(draw)
    assert len(draws) == 7  # 3 x 5 // 2
    assert buffers.sizes() == [6, 5]
    assert buffers.stock() == [4, 1]
    assert buffers.shortfall(2) == {1: "drawn 3 times each"}
    buffers.add(1, np.array([15]), np.array([15]))
    assert buffers.draw(2) is not None  # a sample more: three draws more


def test_stock_of_draw_and_remove_is_what_the_buffers_hold():
    buffers = make(capacity=10)
    fill(buffers)
    buffers.draw(2)
    assert buffers.stock() == buffers.sizes() == [8, 8]


def test_draws_are_uniform():
    counts = np.zeros(50)
    buffers = make(capacity=50, outputs=1, keep=0.1, seed=3)
    draws = 1500
    for _ in range(draws):
        fill(buffers)
        counts[buffers.draw(8).slots] += 1
    expected = draws * 8 / 50
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 94  # 49 degrees of freedom: exceeded once in 10,000


actions = st.lists(
    st.one_of(st.tuples(st.integers(0, 1), st.integers(1, 9)), st.just("draw")), max_size=40
)


def play(buffers, actions, number):
    """Play actions; returns what came out and the next free number."""
    happened = []
    for action in actions:
        if action == "draw":
            draw = buffers.draw(2)
            happened.append(None if draw is None else draw.ids.tolist())
        else:
            output, count = action
            numbers = np.arange(number, number + count)
            number += count
            happened.append(buffers.add(output, numbers, numbers)[1].tolist())
    return happened, number


@settings(deadline=None)
@given(actions, actions, st.sampled_from([0.0, 0.5, 3.0]))
def test_restored_buffers_go_on_exactly_as_the_first_would_have(before, after, ratio):
    buffers = make(capacity=6, ratio=ratio, keep=0.4)
    _, number = play(buffers, before, fill(buffers))
    state = {key: value.copy() for key, value in buffers.state().items()}
    expected, _ = play(buffers, after, number)
    other = make(capacity=6, ratio=ratio, keep=0.4, seed=99)
    moved = {one: one + 7 for one in range(number)}  # on a resume, samples lie in other slots
    restored = other.restore(state, moved)
    assert restored.missing == 0
    assert len(restored.fresh) == 0
    assert set(restored.used.tolist()) | {s - 7 for s in other.slots().tolist()} == set(moved)
    actual, _ = play(other, after, number)
    assert actual == expected


def test_state_keeps_its_shapes_so_that_checkpoints_do():
    buffers = make()
    empty = buffers.state()
    fill(buffers)
    buffers.draw(2)
    full = buffers.state()
    assert {k: (v.shape, v.dtype) for k, v in empty.items()} == {
        k: (v.shape, v.dtype) for k, v in full.items()
    }


def test_what_disk_and_checkpoint_do_not_share_is_told_apart():
    buffers = make(capacity=3, outputs=1)
    buffers.add(0, np.arange(3), np.array([10, 11, 12]))
    buffers.add(0, np.array([3]), np.array([13]))  # 10 is replaced
    pending = Draw(
        slots=np.array([5]), ids=np.array([9]), outputs=np.array([0]), is_finished=np.array([True])
    )
    other = make(capacity=3, outputs=1)
    found = {9: 0, 10: 1, 11: 2, 13: 3, 14: 4}  # 12 was lost, 14 came later
    restored = other.restore(buffers.state(), found, [pending])
    assert (restored.missing, restored.fresh.tolist(), restored.used.tolist()) == (1, [14], [10])
    assert other.slots().tolist() == [3, 2] or other.slots().tolist() == [2, 3]


def test_state_of_other_buffers_and_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match=r"capacity \(2, 10\), got \(2, 5\)"):
        make(capacity=5).restore(make(capacity=10).state(), {})
    for wrong in ({"capacity": 0}, {"keep": 0.0}, {"keep": 1.1}, {"ratio": -1.0}, {"outputs": 0}):
        with pytest.raises(ConfigError, match="must"):
            make(**wrong)
