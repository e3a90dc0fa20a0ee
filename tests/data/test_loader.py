import threading
import time

import numpy as np
import pytest

from charles.data.buffers import Buffers
from charles.data.exchange import Exchange
from charles.data.loader import MAX_PENDING, Loader, gather, make_batch, restore_pending
from charles.data.pool import PoolSpec
from charles.sample import SampleSpec

SAMPLE = SampleSpec(height=8, width=8, history_length=4)
CAPACITY = 16
SHARE = 3


class Data:
    """Pool and buffers of one process, filled with numbered samples, and a loader's callbacks."""

    def __init__(self, seed=0):
        self.exchange = Exchange(
            PoolSpec(num_slots=100, sample=SAMPLE), max_collectors=1, slots_per_collector=4
        )
        self.buffers = Buffers(2, CAPACITY, keep_fraction=0.2, seed=seed)
        self.lock = threading.Lock()
        self.forgotten = []

    def load(self, ids):
        """Put samples into the pool; returns their slots by id."""
        slots = self.exchange.acquire(len(ids)).tolist()
        for number, slot in zip(ids, slots, strict=True):
            header = np.zeros(1, SAMPLE.header_dtype)[0]
            header["speed_mps"] = number
            header["purpose"] = (number, -number)
            header["label"] = number
            header["history"][:] = number
            self.exchange.pool.put(slot, header, np.full(SAMPLE.pixels_shape, number, np.uint8))
        return dict(zip(ids, slots, strict=True))

    def fill(self):
        slots = self.load(list(range(2 * CAPACITY)))
        for output in range(2):
            ids = np.arange(output * CAPACITY, (output + 1) * CAPACITY)
            self.buffers.add(output, np.array([slots[one] for one in ids.tolist()]), ids)

    def draw(self):
        with self.lock:
            return self.buffers.draw(SHARE)

    def release(self, draw):
        with self.lock:
            self.exchange.release(draw.finished_slots)

    def forget(self, draw):
        with self.lock:
            self.forgotten += draw.finished_ids.tolist()

    def loader(self, **settings):
        return Loader(self.exchange.pool, 2 * SHARE, draw=self.draw, release=self.release,
                      finish=self.forget, **settings)  # fmt: skip


@pytest.fixture
def datas():
    made = []

    def make(seed=0):
        made.append(Data(seed))
        return made[-1]

    yield make
    for data in made:
        data.exchange.close()


@pytest.fixture
def data(datas):
    data = datas()
    data.fill()
    return data


@pytest.mark.parametrize("pixel_format", ["rgb", "yuv420"])
def test_gather_copies_what_the_slots_hold(pixel_format):
    sample = SampleSpec(height=6, width=8, history_length=3, pixel_format=pixel_format)
    exchange = Exchange(
        PoolSpec(num_slots=9, sample=sample), max_collectors=1, slots_per_collector=1
    )
    pool, rng = exchange.pool, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, *sample.pixels_shape)).astype(np.uint8)
    history = rng.normal(size=(9, 3, 5)).astype(np.float32)
    for slot in range(9):
        with pool.writing(slot) as (header, target):
            header["history"] = history[slot]
            header["label"] = (slot, -slot)
            header["speed_mps"] = slot
            target[:] = pixels[slot]
    slots = np.array([7, 0, 3, 3], np.uint32)
    batch = make_batch(sample, 4)
    assert gather(pool, slots, batch).all()
    np.testing.assert_array_equal(batch["pixels"], pixels[slots])
    np.testing.assert_array_equal(batch["history"], history[slots])
    np.testing.assert_array_equal(batch["label"][:, 1], [-7, 0, -3, -3])
    np.testing.assert_array_equal(batch["speed"], [7, 0, 3, 3])
    shapes = {key: (array.shape[1:], array.dtype.name) for key, array in batch.items()}
    assert shapes == {
        "pixels": (sample.pixels_shape, "uint8"),
        "speed": ((), "float32"),
        "purpose": ((2,), "float32"),
        "history": ((3, 5), "float32"),
        "label": ((2,), "float32"),
    }
    exchange.close()


def test_batches_hold_each_sample_once_and_its_slots_come_back(data):
    loader = data.loader()
    seen = []
    while (batch := loader.get(timeout_s=0.2)) is not None:
        numbers = batch.data["speed"]
        assert batch.draw.ids.tolist() == numbers.tolist()
        assert (batch.data["pixels"] == numbers.astype(np.uint8)[:, None, None]).all()
        seen += numbers.tolist()
        loader.finish(batch)
    loader.close()
    assert len(seen) == len(set(seen)) == 5 * 2 * SHARE  # then each buffer is below its share
    assert sorted(data.forgotten) == sorted(seen)
    assert data.exchange.counts()["buffer"] == 2 * CAPACITY - len(seen)
    data.exchange.check()


def test_memory_of_a_batch_is_not_touched_before_it_is_finished(data):
    loader = data.loader()
    held = [loader.get(timeout_s=5) for _ in range(3)]
    time.sleep(0.05)  # the thread makes further batches meanwhile
    for batch in held:
        assert batch.arrays["speed"].tolist() == batch.draw.ids.tolist()
    first = held[0].arrays
    loader.finish(held[0])
    loader.get(timeout_s=5)
    loader.close()
    assert len({id(batch.arrays) for batch in held}) == 3
    assert first is held[0].arrays


def test_torn_sample_is_counted_and_its_batch_is_never_delivered(data):
    torn_slot = int(data.buffers.slots()[0])
    with pytest.raises(ZeroDivisionError), data.exchange.pool.writing(torn_slot):
        raise ZeroDivisionError
    loader = data.loader()
    delivered = []
    while (batch := loader.get(timeout_s=0.2)) is not None:
        delivered += batch.draw.slots.tolist()
        loader.finish(batch)
    loader.close()
    assert loader.torn == (torn_slot not in data.buffers.slots())
    assert torn_slot not in delivered
    data.exchange.check()


def test_sample_that_is_rewritten_while_it_is_gathered_counts_as_torn(data):
    class Rewriting(dict):
        """Rewrites the sample's slot completely between the copy of pixels and of headers."""

        def __getitem__(self, key):
            if key == "speed":
                with pool.writing(slot):
                    pass
            return super().__getitem__(key)

    pool, slot = data.exchange.pool, int(data.buffers.slots()[0])
    batch = Rewriting(make_batch(SAMPLE, 2))
    other = int(data.buffers.slots()[1])
    assert gather(pool, np.array([slot, other]), batch).tolist() == [False, True]


def test_error_in_the_thread_is_raised_again_in_the_caller(data):
    def fail(arrays):
        raise ZeroDivisionError("in the thread")

    loader = data.loader(convert=fail)
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        loader.get(timeout_s=5)
    loader.close()


def test_convert_runs_ahead_in_the_thread(data):
    threads = []
    loader = data.loader(convert=lambda arrays: threads.append(threading.current_thread().name))
    assert loader.get(timeout_s=5).data is None
    loader.close()
    assert set(threads) == {"loader"}


def test_no_data_means_no_batch_and_a_prompt_end(datas):
    loader = datas().loader()
    assert loader.get(timeout_s=0.05) is None
    started_s = time.monotonic()
    loader.close()
    loader.close()
    assert time.monotonic() - started_s < 1


def test_draws_that_nobody_finishes_are_bounded(datas):
    data = datas()
    data.buffers = Buffers(2, CAPACITY, keep_fraction=0.01, replay_ratio=100, seed=0)
    data.fill()
    loader = data.loader()
    got = 0
    while loader.get(timeout_s=0.2) is not None:
        got += 1
    loader.close()
    assert got == MAX_PENDING


@pytest.mark.parametrize("held", [0, 1, 2])
def test_resume_delivers_exactly_the_batches_that_the_first_run_would_have(datas, data, held):
    def ids_of(loader, count):
        ids = []
        for _ in range(count):
            batch = loader.get(timeout_s=5)
            assert batch.data["speed"].tolist() == batch.draw.ids.tolist()
            ids.append(batch.draw.ids.tolist())
            loader.finish(batch)
        return ids

    loader = data.loader()
    ids_of(loader, 1)
    out = [loader.get(timeout_s=5) for _ in range(held)]  # handed out, not yet trained on
    time.sleep(0.02)  # others are ready or under way
    state = loader.state(data.buffers.state)
    expected = [batch.draw.ids.tolist() for batch in out] + ids_of(loader, 3 - held)
    loader.close()

    other = datas(seed=5)
    by_id = other.load([one for one in range(2 * CAPACITY) if one not in data.forgotten[:6]])
    draws, missing = restore_pending(state, by_id)
    restored = other.buffers.restore(state, by_id, draws)
    assert (missing, restored.missing, len(restored.fresh), len(restored.used)) == (0, 0, 0, 0)
    again = other.loader(pending=draws)
    assert ids_of(again, 3) == expected
    again.close()
    assert other.exchange.counts()["buffer"] == len(other.buffers.slots())


def test_pending_draw_whose_samples_are_gone_is_dropped_and_counted(data):
    loader = data.loader()
    time.sleep(0.05)
    state = loader.state(data.buffers.state)
    loader.close()
    first = state["pending_ids"][0].tolist()
    by_id = {one: 0 for one in range(2 * CAPACITY) if one not in first[:2]}
    draws, missing = restore_pending(state, by_id)
    assert missing == 2
    assert len(draws) == int(state["num_pending"]) - 1
