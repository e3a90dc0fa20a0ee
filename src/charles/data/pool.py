"""The frame pool: fixed-size slots in shared memory, and a collector's lane into it.

A frame is copied into a slot once, and not again until a batch is gathered. Invariants:

* Every slot has exactly one holder: the free list, a lane (one collector), or a buffer. The
  :class:`~charles.data.exchange.Exchange`, in the trainer, keeps that ledger.
* Only the holder writes a slot. A collector publishes slots after their bytes are complete, a
  whole set with one store.
* A slot's header carries begin and end sequence numbers, equal once it is whole. A writer that
  died in between, or wrote while somebody read, leaves or makes them differ: a torn sample, which
  is counted and dropped, never delivered.

One lane has two rings in a block of its own: ``free`` (trainer → collector) and ``filled``
(collector → trainer).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from charles.data.rings import Ring, fence
from charles.data.shm import Block, unique_name
from charles.errors import SharedMemoryError, require
from charles.sample import SampleSpec


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // 64) * 64


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """Everything a process needs to attach to a pool; crosses process boundaries."""

    num_slots: int
    """Slots in the pool."""
    sample: SampleSpec
    """What a slot holds."""
    name: str = field(default_factory=lambda: unique_name("pool"))
    """Name of the shared-memory block; a new one by default."""

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

    ``header`` is the slot's record as an array ``[]`` (a field of it is set four times as fast as
    one of ``np.void``), ``pixels`` its uint8 view; both are written in place. Leaving the block
    normally makes the slot whole, an exception leaves it torn.
    """

    __slots__ = ("_begin_at", "_end_at", "_pool", "_sequence", "_slot")

    def __init__(self, pool: "Pool", slot: int, sequence: int | None) -> None:
        self._pool = pool
        self._slot = slot
        self._begin_at, self._end_at = pool.words_of(slot)
        self._sequence = pool.words[self._begin_at] + 1 if sequence is None else sequence

    def __enter__(self) -> tuple[np.ndarray, np.ndarray]:
        pool, slot = self._pool, self._slot
        pool.words[self._begin_at] = self._sequence
        fence()
        return pool.headers[slot, ...], pool.pixels[slot]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            fence()
            self._pool.words[self._end_at] = self._sequence


class Pool:
    """Slots in shared memory; made by :meth:`create` (the owner) or :meth:`attach`.

    Attributes:
        headers: Records ``[N]`` of the sample's ``header_dtype``; a view of the slots.
        pixels: uint8 ``[N, *pixels_shape]``; a view of the slots.
        begins: uint64 ``[N]``, the headers' first sequence numbers.
        ends: uint64 ``[N]``, the headers' last sequence numbers.
        words: The same memory as 8-byte numbers, for one sequence number at a time: three times as
            fast as through an array.
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
        self.headers: np.ndarray = np.ndarray(num, sample.header_dtype, block.buffer, 0, stride)
        inner = np.empty(sample.pixels_shape, np.uint8).strides
        shape = (num, *sample.pixels_shape)
        self.pixels = np.ndarray(shape, np.uint8, block.buffer, spec.pixels_at, (stride, *inner))
        self.begins = self.headers["begin"]
        self.ends = self.headers["end"]
        self.words = block.buffer.cast("Q")
        self._slot_words = stride // 8
        fields = sample.header_dtype.fields or {}
        self._begin_word, self._end_word = fields["begin"][1] // 8, fields["end"][1] // 8

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

    def words_of(self, slot: int) -> tuple[int, int]:
        """Indices in ``words`` of a slot's first and last sequence number."""
        start = slot * self._slot_words
        return start + self._begin_word, start + self._end_word

    def writing(self, slot: int, sequence: int | None = None) -> Writing:
        """Write a slot that this process holds, in a ``with`` block.

        Args:
            slot: Slot number.
            sequence: A number above all that were used for this slot; the next one by default.
        """
        return Writing(self, slot, sequence)

    def put(self, slot: int, header: np.void, pixels: np.ndarray) -> None:
        """Copy a sample, for example from disk, into a slot that this process holds.

        Args:
            slot: Slot number.
            header: Record of the sample's ``header_dtype``; its sequence numbers are not copied.
            pixels: uint8 of the sample's ``pixels_shape``.
        """
        with self.writing(slot) as (record, target):
            for name in header.dtype.names or ():
                if name not in ("begin", "end"):
                    record[name] = header[name]
            np.copyto(target, pixels)

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
        self.words.release()
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


def rings_of(block: Block, quota: int) -> tuple[Ring, Ring]:
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
        self._free, self._filled = rings_of(self._block, spec.quota)
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
        return Writing(self.pool, slot, None)

    def publish(self, slots: Sequence[int]) -> None:
        """Hand whole slots to the trainer, all at once. They are no longer this collector's.

        Raises:
            SharedMemoryError: A slot is not claimed, or not whole.
        """
        unique = set(slots)
        if len(unique) != len(slots) or not unique <= self._claimed:
            raise SharedMemoryError(
                f"Published slots must be claimed ones, each once, got {list(slots)} "
                f"with {sorted(self._claimed)} claimed."
            )
        words, words_of = self.pool.words, self.pool.words_of
        for begin_at, end_at in map(words_of, slots):
            if words[begin_at] != words[end_at]:
                raise SharedMemoryError(f"Published slots must be whole, got {slots}.")
        if not self._filled.push(slots):
            raise SharedMemoryError(
                f"A lane must hold at most its quota of {self.spec.quota} slots, got "
                f"{len(self._filled)} published and {len(slots)} more."
            )
        self._claimed -= unique

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
