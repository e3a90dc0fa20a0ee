"""The frame pool: fixed-size slots in shared memory, and who holds which.

A frame is copied into a slot once, and not again until a batch is gathered. Invariants:

* Every slot has exactly one holder: the free list, a lane (one collector), or a buffer. The
  :class:`Exchange`, in the trainer, keeps that ledger; nobody else writes it.
* Only the holder writes a slot. A collector publishes slots after their bytes are complete, a
  whole set with one store.
* A slot's header carries begin and end sequence numbers, equal once it is whole. A writer that
  died in between, or wrote while somebody read, leaves or makes them differ: a torn sample, which
  is counted and dropped, never delivered.

One lane has two rings in a block of its own: ``free`` (trainer → collector) and ``filled``
(collector → trainer).
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from charles.data.rings import Ring, fence
from charles.data.shm import Block, remove_stale, unique_name
from charles.errors import SharedMemoryError, require
from charles.sample import SampleSpec

FREE = -2
"""Holder number of a slot that nobody uses."""
BUFFER = -1
"""Holder number of a slot in a buffer; lanes have numbers from 0 on."""


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // 64) * 64


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """Everything a process needs to attach to a pool; crosses process boundaries."""

    name: str
    """Name of the shared-memory block, from :func:`charles.data.shm.unique_name`."""
    num_slots: int
    """Slots in the pool."""
    sample: SampleSpec
    """What a slot holds."""

    def __post_init__(self) -> None:
        require(0 < self.num_slots < 2**31, "num_slots", "lie in 1..2^31", self.num_slots)

    @property
    def pixels_at(self) -> int:
        """Where a slot's pixels start, in bytes."""
        return _aligned(self.sample.header_dtype.itemsize)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot, a multiple of 64."""
        return self.pixels_at + _aligned(self.sample.pixels_bytes)

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole pool."""
        return self.num_slots * self.slot_bytes


class Writing:
    """A slot that is being written; a context manager that gives ``(header, pixels)``.

    ``header`` is the slot's record, ``pixels`` its uint8 view; both are written in place. Leaving
    the block normally makes the slot whole, an exception leaves it torn.
    """

    __slots__ = ("_pool", "_sequence", "_slot")

    def __init__(self, pool: "Pool", slot: int, sequence: int) -> None:
        self._pool = pool
        self._slot = slot
        self._sequence = sequence

    def __enter__(self) -> tuple[np.void, np.ndarray]:
        pool, slot = self._pool, self._slot
        pool.begins[slot] = self._sequence
        fence()
        return pool.headers[slot], pool.pixels[slot]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            fence()
            self._pool.ends[self._slot] = self._sequence


class Pool:
    """Slots in shared memory; made by :meth:`create` (the owner) or :meth:`attach`.

    Attributes:
        headers: Records ``[N]`` of the sample's ``header_dtype``; a view of the slots.
        pixels: uint8 ``[N, *pixels_shape]``; a view of the slots.
        begins: uint64 ``[N]``, the headers' first sequence numbers.
        ends: uint64 ``[N]``, the headers' last sequence numbers.
    """

    def __init__(self, spec: PoolSpec, block: Block) -> None:
        if block.num_bytes != spec.num_bytes:
            block.close()
            raise SharedMemoryError(
                f"Pool {spec.name!r} must have {spec.num_bytes} bytes ({spec.num_slots} slots of "
                f"{spec.slot_bytes}), got {block.num_bytes}. It was made for another kind of "
                "sample; connect to the trainer again."
            )
        self.spec = spec
        self.block = block
        num, stride, sample = spec.num_slots, spec.slot_bytes, spec.sample
        self.headers = np.ndarray(num, sample.header_dtype, block.buffer, 0, stride)
        inner = np.empty(sample.pixels_shape, np.uint8).strides
        shape = (num, *sample.pixels_shape)
        self.pixels = np.ndarray(shape, np.uint8, block.buffer, spec.pixels_at, (stride, *inner))
        self.begins = self.headers["begin"]
        self.ends = self.headers["end"]

    @classmethod
    def create(cls, spec: PoolSpec) -> Self:
        """Make the pool; this process owns it and must ``close`` it.

        Raises:
            SharedMemoryError: It does not fit into memory; the text has the numbers.
        """
        return cls(spec, Block.create(spec.name, spec.num_bytes))

    @classmethod
    def attach(cls, spec: PoolSpec) -> Self:
        """Map a pool that another process owns.

        Raises:
            SharedMemoryError: It is gone, or has another size than ``spec`` tells.
        """
        return cls(spec, Block.attach(spec.name))

    def writing(self, slot: int, sequence: int | None = None) -> Writing:
        """Write a slot that this process holds, in a ``with`` block.

        Args:
            slot: Slot number.
            sequence: A number above all that were used for this slot; the next one by default.
        """
        if sequence is None:
            sequence = int(self.begins[slot]) + 1
        return Writing(self, slot, sequence)

    def whole(self, slots: Sequence[int] | np.ndarray) -> np.ndarray:
        """Which slots ``[N]`` hold a complete sample, bool ``[N]``."""
        indices = np.asarray(slots, dtype=np.intp)
        begins = self.begins[indices]
        return (begins == self.ends[indices]) & (begins > 0)

    def close(self) -> None:
        """Let go of the memory; the owner also removes the block. May be called twice."""
        if self.block.is_owner:
            self.block.unlink()
        empty = np.empty(0, np.uint64)
        self.headers = self.pixels = self.begins = self.ends = empty
        self.block.close()


@dataclass(frozen=True, kw_only=True)
class LaneSpec:
    """Everything a collector needs to attach to its lane; crosses process boundaries."""

    collector_id: int
    """Number of the collector, from 0 on."""
    pool: PoolSpec
    rings: str
    """Name of the block with the lane's two rings."""
    quota: int
    """Slots that the collector may hold."""


def _rings_of(block: Block, quota: int) -> tuple[Ring, Ring]:
    """The ``free`` and the ``filled`` ring of a lane's block."""
    size = Ring.num_bytes(quota)
    return Ring(block.buffer[:size], quota), Ring(block.buffer[size:], quota)


class Lane:
    """The collector's side: claim a slot, write it, publish it. Use from one thread.

    Raises:
        SharedMemoryError: The trainer is gone.
    """

    def __init__(self, spec: LaneSpec) -> None:
        self.spec = spec
        self.pool = Pool.attach(spec.pool)
        try:
            self._block = Block.attach(spec.rings)
        except SharedMemoryError:
            self.pool.close()
            raise
        self._free, self._filled = _rings_of(self._block, spec.quota)
        self._stock: list[int] = []
        self._claimed: set[int] = set()

    def claim(self) -> int | None:
        """A slot to write to; ``None`` while the trainer has none to give. Never blocks."""
        if not self._stock:
            self._stock = self._free.pop(self.spec.quota).tolist()
            if not self._stock:
                return None
        slot = self._stock.pop()
        self._claimed.add(slot)
        return slot

    def writing(self, slot: int) -> Writing:
        """Write a claimed slot, in a ``with`` block that gives ``(header, pixels)``."""
        return self.pool.writing(slot)

    def publish(self, slots: Sequence[int]) -> None:
        """Hand whole slots to the trainer, all at once. They are no longer this collector's.

        Raises:
            SharedMemoryError: A slot is not claimed, or not whole.
        """
        taken = set(slots)
        if len(taken) != len(slots) or not taken <= self._claimed:
            raise SharedMemoryError(
                f"Published slots must be claimed ones, each once, got {list(slots)} "
                f"with {sorted(self._claimed)} claimed."
            )
        if not self.pool.whole(slots).all():
            raise SharedMemoryError(
                f"Published slots must be whole, got a torn one among {list(slots)}."
            )
        if not self._filled.push(slots):
            raise SharedMemoryError(
                f"A lane must hold at most its quota of {self.spec.quota} slots, got "
                f"{len(self._filled)} published and {len(slots)} more."
            )
        self._claimed -= taken

    def give_back(self, slot: int) -> None:
        """Return a claimed slot to this collector's own stock, whatever it holds.

        Raises:
            SharedMemoryError: The slot is not claimed.
        """
        if slot not in self._claimed:
            raise SharedMemoryError(f"A slot given back must be claimed, got {slot}.")
        self._claimed.remove(slot)
        self._stock.append(slot)

    def is_owner_alive(self) -> bool:
        """Whether the trainer still runs and keeps this lane open; for once a second."""
        return self._block.is_owner_alive()

    def close(self) -> None:
        """Let go of the memory. The trainer takes all slots back when it closes the lane."""
        self.pool.close()
        self._free.close()
        self._filled.close()
        self._block.close()


@dataclass
class _OpenLane:
    """The trainer's side of a lane."""

    spec: LaneSpec
    block: Block
    free: Ring
    filled: Ring
    held: int = 0

    def close(self) -> None:
        self.free.close()
        self.filled.close()
        self.block.unlink()
        self.block.close()


class Exchange:
    """The trainer's side: owns pool and lanes, and keeps the ledger of holders.

    Any thread of the owning process may call any method; a lock inside keeps the ledger whole.

    Args:
        spec: The pool to make. Stale blocks of dead trainers are removed first.
        max_collectors: Most lanes that are open at once.
        slots_per_collector: Most slots that one collector holds.

    Attributes:
        removed: Names of the stale blocks that were found and removed.
        torn: Slots that were published torn, and dropped.
        foreign: Slot numbers that a lane published without holding them, and that were refused.

    Raises:
        ConfigError: The pool is smaller than what the lanes alone may hold.
        SharedMemoryError: The pool does not fit into memory.
    """

    def __init__(self, spec: PoolSpec, *, max_collectors: int, slots_per_collector: int) -> None:
        lanes = max_collectors * slots_per_collector
        require(spec.num_slots > lanes, "num_slots",
                f"exceed {max_collectors} collectors x {slots_per_collector} slots", spec.num_slots,
                "Use larger buffers or fewer slots_per_collector.")  # fmt: skip
        self.removed = remove_stale()
        self.pool = Pool.create(spec)
        self.max_collectors = max_collectors
        self.quota = slots_per_collector
        self.torn = 0
        self.foreign = 0
        self._holders = np.full(spec.num_slots, FREE, np.int32)
        # A stack: the slot that was freed last is the likeliest to be in a cache.
        self._free = np.arange(spec.num_slots, dtype=np.uint32)[::-1].copy()
        self._num_free = spec.num_slots
        self._lanes: dict[int, _OpenLane] = {}
        self._lock = threading.Lock()

    def open_lane(self, collector_id: int) -> LaneSpec:
        """Make a lane for a collector, with its first slots; send it the result.

        Raises:
            ConfigError: The number is in use or below 0, or there are too many lanes.
            SharedMemoryError: The lane's rings do not fit into memory.
        """
        with self._lock:
            is_new = collector_id >= 0 and collector_id not in self._lanes
            require(is_new, "collector_id", "be new and 0 or more", collector_id)
            require(len(self._lanes) < self.max_collectors, "collectors",
                    f"be at most data.max_collectors ({self.max_collectors})",
                    len(self._lanes) + 1, "Raise data.max_collectors.")  # fmt: skip
            block = Block.create(unique_name(f"lane{collector_id}"), 2 * Ring.num_bytes(self.quota))
            spec = LaneSpec(collector_id=collector_id, pool=self.pool.spec, rings=block.name,
                            quota=self.quota)  # fmt: skip
            lane = _OpenLane(spec, block, *_rings_of(block, self.quota))
            self._lanes[collector_id] = lane
            self._top_up(lane)
            return spec

    def poll(self, collector_id: int) -> np.ndarray:
        """Take what a collector published since the last call. Never blocks.

        Torn slots go back to the free list; numbers that the lane does not hold are refused.

        Returns:
            Whole slots in the order of publication, uint32 ``[N]``; buffers hold them now.

        Raises:
            SharedMemoryError: The lane's rings were overwritten; close the lane.
        """
        with self._lock:
            lane = self._lanes[collector_id]
            slots = lane.filled.pop(self.quota)
            if len(slots) == 0:
                return slots
            slots = self._held_by(collector_id, slots)
            lane.held -= len(slots)
            is_whole = self.pool.whole(slots)
            torn, slots = slots[~is_whole], slots[is_whole]
            self.torn += len(torn)
            self._put_free(torn)
            self._holders[slots] = BUFFER
            return slots

    def refill(self) -> None:
        """Top up every lane to its quota while free slots last, the emptiest lane first."""
        with self._lock:
            for lane in sorted(self._lanes.values(), key=lambda lane: lane.held):
                self._top_up(lane)

    def acquire(self, count: int) -> np.ndarray:
        """Take free slots for a buffer, as to load samples from disk: uint32 ``[N <= count]``."""
        with self._lock:
            return self._take_free(count, BUFFER)

    def release(self, slots: Iterable[int] | np.ndarray) -> None:
        """Give slots ``[N]`` of a buffer back to the free list.

        Raises:
            SharedMemoryError: A slot is not held by a buffer, or is given twice; none is released.
        """
        with self._lock:
            slots = np.asarray(slots, dtype=np.uint32)
            held = self._held_by(BUFFER, slots, count_foreign=False)
            if len(held) != len(slots):
                wrong = sorted(set(slots.tolist()) - set(held.tolist()))
                raise SharedMemoryError(
                    f"Released slots must be held by a buffer, each given once, got {wrong} that "
                    f"are not and {len(slots) - len(held) - len(wrong)} repeated."
                )
            self._put_free(held)

    def close_lane(self, collector_id: int) -> int:
        """Take all slots of a lane back. Call :meth:`poll` before, to keep what was published.

        Only for a collector that has said goodbye or whose process is dead: a living one could
        still write to slots that others hold by then.

        Returns:
            How many slots it held.
        """
        with self._lock:
            lane = self._lanes.pop(collector_id)
            slots = np.flatnonzero(self._holders == collector_id)
            self._put_free(slots)
            lane.close()
            return len(slots)

    def counts(self) -> dict[str, int | dict[int, int]]:
        """Slots by holder: ``free``, ``buffer``, and ``lanes`` by collector number."""
        with self._lock:
            lanes = {number: lane.held for number, lane in self._lanes.items()}
            in_buffers = int(np.count_nonzero(self._holders == BUFFER))
            return {"free": self._num_free, "buffer": in_buffers, "lanes": lanes}

    def check(self) -> None:
        """Check the ledger: every slot has exactly one holder. For tests and ``bin/doctor``.

        Raises:
            SharedMemoryError: It does not hold; the text says what is wrong.
        """
        with self._lock:
            stack = np.sort(self._free[: self._num_free])
            free = np.flatnonzero(self._holders == FREE)
            if not np.array_equal(stack, free):
                raise SharedMemoryError(
                    f"The free list must have the {len(free)} slots that the ledger calls free, "
                    f"got {len(stack)} ({len(np.unique(stack))} different)."
                )
            for number, lane in self._lanes.items():
                held = int(np.count_nonzero(self._holders == number))
                if held != lane.held or held > self.quota:
                    raise SharedMemoryError(
                        f"Lane {number} must hold {lane.held} slots (quota {self.quota}), "
                        f"got {held} in the ledger."
                    )
            strangers = set(np.unique(self._holders).tolist()) - {FREE, BUFFER, *self._lanes}
            if strangers:
                raise SharedMemoryError(
                    f"Every holder must be an open lane, a buffer or the free list, got {strangers}"
                )

    def close(self) -> None:
        """Close every lane and remove every block. May be called twice."""
        with self._lock:
            for lane in self._lanes.values():
                lane.close()
            self._lanes.clear()
            self.pool.close()

    def _held_by(self, holder: int, slots: np.ndarray, *, count_foreign: bool = True) -> np.ndarray:
        """Those of ``slots`` that exist and that ``holder`` holds, each once, order kept."""
        known = slots[slots < self.pool.spec.num_slots]
        held = known[self._holders[known] == holder]
        first = np.sort(np.unique(held, return_index=True)[1])
        if count_foreign:
            self.foreign += len(slots) - len(first)
        return held[first]

    def _top_up(self, lane: _OpenLane) -> None:
        slots = self._take_free(self.quota - lane.held, lane.spec.collector_id)
        lane.held += len(slots)
        lane.free.push(slots.tolist())  # fits: the ring has room for the whole quota

    def _take_free(self, count: int, holder: int) -> np.ndarray:
        count = min(count, self._num_free)
        self._num_free -= count
        slots = self._free[self._num_free : self._num_free + count].copy()
        self._holders[slots] = holder
        return slots

    def _put_free(self, slots: np.ndarray) -> None:
        self._holders[slots] = FREE
        self._free[self._num_free : self._num_free + len(slots)] = slots
        self._num_free += len(slots)
