"""The validation buffer: held-out samples that measure what was learned and are never trained on.

It fills as they come and then stays as it is: the same samples are measured throughout a run, so
that figures of different steps compare. A collector marks what it captures in a held-out world
(:func:`charles.sample.is_held_out`); such a sample goes here or nowhere. Its slot stays held by a
buffer, in the ledger's words, and its file in the disk copy, so that a restart finds the same
samples again; those that a crash kept from the disk are collected anew.

Not locked: the caller keeps threads apart.
"""

import numpy as np


class ValidationBuffer:
    """Slots of held-out samples, a part for each output that they were picked for.

    Args:
        num_outputs: Number of outputs.
        capacity: Samples that all parts may hold together; 0 holds none.
    """

    def __init__(self, num_outputs: int, capacity: int) -> None:
        self._most = capacity // num_outputs
        self._parts: list[list[int]] = [[] for _ in range(num_outputs)]

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def is_full(self) -> bool:
        """Whether nothing more has room."""
        return not any(self.has_room(output) for output in range(len(self._parts)))

    def has_room(self, output: int) -> bool:
        """Whether a sample that was picked for this output has room."""
        return len(self._parts[output]) < self._most

    def add(self, output: int, slot: int) -> None:
        """Hold one more sample, for good. There must be room."""
        assert self.has_room(output)
        self._parts[output].append(slot)

    def batches(self, count_each: int) -> np.ndarray:
        """All whole batches: ``count_each`` samples of every output, first output first.

        In the order of arrival; what does not fill a batch is left out.

        Returns:
            Slots, uint32 ``[N, B]``.
        """
        num = min(len(part) for part in self._parts) // count_each
        parts = [part[: num * count_each] for part in self._parts]
        slots = np.array(parts, np.uint32).reshape(len(parts), num, count_each)
        return slots.swapaxes(0, 1).reshape(num, len(parts) * count_each)
