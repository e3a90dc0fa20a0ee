"""An Xbox 360 pad by vgamepad: ViGEmBus on Windows, libevdev and uinput on Linux.

On Windows nothing of this was run; how it is proven on Linux is in ``tests/qemu``.
"""

from typing import Any

from charles.errors import ExtraMissingError, PadError
from charles.io.pads.diagnosis import explained
from charles.io.pads.xbox import PadReport


class VirtualDevice:
    """A :class:`charles.io.pads.xbox.XboxDevice` by vgamepad.

    Args:
        gamepad: A vgamepad ``VX360Gamepad``; by default a new one is plugged in.

    Raises:
        ExtraMissingError: vgamepad is not installed.
        PadError: The system cannot make a virtual pad; the text says what is missing.
    """

    def __init__(self, gamepad: Any = None) -> None:
        self._gamepad: Any = plug_in() if gamepad is None else gamepad

    def show(self, report: PadReport) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`."""
        self._gamepad.left_trigger_float(value_float=report.left_trigger)
        self._gamepad.right_trigger_float(value_float=report.right_trigger)
        self._gamepad.left_joystick_float(x_value_float=report.stick_x, y_value_float=0.0)
        self._gamepad.update()

    def press_a(self, is_down: bool) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`."""
        from vgamepad import XUSB_BUTTON  # pyright: ignore[reportMissingImports]

        change = self._gamepad.press_button if is_down else self._gamepad.release_button
        change(button=XUSB_BUTTON.XUSB_GAMEPAD_A)
        self._gamepad.update()

    def close(self) -> None:
        """Unplug: vgamepad does so once nothing refers to the pad."""
        self._gamepad = None


def plug_in() -> Any:
    """A new vgamepad ``VX360Gamepad``.

    Raises:
        ExtraMissingError: vgamepad is not installed.
        PadError: The system cannot make a virtual pad; the text says what is missing.
    """
    try:
        import vgamepad  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as err:
        raise ExtraMissingError(
            "A virtual pad needs vgamepad. Install it: pip install 'charles[gamepad]'."
        ) from err
    except Exception as err:  # a missing driver shows as OSError or RuntimeError at the import
        raise PadError(explained(err)) from err
    try:
        return vgamepad.VX360Gamepad()
    except Exception as err:
        raise PadError(explained(err)) from err
