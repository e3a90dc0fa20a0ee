"""Which axes of a Linux input device are throttle, brake and steering. Pure functions.

What a device has is given as python-evdev gives it: by type, the codes of its keys and, for axes,
pairs of a code and an ``AbsInfo``.

References:
    The Linux kernel documentation, "Linux Gamepad Specification",
    https://docs.kernel.org/input/gamepad.html
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from charles.errors import ConfigError
from charles.human_config import HumanConfig
from charles.io.human.source import Axes, centred, share

# Of linux/input-event-codes.h; they never change, and python-evdev need not be there to know them.
EV_KEY, EV_ABS = 0x01, 0x03
AXES = {
    "ABS_X": 0x00, "ABS_Y": 0x01, "ABS_Z": 0x02, "ABS_RX": 0x03, "ABS_RY": 0x04, "ABS_RZ": 0x05,
    "ABS_THROTTLE": 0x06, "ABS_RUDDER": 0x07, "ABS_WHEEL": 0x08, "ABS_GAS": 0x09,
    "ABS_BRAKE": 0x0A, "ABS_HAT2X": 0x14, "ABS_HAT2Y": 0x15,
}  # fmt: skip
"""Axes by the kernel's name."""

BTN_JOYSTICK, BTN_GAMEPAD, BTN_WHEEL = 0x120, 0x130, 0x150

_PAD_TRIGGERS = (("ABS_RZ", "ABS_Z"), ("ABS_HAT2X", "ABS_HAT2Y"))
"""Right and left trigger of pads whose right stick is ABS_RX and ABS_RY."""

Capabilities = Mapping[int, list[Any]]


class Layout(NamedTuple):
    """The axes of one device, each by code and whether it is inverted."""

    throttle: tuple[int, bool]
    brake: tuple[int, bool]
    steering: tuple[int, bool]

    def axes(self, absinfo: Callable[[int], Any]) -> Axes:
        """Where the axes are now.

        Args:
            absinfo: The device's ``AbsInfo`` of an axis.
        """
        shares = []
        for code, is_inverted in (self.throttle, self.brake):
            info = absinfo(code)
            pressed = share(info.value, info.min, info.max)
            shares.append(1.0 - pressed if is_inverted else pressed)
        code, is_inverted = self.steering
        info = absinfo(code)
        turned = centred(info.value, info.min, info.max)
        return Axes(shares[0], shares[1], -turned if is_inverted else turned)


def layout_of(name: str, capabilities: Capabilities, config: HumanConfig) -> Layout | None:
    """Where throttle, brake and steering of a device are; ``None`` if it is no pad or wheel.

    Args:
        name: The device's name.
        capabilities: What it has.
        config: Axes that the user set go before those that are usual.

    Raises:
        ConfigError: The user named an axis that does not exist.
    """
    # An axis without a range cannot be read; some devices list such.
    present = {code for code, info in capabilities.get(EV_ABS, ()) if info.max > info.min}
    found = {axis for axis, code in AXES.items() if code in present}
    usual = _usual(name, set(capabilities.get(EV_KEY, ())), found)
    asked = (config.throttle, config.brake, config.steering)
    chosen = [ours or theirs for ours, theirs in zip(asked, usual, strict=True)]
    parsed = [_parsed(axis) for axis in chosen if axis]
    if len(parsed) < len(chosen) or not {code for code, _ in parsed} <= present:
        return None
    return Layout(*parsed)


def _usual(name: str, keys: set[int], axes: set[str]) -> tuple[str, str, str]:
    """The usual axes for throttle, brake and steering; empty where there are none."""
    is_named = any(word in name.lower() for word in ("wheel", "racing", "driving force"))
    is_wheel = BTN_WHEEL in keys or "ABS_WHEEL" in axes or (BTN_JOYSTICK in keys and is_named)
    if is_wheel:
        steering = "ABS_WHEEL" if "ABS_WHEEL" in axes else "ABS_X"
        if {"ABS_GAS", "ABS_BRAKE"} <= axes:
            return ("ABS_GAS", "ABS_BRAKE", steering)
        # Pedals on the plain axes, as Logitech's, rest at their maximum.
        return ("-ABS_Z", "-ABS_RZ", steering)
    if BTN_GAMEPAD not in keys:
        return ("", "", "")
    if {"ABS_GAS", "ABS_BRAKE"} <= axes:  # over Bluetooth; ABS_Z and ABS_RZ are a stick then
        return ("ABS_GAS", "ABS_BRAKE", "ABS_X")
    for throttle, brake in _PAD_TRIGGERS:
        if {throttle, brake, "ABS_RX"} <= axes:
            return (throttle, brake, "ABS_X")
    return ("", "", "ABS_X")


def _parsed(axis: str) -> tuple[int, bool]:
    name = axis.removeprefix("-")
    if name not in AXES:
        raise ConfigError(f"human axes must be among {', '.join(AXES)}, got {axis!r}.")
    return AXES[name], axis.startswith("-")
