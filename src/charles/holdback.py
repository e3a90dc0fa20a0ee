"""Samples held back until it is sure that they do not lead to a crash of the expert.

What an expert did in the seconds before it crashed is nothing to learn. When those samples are
taken, nobody knows yet; so finished sets wait for that time before they go to the trainer.
"""

from collections import deque
from collections.abc import Iterator

from charles.timing import NS_PER_S


class Holdback:
    """Finished sets on their way to the trainer. Use from one thread.

    Args:
        hold_s: Game time before a crash whose samples are dropped; 0 holds nothing back.

    Example:
        >>> held = Holdback(1.0)
        >>> held.capture(7, 0)
        >>> held.capture(8, 2_000_000_000)
        >>> held.complete([7, 8])
        >>> held.crash(2_500_000_000)
        >>> list(held.due(2_600_000_000)), list(held.due(3_000_000_000))
        ([], [([7], [8])])
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_ns = round(hold_s * NS_PER_S)
        self._captured_ns: dict[int, int] = {}
        self._spoilt: set[int] = set()
        self._sets: deque[list[int]] = deque()

    def capture(self, slot: int, captured_ns: int) -> None:
        """A sample was captured into a slot; what was in it before is forgotten."""
        self._captured_ns[slot] = captured_ns
        self._spoilt.discard(slot)

    def complete(self, slots: list[int]) -> None:
        """A set is finished."""
        self._sets.append(slots)

    def crash(self, now_ns: int) -> None:
        """The expert crashed: what was captured shortly before is not to be learned."""
        since_ns = now_ns - self._hold_ns
        self._spoilt |= {slot for slot, at in self._captured_ns.items() if at > since_ns}

    def due(self, now_ns: int) -> Iterator[tuple[list[int], list[int]]]:
        """Sets that have waited long enough, each as what is to be published and what dropped."""
        while self._sets and self._newest_ns(self._sets[0]) + self._hold_ns <= now_ns:
            slots = self._sets.popleft()
            spoilt = [slot for slot in slots if slot in self._spoilt]
            yield [slot for slot in slots if slot not in self._spoilt], spoilt
            for slot in slots:
                self._spoilt.discard(slot)
                del self._captured_ns[slot]

    def _newest_ns(self, slots: list[int]) -> int:
        return max(self._captured_ns[slot] for slot in slots)
