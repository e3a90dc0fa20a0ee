"""The balanced buffers: per output, which slots hold samples that training may draw.

A buffer is an array of entries: slot number, storage id, and a serial number that tells age. Pixels
stay in their slots; only numbers move here. A draw takes the same number at random from every
buffer. There are two ways to pace training by what is collected:

- *Draw and remove*: a sample is trained on once. Training starts once every buffer is full and goes
  on while each holds at least a share of its capacity.
- *Replay*: samples stay until newer ones replace them; what paces training is how many draws there
  may be for each sample that came.

Everything that decides the next draw is part of :meth:`Buffers.state`, so a resumed run draws
exactly as the first would have.

What a person shows at the wheel of a player is kept apart: :mod:`charles.data.human`.

Not locked: the caller keeps threads apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charles.errors import require

NOT_STORED = -1
"""Storage id of a sample that has no disk copy."""

_ENTRY = np.dtype([("slot", np.uint32), ("id", np.int64), ("serial", np.int64)], align=True)

_COLUMNS = {"ids": "id", "serials": "serial"}
"""What a state keeps of an entry; slots are others after a restart."""


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
    since_ns: int = 0
    """When the first sample of a person's takeover was captured, in the first batch that has it,
    monotonic clock; 0 in others."""

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
        self.added = 0
        """Samples that ever came in."""
        self.drawn = 0
        """Draws that were ever made."""

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
        self.added += len(entries)
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

    def draw(self, positions: np.ndarray, *, is_removed: bool) -> np.ndarray:
        """The entries at these positions."""
        self.drawn += len(positions)
        return self.remove(positions) if is_removed else self._entries[positions]


class Buffers:
    """One buffer per output.

    Args:
        num_outputs: Number of outputs, ``O``.
        capacity: Samples per buffer, ``C``.
        keep_fraction: Training goes on while each buffer holds this share of ``capacity``.
        start_fraction: Training first starts when each buffer holds this share.
        replay_ratio: Draws for each sample that came into a buffer; 0 draws and removes.
        seed: Seed of the draws.

    References:
        Fedus et al., "Revisiting fundamentals of experience replay", 2020,
        https://arxiv.org/abs/2007.06700.
    """

    def __init__(
        self,
        num_outputs: int,
        capacity: int,
        *,
        keep_fraction: float,
        start_fraction: float = 1.0,
        replay_ratio: float = 0.0,
        seed: int,
    ) -> None:
        require(num_outputs > 0, "outputs", "be 1 or more", num_outputs)
        require(capacity > 0, "data.buffer_capacity", "be positive", capacity)
        require(0 < keep_fraction <= 1, "data.keep_fraction", "lie in (0, 1]", keep_fraction)
        require(replay_ratio >= 0, "data.replay_ratio", "be 0 or more", replay_ratio)
        self.capacity = capacity
        self._keep = keep_fraction * capacity
        self._start = start_fraction * capacity
        self._ratio = replay_ratio
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

    def stock(self) -> list[int]:
        """Draws that each buffer can still give before more samples come."""
        if not self._ratio:
            return self.sizes()
        return [int(self._ratio * buffer.added) - buffer.drawn for buffer in self._buffers]

    def shortfall(self, count_each: int = 1) -> dict[int, str]:
        """Buffers that keep training waiting, and why, as ``88% < 90%``. Empty: go.

        Args:
            count_each: Samples that the next draw takes from each buffer.
        """
        kept = 0.0 if self._ratio else self._keep
        needed = max(kept if self._is_started else self._start, count_each)
        short = {}
        for number, (size, stock) in enumerate(zip(self.sizes(), self.stock(), strict=True)):
            if size < needed:
                short[number] = f"{size / self.capacity:.0%} < {needed / self.capacity:.0%}"
            elif stock < count_each:
                short[number] = f"drawn {self._ratio:g} times each"
        return short

    def draw(self, count_each: int, spared: Sequence[int] | None = None) -> Draw | None:
        """Draw at random, no sample twice in a batch, the same number from every buffer.

        Args:
            count_each: Samples from each buffer.
            spared: How many fewer each buffer gives, because others take their places; none by
                default.

        Returns:
            The batch; ``None`` while there is a shortfall.
        """
        if self.shortfall(count_each):
            return None
        is_removed = not self._ratio
        drawn = []
        counts = [count_each - less for less in spared or [0] * len(self._buffers)]
        for buffer, count in zip(self._buffers, counts, strict=True):
            positions = self._rng.choice(len(buffer.entries), count, replace=False)
            drawn.append(buffer.draw(positions, is_removed=is_removed))
        entries = np.concatenate(drawn)
        return Draw(
            slots=entries["slot"],
            ids=entries["id"],
            outputs=np.repeat(np.arange(len(drawn), dtype=np.uint32), counts),
            is_finished=np.full(len(entries), is_removed),
        )

    def state(self) -> dict[str, np.ndarray]:
        """Everything that decides future draws, slots apart, as arrays of fixed shapes.

        ``ids`` and ``serials`` are ``[O, C]``, of which the first ``sizes[o]`` count.
        """
        state = {
            key: np.stack([buffer.column(name) for buffer in self._buffers])
            for key, name in _COLUMNS.items()
        }
        counters = [self._next_serial, self._newest_id, int(self._is_started)]
        state["sizes"] = np.array(self.sizes(), np.int64)
        state["added"] = np.array([buffer.added for buffer in self._buffers], np.int64)
        state["drawn"] = np.array([buffer.drawn for buffer in self._buffers], np.int64)
        state["counters"] = np.array(counters, np.int64)
        state["rng"] = words_of_rng(self._rng)
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
            for key, name in _COLUMNS.items():
                entries[name] = state[key][number][:size]
            is_found = np.array([one in slots_by_id for one in entries["id"].tolist()], bool)
            entries = entries[is_found]
            entries["slot"] = [slots_by_id[one] for one in entries["id"].tolist()]
            buffer.fill(entries)
            buffer.added = int(state["added"][number])
            buffer.drawn = int(state["drawn"][number])
            missing += size - len(entries)
        counters = [int(value) for value in state["counters"]]
        self._next_serial, self._newest_id, self._is_started = *counters[:2], bool(counters[2])
        self._rng = rng_of_words(np.asarray(state["rng"]))
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


def words_of_rng(rng: np.random.Generator) -> np.ndarray:
    """The state of a generator over PCG64, uint64 ``[6]``."""
    state: Any = rng.bit_generator.state
    pcg = state["state"]
    numbers = [*divmod(pcg["state"], _WORD), *divmod(pcg["inc"], _WORD)]
    return np.array([*numbers, state["has_uint32"], state["uinteger"]], np.uint64)


def rng_of_words(words: np.ndarray) -> np.random.Generator:
    """The reverse of :func:`words_of_rng`."""
    numbers = [int(word) for word in words]
    pcg = {"state": numbers[0] * _WORD + numbers[1], "inc": numbers[2] * _WORD + numbers[3]}
    generator: Any = np.random.PCG64(0)
    generator.state = {
        "bit_generator": "PCG64",
        "state": pcg,
        "has_uint32": numbers[4],
        "uinteger": numbers[5],
    }
    return np.random.Generator(generator)
