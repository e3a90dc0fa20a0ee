"""The reading of GStreamer's pictures, from a test picture in the place of PipeWire."""

import os

import numpy as np
import pytest
from tests.io.screen.pattern import watch

from charles.errors import CaptureError, ExtraMissingError
from charles.io.screen import wayland
from charles.io.screen.source import FrameSource
from charles.io.screen.wayland import WaylandSource
from charles.screen_config import ScreenConfig

# PyGObject before 3.44 imports in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

RED = "videotestsrc pattern=red num-buffers={} ! video/x-raw,width=67,height=48,framerate=30/1"


def opened(origin, **settings):
    config = ScreenConfig(kind="wayland", **settings)
    try:
        return WaylandSource(config, height=24, width=32, origin=origin)
    except ExtraMissingError as err:
        pytest.skip(str(err))


def test_pictures_come_as_rgb_and_the_end_is_told():
    source = opened(RED.format(1), region=(3, 0, 64, 48))
    assert isinstance(source, FrameSource)
    out = np.zeros(source.frame_shape, np.uint8)
    assert source.grab(out).is_new
    assert np.abs(out.astype(int) - (255, 0, 0)).max() < 8
    with pytest.raises(CaptureError, match="The capture ended"):
        watch(source, 10.0, 100.0)
    source.close()
    source.close()


def test_a_region_outside_the_picture_is_refused():
    source = opened(RED.format(1), region=(10, 0, 64, 48))
    with pytest.raises(CaptureError, match="inside the picture, which has 67×48"):
        source.grab(np.zeros(source.frame_shape, np.uint8))
    source.close()


def test_a_source_without_a_picture_is_told(monkeypatch):
    monkeypatch.setattr(wayland, "FIRST_S", 0.2)
    source = opened("appsrc caps=video/x-raw,format=BGRx,width=64,height=48,framerate=30/1")
    with pytest.raises(CaptureError, match=r"No picture came in 0\.2 s.*does nothing move"):
        source.grab(np.zeros(source.frame_shape, np.uint8))
    source.close()


def test_without_a_desktop_session_there_is_nothing_to_ask(monkeypatch):
    opened(RED.format(1)).close()  # skips where it is not installed
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    assert os.environ["DBUS_SESSION_BUS_ADDRESS"]
    with pytest.raises(CaptureError, match="no desktop session"):
        opened(None)
