"""Processes killed at random moments: no torn sample, no lost slot, no block left."""

import os
import subprocess
import sys
import time

import msgspec
import numpy as np

from charles.data.exchange import Exchange
from charles.data.pool import Lane, LaneSpec, PoolSpec
from charles.data.shm import PREFIX, block_dir, remove_stale
from charles.sample import SampleSpec

SAMPLE = SampleSpec(height=270, width=480, history_length=60)
QUOTA = 8
NUM_SLOTS = 64
NUM_KILLS = 20
NUM_ALIVE = 3

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def stamp(header, pixels, number):
    """Content that shows any mixture of two samples."""
    header["frame_index"] = number
    pixels[: len(pixels) // 2] = number % 251
    header["label"] = number
    header["history"][:] = number
    pixels[len(pixels) // 2 :] = number % 251


def is_stamped(header, pixels):
    number = int(header["frame_index"])
    same = (header["label"] == number).all() and (header["history"] == number).all()
    return number > 0 and same and (pixels == number % 251).all()


def collect_without_end(spec, seed):
    """Write, reject and publish sets of random sizes, until killed or the trainer is gone."""
    lane = Lane(spec)
    rng = np.random.default_rng(seed)
    number, held = 0, []
    while number % 64 or lane.is_owner_alive():
        slot = lane.claim()
        if slot is None:
            time.sleep(0.0005)
            continue
        number += 1
        with lane.writing(slot) as (header, pixels):
            stamp(header, pixels, number)
        held.append(slot)
        if rng.random() < 0.2:
            lane.give_back(held.pop())
        if len(held) > rng.integers(0, 8):
            lane.publish(held)
            held = []
            time.sleep(0.0005)


class Trainer:
    """Polls, checks every sample that arrives, and keeps a few in a buffer."""

    def __init__(self):
        spec = PoolSpec(num_slots=NUM_SLOTS, sample=SAMPLE)
        self.exchange = Exchange(spec, max_collectors=NUM_ALIVE, slots_per_collector=QUOTA)
        self.processes = {}
        self.delivered = {}
        self.buffer = []
        self.rng = np.random.default_rng(0)

    def start(self, number):
        spec = self.exchange.open_lane(number)
        command = [sys.executable, __file__, msgspec.json.encode(spec).decode(), str(number)]
        self.processes[number] = subprocess.Popen(command, env=ENVIRONMENT)
        self.delivered[number] = 0

    def poll(self):
        for number in self.processes:
            self.take(number)
        if len(self.buffer) > 16:
            self.rng.shuffle(self.buffer)
            self.exchange.release(self.buffer[8:])
            del self.buffer[8:]
        self.exchange.refill()

    def take(self, number):
        pool = self.exchange.pool
        for slot in self.exchange.poll(number).tolist():
            assert is_stamped(pool.headers[slot], pool.pixels[slot])
            self.buffer.append(slot)
            self.delivered[number] += 1

    def kill(self, number):
        process = self.processes.pop(number)
        assert process.poll() is None, "a collector failed by itself"
        process.kill()
        process.wait()
        self.take(number)  # what it published before is not lost
        self.exchange.close_lane(number)
        self.exchange.check()
        counts = self.exchange.counts()
        assert counts["free"] + counts["buffer"] + sum(counts["lanes"].values()) == NUM_SLOTS

    def poll_until_all_deliver(self):
        """Everybody who lives delivers something new."""
        goal = {number: self.delivered[number] + 1 for number in self.processes}
        deadline_s = time.monotonic() + 30
        while any(self.delivered[number] < least for number, least in goal.items()):
            assert time.monotonic() < deadline_s, "a living collector was held up"
            self.poll()
            time.sleep(0.001)


def test_killed_collectors_leave_no_torn_sample_no_lost_slot_and_disturb_nobody():
    trainer = Trainer()
    try:
        for number in range(NUM_ALIVE):
            trainer.start(number)
        for number in range(NUM_KILLS):
            trainer.poll_until_all_deliver()
            end_s = time.monotonic() + trainer.rng.uniform(0, 0.02)
            while time.monotonic() < end_s:
                trainer.poll()
            trainer.kill(number)
            if number + NUM_ALIVE < NUM_KILLS:
                trainer.start(number + NUM_ALIVE)
        trainer.exchange.release(trainer.buffer)
        assert trainer.exchange.counts() == {"free": NUM_SLOTS, "buffer": 0, "lanes": {}}
        assert (trainer.exchange.torn, trainer.exchange.foreign) == (0, 0)
        assert sum(trainer.delivered.values()) > NUM_KILLS
    finally:
        for process in trainer.processes.values():
            process.kill()
            process.wait()
        trainer.exchange.close()


OWNER = """
import time
from charles.data.exchange import Exchange
from charles.data.pool import PoolSpec
from charles.sample import SampleSpec
sample = SampleSpec(height=64, width=64)
while True:
    exchange = Exchange(PoolSpec(num_slots=64, sample=sample), max_collectors=2,
                        slots_per_collector=8)
    lanes = [exchange.open_lane(0), exchange.open_lane(1)]
    exchange.close_lane(0)
    print(lanes[1].rings, exchange.pool.spec.name, flush=True)
    time.sleep(0.002)
    exchange.close()
"""


def blocks_of(process):
    return list(block_dir().glob(f"{PREFIX}*-{process.pid}-*"))


def test_blocks_of_a_trainer_killed_at_any_moment_are_removed_by_the_next_start():
    rng = np.random.default_rng(1)
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=ENVIRONMENT)
        for _ in range(8)
    ]
    left = 0
    for owner in owners:
        assert owner.stdout.readline()
    for owner in owners:
        time.sleep(rng.uniform(0, 0.02))
        owner.kill()
        owner.communicate()
        left += len(blocks_of(owner))
    exchange = Exchange(
        PoolSpec(num_slots=4, sample=SampleSpec(height=2, width=2)),
        max_collectors=1,
        slots_per_collector=2,
    )
    try:
        assert left > 0
        assert not any(blocks_of(owner) for owner in owners)
        assert remove_stale() == []
    finally:
        exchange.close()


def test_collector_notices_that_its_trainer_was_killed():
    code = OWNER.replace("time.sleep(0.002)", "time.sleep(60)")
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    rings, pool = owner.stdout.readline().split()
    sample = SampleSpec(height=64, width=64)
    spec = LaneSpec(collector_id=1, pool=PoolSpec(name=pool, num_slots=64, sample=sample),
                    rings=rings, quota=8)  # fmt: skip
    lane = Lane(spec)
    assert lane.is_owner_alive()
    slot = lane.claim()
    owner.kill()
    owner.communicate()
    assert not lane.is_owner_alive()
    with lane.writing(slot) as (header, pixels):  # no crash: the memory lives while it is mapped
        stamp(header, pixels, 1)
    lane.close()
    remove_stale()
    assert not any((block_dir() / name).exists() for name in (rings, pool))


if __name__ == "__main__":
    collect_without_end(msgspec.json.decode(sys.argv[1], type=LaneSpec), int(sys.argv[2]))
