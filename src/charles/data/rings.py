"""A ring of slot numbers between one producer and one consumer, in shared memory.

Layout: ``head`` (uint64, bytes 0–7), ``tail`` (uint64, bytes 64–71, a cache line of its own), then
``capacity`` entries (uint32, from byte 128). Both counters only grow; an entry lies at its number
modulo the capacity.

Memory-order invariant: only the producer writes ``tail`` and entries, only the consumer writes
``head``. Entries are complete before the one aligned 8-byte store that publishes them through
``tail``, and are read before the store that frees them through ``head``; :func:`fence` keeps
processors that reorder stores (not x86-64) to that. So a reader never sees an unpublished entry,
and a process killed between any two instructions leaves the ring as it was before or after.
"""

import platform
import threading
from collections.abc import Sequence

import numpy as np

from charles.errors import SharedMemoryError

_TAIL_AT = 64 // 8
_ENTRIES_AT = 128
_KEEPS_ORDER = platform.machine().lower() in ("x86_64", "amd64")
_lock = threading.Lock()


def fence() -> None:
    """Order loads and stores before it against those after it, for other processes too.

    x86-64 keeps every order that is needed here (all but a store against a later load) by itself.
    Elsewhere, one lock-and-release lets neighbours move into its middle, and the second pair bars
    their way.
    """
    if _KEEPS_ORDER:
        return
    with _lock:
        pass
    with _lock:
        pass


class Ring:
    """One end of a ring. A process uses it either to push or to pop, from one thread at a time.

    Args:
        view: Memory of at least :meth:`num_bytes` bytes, 8-byte aligned; zeros are an empty ring.
        capacity: Most entries it holds; both ends must give the same.
    """

    def __init__(self, view: memoryview, capacity: int) -> None:
        self.capacity = capacity
        self._counters = view[:_ENTRIES_AT].cast("Q")
        self._entries = view[_ENTRIES_AT : _ENTRIES_AT + 4 * capacity].cast("I")

    @staticmethod
    def num_bytes(capacity: int) -> int:
        """Bytes of a ring of ``capacity`` entries, a multiple of 64."""
        return _ENTRIES_AT + -(-capacity * 4 // 64) * 64

    def __len__(self) -> int:
        """Entries that are published and not yet taken.

        Raises:
            SharedMemoryError: The counters make no sense: something else wrote there.
        """
        head, tail = self._counters[0], self._counters[_TAIL_AT]
        if not 0 <= tail - head <= self.capacity:
            raise SharedMemoryError(
                f"A ring must hold 0 to {self.capacity} entries, got head {head} and tail {tail}. "
                "Something else wrote to this memory; start the collector again."
            )
        return tail - head

    def push(self, values: Sequence[int] | np.ndarray) -> bool:
        """Publish slot numbers ``[N]``, all of them with one store. Never blocks.

        Returns:
            ``False``, and nothing is published, if they do not all fit.
        """
        if len(values) > self.capacity - len(self):
            return False
        entries, capacity = self._entries, self.capacity
        number = tail = self._counters[_TAIL_AT]
        for value in values:
            entries[number % capacity] = value
            number += 1
        fence()
        self._counters[_TAIL_AT] = tail + len(values)
        return True

    def pop(self, most: int) -> np.ndarray:
        """Take the oldest entries, uint32 ``[N]`` with ``N <= most``. Never blocks."""
        count = min(most, len(self))
        if count == 0:
            return np.empty(0, np.uint32)
        fence()
        entries, capacity = self._entries, self.capacity
        head = self._counters[0]
        values = [entries[number % capacity] for number in range(head, head + count)]
        fence()
        self._counters[0] = head + count
        return np.array(values, np.uint32)

    def close(self) -> None:
        """Let go of the memory."""
        self._entries.release()
        self._counters.release()
