"""An Xbox 360 pad by the Linux kernel's uinput through python-evdev; no native library needed.

Identity, axes and buttons are those that the kernel's own driver gives a wired Xbox 360 pad, so
that games and their databases of pads take it for one. The kernel unplugs it with the process,
whatever ends that.
"""

from typing import Any

from charles.errors import ExtraMissingError, PadError
from charles.io.pads.diagnosis import check_uinput, explained
from charles.io.pads.xbox import PadReport

NAME = "Microsoft X-Box 360 pad"
IDENTITY = {"bustype": 0x0003, "vendor": 0x045E, "product": 0x028E, "version": 0x0114}
"""USB, Microsoft, Xbox 360 controller, and its revision."""

STICK_MAX, TRIGGER_MAX = 32767, 255
STICK = (0, -32768, STICK_MAX, 16, 128, 0)
"""At rest, least, most, noise that the kernel smooths, what counts as the middle, resolution."""
TRIGGER = (0, 0, TRIGGER_MAX, 0, 0, 0)
CROSS = (0, -1, 1, 0, 0, 0)

AXES = {
    "ABS_X": STICK, "ABS_Y": STICK, "ABS_RX": STICK, "ABS_RY": STICK,
    "ABS_Z": TRIGGER, "ABS_RZ": TRIGGER, "ABS_HAT0X": CROSS, "ABS_HAT0Y": CROSS,
}  # fmt: skip
"""Left stick, right stick, left trigger, right trigger, directional cross."""

BUTTONS = (
    "BTN_SOUTH", "BTN_EAST", "BTN_NORTH", "BTN_WEST", "BTN_TL", "BTN_TR",
    "BTN_SELECT", "BTN_START", "BTN_MODE", "BTN_THUMBL", "BTN_THUMBR",
)  # fmt: skip
"""A, B, X, Y, shoulders, Back, Start, Guide, and the sticks' own."""


class UinputDevice:
    """A :class:`charles.io.pads.xbox.XboxDevice` by the kernel.

    Raises:
        ExtraMissingError: evdev is not installed.
        PadError: The kernel cannot make a virtual pad; the text says what is missing.
    """

    def __init__(self) -> None:
        evdev = _evdev()
        self._codes = evdev.ecodes
        axes = [(self._codes.ecodes[name], evdev.AbsInfo(*info)) for name, info in AXES.items()]
        buttons = [self._codes.ecodes[name] for name in BUTTONS]
        events = {self._codes.EV_ABS: axes, self._codes.EV_KEY: buttons}
        try:
            check_uinput()
            self._device = evdev.UInput(events, name=NAME, **IDENTITY)
        except Exception as err:  # UInputError is no OSError
            raise PadError(explained(err)) from err

    def show(self, report: PadReport) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`."""
        codes = self._codes
        self._device.write(codes.EV_ABS, codes.ABS_Z, round(report.left_trigger * TRIGGER_MAX))
        self._device.write(codes.EV_ABS, codes.ABS_RZ, round(report.right_trigger * TRIGGER_MAX))
        self._device.write(codes.EV_ABS, codes.ABS_X, round(report.stick_x * STICK_MAX))
        self._device.syn()

    def press_a(self, is_down: bool) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`."""
        self._device.write(self._codes.EV_KEY, self._codes.BTN_SOUTH, int(is_down))
        self._device.syn()

    def close(self) -> None:
        """Unplug."""
        self._device.close()


def _evdev() -> Any:
    try:
        import evdev  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as err:
        raise ExtraMissingError(
            "A uinput pad needs evdev, and Linux. Install it: pip install 'charles[evdev]'."
        ) from err
    return evdev
