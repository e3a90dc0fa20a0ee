"""A pad lets go by itself when nobody renews what it holds."""

import time
from contextlib import closing

import numpy as np
import pytest

from charles.errors import PadError
from charles.io.pads.pad import Pad, applied_by
from charles.io.pads.recording import RecordingPad
from charles.io.pads.watched import WatchedPad

FULL = np.array([1.0, -1.0], np.float32)


def wait_for(condition, timeout_s=10.0):
    ends_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_s, "timed out"
        time.sleep(0.005)


def test_controls_that_nobody_renews_end_in_time_and_the_next_update_drives_again():
    below = RecordingPad()
    with closing(WatchedPad(below, patience_s=0.5)) as pad:
        assert isinstance(pad, Pad)
        pad.update(FULL)
        assert applied_by(pad, FULL).tolist() == [1.0, -1.0]
        wait_for(lambda: pad.lapses == 1)
        held, let_go = below.updates
        assert held.controls.tolist() == [1.0, -1.0]
        assert not let_go.controls.any()
        assert let_go.time_ns - held.time_ns >= 0.49e9
        assert not pad.applied.any()
        time.sleep(0.7)
        assert pad.lapses == 1  # nothing is held that could lapse
        pad.update(FULL)
        assert below.updates[-1].controls.tolist() == [1.0, -1.0]
        wait_for(lambda: pad.lapses == 2)


def test_controls_that_are_renewed_in_time_are_left_alone():
    below = RecordingPad()
    with closing(WatchedPad(below, patience_s=1.0)) as pad:
        for _ in range(30):
            pad.update(FULL)
            time.sleep(0.05)
        assert pad.lapses == 0
        assert len(below.updates) == 30
        pad.neutral()
        assert not below.updates[-1].controls.any()


def test_what_is_refused_is_refused_by_the_pad_below():
    with closing(WatchedPad(RecordingPad())) as pad:
        pad.update(np.array([np.nan, 0.0], np.float32))
        assert pad.refused == 1
        with pytest.raises(PadError, match="float32"):
            pad.update(np.zeros(3, np.float32))


def test_a_pad_that_is_gone_says_so_to_who_holds_it_and_closing_twice_is_allowed():
    below = RecordingPad()
    pad = WatchedPad(below, patience_s=0.05)
    pad.update(FULL)
    below.close()
    wait_for(lambda: pad.lapses == 1)  # whose failure is nobody's news yet
    with pytest.raises(PadError, match="closed"):
        pad.update(FULL)
    pad.close()
    pad.close()


class Deaf(RecordingPad):
    """A calibrated pad, as far as a speed goes."""

    speed_mps = None

    def at_speed(self, speed_mps):
        self.speed_mps = speed_mps


def test_the_speed_reaches_a_pad_that_wants_it():
    below = Deaf()
    with closing(WatchedPad(below)) as pad:
        pad.at_speed(7.0)
    with closing(WatchedPad(RecordingPad())) as pad:
        pad.at_speed(7.0)  # which is nothing to this one
    assert below.speed_mps == 7.0
