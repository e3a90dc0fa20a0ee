"""Both Linux pads against a real kernel: in a guest, see :mod:`tests.qemu.boot`.

The same is asked of the committed report, in every run.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.qemu.boot import PROGRAMS, ROOT, boot

from charles.io.pads.uinput import NAME

COMMITTED = ROOT / "benchmarks/results/pads_qemu.json"
PACKAGE = os.environ.get("DEBIAN_KERNEL", "")
"""Path of Debian's linux-image package: apt-get download linux-image-6.1.0-56-amd64."""


@pytest.fixture(scope="module", params=["committed", pytest.param("now", marks=pytest.mark.slow)])
def report(request):
    """The guest's report: the committed one, and one made now."""
    if request.param == "committed":
        if not COMMITTED.exists():
            pytest.skip("no report is committed: python -m tests.qemu.boot")
        return json.loads(COMMITTED.read_text(encoding="utf-8"))
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    missing += [name for name in ("evdev", "vgamepad") if importlib.util.find_spec(name) is None]
    if missing or not PACKAGE or not Path(PACKAGE).exists():
        pytest.skip(f"needs {', '.join(missing) or 'a kernel: DEBIAN_KERNEL=linux-image-*.deb'}")
    return boot(Path(PACKAGE), timeout_s=1500.0)


KINDS = pytest.mark.parametrize("kind", ["uinput", "virtual"])
LONG = pytest.mark.timeout(1800)


@LONG
@KINDS
def test_what_is_missing_is_named(report, kind):
    assert "modprobe uinput" in report["without_module"][kind]
    assert "50-uinput.rules" in report["without_permission"][kind]


@LONG
@KINDS
def test_the_kernel_takes_it_for_a_wired_xbox_360_pad(report, kind):
    identity = report[kind]["identity"]
    assert identity["name"] == NAME
    ids = [identity[field] for field in ("bustype", "vendor", "product", "version")]
    assert ids == ["0003", "045e", "028e", "0114"]
    stick, trigger = [-32768, 32767, 16, 128], [0, 255, 0, 0]
    for axis in ("ABS_X", "ABS_Y", "ABS_RX", "ABS_RY"):
        assert identity["axes"][axis] == stick
    for axis in ("ABS_Z", "ABS_RZ"):
        assert identity["axes"][axis] == trigger
    assert len(identity["buttons"]) == 11
    assert identity["joysticks"] == [NAME]


@LONG
@KINDS
def test_a_is_pressed_and_released_once_before_driving(report, kind):
    presses = [
        (time_s, value) for time_s, name, value in report[kind]["wake_up"] if "BTN_SOUTH" in name
    ]
    (down_s, down), (up_s, up) = presses
    assert (down, up) == (1, 0)
    assert up_s - down_s >= 0.4


@LONG
@KINDS
def test_what_a_game_applies_is_what_was_wanted(report, kind):
    for row in report[kind]["sweep"]:
        wanted = [max(-1.0, min(1.0, value)) for value in row["controls"]]
        for value, applied in zip(wanted, row["applied"], strict=True):
            expected = 0.0 if abs(value) < 0.015 else value
            assert applied == pytest.approx(expected, abs=0.004), row
        assert row["axes"]["Y"] in (0, -1)
    assert report[kind]["after_nan"] | {"Y": 0} == {"X": 0, "Y": 0, "Z": 0, "RZ": 0}


@LONG
@KINDS
def test_the_pad_is_neutral_and_unplugged_on_every_way_out(report, kind):
    assert report[kind]["unplugged"]
    stopped, killed = report[kind]["sigterm"], report[kind]["sigkill"]
    assert stopped["held"]["RZ"] == killed["held"]["RZ"] == 255
    assert stopped["last"]["ABS_RZ"] == stopped["last"]["ABS_X"] == 0
    assert stopped["unplugged"]
    assert killed["unplugged"]


@LONG
@KINDS
def test_a_pad_whose_player_stands_still_lets_go(report, kind):
    stalled = report[kind]["stalled"]
    assert stalled["held"]["RZ"] == 255
    assert 0.4 < stalled["held_s"] < 5.0  # an emulated machine is slow
    assert stalled["then"] | {"Y": 0} == {"X": 0, "Y": 0, "Z": 0, "RZ": 0}


@LONG
def test_who_touches_a_pad_of_the_kernels_drives_in_the_next_tick(report):
    takeover = report["takeover"]
    assert len(takeover["touch_to_pad_ms"]) == 20
    assert np.median(takeover["touch_to_pad_ms"]) < 100.0
    assert "unplugged" in takeover["note"]
    assert takeover["after_unplugging"]["RZ"] == 0
    assert takeover["then"]["Z"] == 255  # the network's
