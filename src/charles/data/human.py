"""The human buffer: samples of a person who took the wheel from a player, drawn more often.

They are few, and show what to do exactly where the network did it wrong. So they bypass balancing
and have a share of every batch while there are any. Each is drawn a bounded number of times and
then let go, so that seconds of driving are not learned by heart for hours. Those that were never
drawn come first, the oldest of them in front: what a person shows is in a batch at once. All others
are drawn at random, none twice in a batch.

Everything that decides the next draw is part of :meth:`HumanBuffer.state`. It has a generator of
its own; but what it gives to a batch the outputs' buffers do not, so that their later draws differ.

Not locked: the caller keeps threads apart.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from charles.data.buffers import NOT_STORED, Draw, Restored, rng_of_words, words_of_rng
from charles.errors import require

_ENTRY = np.dtype([("slot", np.uint32), ("id", np.int64), ("draws", np.int64)], align=True)

_SEED_MARK = 0x48
"""Makes the generator another one than that of the outputs' buffers."""


class HumanBuffer:
    """Samples of a person's takeovers, oldest first.

    Args:
        capacity: Samples that it may hold; 0 holds none.
        draws_each: Draws after which a sample is let go.
        seed: Seed of the draws.
    """

    def __init__(self, capacity: int, *, draws_each: int, seed: int) -> None:
        require(draws_each > 0, "data.human_draws", "be positive", draws_each)
        self.capacity = capacity
        self.received = 0
        """Samples that ever came in."""
        self.drawn = 0
        """Draws that were ever made."""
        self._draws_each = draws_each
        self._entries = np.zeros(0, _ENTRY)
        self._newest_id = NOT_STORED
        self._rng = np.random.Generator(np.random.PCG64([seed, _SEED_MARK]))

    def __len__(self) -> int:
        return len(self._entries)

    def slots(self) -> np.ndarray:
        """Slots of all samples, uint32 ``[N]``."""
        return self._entries["slot"].copy()

    def add(self, slots: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add samples; in a full buffer they replace the oldest.

        Args:
            slots: Where the samples are, ``[N]``.
            ids: Their storage ids ``[N]``; :data:`~charles.data.buffers.NOT_STORED` for those
                without a disk copy.

        Returns:
            Slots (uint32) and ids (int64) that were replaced; the caller releases and forgets them.
        """
        added = np.zeros(len(slots), _ENTRY)
        added["slot"], added["id"] = slots, ids
        self.received += len(added)
        self._newest_id = max(self._newest_id, int(np.max(ids, initial=NOT_STORED)))
        everything = np.concatenate([self._entries, added])
        surplus = max(0, len(everything) - self.capacity)
        self._entries = everything[surplus:]
        return everything["slot"][:surplus].copy(), everything["id"][:surplus].copy()

    def draw(self, num: int) -> np.ndarray:
        """Draw up to ``num`` samples.

        Returns:
            Records ``[N]`` of ``slot``, ``id`` and ``draws``, this one counted.
        """
        num = min(num, len(self))
        fresh = np.flatnonzero(self._entries["draws"] == 0)[:num]
        others = np.setdiff1d(np.arange(len(self)), fresh)
        rest = self._rng.choice(others, num - len(fresh), replace=False)
        positions = np.concatenate([fresh, rest.astype(np.intp)])
        self._entries["draws"][positions] += 1
        self.drawn += num
        drawn = self._entries[positions]
        used_up = positions[drawn["draws"] >= self._draws_each]
        self._entries = np.delete(self._entries, used_up)
        return drawn

    def is_used_up(self, drawn: np.ndarray) -> np.ndarray:
        """Which of the drawn records are no longer in the buffer, bool ``[N]``."""
        return drawn["draws"] >= self._draws_each

    def state(self) -> dict[str, np.ndarray]:
        """Everything that decides future draws, slots apart."""
        return {
            "human_ids": self._entries["id"].copy(),
            "human_draws": self._entries["draws"].copy(),
            "human_counters": np.array([self.received, self.drawn, self._newest_id], np.int64),
            "human_rng": words_of_rng(self._rng),
        }

    def restore(
        self, state: Mapping[str, Any], slots_by_id: Mapping[int, int], pending: set[int]
    ) -> Restored:
        """Become what :meth:`state` told, with the samples that were loaded from disk.

        A state of before there was a human buffer leaves it empty; a smaller buffer than the
        state's keeps the newest.

        Args:
            state: From :meth:`state`.
            slots_by_id: The slot of every sample that was loaded, by storage id.
            pending: Ids of batches that were under way and go on; these are neither fresh nor used.
        """
        ids = np.asarray(state.get("human_ids", np.zeros(0, np.int64)))
        is_found = np.array([one in slots_by_id for one in ids.tolist()], bool)
        entries = np.zeros(int(is_found.sum()), _ENTRY)
        if len(ids):
            entries["id"] = ids[is_found]
            entries["draws"] = np.asarray(state["human_draws"])[is_found]
            entries["slot"] = [slots_by_id[one] for one in entries["id"].tolist()]
        self._entries = entries[max(0, len(entries) - self.capacity) :]
        if "human_counters" in state:
            counters = [int(value) for value in state["human_counters"]]
            self.received, self.drawn, self._newest_id = counters
            self._rng = rng_of_words(np.asarray(state["human_rng"]))
        known = pending | set(self._entries["id"].tolist())
        others = np.array(sorted(set(slots_by_id) - known), np.int64)
        is_fresh = others > self._newest_id
        missing = len(ids) - len(entries)
        return Restored(missing=missing, fresh=others[is_fresh], used=others[~is_fresh])


def human_ids(state: Mapping[str, Any]) -> set[int]:
    """Ids of the samples that were in the buffer when :meth:`HumanBuffer.state` was taken."""
    return set(np.asarray(state.get("human_ids", ())).astype(np.int64).tolist())


def newest_human_id(state: Mapping[str, Any]) -> int:
    """The newest id that the buffer knew when :meth:`HumanBuffer.state` was taken."""
    return int(state["human_counters"][2]) if "human_counters" in state else NOT_STORED


def dealt(num: int, num_outputs: int) -> list[int]:
    """How many of ``num`` samples go to each output's part of a batch.

    Example:
        >>> dealt(5, 2)
        [3, 2]
    """
    return [num // num_outputs + (output < num % num_outputs) for output in range(num_outputs)]


def joined(draw: Draw, drawn: np.ndarray, used_up: np.ndarray, counts: list[int]) -> Draw:
    """One batch of a draw and of human samples, which go to the end of each output's part.

    Args:
        draw: From the outputs' buffers, first output first.
        drawn: Records of :meth:`HumanBuffer.draw`, ``[N]``.
        used_up: Which of them are no longer in the buffer, bool ``[N]``.
        counts: How many of them each output's part gets.
    """
    parts = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    outputs = np.concatenate([draw.outputs, parts])
    order = np.argsort(outputs, kind="stable")
    return replace(
        draw,
        slots=np.concatenate([draw.slots, drawn["slot"]])[order],
        ids=np.concatenate([draw.ids, drawn["id"]])[order],
        outputs=outputs[order],
        is_finished=np.concatenate([draw.is_finished, used_up])[order],
    )


class Arrivals:
    """When takeovers began, until their first sample is drawn: how soon a person is heard."""

    def __init__(self) -> None:
        self._episode: int | None = None
        self._since_ns: dict[int, int] = {}

    def came(self, slot: int, episode: int, captured_ns: int) -> None:
        """A sample came; the first one of an episode is waited for."""
        if episode != self._episode:
            self._episode = episode
            self._since_ns[slot] = captured_ns

    def drawn(self, slots: np.ndarray) -> int:
        """When the first of those among ``slots`` that were waited for was captured; 0: none."""
        found = [self._since_ns.pop(slot, 0) for slot in slots.tolist()]
        return min((since_ns for since_ns in found if since_ns), default=0)

    def gone(self, slots: np.ndarray) -> None:
        """These slots hold other samples from now on."""
        for slot in slots.tolist():
            self._since_ns.pop(slot, None)
