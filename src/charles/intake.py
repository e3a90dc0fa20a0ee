"""The trainer's side of the data plane: published slots in, drawn samples out.

One lock guards the buffers and the tallies; three threads meet here: the intake's own (collectors'
sets into buffers), the loader's (buffers into batches) and the trainer's (state, views). Nothing
slow is done under the lock but copying a sample to the disk copy's queue.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from charles.config import TrainConfig
from charles.data.buffers import NOT_STORED, Buffers, Draw, known_ids
from charles.data.exchange import Exchange
from charles.data.human import Arrivals, HumanBuffer, dealt, human_ids, joined, newest_human_id
from charles.data.loader import HostBatch, gather, make_batch, pending_ids, restore_pending
from charles.data.pool import LaneSpec, PoolSpec
from charles.data.shm import unique_name
from charles.data.storage import Storage, StoredSample
from charles.data.validation import ValidationBuffer
from charles.io.game import WEATHERS
from charles.sample import SampleFlag, SampleSpec

BATCHES_IN_FLIGHT = 4
"""Batches whose slots may be waiting to be gathered or released."""

POLL_S = 0.003


def sample_spec(config: TrainConfig) -> SampleSpec:
    """The shape of a run's samples."""
    return SampleSpec(
        height=config.frame.height,
        width=config.frame.width,
        pixel_format=config.frame.pixel_format,
        history_length=config.data.history_length,
        num_frames=config.frame.num_frames,
        frame_stride=config.frame.frame_stride,
    )


def num_slots(config: TrainConfig) -> int:
    """Frame slots a run needs: full buffers, all collectors' hands, and batches in flight.

    Full buffers are the outputs', that of what a person shows, and, where worlds are held out, the
    validation buffer.
    """
    data = config.data
    return (
        len(config.outputs) * data.buffer_capacity
        + (data.human_capacity if data.human_share else 0)
        + (data.validation_capacity if data.validation_share else 0)
        + data.max_collectors * data.slots_per_collector
        + BATCHES_IN_FLIGHT * config.batch_size
    )


@dataclass(frozen=True, kw_only=True)
class IntakeView:
    """What the intake tells the console."""

    sizes: dict[str, int]
    """Samples in each output's buffer."""
    stock: dict[str, int]
    """Draws that each output's buffer can still give before more samples come."""
    shortfall: dict[str, str]
    """Outputs that keep training waiting, and why."""
    received: int
    torn: int
    """Samples that a collector left torn; dropped."""
    foreign: int
    """Samples that no output or weather of ours fits, and slots that were not the sender's."""
    held_out: int
    """Samples in the validation buffer."""
    is_validation_full: bool
    """Whether no more held-out samples are needed; also where none are wanted."""
    human_received: int
    """Samples that ever came of a person at a player's wheel."""
    human_held: int
    """Those that may still be drawn."""
    human_drawn: int
    """Draws of them."""
    storage_failure: str
    """Why there is no disk copy any more; empty while there is."""


@dataclass(frozen=True)
class Refilled:
    """What a restart found on disk."""

    samples: int
    """Samples that are back in the buffers."""
    missing: int
    """Samples that the checkpoint's buffers had and the disk has not; 0: the resume is exact."""
    torn: int
    """Files that a crash had left torn; they were deleted."""
    pending: list[Draw]
    """Batches that were under way; the loader delivers them first."""


class _Loaded(NamedTuple):
    """Samples that a restart took from disk, by storage id."""

    slots: dict[int, int]
    outputs: dict[int, int]
    """Number of the output that each was picked for."""
    human: set[int]
    """Those of takeovers."""


class Intake:
    """Owns the frame pool, the buffers and the disk copy of one run.

    Args:
        config: The run's settings.

    Raises:
        SharedMemoryError: The pool does not fit; the text has the numbers.
        StorageError: The disk copy is of another layout.
    """

    def __init__(self, config: TrainConfig) -> None:
        data = config.data
        self.names = tuple(output.name for output in config.outputs)
        spec = sample_spec(config)
        self.storage = (
            Storage(config.run_dir / "samples", spec, self.names, max_forgotten=_most_kept(config))
            if data.is_stored
            else None
        )
        try:
            self.exchange = Exchange(
                PoolSpec(name=unique_name("pool"), num_slots=num_slots(config), sample=spec),
                max_collectors=data.max_collectors,
                slots_per_collector=data.slots_per_collector,
            )
        except BaseException:
            self._close_storage()
            raise
        self.pool = self.exchange.pool
        self._buffers = Buffers(
            len(self.names), data.buffer_capacity,
            keep_fraction=data.keep_fraction, start_fraction=data.start_fraction,
            replay_ratio=data.replay_ratio, seed=config.seed,
        )  # fmt: skip
        held_out = data.validation_capacity if data.validation_share else 0
        self._validation = ValidationBuffer(len(self.names), held_out)
        human = data.human_capacity if data.human_share else 0
        self._human = HumanBuffer(human, draws_each=data.human_draws, seed=config.seed)
        self._human_most = max(1, round(data.human_share * config.batch_size))
        self._arrivals = Arrivals()
        self._batch_size = config.batch_size
        self._share = config.batch_size // len(self.names)
        self._lock = threading.Lock()
        self._lanes: set[int] = set()
        self._is_started = False
        self._early: list[np.ndarray] = []
        """What collectors had published that were gone before the start."""
        self._weathers: Counter[str] = Counter(dict.fromkeys(config.game.weathers, 0))
        self._received = self._foreign = 0
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to take in what collectors publish."""
        with self._lock:
            self._is_started = True
            for slots in self._early:
                self._take(slots)
        self._thread.start()

    def open_lane(self, collector_id: int) -> LaneSpec:
        """Let a collector in; from the server's thread.

        Raises:
            ConfigError: There are too many collectors.
        """
        with self._lock:
            lane = self.exchange.open_lane(collector_id)
            self._lanes.add(collector_id)
            return lane

    def close_lane(self, collector_id: int) -> None:
        """Keep what a collector that is gone had published, and take all its slots back.

        Before :meth:`start` the buffers are left alone, as they may be being refilled.
        """
        with self._lock:
            if collector_id not in self._lanes:
                return
            self._lanes.remove(collector_id)
            try:
                slots = self.exchange.poll(collector_id)
                if self._is_started:
                    self._take(slots)
                else:
                    self._early.append(slots)
            finally:
                self.exchange.close_lane(collector_id)

    def draw(self) -> Draw | None:
        """Draw one batch, or ``None`` while a buffer is short; from the loader's thread."""
        with self._lock:
            counts = dealt(min(self._human_most, len(self._human)), len(self.names))
            draw = self._buffers.draw(self._share, counts)
            if draw is None or not any(counts):
                return draw
            drawn = self._human.draw(sum(counts))
            draw = joined(draw, drawn, self._human.is_used_up(drawn), counts)
            return replace(draw, since_ns=self._arrivals.drawn(drawn["slot"]))

    def release(self, draw: Draw) -> None:
        """Give back the slots of used-up samples, once their pixels are copied."""
        self.exchange.release(draw.finished_slots)

    def finish(self, draw: Draw) -> None:
        """Forget the disk copies of used-up samples, once they are trained on."""
        if self.storage is not None:
            self.storage.forget(draw.finished_ids)

    def state(self) -> dict[str, np.ndarray]:
        """The buffers' state, for a checkpoint."""
        with self._lock:
            return {**self._buffers.state(), **self._human.state()}

    def view(self) -> IntakeView:
        """How things stand.

        Raises:
            Exception: What stopped the intake's thread, if anything did.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            short = self._buffers.shortfall(self._share)
            return IntakeView(
                sizes=dict(zip(self.names, self._buffers.sizes(), strict=True)),
                stock=dict(zip(self.names, self._buffers.stock(), strict=True)),
                shortfall={self.names[number]: reason for number, reason in short.items()},
                received=self._received,
                torn=self.exchange.torn,
                foreign=self.exchange.foreign + self._foreign,
                held_out=len(self._validation),
                is_validation_full=self._validation.is_full,
                human_received=self._human.received,
                human_held=len(self._human),
                human_drawn=self._human.drawn,
                storage_failure="" if self.storage is None else str(self.storage.failure or ""),
            )

    def held_out_batches(self) -> Iterator[HostBatch]:
        """Every whole batch of held-out samples, composed as a training batch is.

        The arrays are used again for the next batch.
        """
        with self._lock:
            batches = self._validation.batches(self._share)
        # These slots are nobody else's and stay as they are, so no lock is needed to read them.
        arrays = make_batch(self.pool.spec.sample, self._batch_size) if len(batches) else {}
        for slots in batches:
            gather(self.pool, slots, arrays)
            yield arrays

    def labels(self) -> np.ndarray:
        """Labels of the samples in the buffers, float32 ``[N, A]``, for people to look at.

        Read without the lock: a label of a slot that is taken anew meanwhile is another sample's.
        """
        with self._lock:
            slots = self._buffers.slots()
        return self.pool.headers["label"][slots]

    def rarest_weather(self) -> str:
        """The weather that the samples received so far show least."""
        with self._lock:
            return min(self._weathers, key=lambda name: self._weathers[name])

    def refill(self, state: Mapping[str, np.ndarray] | None) -> Refilled:
        """Put the samples of the disk copy back into the buffers. Call before :meth:`start`.

        Args:
            state: The checkpoint's state, to resume exactly; ``None`` to take what is there.

        Raises:
            StorageError: A file is of another layout.
            ConfigError: The state is of other buffers.
        """
        if self.storage is None:
            return Refilled(0, 0, 0, [])
        loaded = self._load(state)
        pending, missing, fresh = [], 0, sorted(loaded.slots)
        if state is not None:
            pending, missing, fresh = self._restore(state, loaded)
        for one in fresh:
            if one in loaded.human:
                self._add_human(loaded.slots[one], one)
            else:
                self._add(loaded.outputs[one], loaded.slots[one], one)
        held = sum(self._buffers.sizes()) + len(self._human)
        return Refilled(held, missing, len(self.storage.torn), pending)

    def _load(self, state: Mapping[str, np.ndarray] | None) -> _Loaded:
        """Take what is needed from disk into slots, and let go of the rest."""
        assert self.storage is not None
        is_wanted, loaded = _wanted_by(state), _Loaded({}, {}, set())
        for sample in self.storage.load():
            if sample.header["flags"] & SampleFlag.HELD_OUT:
                self._load_held_out(sample)
                continue
            is_human = bool(sample.header["flags"] & SampleFlag.TAKEOVER)
            slot = self._load_slot(sample) if is_wanted(sample.id, is_human) else None
            if slot is None:
                self.storage.forget([sample.id])
                continue
            loaded.slots[sample.id], loaded.outputs[sample.id] = slot, sample.output
            if is_human:
                loaded.human.add(sample.id)
        return loaded

    def _restore(
        self, state: Mapping[str, np.ndarray], loaded: _Loaded
    ) -> tuple[list[Draw], int, list[int]]:
        """Buffers as they were: batches under way, how many samples lack, ids of newer ones."""
        slots = loaded.slots
        pending, missing = restore_pending(state, slots)
        under_way = {one for draw in pending for one in draw.ids.tolist()}
        others = {one: slot for one, slot in slots.items() if one not in loaded.human}
        human = {one: slots[one] for one in loaded.human}
        restored = (
            self._buffers.restore(state, others, pending),
            self._human.restore(state, human, under_way),
        )
        for each in restored:
            self._drop(np.array([slots[one] for one in each.used.tolist()]), each.used)
        missing += sum(each.missing for each in restored)
        return pending, missing, [one for each in restored for one in each.fresh.tolist()]

    def close(self) -> None:
        """Stop the thread, write the disk copy out, remove the pool. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._close_storage()
        self.exchange.close()

    def _close_storage(self) -> None:
        if self.storage is not None:
            self.storage.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    taken = sum(self._take(self.exchange.poll(lane)) for lane in self._lanes)
                self.exchange.refill()
                if not taken:
                    self._stop.wait(POLL_S)
        except BaseException as error:
            self._error = error

    def _take(self, slots: np.ndarray) -> int:
        """Put published slots into the buffers that they were picked for."""
        headers = self.pool.headers
        for slot in slots.tolist():
            output, weather = int(headers["picked_for"][slot]), int(headers["weather"][slot])
            if output >= len(self.names) or weather >= len(WEATHERS):
                self._drop(np.array([slot], np.uint32), np.array([NOT_STORED]))
                self._foreign += 1
                continue
            flags = int(headers["flags"][slot])
            if flags & SampleFlag.HELD_OUT:
                self._hold_out(output, slot)
            elif flags & SampleFlag.TAKEOVER:
                self._take_human(output, slot)
            else:
                self._add(output, slot, self._store(output, slot))
            self._weathers[WEATHERS[weather]] += 1
        self._received += len(slots)
        return len(slots)

    def _take_human(self, output: int, slot: int) -> None:
        """Keep what a person shows at a player's wheel, where it has a share of the batches."""
        if not self._human.capacity:
            self._drop(np.array([slot], np.uint32), np.array([NOT_STORED]))
            return
        headers = self.pool.headers
        came = int(headers["episode"][slot]), int(headers["captured_ns"][slot])
        self._arrivals.came(slot, *came)
        self._add_human(slot, self._store(output, slot))

    def _store(self, output: int, slot: int) -> int:
        if self.storage is None:
            return NOT_STORED
        return self.storage.add(output, self.pool.headers[slot], self.pool.pixels[slot])

    def _add(self, output: int, slot: int, sample_id: int) -> None:
        one = (np.array([slot], np.uint32), np.array([sample_id], np.int64))
        self._drop(*self._buffers.add(output, *one))

    def _add_human(self, slot: int, sample_id: int) -> None:
        one = (np.array([slot], np.uint32), np.array([sample_id], np.int64))
        slots, ids = self._human.add(*one)
        self._arrivals.gone(slots)
        self._drop(slots, ids)

    def _hold_out(self, output: int, slot: int) -> None:
        """Keep a sample that is never trained on, or let it go."""
        if self._validation.has_room(output):
            self._store(output, slot)
            self._validation.add(output, slot)
        else:
            self._drop(np.array([slot], np.uint32), np.array([NOT_STORED]))

    def _load_held_out(self, sample: StoredSample) -> None:
        """Put a held-out sample of the disk copy back, whatever the checkpoint knows of it."""
        assert self.storage is not None
        is_known = sample.output < len(self.names)
        has_room = is_known and self._validation.has_room(sample.output)
        slot = self._load_slot(sample) if has_room else None
        if slot is None:
            self.storage.forget([sample.id])
        else:
            self._validation.add(sample.output, slot)

    def _drop(self, slots: np.ndarray, ids: np.ndarray) -> None:
        """Let samples go that no batch will have any more."""
        self.exchange.release(slots)
        if self.storage is not None:
            self.storage.forget(ids)

    def _load_slot(self, sample: StoredSample) -> int | None:
        """Copy a sample from disk into a free slot; ``None`` if there is no room or no output."""
        acquired = self.exchange.acquire(1) if sample.output < len(self.names) else ()
        for slot in acquired:
            self.pool.put(int(slot), sample.header, sample.pixels)
            return int(slot)
        return None


def _most_kept(config: TrainConfig) -> int:
    """Used-up samples whose files may wait until the next checkpoint is written."""
    return max(50_000, 3 * config.batch_size * config.checkpoint.every_steps)


def _wanted_by(state: Mapping[str, np.ndarray] | None) -> Callable[[int, bool], bool]:
    """Tells by its id, and by whether it is of a takeover, whether a sample on disk is needed."""
    if state is None:
        return lambda _id, _is_human: True
    known = known_ids(state) | human_ids(state) | pending_ids(state)
    newest = {False: int(state["counters"][1]), True: newest_human_id(state)}
    return lambda sample_id, is_human: sample_id in known or sample_id > newest[is_human]
