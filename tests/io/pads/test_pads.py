"""Pads: what is sent stays in range, what is not finite is never sent, errors name the fix."""

import ctypes
import importlib.util
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import ConfigError, ExtraMissingError, GameError, PadError
from charles.io.deadzones import DeadZone, from_axis
from charles.io.pads import xbox
from charles.io.pads.command import CommandPad
from charles.io.pads.diagnosis import check_uinput, explained
from charles.io.pads.keyboard import KeyboardPad
from charles.io.pads.make import make_pad
from charles.io.pads.pad import Pad, applied_by
from charles.io.pads.recording import RecordingPad
from charles.io.pads.sendinput import Input, SendInputKeys, key_input
from charles.io.pads.virtual import VirtualDevice
from charles.io.pads.xbox import Axes, XboxPad
from charles.pad_config import KeysConfig, PadConfig, ZonesConfig

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


class Typed:
    """A keyboard that remembers what is down."""

    def __init__(self):
        self.down, self.released, self.is_closed = set(), [], False
        self.failure: Exception | None = None

    def press(self, name):
        self._fail()
        self.down.add(name)

    def release(self, name):
        self._fail()
        self.released.append(name)
        self.down.discard(name)

    def close(self):
        self.is_closed = True

    def _fail(self):
        if self.failure is not None:
            raise self.failure


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


EVEN = DeadZone(neutral=0.0)
ZONES = ZonesConfig(accelerate=EVEN, brake=EVEN, steering=EVEN)


def virtual_pad(gamepad, **changes):
    return XboxPad(VirtualDevice(gamepad), **changes)


def pads():
    """Every pad whose controls are numbers, with a way to see the last that it sent."""
    car, gamepad = Car(), XboxReport()
    recording = RecordingPad()
    virtual = virtual_pad(gamepad, zones=ZONES)

    def shown():
        left, right, x = gamepad.sent[-1]
        return (float(from_axis(right, EVEN) - from_axis(left, EVEN)), float(from_axis(x, EVEN)))

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


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_report_has_one_trigger_and_stays_in_range(pedal, steering, triggers, stick):
    zone = DeadZone(game=triggers)
    axes = Axes(ZonesConfig(accelerate=zone, brake=zone, steering=DeadZone(game=stick)))
    report = axes.report(pedal, steering)
    assert all(type(value) is float for value in report)
    assert 0.0 <= report.left_trigger <= 1.0
    assert 0.0 <= report.right_trigger <= 1.0
    assert report.left_trigger == 0.0 or report.right_trigger == 0.0
    assert -1.0 <= report.stick_x <= 1.0
    assert report.stick_x * steering >= 0.0


def test_every_axis_has_a_dead_zone_of_its_own():
    zones = ZonesConfig(accelerate=DeadZone(game=0.1), brake=DeadZone(game=0.2, limit=0.9),
                        steering=DeadZone(game=0.3, curve=2.0))  # fmt: skip
    axes = Axes(zones)
    assert axes.report(0.5, 0.5).right_trigger == pytest.approx(0.1 + 0.9 * 0.5)
    assert axes.report(-1.0, 0.5).left_trigger == pytest.approx(0.9)
    assert axes.report(0.0, 0.5).stick_x == pytest.approx(0.3 + 0.7 * 0.25)


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

    pad = virtual_pad(Lost())
    pad.update(np.zeros(2, np.float32))
    with pytest.raises(PadError, match="bus removed"):
        pad.update(np.zeros(2, np.float32))
    pad.close()
    with pytest.raises(PadError, match="closed"):
        pad.neutral()


def test_pads_of_a_car_need_the_controls_of_a_car():
    with pytest.raises(PadError, match="'steering'"):
        virtual_pad(XboxReport(), controls=("acceleration_braking",))
    keys = Typed()
    with pytest.raises(PadError, match="'steering'"):
        KeyboardPad(keys, ("acceleration_braking",))
    assert keys.is_closed


class Sleeping:
    """A driver's pad that notes when A changes, and may fail."""

    def __init__(self, failure=None):
        self.told, self.is_closed, self.failure = [], False, failure

    def show(self, report):
        self.told.append(("show", report))

    def press_a(self, is_down):
        self.told.append(("a", is_down, time.monotonic()))
        if self.failure is not None:
            raise self.failure

    def close(self):
        self.is_closed = True


def test_a_pad_is_woken_up_by_one_press_of_a(monkeypatch):
    monkeypatch.setattr(xbox, "WAKE_UP_S", 0.05)
    device, begin_s = Sleeping(), time.monotonic()
    pad = XboxPad(device, wake_up=True)
    (_, first, down_s), (_, second, up_s) = device.told[1:]
    assert device.told[0] == ("show", xbox.NEUTRAL)
    assert (first, second) == (True, False)
    assert down_s - begin_s >= 0.05
    assert up_s - down_s >= 0.05
    pad.close()
    assert device.is_closed


@pytest.mark.parametrize("failure", [OSError("gone"), KeyboardInterrupt()])
def test_a_pad_that_cannot_be_woken_up_is_unplugged(monkeypatch, failure):
    monkeypatch.setattr(xbox, "WAKE_UP_S", 0.0)
    device = Sleeping(failure)
    with pytest.raises(PadError if isinstance(failure, OSError) else KeyboardInterrupt):
        XboxPad(device, wake_up=True)
    assert device.is_closed


def test_a_keyboard_pad_holds_keys_and_lets_go():
    keys = Typed()
    pad = KeyboardPad(keys, ("steering", "acceleration_braking"))
    assert isinstance(pad, Pad)
    assert sorted(keys.released) == ["a", "d", "s", "w"]
    pad.update(np.array([-1.01, 3.0]))
    assert keys.down == {"a", "w"}
    pad.update(np.array([0.01, -1.0]))  # within neutral, and the other pedal
    assert keys.down == {"s"}
    pad.update(np.array([NAN, 1.0]))
    assert keys.down == set()
    assert pad.refused == 1
    with pytest.raises(PadError, match=r"\[2\]"):
        pad.update(np.zeros(3))
    pad.update(np.array([1.0, 1.0]))
    pad.close()
    assert keys.down == set()
    assert keys.is_closed
    pad.close()
    with pytest.raises(PadError, match="closed"):
        pad.update(np.zeros(2))
    assert "keyboard pad" not in {thread.name for thread in threading.enumerate()}


def test_a_keyboard_that_fails_between_two_updates_is_reported_by_the_next():
    keys = Typed()
    pad = KeyboardPad(keys, config=PadConfig(kind="keyboard", pulse_ms=20.0))
    pad.update(np.array([0.5, 0.5]))
    keys.failure = OSError("connection closed")
    time.sleep(0.1)
    with pytest.raises(PadError, match=r"connection closed.*desktop session"):
        pad.update(np.array([0.5, 0.5]))
    pad.close()
    assert keys.is_closed


def test_a_keyboard_that_fails_at_the_start_is_given_back():
    keys = Typed()
    keys.failure = OSError("no")
    with pytest.raises(PadError, match="no"):
        KeyboardPad(keys)
    assert keys.is_closed


def test_windows_gets_its_structures_as_it_expects_them():
    assert ctypes.sizeof(Input) == (40 if ctypes.sizeof(ctypes.c_void_p) == 8 else 28)
    down, up = key_input(0x11, True), key_input(0xE04B, False)  # W, and the left arrow
    assert (down.type, down.any.ki.wScan, down.any.ki.dwFlags) == (1, 0x11, 0x0008)
    assert (up.any.ki.wScan, up.any.ki.dwFlags) == (0x4B, 0x0008 | 0x0002 | 0x0001)


def test_a_pad_knows_what_the_game_makes_of_it():
    pad = virtual_pad(XboxReport(), zones=ZonesConfig(brake=DeadZone(limit=0.625)))
    for wanted, applied in (
        ((0.5, -0.25), (0.5, -0.25)),
        ((-1.0, 0.01), (-0.5, 0.0)),  # the brake has a limit, and little steering is neutral
    ):
        controls = np.array(wanted, np.float32)
        pad.update(controls)
        np.testing.assert_allclose(applied_by(pad, controls), applied, atol=1e-6)
    pad.neutral()
    assert not pad.applied.any()
    far = np.array([2.0, np.inf], np.float32)
    assert applied_by(RecordingPad(), far).tolist() == [0.0, 0.0]
    assert applied_by(RecordingPad(), far[:1].repeat(2)).tolist() == [1.0, 1.0]


@pytest.mark.skipif(sys.platform == "win32", reason="it can be made here")
def test_keys_of_windows_are_refused_elsewhere():
    with pytest.raises(PadError, match="Windows"):
        SendInputKeys("wasd")


def test_pads_are_made_by_name():
    car = Car()
    assert isinstance(make_pad(PadConfig(), car), CommandPad)
    pad = make_pad(PadConfig(kind="none"), SimpleNamespace(controls=("one", "two", "three")))
    pad.update(np.zeros(3))


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [("virtual", "vgamepad", "gamepad"), ("uinput", "evdev", "evdev"),
     ("keyboard", "Xlib", "keyboard")],
)  # fmt: skip
def test_without_its_package_a_pad_names_its_extra(kind, package, extra):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    if kind == "keyboard" and sys.platform == "win32":
        pytest.skip("Windows needs no package")
    with pytest.raises(ExtraMissingError, match=rf"charles\[{extra}\]"):
        make_pad(PadConfig(kind=kind), Car())


@pytest.mark.skipif(importlib.util.find_spec("evdev") is None, reason="evdev is not installed")
def test_a_uinput_pad_without_the_kernels_door_says_what_to_do():
    try:
        check_uinput()
    except OSError:
        with pytest.raises(PadError, match=r"uinput.*--pad\.kind keyboard"):
            make_pad(PadConfig(kind="uinput"), Car())
    else:
        pytest.skip("this kernel has uinput")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"left": "w"}, "pad.keys must be four different keys"),
        ({"left": "Lefft"}, r"pad.keys.left must be one of .*Did you mean 'left'\?"),
        ({"brake": ""}, "pad.keys.brake must be one of"),
    ],
)
def test_impossible_keys_are_refused(values, name):
    with pytest.raises(ConfigError, match=name):
        KeysConfig(**values)


@pytest.mark.parametrize("pulse_ms", [0.0, 10.0, NAN, 1e9])
def test_impossible_pulses_are_refused(pulse_ms):
    with pytest.raises(ConfigError, match=r"pad\.pulse_ms must lie in"):
        PadConfig(pulse_ms=pulse_ms)


@pytest.mark.parametrize(
    ("err", "fix"),
    [
        (OSError("libevdev.so.2: cannot open shared object file"), "libevdev2"),
        (RuntimeError("Error: VIGEM_ERROR_BUS_NOT_FOUND"), "install ViGEmBus 1.17"),
        (RuntimeError("Error: VIGEM_ERROR_BUS_NOT_FOUND"), "Proton"),
        (PermissionError(13, "Permission denied", "/dev/uinput"), "50-uinput.rules"),
        (PermissionError(13, "Permission denied", "/dev/input/event5"), "usermod -aG input"),
        (FileNotFoundError(2, "No such file", "/dev/uinput"), "modprobe uinput"),
        (OSError(19, "No such device", "/dev/uinput"), "kernel has no uinput"),
        (Exception('"/dev/uinput" cannot be opened for writing'), "50-uinput.rules"),
        (Exception("verify that the uinput module is loaded"), "modprobe uinput"),
        (Exception("something else"), "uinput"),
    ],
)
def test_an_error_of_the_driver_names_what_is_missing_and_the_fix(err, fix):
    text = explained(err)
    assert str(err) in text
    assert fix in text
