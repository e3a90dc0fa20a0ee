"""What a person shows at a player's wheel: in the pool's ledger, in batches, and over restarts."""

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
from charles.errors import ConfigError
from charles.intake import Intake, num_slots
from charles.sample import SampleFlag

FIRST = 1000
"""Number of the first sample of a takeover; others are below."""

TAKEN = SampleFlag.TAKEOVER | SampleFlag.HUMAN


def make_config(run_dir, **changes):
    return replace(presets.tiny(), run_dir=run_dir, data=replace(presets.tiny().data, **changes))


def send(intake, lane, numbers, flag=SampleFlag.NONE, captured_ns=1):
    """Publish samples one by one, and wait until the intake has them."""
    for number in numbers:
        while (slot := lane.claim()) is None:
            time.sleep(0.002)
        with lane.writing(slot) as (header, pixels):
            header["frame_index"] = number
            header["speed_mps"] = number
            header["picked_for"] = 0 if flag else number % 2
            header["flags"] = flag
            header["episode"] = 5
            header["captured_ns"] = captured_ns + number
            pixels[:] = number % 256
        expected = intake.view().received + 1
        lane.publish([slot])
        ends_s = time.monotonic() + 10
        while intake.view().received < expected:
            assert time.monotonic() < ends_s
            time.sleep(0.001)


def numbers_of(intake, slots):
    return intake.pool.headers["frame_index"][slots].astype(int).tolist()


def draw_once(intake):
    """Numbers of a batch whose slots are then given back, as the loader does."""
    draw = intake.draw()
    assert draw is not None
    numbers = numbers_of(intake, draw.slots)
    intake.release(draw)
    intake.finish(draw)
    return draw, numbers


@pytest.fixture
def started(tmp_path):
    """An intake with full buffers and four samples of a takeover, and its lane."""
    with closing(Intake(make_config(tmp_path / "run"))) as intake:
        intake.refill(None)
        intake.start()
        with closing(Lane(intake.open_lane(1))) as lane:
            send(intake, lane, range(128))
            send(intake, lane, range(FIRST, FIRST + 4), TAKEN)
            yield intake, lane
        intake.close_lane(1)


def test_a_person_has_a_share_of_every_batch_while_there_is_something_to_draw(started):
    intake, _ = started
    draw, numbers = draw_once(intake)
    assert draw.outputs.tolist() == [0] * 4 + [1] * 4
    assert [number for number in numbers if number >= FIRST] == [FIRST, FIRST + 1]
    assert numbers[3] == FIRST
    assert draw.since_ns == 1 + FIRST
    draw, numbers = draw_once(intake)
    assert sorted(n for n in numbers if n >= FIRST) == [FIRST + 2, FIRST + 3]
    assert draw.since_ns == 0
    view = intake.view()
    assert (view.human_received, view.human_held, view.human_drawn) == (4, 4, 4)
    intake.exchange.check()
    assert intake.exchange.counts()["buffer"] == sum(view.sizes.values()) + 4


def test_every_slot_comes_back_when_they_were_drawn_often_enough(tmp_path):
    config = make_config(tmp_path / "run", human_draws=2, is_stored=False)
    with closing(Intake(config)) as intake:
        intake.start()
        with closing(Lane(intake.open_lane(1))) as lane:
            send(intake, lane, range(128))
            send(intake, lane, range(FIRST, FIRST + 3), TAKEN)
            drawn = [n for _ in range(4) for n in draw_once(intake)[1] if n >= FIRST]
            assert sorted(drawn) == sorted(2 * [FIRST, FIRST + 1, FIRST + 2])
            assert intake.view().human_held == 0
            intake.exchange.check()
        intake.close_lane(1)
        counts = intake.exchange.counts()
        assert counts["buffer"] == sum(intake.view().sizes.values())
        assert counts["free"] == num_slots(config) - counts["buffer"]


def test_without_a_share_nothing_is_learned_from_a_person(tmp_path):
    config = make_config(tmp_path / "run", human_share=0.0)
    with closing(Intake(config)) as intake:
        intake.start()
        with closing(Lane(intake.open_lane(1))) as lane:
            send(intake, lane, range(FIRST, FIRST + 5), TAKEN)
            assert intake.exchange.counts()["buffer"] == 0
        intake.close_lane(1)
        intake.exchange.check()


def everything_drawn(intake):
    drawn = []
    while (draw := intake.draw()) is not None:
        drawn.append(numbers_of(intake, draw.slots))
        intake.release(draw)
    return drawn


def test_a_restart_draws_as_the_first_session_would_have(tmp_path, started):
    intake, _ = started
    draw_once(intake)
    assert intake.storage.flush()
    none = np.zeros((0, 8))
    state = {**intake.state(), "num_pending": np.array(0), "pending_ids": none,
             "pending_outputs": none, "pending_finished": none}  # fmt: skip
    with closing(Intake(make_config(tmp_path / "other"))) as again:
        again.storage.close()
        again.storage = intake.storage
        refilled = again.refill(state)
        assert refilled.missing == 0
        expected, got = everything_drawn(intake), everything_drawn(again)
        assert len(expected) > 4
        assert any(number >= FIRST for number in expected[-1])
        assert got == expected
        again.storage = None


def test_of_what_came_after_the_checkpoint_nothing_is_lost_and_of_what_was_used_up_nothing_comes(
    started,
):
    intake, lane = started
    none = np.zeros((0, 8))
    pending = {"num_pending": np.array(0), "pending_ids": none, "pending_outputs": none,
               "pending_finished": none}  # fmt: skip
    intake._human._draws_each = 1
    draw_once(intake)
    state = {**intake.state(), **pending}
    send(intake, lane, [FIRST + 4], TAKEN)
    assert intake.storage.flush()
    config = make_config(intake.storage.directory.parent.parent / "other")
    with closing(Intake(config)) as again:
        again.storage.close()
        again.storage = intake.storage
        again.refill(state)
        held = numbers_of(again, again._human.slots())
        assert held == [FIRST + 2, FIRST + 3, FIRST + 4]
        again.exchange.check()
        again.storage = None


RUN = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from charles.data.pool import Lane
from charles.intake import Intake
from tests.test_human_intake import FIRST, TAKEN, make_config, send

intake = Intake(make_config(Path({run_dir!r})))
intake.refill(None)
intake.start()
lane = Lane(intake.open_lane(1))
print("ready", flush=True)
for number in range(10**9):
    send(intake, lane, [number])
    send(intake, lane, [FIRST + number], TAKEN)
    if intake.draw() is not None and number % 7 == 0:
        intake.storage.commit()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("after_s", [0.05, 0.5])
def test_after_a_kill_what_a_person_showed_is_there_and_nothing_else_is_taken_for_it(
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
        human = numbers_of(intake, intake._human.slots())
        assert human == sorted(human)
        assert all(number >= FIRST for number in human)
        assert (intake.pool.headers["flags"][intake._human.slots()] == TAKEN).all()
        others = numbers_of(intake, intake._buffers.slots())
        flags = intake.pool.headers["flags"][intake._buffers.slots()]
        assert len(others) == sum(intake.view().sizes.values())
        assert not flags.any()
        assert len(human) + len(others) > 0


@pytest.mark.parametrize(
    ("name", "value"), [("human_share", 1.0), ("human_share", -0.1), ("human_capacity", 0),
                        ("human_draws", 0)]
)  # fmt: skip
def test_impossible_shares_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"^data\.{name} must"):
        make_config(None, **{name: value})
