"""The trainer's intake: held-out samples are kept apart, in the ledger and over restarts."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from charles import presets
from charles.data.pool import Lane
from charles.intake import Intake, num_slots
from charles.sample import SampleFlag

CAPACITY = 24


def make_config(run_dir, **changes):
    data = replace(presets.tiny().data, **{"validation_share": 0.3,
                                           "validation_capacity": CAPACITY, **changes})  # fmt: skip
    return replace(presets.tiny(), run_dir=run_dir, data=data)


def publish(lane, numbers):
    """Samples by number: every third is held out, the output changes with every one."""
    slots = []
    for number in numbers:
        slot = lane.claim()
        assert slot is not None
        with lane.writing(slot) as (header, pixels):
            header["frame_index"] = number
            header["speed_mps"] = number
            header["picked_for"] = number % 2
            held_out = SampleFlag.HELD_OUT if number % 3 == 0 else SampleFlag.NONE
            header["flags"] = held_out | SampleFlag.PERTURBED
            pixels[:] = number % 256
        slots.append(slot)
    lane.publish(slots)


def send(intake, lane, numbers):
    """Publish a few at a time and wait until the intake has them."""
    numbers = list(numbers)
    for first in range(0, len(numbers), 20):
        part = numbers[first : first + 20]
        expected = intake.view().received + len(part)
        while not _has(lane, len(part)):
            time.sleep(0.002)
        publish(lane, part)
        ends_s = time.monotonic() + 10
        while intake.view().received < expected:
            assert time.monotonic() < ends_s
            time.sleep(0.002)


def _has(lane, count):
    """Whether so many slots can be claimed."""
    claimed = [slot for slot in (lane.claim() for _ in range(count)) if slot is not None]
    for slot in claimed:
        lane.give_back(slot)
    return len(claimed) == count


def held_out_numbers(intake):
    """What the validation batches hold: numbers by batch."""
    found = []
    for batch in intake.held_out_batches():
        numbers = batch["speed"].astype(int)
        np.testing.assert_array_equal(batch["pixels"][:, 0, 0], numbers % 256)
        found.append(numbers.tolist())
    return found


@pytest.fixture
def intake(tmp_path):
    with closing(Intake(make_config(tmp_path / "run"))) as made:
        made.refill(None)
        made.start()
        yield made


def test_held_out_samples_are_never_drawn_and_every_slot_has_one_holder(intake):
    with closing(Lane(intake.open_lane(1))) as lane:
        send(intake, lane, range(220))
        sizes = intake.view().sizes
        assert intake.view().held_out == CAPACITY
        assert intake.view().is_validation_full
        intake.exchange.check()
        assert intake.exchange.counts()["buffer"] == sum(sizes.values()) + CAPACITY
        drawn = []
        while (draw := intake.draw()) is not None:
            drawn += intake.pool.headers["frame_index"][draw.slots].tolist()
            intake.release(draw)
        assert len(drawn) > 20
        assert not any(number % 3 == 0 for number in drawn)
        intake.exchange.check()
        batches = held_out_numbers(intake)
        assert len(batches) == CAPACITY // 8
        for batch in batches:
            assert [number % 2 for number in batch] == [0] * 4 + [1] * 4
            assert all(number % 3 == 0 for number in batch)
    intake.close_lane(1)
    counts = intake.exchange.counts()
    assert counts["free"] == num_slots(make_config(None)) - counts["buffer"]


def test_full_buffers_and_hands_and_the_validation_buffer_fit_the_pool_at_once(tmp_path):
    config = make_config(tmp_path / "run", max_collectors=1, is_stored=False)
    with closing(Intake(config)) as intake:
        intake.start()
        with closing(Lane(intake.open_lane(1))) as lane:
            send(intake, lane, range(400))
            view = intake.view()
            assert set(view.sizes.values()) == {config.data.buffer_capacity}
            assert view.held_out == CAPACITY
            for _ in range(100):
                intake.exchange.refill()
            assert _has(lane, config.data.slots_per_collector)
        intake.close_lane(1)


def test_a_collector_that_leaves_during_a_refill_is_heeded_after_it(tmp_path):
    with closing(Intake(make_config(tmp_path / "run"))) as intake:
        with closing(Lane(intake.open_lane(1))) as lane:
            intake.exchange.refill()
            publish(lane, range(10))
            intake.close_lane(1)
            assert intake.view().received == 0  # the buffers are the refill's for now
            intake.refill(None)
        intake.start()
        assert intake.view().received == 10
        intake.exchange.check()


def restarted(config):
    """A restart: what is held out then, in order, with the ledger checked."""
    with closing(Intake(config)) as intake:
        intake.refill(None)
        intake.exchange.check()
        held_out = held_out_numbers(intake)
        sizes = intake.view().sizes
        assert intake.exchange.counts()["buffer"] == sum(sizes.values()) + intake.view().held_out
        return held_out, intake.view()


def test_a_restart_measures_on_the_same_samples_in_the_same_order(tmp_path, intake):
    with closing(Lane(intake.open_lane(1))) as lane:
        send(intake, lane, range(150))
    intake.close_lane(1)
    before = held_out_numbers(intake)
    sizes = intake.view().sizes
    intake.close()
    held_out, view = restarted(make_config(tmp_path / "run"))
    assert held_out == before
    assert len(held_out) == CAPACITY // 8
    assert view.sizes == sizes


def test_a_checkpoint_that_knows_nothing_of_them_does_not_forget_them(tmp_path, intake):
    state = {**intake.state(), "num_pending": np.array(0), "pending_ids": np.zeros((0, 8)),
             "pending_outputs": np.zeros((0, 8)), "pending_finished": np.zeros((0, 8))}  # fmt: skip
    with closing(Lane(intake.open_lane(1))) as lane:
        send(intake, lane, range(150))
    intake.close_lane(1)
    before, sizes = held_out_numbers(intake), intake.view().sizes
    intake.close()
    with closing(Intake(make_config(tmp_path / "run"))) as again:
        refilled = again.refill(state)
        assert refilled.missing == 0
        assert held_out_numbers(again) == before
        assert again.view().sizes == sizes
        again.exchange.check()


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_with_less_room_after_a_restart_the_rest_is_let_go_and_never_trained_on(
    tmp_path, intake, share
):
    with closing(Lane(intake.open_lane(1))) as lane:
        send(intake, lane, range(150))
    intake.close_lane(1)
    intake.close()
    config = make_config(tmp_path / "run", validation_share=share, validation_capacity=8)
    _, view = restarted(config)
    assert view.held_out == (8 if share else 0)
    with closing(Intake(config)) as again:
        again.refill(None)
        drawn = again.pool.headers["frame_index"][again._buffers.slots()]
        assert not any(number % 3 == 0 for number in drawn.tolist())


RUN = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from contextlib import closing
from charles.data.pool import Lane
from charles.intake import Intake
from tests.test_intake import make_config, send

intake = Intake(make_config(Path({run_dir!r})))
intake.refill(None)
intake.start()
lane = Lane(intake.open_lane(1))
print("ready", flush=True)
for first in range(0, 10**9, 20):
    send(intake, lane, range(first, first + 20))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.4])
def test_after_a_kill_what_is_there_is_held_out_again_and_the_rest_is_collected_anew(
    tmp_path, after_s
):
    config = make_config(tmp_path / "run")
    script = RUN.format(path=sys.path, run_dir=str(config.run_dir))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
    with closing(Intake(config)) as intake:
        intake.refill(None)
        intake.exchange.check()
        kept = [number for batch in held_out_numbers(intake) for number in batch]
        assert all(number % 3 == 0 for number in kept)
        intake.start()
        with closing(Lane(intake.open_lane(1))) as lane:
            send(intake, lane, range(150))
            assert intake.view().held_out == CAPACITY
            now = [number for batch in held_out_numbers(intake) for number in batch]
            assert len(now) == CAPACITY
            assert set(kept) <= set(now)
        intake.close_lane(1)
        intake.exchange.check()
