"""The balanced buffers: per output, which slots hold samples that training may draw.

A buffer is an array of entries: slot number, storage id, how often drawn, and a serial number that
tells age. Pixels stay in their slots; only numbers move here. Training starts once every buffer is
full and goes on while each holds at least a share of its capacity. A draw takes the same number at
random from every buffer and removes what is used up. Everything that decides the next draw is part
of :meth:`Buffers.state`, so a resumed run draws exactly as the first would have.

Not locked: the caller keeps threads apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from charles.errors import require

NOT_STORED = -1
"""Storage id of a sample that has no disk copy."""

_ENTRY = np.dtype(
    [("slot", np.uint32), ("uses", np.uint32), ("id", np.int64), ("serial", np.int64)], align=True
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """One batch, by its slots; the samples of the first output come first."""

    slots: np.ndarray
    """uint32 ``[B]``."""
    ids: np.ndarray
    """Storage ids, int64 ``[B]``."""
    outputs: np.ndarray
    """Number of the output whose buffer each came from, uint32 ``[B]``."""
    is_finished: np.ndarray
    """Whether the sample is used up and no longer in a buffer, bool ``[B]``."""

    @property
    def finished_slots(self) -> np.ndarray:
        """Slots to release once the batch is gathered, uint32 ``[F]``."""
        return self.slots[self.is_finished]

    @property
    def finished_ids(self) -> np.ndarray:
        """Storage ids to forget once the batch is trained on, int64 ``[F]``."""
        return self.ids[self.is_finished]


@dataclass(frozen=True, kw_only=True, eq=False)
class Restored:
    """How a state and the samples that were found on disk fit together."""

    missing: int
    """Samples that the buffers had and the disk has not; 0 means that the resume is exact."""
    fresh: np.ndarray
    """Ids of samples collected after the state was taken, int64 ``[N]``; add them."""
    used: np.ndarray
    """Ids of samples that were drawn before the state was taken, int64 ``[N]``; forget them."""


class _Buffer:
    """The entries of one output. Order matters: a draw picks positions."""

    def __init__(self, capacity: int) -> None:
        self._entries = np.zeros(capacity, _ENTRY)
        self._count = 0

    @property
    def entries(self) -> np.ndarray:
        """The entries in use, a view ``[N]``."""
        return self._entries[: self._count]

    def column(self, name: str) -> np.ndarray:
        """One field of all ``capacity`` entries; those not in use are zero or leftovers."""
        return self._entries[name]

    def fill(self, entries: np.ndarray) -> None:
        """Replace everything."""
        self._count = len(entries)
        self._entries[: self._count] = entries

    def add(self, entries: np.ndarray) -> np.ndarray:
        """Add at most ``capacity`` entries; returns the oldest that had to go."""
        surplus = self._count + len(entries) - len(self._entries)
        evicted = entries[:0]
        if surplus > 0:
            serials = self.entries["serial"]
            evicted = self.remove(np.argpartition(serials, surplus - 1)[:surplus])
        self._entries[self._count : self._count + len(entries)] = entries
        self._count += len(entries)
        return evicted

    def remove(self, positions: np.ndarray) -> np.ndarray:
        """Take out the entries at these positions; the last ones move into the gaps."""
        removed = self._entries[positions]
        rest = self._count - len(positions)
        is_kept = np.ones(len(positions), bool)
        is_kept[positions[positions >= rest] - rest] = False
        gaps = np.sort(positions[positions < rest])
        self._entries[gaps] = self._entries[rest : self._count][is_kept]
        self._count = rest
        return removed

    def draw(self, positions: np.ndarray, reuse: int) -> tuple[np.ndarray, np.ndarray]:
        """Use the entries at these positions; returns them, and which are used up and gone."""
        self._entries["uses"][positions] += 1
        drawn = self._entries[positions]
        is_finished = drawn["uses"] >= reuse
        self.remove(positions[is_finished])
        return drawn, is_finished


class Buffers:
    """One buffer per output.

    Args:
        num_outputs: Number of outputs, ``O``.
        capacity: Samples per buffer, ``C``.
        keep_fraction: Training goes on while each buffer holds this share of ``capacity``.
        start_fraction: Training first starts when each buffer holds this share.
        reuse: How many times a sample is drawn before it is dropped.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        num_outputs: int,
        capacity: int,
        *,
        keep_fraction: float,
        start_fraction: float = 1.0,
        reuse: int,
        seed: int,
    ) -> None:
        require(num_outputs > 0, "outputs", "be 1 or more", num_outputs)
        require(capacity > 0, "data.buffer_capacity", "be positive", capacity)
        require(0 < keep_fraction <= 1, "data.keep_fraction", "lie in (0, 1]", keep_fraction)
        require(reuse > 0, "data.reuse", "be positive", reuse)
        self.capacity = capacity
        self._keep = keep_fraction * capacity
        self._start = start_fraction * capacity
        self._reuse = reuse
        self._buffers = [_Buffer(capacity) for _ in range(num_outputs)]
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._next_serial = 0
        self._newest_id = NOT_STORED
        self._is_started = False

    def sizes(self) -> list[int]:
        """Samples in each buffer."""
        return [len(buffer.entries) for buffer in self._buffers]

    def slots(self) -> np.ndarray:
        """Slots of all buffers, uint32 ``[N]``."""
        return np.concatenate([buffer.entries["slot"] for buffer in self._buffers])

    def add(self, output: int, slots: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add samples to an output's buffer; in a full one they replace the oldest.

        Args:
            output: Number of the output.
            slots: Where the samples are, ``[N]``.
            ids: Their storage ids ``[N]``; :data:`NOT_STORED` for those without a disk copy.

        Returns:
            Slots (uint32) and ids (int64) that were replaced; the caller releases and forgets them.
        """
        entries = np.zeros(len(slots), _ENTRY)
        entries["slot"], entries["id"] = slots, ids
        entries["serial"] = np.arange(self._next_serial, self._next_serial + len(slots))
        self._next_serial += len(slots)
        if len(ids):
            self._newest_id = max(self._newest_id, int(np.max(ids)))
        buffer = self._buffers[output]
        starts = range(0, len(entries), self.capacity)
        evicted = [buffer.add(entries[start : start + self.capacity]) for start in starts]
        gone = np.concatenate(evicted) if evicted else entries
        self._is_started |= min(self.sizes()) >= self._start
        return gone["slot"], gone["id"]

    def shortfall(self, count_each: int = 1) -> dict[int, float]:
        """Buffers that keep training waiting, and how full they are (0..1). Empty: go.

        Args:
            count_each: Samples that the next draw takes from each buffer.
        """
        needed = max(self._keep if self._is_started else self._start, count_each)
        sizes = enumerate(self.sizes())
        return {number: size / self.capacity for number, size in sizes if size < needed}

    def draw(self, count_each: int) -> Draw | None:
        """Draw at random, without replacement, the same number from every buffer.

        Args:
            count_each: Samples from each buffer.

        Returns:
            The batch; ``None`` while there is a shortfall.
        """
        if self.shortfall(count_each):
            return None
        drawn, is_finished = [], []
        for buffer in self._buffers:
            positions = self._rng.choice(len(buffer.entries), count_each, replace=False)
            entries, finished = buffer.draw(positions, self._reuse)
            drawn.append(entries)
            is_finished.append(finished)
        entries = np.concatenate(drawn)
        return Draw(
            slots=entries["slot"],
            ids=entries["id"],
            outputs=np.repeat(np.arange(len(drawn), dtype=np.uint32), count_each),
            is_finished=np.concatenate(is_finished),
        )

    def state(self) -> dict[str, np.ndarray]:
        """Everything that decides future draws, slots apart, as arrays of fixed shapes.

        ``ids``, ``uses``, ``serials`` are ``[O, C]``, of which the first ``sizes[o]`` count.
        """
        sizes = self.sizes()
        columns = {"ids": "id", "uses": "uses", "serials": "serial"}
        state = {
            key: np.stack([buffer.column(name) for buffer in self._buffers])
            for key, name in columns.items()
        }
        counters = [self._next_serial, self._newest_id, int(self._is_started)]
        state["sizes"] = np.array(sizes, np.int64)
        state["counters"] = np.array(counters, np.int64)
        state["rng"] = _rng_words(self._rng.bit_generator.state)
        return state

    def restore(
        self,
        state: Mapping[str, Any],
        slots_by_id: Mapping[int, int],
        pending: Iterable[Draw] = (),
    ) -> Restored:
        """Become what :meth:`state` told, with the samples that were loaded from disk.

        Args:
            state: From :meth:`state`, of buffers of the same number and capacity.
            slots_by_id: The slot of every sample that was loaded, by storage id.
            pending: Draws that were under way and go on; their samples are neither fresh nor used.

        Raises:
            ConfigError: The state is of another number of buffers or another capacity.
        """
        shape = (len(self._buffers), self.capacity)
        ids = np.asarray(state["ids"])
        require(ids.shape == shape, "data.buffer_capacity",
                f"fit the checkpoint's buffers, outputs x capacity {ids.shape}", shape,
                "Resume with the settings of that run, or start another run_dir.")  # fmt: skip
        missing = 0
        for number, buffer in enumerate(self._buffers):
            size = int(state["sizes"][number])
            entries = np.zeros(size, _ENTRY)
            for key, name in {"ids": "id", "uses": "uses", "serials": "serial"}.items():
                entries[name] = state[key][number][:size]
            is_found = np.array([one in slots_by_id for one in entries["id"].tolist()], bool)
            entries = entries[is_found]
            entries["slot"] = [slots_by_id[one] for one in entries["id"].tolist()]
            buffer.fill(entries)
            missing += size - len(entries)
        counters = [int(value) for value in state["counters"]]
        self._next_serial, self._newest_id, self._is_started = *counters[:2], bool(counters[2])
        self._rng.bit_generator.state = _rng_state(np.asarray(state["rng"]))
        known = {one for draw in pending for one in draw.ids.tolist()}
        known.update(one for b in self._buffers for one in b.entries["id"].tolist())
        others = np.array(sorted(set(slots_by_id) - known), np.int64)
        is_fresh = others > self._newest_id
        return Restored(missing=missing, fresh=others[is_fresh], used=others[~is_fresh])


def known_ids(state: Mapping[str, Any]) -> set[int]:
    """Ids of the samples that were in the buffers when :meth:`Buffers.state` was taken."""
    sizes = np.asarray(state["sizes"]).tolist()
    ids = np.asarray(state["ids"])
    return {one for row, size in zip(ids, sizes, strict=True) for one in row[:size].tolist()}


_WORD = 2**64


def _rng_words(state: Mapping[str, Any]) -> np.ndarray:
    """The state of a PCG64 generator, uint64 ``[6]``."""
    pcg = state["state"]
    numbers = [*divmod(pcg["state"], _WORD), *divmod(pcg["inc"], _WORD)]
    return np.array([*numbers, state["has_uint32"], state["uinteger"]], np.uint64)


def _rng_state(words: np.ndarray) -> dict[str, Any]:
    numbers = [int(word) for word in words]
    pcg = {"state": numbers[0] * _WORD + numbers[1], "inc": numbers[2] * _WORD + numbers[3]}
    return {
        "bit_generator": "PCG64",
        "state": pcg,
        "has_uint32": numbers[4],
        "uinteger": numbers[5],
    }
