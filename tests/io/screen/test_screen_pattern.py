"""A window that draws a known counter 30 times a second, seen through the capture, for real."""

import itertools

import numpy as np
import pytest
from tests.io.screen.pattern import pattern, watch, watch_until_fresh

from charles.errors import CaptureError
from charles.io.screen.x11 import X11Source
from charles.screen_config import ScreenConfig
from charles.timing import Quantiles

SIZE = {"height": 180, "width": 320}


@pytest.fixture
def source():
    """Makes sources on the window with the bar codes, and closes them."""
    made = []

    def make(**settings):
        made.append(X11Source(ScreenConfig(title="bar codes", **settings), **SIZE))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_pictures_come_whole_in_order_and_soon(display, tmp_path, source):
    with pattern(tmp_path, "bar codes at 30 Hz") as drawing:
        seen = watch(source(), 3.0, 60.0)
        counters = [corners[0] for corners, _ in seen]
        assert None not in counters
        assert [corners for corners, _ in seen] == [[one] * 4 for one in counters], "torn"
        assert counters == sorted(counters), "out of order"
        assert len(set(counters)) > 20
        latencies_ms = [
            (capture.captured_ns - drawing.drawn_ns[counter]) / 1e6
            for counter, (_, capture) in zip(counters, seen, strict=True)
            if capture.is_new and counter != counters[0]
        ]
    latency = Quantiles.of(np.array(latencies_ms))
    print(f"\ndrawn to grabbed, at 60 grabs/s: {latency}")
    assert latency.p50 < 2 * 1000 / 30


def test_a_duplicate_is_a_picture_whose_counter_is_that_of_the_grab_before(
    display, tmp_path, source
):
    with pattern(tmp_path, "bar codes"):
        grabbing = source()
        seen = watch(grabbing, 2.0, 60.0)
    counters = [corners[0] for corners, _ in seen]
    is_new = [capture.is_new for _, capture in seen]
    changes = [now != before for before, now in itertools.pairwise(counters)]
    assert is_new == [True, *changes]
    assert not all(is_new)
    times_ns = [capture.captured_ns for _, capture in seen]
    for before_ns, now_ns, is_other in zip(times_ns, times_ns[1:], is_new[1:], strict=False):
        assert now_ns > before_ns if is_other else now_ns == before_ns
    report = grabbing.watch.report()
    assert (report.pictures, report.duplicates) == (sum(is_new), len(seen) - sum(is_new))


def test_a_window_that_is_drawn_in_two_halves_is_seen_to_tear(display, tmp_path, source):
    with pattern(tmp_path, "bar codes", gap_ms=10):
        seen = watch(source(), 2.0, 60.0)
    tears = sum(len(set(corners)) > 1 for corners, _ in seen)
    print(f"\ntears: {tears} of {len(seen)}")
    assert tears > 0


def test_a_window_that_stops_drawing_becomes_stale_and_recovers(display, tmp_path, source):
    with pattern(tmp_path, "bar codes") as drawing:
        grabbing = source(max_age_s=0.5)
        watch(grabbing, 0.3, 60.0)
        assert not grabbing.watch.is_stale()
        drawing.tell("stop")
        watch(grabbing, 1.0, 60.0)
        assert grabbing.watch.is_stale()
        report = grabbing.watch.report()
        assert report.stale > 0
        assert report.age_s > 0.5
        drawing.tell("go")
        watch_until_fresh(grabbing)


def test_a_window_is_followed_while_it_moves_and_missed_when_it_closes(display, tmp_path, source):
    with pattern(tmp_path, "bar codes") as drawing:
        grabbing = source()
        for step in range(20):
            drawing.tell(f"move {10 * step} {5 * step}")
            for corners, _ in watch(grabbing, 0.04, 60.0):
                assert None not in corners
                assert len(set(corners)) == 1
        drawing.tell("close")
        out = np.empty(grabbing.frame_shape, np.uint8)
        drawing.process.wait(10)
        with pytest.raises(CaptureError, match="'bar codes' was closed"):
            grabbing.grab(out)
