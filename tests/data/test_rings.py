import multiprocessing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.data.rings import Ring
from charles.data.shm import Block, unique_name
from charles.errors import SharedMemoryError


def make_ends(capacity):
    memory = memoryview(bytearray(Ring.num_bytes(capacity)))
    return Ring(memory, capacity), Ring(memory, capacity)


@given(
    st.integers(1, 9),
    st.lists(st.one_of(st.integers(0, 9), st.lists(st.integers(0, 2**32 - 1), max_size=10))),
)
def test_ring_behaves_as_a_bounded_queue(capacity, actions):
    producer, consumer = make_ends(capacity)
    model = []
    for action in actions:
        if isinstance(action, list):
            fits = len(model) + len(action) <= capacity
            assert producer.push(action) is fits
            model += action if fits else []
        else:
            taken = consumer.pop(action)
            assert taken.dtype == np.uint32
            assert taken.tolist() == model[:action]
            model = model[action:]
        assert len(producer) == len(consumer) == len(model)


def test_counters_that_make_no_sense_are_refused():
    memory = memoryview(bytearray(Ring.num_bytes(4)))
    ring = Ring(memory, 4)
    memory[64:72] = np.uint64(99).tobytes()
    with pytest.raises(SharedMemoryError, match="got head 0 and tail 99"):
        ring.pop(4)


def produce(name, capacity, total):
    block = Block.attach(name)
    ring = Ring(block.buffer, capacity)
    rng = np.random.default_rng(0)
    sent = 0
    while sent < total:
        count = min(int(rng.integers(1, capacity + 1)), total - sent)
        if ring.push(range(sent, sent + count)):
            sent += count


def test_numbers_cross_processes_in_order_and_complete():
    capacity, total = 61, 4_000
    block = Block.create(unique_name("test"), Ring.num_bytes(capacity))
    ring = Ring(block.buffer, capacity)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=produce, args=(block.name, capacity, total))
    process.start()
    try:
        expected = 0
        while expected < total and (process.is_alive() or len(ring)):
            values = ring.pop(50).tolist()
            assert values == list(range(expected, expected + len(values)))
            expected += len(values)
        assert expected == total
    finally:
        process.kill()
        process.join()
        process.close()
        ring.close()
        block.unlink()
        block.close()
