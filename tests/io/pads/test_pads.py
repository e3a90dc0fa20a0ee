"""Pads: what is sent stays in range, what is not finite is never sent, errors name the fix."""

import ctypes
import importlib.util

import numpy as np
import pytest
from charles.io.gamepad import (
    CommandPad,
    Pad,
    RecordingPad,
    VirtualPad,
    explained,
    pad_report,
    plug_in,
)
from hypothesis import given
from hypothesis import strategies as st

from charles.errors import ExtraMissingError, GameError, PadError
from charles.io.deadzones import DeadZone, from_axis

NAN = float("nan")


class XboxReport:
    """Keeps reports as the driver's C struct does: bytes and shorts that wrap in silence."""

    def __init__(self):
        self.sent = []
        self._left = self._right = self._x = 0

    def left_trigger_float(self, value_float):
        self._left = ctypes.c_ubyte(round(value_float * 255)).value

    def right_trigger_float(self, value_float):
        self._right = ctypes.c_ubyte(round(value_float * 255)).value

    def left_joystick_float(self, x_value_float, y_value_float):
        self._x = ctypes.c_short(round(x_value_float * 32767)).value
        assert y_value_float == 0.0

    def update(self):
        self.sent.append((self._left / 255, self._right / 255, self._x / 32767))


class Car:
    """A game's command channel, and nothing else."""

    controls = ("acceleration_braking", "steering")

    def __init__(self):
        self.acted = []
        self.is_gone = False

    def act(self, controls):
        if self.is_gone:
            raise GameError("gone")
        assert controls.dtype == np.float32
        self.acted.append(tuple(controls.tolist()))


def pads():
    """Every pad, with a way to see the last controls it sent."""
    car, device = Car(), XboxReport()
    zone = DeadZone(neutral=0.0)
    recording = RecordingPad()
    virtual = VirtualPad(device=device, triggers=zone, stick=zone)

    def shown():
        left, right, x = device.sent[-1]
        return (float(from_axis(right, zone) - from_axis(left, zone)), float(from_axis(x, zone)))

    return [
        pytest.param(CommandPad(car), lambda: car.acted[-1], id="command"),
        pytest.param(recording, lambda: recording.updates[-1].controls.tolist(), id="recording"),
        pytest.param(virtual, shown, id="virtual"),
    ]


@pytest.mark.parametrize(("pad", "last"), pads())
def test_every_pad_keeps_the_contract(pad, last):
    assert isinstance(pad, Pad)
    pad.update(np.array([0.5, -0.25], np.float32))
    assert last() == pytest.approx((0.5, -0.25), abs=0.01)
    pad.update(np.array([-1.7, 1.01]))
    assert last() == pytest.approx((-1.0, 1.0), abs=0.01)
    pad.update(np.array([NAN, 0.3], np.float32))
    pad.update(np.array([0.2, np.inf], np.float32))
    assert last() == pytest.approx((0.0, 0.0))
    assert pad.refused == 2
    with pytest.raises(PadError, match=r"\[2\], got float32 \(3,\)"):
        pad.update(np.zeros(3, np.float32))
    pad.update(np.array([1.0, 1.0], np.float32))
    pad.close()
    assert last() == pytest.approx((0.0, 0.0))
    pad.close()


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_report_has_one_trigger_and_stays_in_range(pedal, steering, triggers, stick):
    zones = {"triggers": DeadZone(game=triggers), "stick": DeadZone(game=stick)}
    report = pad_report(pedal, steering, **zones)
    assert all(type(value) is float for value in report)
    assert 0.0 <= report.left_trigger <= 1.0
    assert 0.0 <= report.right_trigger <= 1.0
    assert report.left_trigger == 0.0 or report.right_trigger == 0.0
    assert -1.0 <= report.stick_x <= 1.0
    assert report.stick_x * steering >= 0.0


def test_a_recording_pad_forgets_the_oldest():
    pad = RecordingPad(capacity=3)
    for step in range(5):
        pad.update(np.array([0.0, step / 10], np.float32))
    assert [round(float(update.controls[1]), 1) for update in pad.updates] == [0.2, 0.3, 0.4]
    times = [update.time_ns for update in pad.updates]
    assert times == sorted(times)


def test_a_command_pad_closes_quietly_when_the_game_is_gone():
    car = Car()
    pad = CommandPad(car)
    car.is_gone = True
    with pytest.raises(GameError):
        pad.update(np.zeros(2, np.float32))
    pad.close()


def test_a_virtual_pad_that_loses_its_driver_says_so_and_closes():
    class Lost(XboxReport):
        def update(self):
            if len(self.sent) == 2:
                raise OSError("bus removed")
            super().update()

    pad = VirtualPad(device=Lost())
    pad.update(np.zeros(2, np.float32))
    with pytest.raises(PadError, match="bus removed"):
        pad.update(np.zeros(2, np.float32))
    pad.close()
    with pytest.raises(PadError, match="closed"):
        pad.neutral()


def test_a_virtual_pad_needs_the_controls_of_a_car():
    with pytest.raises(PadError, match="'steering'"):
        VirtualPad(("acceleration_braking",), device=XboxReport())


@pytest.mark.skipif(importlib.util.find_spec("vgamepad") is not None, reason="it is installed")
def test_without_vgamepad_the_extra_is_named():
    with pytest.raises(ExtraMissingError, match=r"charles\[gamepad\]"):
        plug_in()


@pytest.mark.parametrize(
    ("err", "fix"),
    [
        (OSError("libevdev.so.2: cannot open shared object file"), "libevdev2"),
        (RuntimeError("Error: VIGEM_ERROR_BUS_NOT_FOUND"), "ViGEmBus"),
        (PermissionError(13, "Permission denied", "/dev/uinput"), "50-uinput.rules"),
        (FileNotFoundError(2, "No such file", "/dev/uinput"), "modprobe uinput"),
        (Exception("something else"), "uinput"),
    ],
)
def test_an_error_of_the_driver_names_what_is_missing_and_the_fix(err, fix):
    text = explained(err)
    assert str(err) in text
    assert fix in text
