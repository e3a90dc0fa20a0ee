"""A person's pad: the label is what the game applies, and only while somebody holds the pad."""

import contextlib
import ctypes
import importlib.util
import os
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import ConfigError, ExtraMissingError, PadError
from charles.human_config import HumanConfig
from charles.io.human import layout as layouts
from charles.io.human.evdev_pad import EvdevPad
from charles.io.human.layout import AXES, BTN_GAMEPAD, BTN_JOYSTICK, BTN_WHEEL, layout_of
from charles.io.human.make import make_human
from charles.io.human.source import Attention, Axes, HumanInput, Person, controls_of
from charles.io.human.xinput_pad import Gamepad, State, XInputPad, axes_of
from charles.io.pads import xbox
from charles.pad_config import DeadZone, ZonesConfig
from charles.timing import clock_ns

HAS_EVDEV = importlib.util.find_spec("evdev") is not None
S = 1_000_000_000
THROUGH = ZonesConfig(**dict.fromkeys(("accelerate", "brake", "steering"), DeadZone(game=0.0)))
"""A game without dead zones, as most are to wheels."""

if HAS_EVDEV:
    from evdev import AbsInfo
else:

    class AbsInfo(NamedTuple):
        """As python-evdev has it, where that is not installed."""

        value: int
        min: int
        max: int
        fuzz: int
        flat: int
        resolution: int


def stick(value=0):
    return AbsInfo(value, -32768, 32767, 16, 128, 0)


def trigger(value=0, top=255):
    return AbsInfo(value, 0, top, 0, 0, 0)


def capabilities(keys, **axes):
    return {
        layouts.EV_KEY: list(keys),
        layouts.EV_ABS: [(AXES[name], info) for name, info in axes.items()],
    }


XBOX = capabilities(
    [BTN_GAMEPAD, BTN_GAMEPAD + 1], ABS_X=stick(), ABS_Y=stick(), ABS_Z=trigger(),
    ABS_RX=stick(), ABS_RY=stick(), ABS_RZ=trigger(),
)  # fmt: skip
BLUETOOTH = capabilities(
    [BTN_GAMEPAD], ABS_X=trigger(32768, 65535), ABS_Y=trigger(), ABS_Z=trigger(32768, 65535),
    ABS_RZ=trigger(), ABS_GAS=trigger(0, 1023), ABS_BRAKE=trigger(0, 1023),
)  # fmt: skip
LOGITECH = capabilities(
    [BTN_JOYSTICK, BTN_JOYSTICK + 1], ABS_X=trigger(32768, 65535), ABS_Y=trigger(255),
    ABS_Z=trigger(255), ABS_RZ=trigger(255),
)  # fmt: skip
WHEEL = capabilities(
    [BTN_WHEEL], ABS_WHEEL=trigger(8192, 16383), ABS_GAS=trigger(), ABS_BRAKE=trigger()
)
MOUSE = {layouts.EV_KEY: [0x110, 0x111]}
JOYSTICK = capabilities([BTN_JOYSTICK], ABS_X=stick(), ABS_Y=stick())


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("Microsoft X-Box 360 pad", XBOX, ("ABS_RZ", "ABS_Z", "ABS_X")),
        ("Xbox Wireless Controller", BLUETOOTH, ("ABS_GAS", "ABS_BRAKE", "ABS_X")),
        ("Logitech G29 Driving Force Racing Wheel", LOGITECH, ("-ABS_Z", "-ABS_RZ", "ABS_X")),
        ("Some Wheel", WHEEL, ("ABS_GAS", "ABS_BRAKE", "ABS_WHEEL")),
    ],
)
def test_pads_and_wheels_are_known_by_what_they_have(name, device, expected):
    found = layout_of(name, device, HumanConfig())
    assert found is not None
    assert found == tuple((AXES[each.removeprefix("-")], each[0] == "-") for each in expected)


@pytest.mark.parametrize("device", [MOUSE, JOYSTICK, {}])
def test_what_is_no_pad_is_passed_over(device):
    assert layout_of("Optical Racing Mouse", device, HumanConfig()) is None


def test_axes_that_the_user_names_go_first():
    config = HumanConfig(throttle="-ABS_Y", brake="ABS_Y", steering="-ABS_X")
    found = layout_of("Flight Stick", JOYSTICK, config)
    assert found == ((AXES["ABS_Y"], True), (AXES["ABS_Y"], False), (AXES["ABS_X"], True))
    assert layout_of("Flight Stick", JOYSTICK, HumanConfig(throttle="ABS_GAS")) is None
    with pytest.raises(ConfigError, match="'ABS_BOOST'"):
        layout_of("Flight Stick", JOYSTICK, HumanConfig(throttle="ABS_BOOST"))


def axes_shown(name, device, **values):
    """The axes of a device that shows ``values`` on some of its axes."""
    found = layout_of(name, device, HumanConfig())
    infos = dict(device[layouts.EV_ABS])
    for axis, value in values.items():
        infos[AXES[axis]] = infos[AXES[axis]]._replace(value=value)
    return found.axes(infos.__getitem__)


def test_axes_are_read_over_their_own_ranges():
    assert axes_shown("pad", XBOX, ABS_RZ=255, ABS_X=32767) == (1.0, 0.0, 1.0)
    assert axes_shown("pad", XBOX, ABS_Z=51, ABS_X=-32768) == pytest.approx((0.0, 0.2, -1.0))
    assert axes_shown("pad", XBOX, ABS_RZ=300, ABS_X=-40000) == (1.0, 0.0, -1.0)
    assert axes_shown("pad", BLUETOOTH, ABS_GAS=1023) == pytest.approx((1.0, 0.0, 0.0), abs=1e-4)
    rested = axes_shown("Racing Wheel", LOGITECH)
    assert rested == pytest.approx((0.0, 0.0, 0.0), abs=1e-4)
    pressed = axes_shown("Racing Wheel", LOGITECH, ABS_Z=0, ABS_RZ=204, ABS_X=0)
    assert pressed == pytest.approx((1.0, 0.2, -1.0))


@pytest.mark.skipif(not HAS_EVDEV, reason="python-evdev is not installed")
def test_codes_are_the_kernels():
    from evdev import ecodes

    assert (layouts.EV_KEY, layouts.EV_ABS) == (ecodes.EV_KEY, ecodes.EV_ABS)
    buttons = (ecodes.BTN_JOYSTICK, ecodes.BTN_GAMEPAD, ecodes.BTN_WHEEL)
    assert buttons == (BTN_JOYSTICK, BTN_GAMEPAD, BTN_WHEEL)
    for name, code in AXES.items():
        assert getattr(ecodes, name) == code


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.9), st.floats(0, 0.9))
def test_the_label_is_what_a_virtual_pad_would_have_been_told(pedal, wheel, pedals, steering):
    trigger, stick = DeadZone(game=pedals, neutral=0.0), DeadZone(game=steering, neutral=0.0)
    zones = ZonesConfig(accelerate=trigger, brake=trigger, steering=stick)
    pad = xbox.Axes(zones)
    report = pad.report(pedal, wheel)
    axes = Axes(report.right_trigger, report.left_trigger, report.stick_x)
    controls = controls_of(axes, zones)
    assert controls.dtype == np.float32
    np.testing.assert_allclose(controls, (pedal, wheel), atol=1e-6)


def test_each_pedal_passes_the_dead_zone_on_its_own():
    zones = ZonesConfig()
    for axes, expected in (
        (Axes(0.25, 0.0, 0.25), (0.0, 0.0)),
        (Axes(0.625, 0.0, -0.625), (0.5, -0.5)),
        (Axes(1.0, 0.2, 0.0), (1.0, 0.0)),
        (Axes(1.0, 0.625, 1.0), (0.5, 1.0)),
    ):
        controls = controls_of(axes, zones)
        assert controls.tolist() == pytest.approx(expected)


def held(attention, axes, now_s, *, buttons=0, is_neutral=False):
    return attention.is_held(axes, buttons, round(now_s * S), is_neutral=is_neutral)


def test_a_pad_that_was_never_touched_is_left_alone_whatever_it_shows():
    attention = Attention(idle_s=5.0)
    full = Axes(1.0, 1.0, -1.0)
    assert not any(held(attention, full, now) for now in range(100))
    assert not attention.has_begun
    assert held(attention, Axes(0.9, 1.0, -1.0), 100)


def test_a_held_pad_counts_until_it_rests_in_neutral_for_long():
    attention = Attention(idle_s=5.0)
    rest, full = Axes(0.0, 0.0, 0.0), Axes(1.0, 0.0, 0.0)
    assert not held(attention, rest, 0, is_neutral=True)
    assert held(attention, full, 1)
    assert held(attention, full, 60)  # a long straight
    assert held(attention, rest, 61, is_neutral=True)
    assert held(attention, Axes(0.0, 0.0, 0.01), 66, is_neutral=True)  # a trembling stick
    assert not held(attention, rest, 66.1, is_neutral=True)
    assert held(attention, rest, 80, buttons=1, is_neutral=True)


def test_slow_movement_is_movement():
    attention = Attention(idle_s=1.0)
    shown = [Axes(0.0, 0.0, step / 1000) for step in range(200)]
    found = [held(attention, axes, step / 30, is_neutral=True) for step, axes in enumerate(shown)]
    assert not found[0]
    assert all(found[30:])


def test_readings_are_neutral_until_the_first_touch():
    person = Person(HumanConfig(zones=THROUGH))
    nonsense = person.reading(Axes(1.0, 0.5, 1.0), buttons=0)
    assert not nonsense.is_active
    assert nonsense.controls.tolist() == [0.0, 0.0]
    before_ns = clock_ns()
    reading = person.reading(Axes(1.0, 0.0, -0.5), buttons=0)
    assert reading.is_active
    assert reading.controls.tolist() == [1.0, -0.5]
    assert before_ns <= reading.read_ns <= clock_ns()


def test_xinput_states_lie_as_windows_has_them():
    assert (ctypes.sizeof(Gamepad), ctypes.sizeof(State)) == (12, 16)
    raw = bytes.fromhex("07000000 0010 33 ff 0080 0000 0000 0000")
    pad = State.from_buffer_copy(raw).pad
    assert pad.buttons == 0x1000
    assert axes_of(pad) == pytest.approx((1.0, 0.2, -1.0))
    assert axes_of(Gamepad(left_x=32767)).steering == 1.0
    assert axes_of(Gamepad()) == (0.0, 0.0, 0.0)


@pytest.mark.skipif(sys.platform == "win32", reason="there it may work")
def test_xinput_elsewhere_than_on_windows_says_so():
    with pytest.raises(PadError, match=r"Windows.*evdev"):
        make_human(HumanConfig(kind="xinput"))
    assert make_human(HumanConfig()) is None
    assert callable(XInputPad)


@pytest.mark.skipif(HAS_EVDEV, reason="it is installed")
def test_without_evdev_the_extra_is_named():
    with pytest.raises(ExtraMissingError, match=r"charles\[evdev\]"):
        make_human(HumanConfig(kind="evdev"))


@pytest.mark.skipif(not HAS_EVDEV, reason="python-evdev is not installed")
def test_a_pad_that_is_not_there_is_named_with_what_is(tmp_path):
    with pytest.raises(PadError, match="Plug it in"):
        EvdevPad(HumanConfig(kind="evdev"), devices_dir=str(tmp_path))
    (tmp_path / "event3").write_bytes(b"no device")
    with pytest.raises(PadError, match=r"'G29'.*event3: .*ioctl"):
        EvdevPad(HumanConfig(kind="evdev", device="G29"), devices_dir=str(tmp_path))
    with pytest.raises(PadError, match="/nowhere/event0"):
        EvdevPad(HumanConfig(kind="evdev", device="/nowhere/event0"))


@pytest.mark.skipif(
    not HAS_EVDEV or not os.path.exists("/dev/uinput"), reason="needs python-evdev and uinput"
)
def test_a_real_device_of_the_kernel_is_read_and_its_unplugging_named():
    from evdev import UInput, ecodes

    axes = [(AXES[name], info) for name, info in (
        ("ABS_X", stick()), ("ABS_Y", stick()), ("ABS_RX", stick()), ("ABS_RY", stick()),
        ("ABS_Z", trigger()), ("ABS_RZ", trigger()),
    )]  # fmt: skip
    device = UInput({ecodes.EV_KEY: [ecodes.BTN_SOUTH], ecodes.EV_ABS: axes}, name="charles test")
    config = HumanConfig(kind="evdev", device=device.device.path)
    with contextlib.closing(EvdevPad(config)) as pad:
        assert isinstance(pad, HumanInput)
        assert not pad.read().is_active
        device.write(ecodes.EV_ABS, ecodes.ABS_RZ, 255)
        device.write(ecodes.EV_ABS, ecodes.ABS_X, -32768)
        device.syn()
        reading = pad.read()
        assert reading.is_active
        assert reading.controls.tolist() == pytest.approx([1.0, -1.0])
        device.close()
        with pytest.raises(PadError, match="unplugged"):
            pad.read()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("human.kind", {"kind": "mouse"}),
        ("human.slot", {"slot": 4}),
        ("human.idle_s", {"idle_s": 0.0}),
    ],
)
def test_impossible_settings_are_refused(name, values):
    with pytest.raises(ConfigError, match=name):
        HumanConfig(**values)
