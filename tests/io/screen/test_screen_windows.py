"""What is made of the answers of the Windows libraries, which do not run here."""

import importlib.util
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from charles.errors import CaptureError, ConfigError, ExtraMissingError, WindowHiddenError
from charles.io.screen.inbox import Inbox
from charles.io.screen.make import make_source
from charles.io.screen.region import Rectangle
from charles.io.screen.source import FrameSource
from charles.io.screen.windows import DxcamSource
from charles.screen_config import ScreenConfig

SIZE = {"height": 6, "width": 8}


class Camera:
    """Answers as dxcam's camera does: a picture when the screen changed, otherwise nothing."""

    width, height = 80, 60

    def __init__(self, pictures):
        self.pictures = list(pictures)
        self.asked = []
        self.is_released = False

    def grab(self, region, new_frame_only):
        assert new_frame_only
        self.asked.append(region)
        number = self.pictures.pop(0) if self.pictures else None
        if number is None:
            return None
        left, top, right, bottom = region
        return np.full((bottom - top, right - left, 4), number, np.uint8)

    def release(self):
        self.is_released = True


def test_dxcam_gives_the_last_picture_again_where_there_is_none():
    camera = Camera([None, None, 7, None, 7, 9])
    source = DxcamSource(ScreenConfig(kind="dxcam", region=(10, 20, 30, 40)), **SIZE, camera=camera)
    assert isinstance(source, FrameSource)
    out, seen = np.zeros(source.frame_shape, np.uint8), []
    for _ in range(5):
        capture = source.grab(out)
        seen.append((int(out[0, 0, 0]), int(out[-1, -1, 2]), capture.is_new))
    wanted = [(7, 7, True), (7, 7, False), (7, 7, False), (9, 9, True), (9, 9, False)]
    assert seen == wanted
    assert set(camera.asked) == {(10, 20, 40, 60)}
    source.close()
    source.close()
    assert camera.is_released
    with pytest.raises(CaptureError, match="closed"):
        source.grab(out)


def test_dxcam_finds_out_that_the_monitor_has_another_mode():
    camera = Camera([7])

    def look(region=None, new_frame_only=False):
        camera.width = 320
        return None

    source = DxcamSource(ScreenConfig(kind="dxcam"), **SIZE, camera=camera)
    out = np.zeros(source.frame_shape, np.uint8)
    source.grab(out)
    source._window = SimpleNamespace(area=lambda: Rectangle(100, 0, 80, 60))
    camera.grab = look
    with pytest.raises(WindowHiddenError, match="not on the screen"):
        source.grab(out)
    assert not source.grab(out).is_new  # what was seen before, until there is more
    camera.grab = lambda **_: 1 / 0
    with pytest.raises(CaptureError, match="cannot be read: division by zero"):
        source.grab(out)


def test_dxcam_refuses_a_region_outside_its_monitor():
    config = ScreenConfig(kind="dxcam", region=(60, 0, 30, 10), monitor=2)
    with pytest.raises(CaptureError, match="inside monitor 2, which has 80×60"):
        DxcamSource(config, **SIZE, camera=Camera([]))


def test_the_inbox_hands_out_the_newest_picture_and_waits_for_the_first_only():
    inbox = Inbox(**SIZE, max_age_s=1.0)
    out = np.empty(inbox.frame_shape, np.uint8)
    with pytest.raises(CaptureError, match=r"No picture came in 0\.05 s"):
        inbox.take(out, 0.05)

    def push():
        for number in (3, 4):
            time.sleep(0.02)
            inbox.put(np.full((60, 80, 4), number, np.uint8), 1000 * number)

    pushing = threading.Thread(target=push)
    pushing.start()
    first = inbox.take(out, 5.0)
    assert first.is_new
    pushing.join()
    assert inbox.take(out, 5.0).captured_ns == 4000
    assert (out == 4).all()
    assert inbox.take(out, 5.0) == (4000, False)


def test_the_inbox_tells_why_there_will_be_nothing_more():
    inbox = Inbox(**SIZE, max_age_s=1.0)
    inbox.put(np.zeros((60, 80, 4), np.uint8), 1)
    waiting = np.empty(inbox.frame_shape, np.uint8)
    inbox.end("the window is gone")
    inbox.end("a later reason")
    with pytest.raises(CaptureError, match="the window is gone"):
        inbox.take(waiting, 5.0)


def test_a_dxcam_that_finds_no_screen_when_it_is_imported_is_told(tmp_path, monkeypatch):
    (tmp_path / "dxcam.py").write_text('raise OSError("no DXGI factory")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dxcam", raising=False)
    with pytest.raises(CaptureError, match="Monitor 1 cannot be captured: no DXGI factory"):
        DxcamSource(ScreenConfig(kind="dxcam"), **SIZE)


@pytest.mark.skipif(sys.platform == "win32", reason="this is Windows")
@pytest.mark.parametrize("kind", ["dxcam", "windows_capture"])
def test_elsewhere_than_on_windows_its_ways_name_what_they_need(kind):
    with pytest.raises(CaptureError, match="needs Windows"):
        make_source(ScreenConfig(kind=kind, title="Game"), 6, 8)
    with pytest.raises((ExtraMissingError, CaptureError), match="Windows"):
        make_source(ScreenConfig(kind=kind), 6, 8)


@pytest.mark.skipif(
    sys.platform == "win32" or importlib.util.find_spec("mss") is not None,
    reason="it is installed, or no use here",
)
def test_without_mss_the_extra_is_named():
    with pytest.raises(ExtraMissingError, match=r"charles\[screen\]"):
        make_source(ScreenConfig(), 6, 8)


@pytest.mark.skipif(importlib.util.find_spec("gi") is not None, reason="it is installed")
def test_without_pygobject_the_extra_is_named():
    with pytest.raises(ExtraMissingError, match=r"charles\[wayland\]"):
        make_source(ScreenConfig(kind="wayland"), 6, 8)


def test_under_wayland_a_title_has_no_use():
    with pytest.raises(ConfigError, match="chosen in the desktop's own dialogue"):
        make_source(ScreenConfig(kind="wayland", title="Game"), 6, 8)
