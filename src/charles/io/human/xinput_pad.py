"""Xbox pads on Windows, read through XInput while the game reads them too.

The layout of the state and what is made of it are tested; the calls into Windows' library were
never run, because none of our machines has it. Wheels are no XInput devices.
"""

import ctypes
import sys
from typing import Any

from charles.errors import PadError
from charles.human_config import HumanConfig
from charles.io.human.source import Axes, HumanReading, Person, centred, share

LIBRARIES = ("xinput1_4", "xinput9_1_0")
"""Of Windows 8 and newer, and of any Windows."""

_NOT_CONNECTED = 1167
_STICK_LIMIT = 32767
_TRIGGER_LIMIT = 255


class Gamepad(ctypes.Structure):
    """``XINPUT_GAMEPAD``."""

    _fields_ = (
        ("buttons", ctypes.c_uint16),
        ("left_trigger", ctypes.c_uint8),
        ("right_trigger", ctypes.c_uint8),
        ("left_x", ctypes.c_int16),
        ("left_y", ctypes.c_int16),
        ("right_x", ctypes.c_int16),
        ("right_y", ctypes.c_int16),
    )


class State(ctypes.Structure):
    """``XINPUT_STATE``."""

    _fields_ = (("packet", ctypes.c_uint32), ("pad", Gamepad))


def axes_of(pad: Gamepad) -> Axes:
    """Right trigger, left trigger and left stick."""
    return Axes(
        throttle=share(pad.right_trigger, 0, _TRIGGER_LIMIT),
        brake=share(pad.left_trigger, 0, _TRIGGER_LIMIT),
        steering=centred(pad.left_x, -_STICK_LIMIT, _STICK_LIMIT),
    )


class XInputPad:
    """An Xbox pad as a :class:`charles.io.human.source.HumanInput`. Windows only.

    Args:
        config: Which slot, and the game's dead zones.

    Raises:
        PadError: This is not Windows, or there is no pad in that slot.
    """

    def __init__(self, config: HumanConfig) -> None:
        self._slot = config.slot
        self._get_state: Any = _library().XInputGetState
        self._state = State()
        self._person = Person(config)
        self.read()

    def read(self) -> HumanReading:
        """See :class:`charles.io.human.source.HumanInput`."""
        if self._get_state is None:
            raise PadError("The pad is closed. Make a new one.")
        code = self._get_state(ctypes.c_uint32(self._slot), ctypes.byref(self._state))
        if code == _NOT_CONNECTED:
            raise PadError(
                f"There is no pad in slot {self._slot}. Plug it in and start again, or set "
                "human.slot to another of 0 to 3."
            )
        if code != 0:
            raise PadError(f"XInput cannot read the pad in slot {self._slot}: error {code}.")
        pad = self._state.pad
        return self._person.reading(axes_of(pad), pad.buttons)

    def close(self) -> None:
        """See :class:`charles.io.human.source.HumanInput`."""
        self._get_state = None


def _library() -> Any:
    if sys.platform != "win32":
        raise PadError(f"XInput must run on Windows, got {sys.platform}. Set human.kind to evdev.")
    for name in LIBRARIES:
        try:
            return ctypes.WinDLL(name)
        except OSError:
            continue
    raise PadError(f"Windows has none of the libraries {LIBRARIES}. Install DirectX.")
