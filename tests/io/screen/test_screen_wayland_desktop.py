"""Capture of a real Wayland desktop through its portal: sway, PipeWire, xdg-desktop-portal-wlr."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from tests.io.screen.pattern import BACK, HEIGHT, WIDTH, pattern, watch, watch_until_fresh
from tests.io.screen.wayland_desktop import LEFT, TOP, session_bus, wayland_desktop, why_not

from charles.errors import CaptureError
from charles.io.screen.make import make_source
from charles.screen_config import ScreenConfig
from charles.timing import Quantiles, clock_ns

# PyGObject before 3.44 imports in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

PROGRAM = Path(__file__).with_name("wayland_pattern.py")
WINDOW = (LEFT, TOP, WIDTH, HEIGHT)
BACK_RGB = (BACK >> 16, BACK >> 8 & 255, BACK & 255)


@pytest.fixture(scope="module")
def installed():
    """Nothing is missing for a desktop, or the tests are skipped."""
    wayland_sink()
    if reason := why_not():
        pytest.skip(reason)


def wayland_sink():
    gi = pytest.importorskip("gi", reason="needs PyGObject: apt-get install python3-gi")
    try:
        gi.require_version("Gst", "1.0")
    except ValueError:
        pytest.skip("needs GStreamer: apt-get install gir1.2-gst-plugins-base-1.0")
    from gi.repository import Gst  # pyright: ignore

    Gst.init(None)
    for element, package in (
        ("pipewiresrc", "gstreamer1.0-pipewire"),
        ("videoconvert", "gstreamer1.0-plugins-base"),
        ("waylandsink", "gstreamer1.0-plugins-bad"),
    ):
        if Gst.ElementFactory.find(element) is None:
            pytest.skip(f"needs GStreamer's {element}: apt-get install {package}")


@pytest.fixture(scope="module")
def desktop(installed):
    """A desktop of 1280×720."""
    with wayland_desktop() as made:
        yield made


@pytest.fixture
def drawing(desktop, tmp_path):
    """Bar codes at 30 Hz in a window at (100, 60)."""
    with pattern(tmp_path, "bar codes", program=PROGRAM) as made:
        yield made


@pytest.fixture
def make(installed):
    """Makes sources, and closes them."""
    made = []

    def make_one(height=HEIGHT, width=WIDTH, **settings):
        made.append(make_source(ScreenConfig(kind="wayland", **settings), height, width))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def shown(source):
    """The source, once the window with the bar codes is in its picture."""
    wait_for(lambda: (grabbed(source) == BACK_RGB).all(axis=-1).any())
    return source


def grabbed(source):
    out = np.zeros(source.frame_shape, np.uint8)
    source.grab(out)
    return out


def test_pictures_come_whole_in_order_and_soon(drawing, make):
    source = shown(make(region=WINDOW, height=HEIGHT // 2, width=WIDTH // 2))
    seen = watch(source, 4.0, 30.0)
    arrived_ns = clock_ns()
    counters = [corners[0] for corners, _ in seen]
    assert None not in counters
    assert [corners for corners, _ in seen] == [[one] * 4 for one in counters], "torn"
    assert counters == sorted(counters), "out of order"
    assert len(set(counters)) > 60
    changes = [now != before for before, now in itertools.pairwise(counters)]
    assert [capture.is_new for _, capture in seen[1:]] == changes
    new = [
        (counter, capture.captured_ns)
        for counter, (_, capture) in zip(counters, seen, strict=True)
        if capture.is_new
    ]
    latencies_ms = [(time_ns - drawing.drawn_ns[counter]) / 1e6 for counter, time_ns in new]
    latency = Quantiles.of(np.array(latencies_ms))
    print(f"\ndrawn to captured, in ms: {latency}")
    assert min(latencies_ms) > 0
    assert latency.p50 < 2 * 1000 / 30
    assert new[-1][1] < arrived_ns


def test_colours_and_places_are_those_of_the_screen(drawing, make):
    frame = grabbed(shown(make(height=720, width=1280)))
    left, top, width, height = WINDOW
    window = frame[top : top + height, left : left + width]
    assert (window[50:-50] == BACK_RGB).all()
    is_window = (frame == BACK_RGB).all(axis=-1)
    is_window[top : top + height, left : left + width] = False
    assert not is_window.any()
    part = grabbed(make(region=(left, top + 50, 100, 40), height=40, width=100))
    assert (part == BACK_RGB).all()


def test_a_region_outside_the_screen_is_refused(drawing, make):
    with pytest.raises(CaptureError, match=r"must lie inside the picture, which has 1280×720"):
        grabbed(make(region=(1200, 0, 100, 100)))


def test_a_screen_on_which_nothing_moves_is_stale_until_it_does(drawing, make):
    source = shown(make(region=WINDOW, max_age_s=0.5))
    watch(source, 0.3, 60.0)
    assert not source.watch.is_stale()
    drawing.tell("stop")
    seen = watch(source, 1.0, 60.0)
    assert not any(capture.is_new for _, capture in seen[20:])
    assert [corners for corners, _ in seen[20:]] == [seen[-1][0]] * len(seen[20:])
    assert source.watch.is_stale()
    drawing.tell("go")
    watch_until_fresh(source)


def test_a_screen_that_gets_another_size_is_followed(desktop, drawing, make):
    source = shown(make(region=WINDOW))
    try:
        for width, height in ((1024, 576), (1280, 720)):
            desktop.set_mode(width, height)
            watch(source, 0.5, 30.0)
            seen = watch(source, 0.5, 30.0)
            counters = [corners[0] for corners, _ in seen]
            assert [corners for corners, _ in seen] == [[one] * 4 for one in counters]
            assert None not in counters
            assert len(set(counters)) > 5
    finally:
        desktop.set_mode(1280, 720)


def test_closing_ends_the_session_and_leaves_nothing_open(desktop, drawing, make):
    def files():
        return len(list(Path("/proc/self/fd").iterdir()))

    source = make()
    grabbed(source)
    assert desktop.streams() == 2
    source.close()
    wait_for(lambda: desktop.streams() == 0)
    before = files()
    for _ in range(3):
        source = make()
        grabbed(source)
        source.close()
        source.close()
    wait_for(lambda: files() <= before)
    wait_for(lambda: desktop.streams() == 0)
    with pytest.raises(CaptureError, match="is closed"):
        grabbed(source)


@pytest.mark.parametrize("name", ["sway", "wireplumber", "pipewire"])
def test_a_desktop_that_ends_is_told_soon(installed, make, tmp_path, name):
    with wayland_desktop() as desktop, pattern(tmp_path, "bar codes", program=PROGRAM):
        source = make()
        grabbed(source)
        desktop.stop(name)
        began_s = time.monotonic()
        for _ in range(2):
            with pytest.raises(CaptureError, match="The capture ended"):
                watch(source, 5.0, 30.0)
        source.close()
        assert time.monotonic() - began_s < 2
        if name == "sway":
            with pytest.raises(CaptureError, match=r"could not do.*\(CreateSession\)"):
                make()


def test_a_desktop_without_a_portal_is_told_what_to_install(installed, make):
    with session_bus(), pytest.raises(CaptureError, match="Install xdg-desktop-portal"):
        make()


def wait_for(condition):
    ends_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.05)
