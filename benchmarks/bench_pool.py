"""The frame pool: write and publish a frame, gather a random batch, move frames across processes.

In the same run, and in turns: plain copies with NumPy (the ceiling), ``multiprocessing.Queue``, and
torchrl's memory-mapped replay buffer where it is installed (``pip install torch torchrl``; nothing
else here needs them).

Run it on one core, so that nobody gets two and nothing moves::

    taskset -c 1 python -m benchmarks.bench_pool
"""

import multiprocessing
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from benchmarks.harness import Row, Timing, duration_row, timing_of, write_results

from charles.data.exchange import Exchange
from charles.data.loader import gather, make_batch
from charles.data.pool import Lane, LaneSpec, PoolSpec
from charles.data.shm import block_dir
from charles.sample import SampleSpec

BATCH_SIZE = 32
SET_SIZE = 22
"""Frames in a balanced set, published together."""
QUOTA = 64
POOL_BYTES = 384 << 20
"""Enough that neither sources nor slots stay in a cache."""
SECONDS = 4.0
MOVED_FRAMES = 2000

spawn = multiprocessing.get_context("spawn")


def measure_in_turns(seconds: float, **fns: Callable[[], float]) -> dict[str, Timing]:
    """Call each function in turn, so that whatever else the machine does hits all alike.

    Args:
        seconds: How long to measure altogether.
        fns: Each does its work once and returns how long the part that counts took.
    """
    durations: dict[str, list[float]] = {name: [] for name in fns}
    warm_s = time.perf_counter() + seconds / 5
    end_s = time.perf_counter() + seconds
    while (now_s := time.perf_counter()) < end_s:
        for name, fn in fns.items():
            taken_s = fn()
            if now_s > warm_s:
                durations[name].append(taken_s)
    return {name: timing_of(values) for name, values in durations.items()}


class Frames:
    """Frames to copy from, more than any cache holds."""

    def __init__(self, spec: SampleSpec) -> None:
        rng = np.random.default_rng(0)
        self.num = POOL_BYTES // spec.pixels_bytes
        self.all = np.empty((self.num, *spec.pixels_shape), np.uint8)
        self.all[:] = rng.integers(0, 256, spec.pixels_shape, np.uint8)
        self._turn = 0

    def next(self) -> np.ndarray:
        """The next frame, round and round."""
        self._turn = (self._turn + 1) % self.num
        return self.all[self._turn]


class Plain:
    """The ceiling: copies between plain arrays."""

    def __init__(self, spec: SampleSpec, frames: Frames) -> None:
        self._frames = frames
        self._target = np.zeros_like(frames.all)
        self._batch = np.zeros((BATCH_SIZE, *spec.pixels_shape), np.uint8)
        self._rng = np.random.default_rng(1)
        self._turn = 0

    def write(self) -> float:
        """One frame; seconds per frame over as many as a set has."""
        frames = [self._frames.next() for _ in range(SET_SIZE)]
        first = self._turn
        self._turn = (self._turn + SET_SIZE) % (self._frames.num - SET_SIZE)
        started_s = time.perf_counter()
        for number, frame in enumerate(frames, first):
            np.copyto(self._target[number], frame)
        return (time.perf_counter() - started_s) / SET_SIZE

    def gather(self) -> float:
        """One random batch, pixels only."""
        which = self._rng.integers(0, self._frames.num, BATCH_SIZE)
        started_s = time.perf_counter()
        np.take(self._target, which, axis=0, out=self._batch, mode="clip")
        return time.perf_counter() - started_s


class Ours:
    """The frame pool, with one collector and a buffer that is always full."""

    def __init__(self, spec: SampleSpec, frames: Frames) -> None:
        self._frames = frames
        pool = PoolSpec(num_slots=frames.num, sample=spec)
        self.exchange = Exchange(pool, max_collectors=1, slots_per_collector=QUOTA)
        self.lane = Lane(self.exchange.open_lane(0))
        self._buffer: deque[int] = deque()
        self._batch = make_batch(spec, BATCH_SIZE)
        self._rng = np.random.default_rng(1)
        self._label = np.array([0.5, -0.5], np.float32)
        while len(self._buffer) < frames.num - 2 * QUOTA:
            self.write()

    def write(self) -> float:
        """Claim, write header and pixels; publish the whole set. Seconds per frame."""
        frames = [self._frames.next() for _ in range(SET_SIZE)]
        slots: list[int] = []
        started_s = time.perf_counter()
        for frame in frames:
            slot = self.lane.claim()
            assert slot is not None
            with self.lane.writing(slot) as (header, pixels):
                np.copyto(pixels, frame)
                header["captured_ns"] = 1
                header["speed_mps"] = 2.0
                header["label"] = self._label
            slots.append(slot)
        self.lane.publish(slots)
        taken_s = time.perf_counter() - started_s
        self._take()
        return taken_s / SET_SIZE

    def gather(self) -> float:
        """One random batch with all its fields, checked for torn samples."""
        which = self._rng.integers(0, len(self._buffer), BATCH_SIZE)
        slots = np.array(self._buffer, np.uint32)[which]
        started_s = time.perf_counter()
        is_whole = gather(self.exchange.pool, slots, self._batch)
        taken_s = time.perf_counter() - started_s
        assert is_whole.all()
        return taken_s

    def _take(self) -> None:
        """The trainer's part: the oldest sample gives its slot to the newest."""
        self._buffer.extend(self.exchange.poll(0).tolist())
        surplus = len(self._buffer) - (self._frames.num - 2 * QUOTA)
        if surplus > 0:
            self.exchange.release([self._buffer.popleft() for _ in range(surplus)])
        self.exchange.refill()

    def close(self) -> None:
        """Remove the pool."""
        self.lane.close()
        self.exchange.close()


class TorchRL:
    """torchrl's replay buffer on memory-mapped files in memory; set and drawn as it recommends."""

    def __init__(self, spec: SampleSpec, frames: Frames, directory: str) -> None:
        import torch  # pyright: ignore[reportMissingImports]
        from tensordict import TensorDict  # pyright: ignore[reportMissingImports]
        from torchrl import data  # pyright: ignore[reportMissingImports]

        self._frames = frames
        self._torch, self._dict = torch, TensorDict
        self._features = {
            "speed": torch.zeros(()),
            "purpose": torch.zeros(2),
            "history": torch.zeros(spec.history_length, spec.history_features),
            "label": torch.zeros(2),
        }
        self._buffer = data.TensorDictReplayBuffer(
            storage=data.LazyMemmapStorage(frames.num, scratch_dir=directory), batch_size=BATCH_SIZE
        )
        for _ in range(frames.num // SET_SIZE):
            self.write()

    def write(self) -> float:
        """Add samples, one at a time as they come. Seconds per frame."""
        frames = [self._torch.from_numpy(self._frames.next()) for _ in range(SET_SIZE)]
        started_s = time.perf_counter()
        for frame in frames:
            self._buffer.add(self._dict({"pixels": frame, **self._features}))
        return (time.perf_counter() - started_s) / SET_SIZE

    def gather(self) -> float:
        """Draw one batch."""
        started_s = time.perf_counter()
        batch = self._buffer.sample()
        taken_s = time.perf_counter() - started_s
        assert batch["pixels"].shape[0] == BATCH_SIZE
        return taken_s


def make_torchrl(spec: SampleSpec, frames: Frames, stack: ExitStack) -> TorchRL | None:
    """The peer, if it is installed."""
    try:
        directory = tempfile.TemporaryDirectory(dir=block_dir(), ignore_cleanup_errors=True)
        return TorchRL(spec, frames, stack.enter_context(directory))
    except ImportError as error:
        print(f"torchrl is left out: {error}")
        return None


def collect(lane_spec: LaneSpec, frames: int) -> None:
    """A collector process: frames as fast as they are taken."""
    lane = Lane(lane_spec)
    frame = np.ones(lane_spec.pool.sample.pixels_shape, np.uint8)
    while frames:
        slot = lane.claim()
        if slot is None:
            time.sleep(0.0001)
            continue
        with lane.writing(slot) as (header, pixels):
            np.copyto(pixels, frame)
            header["speed_mps"] = 2.0
        lane.publish((slot,))
        frames -= 1
    lane.close()


def move_through_pool(spec: SampleSpec) -> Timing:
    """From process to process through the pool; times per frame, over chunks of 100."""
    pool = PoolSpec(num_slots=4 * QUOTA, sample=spec)
    exchange = Exchange(pool, max_collectors=1, slots_per_collector=QUOTA)
    target = np.empty(spec.pixels_shape, np.uint8)

    def take() -> int:
        slots = exchange.poll(0)
        for slot in slots.tolist():
            np.copyto(target, exchange.pool.pixels[slot])
        exchange.release(slots)
        exchange.refill()
        if len(slots) == 0:
            time.sleep(0.0001)
        return len(slots)

    process = spawn.Process(target=collect, args=(exchange.open_lane(0), MOVED_FRAMES))
    process.start()
    try:
        return _time_chunks(take)
    finally:
        process.join()
        exchange.close()


def send(queue: Any, shape: tuple[int, ...], frames: int) -> None:
    """A process that puts frames into a queue."""
    frame = np.ones(shape, np.uint8)
    for _ in range(frames):
        queue.put(frame)


def move_through_queue(spec: SampleSpec) -> Timing:
    """From process to process through ``multiprocessing.Queue``."""
    queue = spawn.Queue(QUOTA)
    process = spawn.Process(target=send, args=(queue, spec.pixels_shape, MOVED_FRAMES))
    target = np.empty(spec.pixels_shape, np.uint8)

    def take() -> int:
        np.copyto(target, queue.get(timeout=60))
        return 1

    process.start()
    try:
        return _time_chunks(take)
    finally:
        process.join()
        queue.close()


def _time_chunks(take: Callable[[], int]) -> Timing:
    """Take all frames; seconds per frame, over chunks, the start of the process left out."""
    received = take()
    while not received:
        received = take()
    per_frame, since, started_s = [], received, time.perf_counter()
    while received < MOVED_FRAMES:
        received += take()
        if received - since >= 100:
            now_s = time.perf_counter()
            per_frame.append((now_s - started_s) / (received - since))
            since, started_s = received, now_s
    return timing_of(per_frame)


def bench(spec: SampleSpec) -> list[Row]:
    """All rows of one pixel format."""
    name = f"480x270 {spec.pixel_format}"
    with ExitStack() as stack:
        frames = Frames(spec)
        plain, ours = Plain(spec, frames), Ours(spec, frames)
        stack.callback(ours.close)
        torchrl = make_torchrl(spec, frames, stack)
        writes, gathers = {"plain": plain.write, "ours": ours.write}, {}
        gathers = {"plain": plain.gather, "ours": ours.gather}
        if torchrl is not None:
            writes["torchrl"], gathers["torchrl"] = torchrl.write, torchrl.gather
        write, batch = measure_in_turns(SECONDS, **writes), measure_in_turns(SECONDS, **gathers)
    through_pool, through_queue = move_through_pool(spec), move_through_queue(spec)
    rows = _rows(write, f"one frame, {name}", "memcpy", "write + publish")
    rows += _rows(batch, f"batch of {BATCH_SIZE}, {name}", "np.take", "gather")
    moved = f"process to process, {name}"
    rows.append(duration_row(f"multiprocessing.Queue, {moved}", through_queue))
    rows.append(duration_row(f"frame pool, {moved}", through_pool, queue=through_queue))
    return rows


def _rows(timings: dict[str, Timing], what: str, ceiling: str, ours: str) -> list[Row]:
    plain = timings["plain"]
    peers = {name: timings[name] for name in timings if name == "torchrl"}
    rows = [duration_row(f"{ceiling}, {what}", plain)]
    rows += [
        duration_row(f"{name} memory-mapped, {what}", peer, ceiling=plain)
        for name, peer in peers.items()
    ]
    return [*rows, duration_row(f"{ours}, {what}", timings["ours"], ceiling=plain, **peers)]


def main() -> None:
    """Measure and write ``results/pool.json``."""
    rows = [row for fmt in ("yuv420", "rgb") for row in bench(SampleSpec(pixel_format=fmt))]
    write_results("pool", rows, "taskset -c 1 python -m benchmarks.bench_pool")


if __name__ == "__main__":
    main()
