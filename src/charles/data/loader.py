"""From slots to batches: the gather, and a thread that keeps the next batch ready.

A batch is a dict of arrays, ``B`` samples each: ``pixels`` uint8 ``[B, *pixels_shape]``, ``speed``
float32 ``[B]`` m/s, ``purpose`` float32 ``[B, 2]``, ``history`` float32 ``[B, T, D]``, ``label``
float32 ``[B, A]``.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from charles.data.buffers import Draw
from charles.data.pool import Pool
from charles.data.rings import fence
from charles.sample import SampleSpec

HostBatch = dict[str, np.ndarray]

MAX_PENDING = 8
"""Most batches that are drawn and not yet finished."""

RETRY_S = 0.003
"""How long the thread waits when nothing can be drawn."""

_FIELDS = {"speed": "speed_mps", "purpose": "purpose", "history": "history", "label": "label"}


def make_batch(spec: SampleSpec, batch_size: int) -> HostBatch:
    """Memory for one batch, to gather into."""
    headers = np.zeros(batch_size, spec.header_dtype)
    batch = {key: headers[name].copy() for key, name in _FIELDS.items()}
    return {"pixels": np.zeros((batch_size, *spec.pixels_shape), np.uint8), **batch}


def gather(pool: Pool, slots: np.ndarray, out: HostBatch) -> np.ndarray:
    """Copy samples out of the pool into a batch.

    Args:
        pool: The frame pool.
        slots: Slot numbers ``[B]``.
        out: From :func:`make_batch`; overwritten.

    Returns:
        Which samples were whole before and after the copy, bool ``[B]``; others are torn.
    """
    # A sample is whole if its writer had ended before the copy and none had begun after it: the
    # last number as it was, the first number as it is.
    ends = pool.ends[slots]
    fence()
    # One copy per frame: fancy indexing would first make another array of the whole batch.
    source, target = pool.pixels, out["pixels"]
    for number, slot in enumerate(slots.tolist()):
        target[number] = source[slot]
    headers = pool.headers[slots]
    for key, name in _FIELDS.items():
        out[key][...] = headers[name]
    fence()
    return (pool.begins[slots] == ends) & (ends > 0)


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch that is ready. Give it back with :meth:`Loader.finish` once it is trained on."""

    data: Any
    """The arrays, or what the loader's ``convert`` made of them."""
    draw: Draw
    """Which samples it has."""
    arrays: HostBatch
    """The arrays on the host; used again after :meth:`Loader.finish`."""


class Loader:
    """Keeps the next batches ready in a thread of its own. Close it.

    Lock order: the loader calls ``draw``, ``release``, ``finish`` and ``snapshot`` from several
    threads, at times under its own lock; these lock what they need themselves and never call the
    loader.

    Args:
        pool: The frame pool.
        batch_size: Samples per batch, ``B``.
        draw: Draws a batch; ``None`` while there is too little data.
        release: Gives the slots of ``draw.finished_slots`` back; called once the pixels are copied.
        finish: Forgets ``draw.finished_ids``; called once the batch is trained on (or was torn).
        convert: What is done with a batch before it is handed out, for example a copy to the
            device; runs in the loader's thread.
        depth: Batches kept ready.
        pending: Draws of an earlier session to deliver first, from :func:`restore_pending`.

    Attributes:
        torn: Samples that were torn when gathered; their batches were dropped and drawn anew. Where
            samples are replayed, one may be replaced in its buffer while it is gathered.
    """

    def __init__(
        self,
        pool: Pool,
        batch_size: int,
        *,
        draw: Callable[[], Draw | None],
        release: Callable[[Draw], None],
        finish: Callable[[Draw], None],
        convert: Callable[[HostBatch], Any] | None = None,
        depth: int = 2,
        pending: Iterable[Draw] = (),
    ) -> None:
        self.torn = 0
        self._pool = pool
        self._batch_size = batch_size
        self._draw, self._release, self._finish = draw, release, finish
        self._convert = convert or (lambda arrays: arrays)
        self._depth = depth
        self._restored = deque(pending)
        self._pending: list[Draw] = list(self._restored)
        self._ready: deque[Batch] = deque()
        self._spare: list[HostBatch] = []
        self._error: BaseException | None = None
        self._is_stopping = False
        self._drawing = threading.Lock()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
        self._thread.start()

    def get(self, timeout_s: float) -> Batch | None:
        """The next batch; ``None`` if there is none in time. Blocks that long.

        Raises:
            Exception: What failed in the loader's thread, raised again here.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error, timeout_s)
            if self._ready:
                batch = self._ready.popleft()
                self._changed.notify_all()
                return batch
            if self._error is not None:
                raise self._error
            return None

    def finish(self, batch: Batch) -> None:
        """Say that a batch is trained on: its samples are forgotten, its memory is used again."""
        self._drop(batch.draw)
        with self._changed:
            self._spare.append(batch.arrays)
            self._changed.notify_all()

    def state(self, snapshot: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The draws under way, together with a snapshot of what they were drawn from.

        Nothing is drawn meanwhile, so both belong to one moment.

        Args:
            snapshot: Returns the state of the buffers.

        Returns:
            The snapshot, and ``pending_ids`` (int64), ``pending_outputs`` (uint32) and
            ``pending_finished`` (bool), each ``[MAX_PENDING, B]``, and ``num_pending``.
        """
        with self._drawing:
            shape = (MAX_PENDING, self._batch_size)
            state = {
                "pending_ids": np.zeros(shape, np.int64),
                "pending_outputs": np.zeros(shape, np.uint32),
                "pending_finished": np.zeros(shape, bool),
                "num_pending": np.array(len(self._pending)),
            }
            for number, draw in enumerate(self._pending):
                state["pending_ids"][number] = draw.ids
                state["pending_outputs"][number] = draw.outputs
                state["pending_finished"][number] = draw.is_finished
            return {**snapshot(), **state}

    def close(self) -> None:
        """Stop the thread and wait for it. May be called twice."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait_for_room():
                draw = self._next_draw()
                if draw is None:
                    with self._changed:
                        self._changed.wait_for(lambda: self._is_stopping, RETRY_S)
                else:
                    self._deliver(draw)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Wait until another batch may be made; ``False`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._has_room())
            return not self._is_stopping

    def _has_room(self) -> bool:
        is_bounded = len(self._pending) < MAX_PENDING or bool(self._restored)
        return len(self._ready) < self._depth and is_bounded

    def _next_draw(self) -> Draw | None:
        with self._drawing:
            if self._restored:
                return self._restored.popleft()
            draw = self._draw()
            if draw is not None:
                self._pending.append(draw)
            return draw

    def _deliver(self, draw: Draw) -> None:
        with self._changed:
            spare = self._spare.pop() if self._spare else None
        arrays = spare or make_batch(self._pool.spec.sample, self._batch_size)
        is_whole = gather(self._pool, draw.slots, arrays)
        self._release(draw)
        if not is_whole.all():
            self.torn += int(np.count_nonzero(~is_whole))
            self._drop(draw)
            return
        batch = Batch(self._convert(arrays), draw, arrays)
        with self._changed:
            self._ready.append(batch)
            self._changed.notify_all()

    def _drop(self, draw: Draw) -> None:
        with self._drawing:
            self._pending = [one for one in self._pending if one is not draw]
            self._finish(draw)


def restore_pending(
    state: Mapping[str, Any], slots_by_id: Mapping[int, int]
) -> tuple[list[Draw], int]:
    """The draws that were under way when :meth:`Loader.state` was taken.

    Args:
        state: From :meth:`Loader.state`.
        slots_by_id: The slot of every sample that was loaded from disk, by storage id.

    Returns:
        The draws whose samples are all there, and how many samples the others lack.
    """
    draws, missing = [], 0
    for number in range(int(state["num_pending"])):
        ids = np.array(state["pending_ids"][number], np.int64)
        lacking = sum(one not in slots_by_id for one in ids.tolist())
        missing += lacking
        if not lacking:
            slots = np.array([slots_by_id[one] for one in ids.tolist()], np.uint32)
            outputs = np.array(state["pending_outputs"][number], np.uint32)
            is_finished = np.array(state["pending_finished"][number], bool)
            draws.append(Draw(slots=slots, ids=ids, outputs=outputs, is_finished=is_finished))
    return draws, missing


def pending_ids(state: Mapping[str, Any]) -> set[int]:
    """Ids of the samples of the draws that were under way when :meth:`Loader.state` was taken."""
    return set(np.asarray(state["pending_ids"])[: int(state["num_pending"])].ravel().tolist())
