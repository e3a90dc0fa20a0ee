"""The trainer's side of the frame pool: the pool itself, the lanes, and the ledger of holders.

Invariant: every slot has exactly one holder, the free list, one lane, or a buffer, and only the
:class:`Exchange` moves it from one to another. A collector that dies holds its slots until its lane
is closed; then all of them are free again and nobody else notices.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from charles.data.pool import LaneSpec, Pool, PoolSpec, rings_of
from charles.data.rings import Ring
from charles.data.shm import Block, remove_stale, unique_name
from charles.errors import SharedMemoryError, require

FREE = -2
"""Holder number of a slot that nobody uses."""
BUFFER = -1
"""Holder number of a slot in a buffer; lanes have numbers from 0 on."""


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
            lane = _OpenLane(spec, block, *rings_of(block, self.quota))
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
        if lane.held == self.quota:
            return
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
