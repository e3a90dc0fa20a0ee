"""The trainer's side of the data plane: published slots in, balanced batches out.

One lock guards the exchange, the buffers and the tallies; three threads meet here: the intake's own
(collectors' sets → buffers), the loader's (buffers → batch), and the trainer's (state, refilling).
Nothing slow is done under the lock but copying a sample to the disk copy's queue.
"""

import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np

from charles.config import TrainConfig
from charles.data.buffers import Buffers, Draw
from charles.data.pool import Exchange, LaneSpec, PoolSpec
from charles.data.storage import Storage
from charles.io.game import WEATHERS
from charles.outputs import Bins
from charles.sample import SampleSpec

BATCHES_IN_FLIGHT = 4
"""Batches whose slots may be waiting to be gathered or released."""

NOT_STORED = -1
"""Storage id of a sample that has no disk copy."""

POLL_S = 0.003


def sample_spec(config: TrainConfig) -> SampleSpec:
    """The shape of a run's samples."""
    return SampleSpec(
        height=config.frame.height,
        width=config.frame.width,
        pixel_format=config.frame.pixel_format,
        history_length=config.data.history_length,
    )


def num_slots(config: TrainConfig) -> int:
    """Frame slots a run needs: full buffers, all collectors' hands, and batches in flight."""
    data = config.data
    return (
        len(config.outputs) * data.buffer_capacity
        + data.max_collectors * data.slots_per_collector
        + BATCHES_IN_FLIGHT * config.batch_size
    )


@dataclass(frozen=True, kw_only=True)
class IntakeView:
    """What the intake tells the console."""

    sizes: dict[str, int]
    """Samples in each output's buffer."""
    shortfall: dict[str, float]
    """Outputs that keep training waiting, with how full their buffer is (0..1)."""
    received: int
    torn: int
    stored: bool


class Intake:
    """Owns the frame pool, the buffers and the disk copy of one run.

    Args:
        config: The run's settings.

    Raises:
        SharedMemoryError: The pool does not fit; the text has the numbers.
        StorageError: The disk copy is of another layout.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.spec = sample_spec(config)
        self.lock = threading.Lock()
        data = config.data
        self.names = tuple(output.name for output in config.outputs)
        self.exchange = Exchange(
            PoolSpec(num_slots=num_slots(config), sample=self.spec),
            max_collectors=data.max_collectors,
            slots_per_collector=data.slots_per_collector,
        )
        self.buffers = Buffers(
            len(config.outputs),
            data.buffer_capacity,
            keep_fraction=data.keep_fraction,
            reuse=data.reuse,
            seed=config.seed,
        )
        directory = config.run_dir / "samples"
        self.storage = Storage(directory, self.spec) if data.is_stored else None
        self.weathers: Counter[str] = Counter()
        self.received = 0
        self._bins = [Bins.of(output) for output in config.outputs]
        self._lanes: set[int] = set()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to take in what collectors publish."""
        self._thread.start()

    def open_lane(self, collector_id: int) -> LaneSpec:
        """Let a collector in."""
        with self.lock:
            lane = self.exchange.open_lane(collector_id)
            self.exchange.refill()
            self._lanes.add(collector_id)
        return lane

    def close_lane(self, collector_id: int) -> None:
        """Take everything back from a collector that is gone, what it published last included."""
        with self.lock:
            if collector_id in self._lanes:
                self._take(self.exchange.poll(collector_id))
                self._lanes.remove(collector_id)
                self.exchange.close_lane(collector_id)

    def draw(self, per_output: int) -> Draw | None:
        """Slots of one batch, or ``None`` while a buffer is short."""
        with self.lock:
            if self.buffers.shortfall():
                return None
            return self.buffers.draw(per_output)

    def release(self, draw: Draw) -> None:
        """Give back the slots of a gathered batch whose samples are used up."""
        with self.lock:
            self._drop(draw.finished_slots, draw.finished_ids)

    def view(self) -> IntakeView:
        """How things stand."""
        with self.lock:
            self.raise_error()
            sizes = self.buffers.sizes()
            short = self.buffers.shortfall()
            return IntakeView(
                sizes={name: int(sizes[i]) for i, name in enumerate(self.names)},
                shortfall={self.names[i]: fraction for i, fraction in short.items()},
                received=self.received,
                torn=self.exchange.torn,
                stored=self.storage is not None and not self.storage.is_failed,
            )

    def raise_error(self) -> None:
        """Raise what stopped the intake's thread, if anything did."""
        if self._error is not None:
            raise self._error

    def wanted_weather(self) -> str | None:
        """The weather that the samples received so far show least."""
        with self.lock:
            if not self.weathers:
                return None
            return min(self.weathers, key=lambda name: self.weathers[name])

    def labels(self) -> np.ndarray:
        """Labels of all buffered samples, float32 ``[N, A]``, for plots."""
        with self.lock:
            return self.exchange.pool.headers["label"][self.buffers.slots()].copy()

    def close(self) -> None:
        """Stop the thread, write the disk copy out, remove the pool. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.storage is not None:
            self.storage.close()
        self.exchange.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self.lock:
                    taken = sum(self._take(self.exchange.poll(lane)) for lane in self._lanes)
                    self.exchange.refill()
                if not taken:
                    self._stop.wait(POLL_S)
        except BaseException as error:
            self._error = error

    def _take(self, slots: np.ndarray) -> int:
        """Put published slots into the buffers that they were picked for."""
        headers = self.exchange.pool.headers
        for slot in slots:
            output = int(headers["picked_for"][slot])
            self._add(output, slot, self._store(output, slot))
            self.weathers[WEATHERS[int(headers["weather"][slot])]] += 1
        self.received += len(slots)
        return len(slots)

    def _store(self, output: int, slot: int) -> int:
        if self.storage is None:
            return NOT_STORED
        pool = self.exchange.pool
        return self.storage.add(output, pool.headers[slot], pool.pixels[slot])

    def _add(self, output: int, slot: int, sample_id: int) -> None:
        one = (np.array([slot], np.uint32), np.array([sample_id], np.int64))
        self._drop(*self.buffers.add(output, *one))

    def _drop(self, slots: np.ndarray, ids: np.ndarray) -> None:
        self.exchange.release(slots)
        if self.storage is not None and len(ids):
            self.storage.forget(ids)
