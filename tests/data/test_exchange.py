import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from charles.data.exchange import Exchange
from charles.data.pool import Lane, LaneSpec, PoolSpec
from charles.data.shm import block_dir
from charles.errors import ConfigError, SharedMemoryError
from charles.sample import SampleSpec

SAMPLE = SampleSpec(height=2, width=4, pixel_format="rgb", history_length=2)
QUOTA = 4


@pytest.fixture
def exchange():
    spec = PoolSpec(num_slots=12, sample=SAMPLE)
    exchange = Exchange(spec, max_collectors=2, slots_per_collector=QUOTA)
    yield exchange
    exchange.close()


@pytest.fixture
def lane(exchange):
    lane = Lane(exchange.open_lane(0))
    yield lane
    lane.close()


def write(lane, number):
    slot = lane.claim()
    with lane.writing(slot) as (header, pixels):
        header["frame_index"] = number
        header["history"][:] = number
        pixels[:] = number
    return slot


def test_published_samples_arrive_in_order_with_all_their_content(exchange, lane):
    slots = [write(lane, number) for number in (5, 6, 7)]
    assert len(exchange.poll(0)) == 0  # the reader never sees an unpublished slot
    lane.publish(slots)
    taken = exchange.poll(0)
    assert taken.tolist() == slots
    assert exchange.pool.headers["frame_index"][taken].tolist() == [5, 6, 7]
    assert (exchange.pool.headers["history"][taken[1]] == 6).all()
    assert (exchange.pool.pixels[taken[2]] == 7).all()
    assert exchange.pool.headers["collector"].flags.writeable
    exchange.check()


def test_slots_are_aligned_and_specs_survive_the_wire(exchange):
    spec = exchange.open_lane(1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=LaneSpec) == spec
    for array in (exchange.pool.headers, exchange.pool.pixels):
        assert array.ctypes.data % 64 == 0
        assert array.strides[0] % 64 == 0


def test_collector_holds_at_most_its_quota(exchange, lane):
    slots = [write(lane, 1) for _ in range(QUOTA)]
    exchange.refill()
    assert lane.claim() is None
    lane.publish(slots)
    exchange.refill()
    assert lane.claim() is None  # published ones still count until they are polled
    exchange.poll(0)
    exchange.refill()
    assert lane.claim() is not None


def test_rejected_slot_is_used_again_in_place(lane):
    first = write(lane, 1)
    lane.give_back(first)
    assert lane.claim() == first
    assert lane.pool.begins[first] == lane.pool.ends[first] == 1
    with lane.writing(first):
        pass
    assert lane.pool.begins[first] == 2


def test_slot_whose_writing_failed_is_torn_and_cannot_be_published(lane):
    slot = lane.claim()
    with pytest.raises(ZeroDivisionError), lane.writing(slot):
        raise ZeroDivisionError
    assert not lane.pool.whole([slot])[0]
    with pytest.raises(SharedMemoryError, match="whole"):
        lane.publish([slot])


def test_wrong_publishing_and_giving_back_are_refused(lane):
    slot = write(lane, 1)
    with pytest.raises(SharedMemoryError, match="each once"):
        lane.publish([slot, slot])
    with pytest.raises(SharedMemoryError, match="claimed"):
        lane.publish([slot, 11])
    lane.publish([slot])
    with pytest.raises(SharedMemoryError, match="claimed"):
        lane.publish([slot])
    with pytest.raises(SharedMemoryError, match="claimed"):
        lane.give_back(slot)


def test_wrong_release_is_refused_as_a_whole(exchange, lane):
    lane.publish([write(lane, 1), write(lane, 2)])
    slots = exchange.poll(0)
    for wrong in ([*slots, 11], [*slots, slots[0]], [*slots, 99]):
        with pytest.raises(SharedMemoryError, match="held by a buffer"):
            exchange.release(wrong)
        exchange.check()
    exchange.release(slots)
    with pytest.raises(SharedMemoryError, match="held by a buffer"):
        exchange.release(slots)


def test_too_many_lanes_and_too_small_pools_are_refused(exchange):
    exchange.open_lane(0)
    with pytest.raises(ConfigError, match="collector_id must be new"):
        exchange.open_lane(0)
    exchange.open_lane(1)
    with pytest.raises(ConfigError, match=r"data.max_collectors \(2\), got 3"):
        exchange.open_lane(2)
    with pytest.raises(ConfigError, match="exceed 3 collectors x 4 slots, got 12"):
        Exchange(exchange.pool.spec, max_collectors=3, slots_per_collector=4)


def test_lane_for_another_kind_of_sample_is_refused(exchange):
    spec = exchange.open_lane(0)
    other = PoolSpec(name=spec.pool.name, num_slots=12, sample=SampleSpec())
    with pytest.raises(SharedMemoryError, match="another kind of sample"):
        Lane(LaneSpec(collector_id=0, pool=other, rings=spec.rings, quota=spec.quota))


def test_lane_sees_that_the_trainer_closed(exchange, lane):
    assert lane.is_owner_alive()
    exchange.close()
    assert not lane.is_owner_alive()
    assert write(lane, 3) is not None  # still mapped: no crash, the collector notices in time


def test_overwritten_rings_are_a_clear_error(exchange, lane):
    lane._filled._counters[8] = 1000
    with pytest.raises(SharedMemoryError, match="Something else wrote"):
        exchange.poll(0)
    exchange.close_lane(0)
    exchange.check()


def test_close_removes_every_block(exchange):
    names = [exchange.open_lane(0).rings, exchange.pool.spec.name]
    assert all((block_dir() / name).exists() for name in names)
    exchange.close()
    exchange.close()
    assert not any((block_dir() / name).exists() for name in names)


class ExchangeAgainstModel(RuleBasedStateMachine):
    """Pool, lanes and ledger against plain sets of slot numbers."""

    def __init__(self):
        super().__init__()
        spec = PoolSpec(num_slots=12, sample=SAMPLE)
        self.exchange = Exchange(spec, max_collectors=2, slots_per_collector=QUOTA)
        self.lanes = {}
        self.claimed = {}
        self.published = {}
        self.buffer = {}
        self.number = self.torn = self.foreign = 0

    def teardown(self):
        for lane in self.lanes.values():
            lane.close()
        self.exchange.close()

    @precondition(lambda self: len(self.lanes) < 2)
    @rule()
    def open(self):
        number = 0 if 0 not in self.lanes else 1
        self.lanes[number] = Lane(self.exchange.open_lane(number))
        self.claimed[number], self.published[number] = [], []

    @precondition(lambda self: self.lanes)
    @rule(data=st.data())
    def collector_dies(self, data):
        number = data.draw(st.sampled_from(sorted(self.lanes)))
        self.exchange.close_lane(number)
        self.lanes.pop(number).close()
        del self.claimed[number], self.published[number]

    @precondition(lambda self: self.lanes)
    @rule(data=st.data(), is_torn=st.booleans())
    def write(self, data, is_torn):
        number = data.draw(st.sampled_from(sorted(self.lanes)))
        slot = self.lanes[number].claim()
        if slot is None:
            return
        held = {s for slots in self.claimed.values() for s, _ in slots} | set(self.buffer)
        assert slot not in held
        self.number += 1
        try:
            with self.lanes[number].writing(slot) as (header, pixels):
                header["frame_index"] = self.number
                pixels[:] = self.number % 256
                if is_torn:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            self.claimed[number].append((slot, None))
        else:
            self.claimed[number].append((slot, self.number))

    @precondition(lambda self: any(self.claimed.values()))
    @rule(data=st.data())
    def give_back(self, data):
        number = data.draw(st.sampled_from([n for n, slots in self.claimed.items() if slots]))
        slot, _ = self.claimed[number].pop()
        self.lanes[number].give_back(slot)

    @precondition(lambda self: self.lanes)
    @rule(data=st.data())
    def publish(self, data):
        number = data.draw(st.sampled_from(sorted(self.lanes)))
        slots = self.claimed[number]
        # Around the collector's own checks, as a broken collector would.
        if not self.lanes[number]._filled.push([slot for slot, _ in slots]):
            return  # full of numbers that it does not hold
        self.lanes[number]._claimed.clear()
        self.published[number] += slots
        self.claimed[number] = []

    @precondition(lambda self: self.lanes)
    @rule(data=st.data())
    def publish_what_is_not_held(self, data):
        number = data.draw(st.sampled_from(sorted(self.lanes)))
        own = {slot for slot, _ in self.claimed[number] + self.published[number]}
        own |= set(self.lanes[number]._stock)
        wrong = [slot for slot in [*self.buffer, 12, 2**32 - 1] if slot not in own][:1]
        if self.lanes[number]._filled.push(wrong):
            self.published[number] += [(slot, "foreign") for slot in wrong]

    @precondition(lambda self: self.lanes)
    @rule(data=st.data())
    def poll(self, data):
        number = data.draw(st.sampled_from(sorted(self.lanes)))
        held = self.exchange._holders.copy()
        expected = []
        for slot, content in self.published[number]:
            if slot >= 12 or held[slot] != number:
                self.foreign += 1
                continue
            held[slot] = -2  # the same number twice is foreign the second time
            if content is None:
                self.torn += 1
            else:
                expected.append((slot, content))
        self.published[number] = []
        slots = self.exchange.poll(number)
        assert slots.tolist() == [slot for slot, _ in expected]
        for slot, content in expected:
            assert self.exchange.pool.headers["frame_index"][slot] == content
            assert (self.exchange.pool.pixels[slot] == content % 256).all()
        self.buffer.update(expected)

    @rule()
    def refill(self):
        self.exchange.refill()

    @rule(count=st.integers(0, 3))
    def acquire(self, count):
        slots = self.exchange.acquire(count)
        assert not set(slots.tolist()) & set(self.buffer)
        for slot in slots.tolist():
            self.number += 1
            with self.exchange.pool.writing(slot) as (header, pixels):
                header["frame_index"] = self.number
                pixels[:] = self.number % 256
            self.buffer[slot] = self.number

    @precondition(lambda self: self.buffer)
    @rule(data=st.data())
    def release(self, data):
        slots = data.draw(st.lists(st.sampled_from(sorted(self.buffer)), unique=True))
        self.exchange.release(slots)
        for slot in slots:
            del self.buffer[slot]

    @invariant()
    def every_slot_has_one_holder_and_no_buffered_sample_changes(self):
        self.exchange.check()
        counts = self.exchange.counts()
        assert counts["buffer"] == len(self.buffer)
        assert counts["free"] + counts["buffer"] + sum(counts["lanes"].values()) == 12
        assert (self.exchange.torn, self.exchange.foreign) == (self.torn, self.foreign)
        for slot, content in self.buffer.items():
            assert self.exchange.pool.headers["frame_index"][slot] == content
            assert self.exchange.pool.whole(np.array([slot]))[0]


TestExchangeAgainstModel = ExchangeAgainstModel.TestCase
TestExchangeAgainstModel.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
