"""Keys on Windows, by SendInput through ctypes. Run under Wine; no Windows was at hand.

Keys go out as scan codes, because games that read the keyboard by DirectInput or raw input see
nothing else.

References:
    Microsoft, "SendInput function",
    https://learn.microsoft.com/windows/win32/api/winuser/nf-winuser-sendinput
"""

import ctypes
import sys
from collections.abc import Iterable
from typing import Any

from charles.errors import PadError

KEYBOARD = 1
KEY_EXTENDED, KEY_UP, KEY_SCANCODE = 0x0001, 0x0002, 0x0008
TO_SCANCODE_EX = 4
"""How ``MapVirtualKeyW`` is asked: from a virtual key to a scan code with its prefix."""

VIRTUAL_KEYS = {
    "up": 0x26, "down": 0x28, "left": 0x25, "right": 0x27,
    "space": 0x20, "shift": 0xA0, "ctrl": 0xA2,
}  # fmt: skip
"""Windows' numbers of our keys; those of letters and digits are their upper-case characters."""


class KeyInput(ctypes.Structure):
    """``KEYBDINPUT``."""

    _fields_ = (
        ("wVk", ctypes.c_uint16), ("wScan", ctypes.c_uint16), ("dwFlags", ctypes.c_uint32),
        ("time", ctypes.c_uint32), ("dwExtraInfo", ctypes.c_void_p),
    )  # fmt: skip


class MouseInput(ctypes.Structure):
    """``MOUSEINPUT``, the largest of the union, which decides its size."""

    _fields_ = (
        ("dx", ctypes.c_int32), ("dy", ctypes.c_int32), ("mouseData", ctypes.c_uint32),
        ("dwFlags", ctypes.c_uint32), ("time", ctypes.c_uint32), ("dwExtraInfo", ctypes.c_void_p),
    )  # fmt: skip


class AnyInput(ctypes.Union):
    """What an ``INPUT`` holds."""

    _fields_ = (("ki", KeyInput), ("mi", MouseInput))


class Input(ctypes.Structure):
    """``INPUT``."""

    _fields_ = (("type", ctypes.c_uint32), ("any", AnyInput))


def key_input(scan_code: int, is_down: bool) -> Input:
    """One press or release; ``scan_code`` with its prefix ``0xE0`` or ``0xE1`` in the high byte."""
    flags = KEY_SCANCODE | (0 if is_down else KEY_UP)
    if scan_code >> 8:
        flags |= KEY_EXTENDED
    made = Input(type=KEYBOARD)
    made.any.ki = KeyInput(wScan=scan_code & 0xFF, dwFlags=flags)
    return made


class SendInputKeys:
    """Keys of the Windows session.

    Args:
        names: Keys that will be pressed.

    Raises:
        PadError: This is not Windows, or its layout lacks a key.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._user32 = user32()
        self._codes = {name: self._code(name) for name in names}

    def press(self, name: str) -> None:
        """See :class:`charles.io.pads.keyboard.Keys`."""
        self._send(name, is_down=True)

    def release(self, name: str) -> None:
        """See :class:`charles.io.pads.keyboard.Keys`."""
        self._send(name, is_down=False)

    def close(self) -> None:
        """See :class:`charles.io.pads.keyboard.Keys`."""

    def _send(self, name: str, *, is_down: bool) -> None:
        one = key_input(self._codes[name], is_down)
        if self._user32.SendInput(1, ctypes.byref(one), ctypes.sizeof(one)) != 1:
            raise OSError(
                "Windows refused a key, as it does where the game runs as administrator and the "
                "player does not: run both alike"
            )

    def _code(self, name: str) -> int:
        virtual = VIRTUAL_KEYS.get(name) or ord(name.upper())
        code = self._user32.MapVirtualKeyW(virtual, TO_SCANCODE_EX)
        if not code:
            raise PadError(f"The keyboard layout has no key {name!r}. Choose others: --pad.keys")
        # For arrows the layout names the keys of the number pad, which have the same codes.
        return 0xE000 | code & 0xFF if name in ("up", "down", "left", "right") else code


def user32() -> Any:
    """Windows' library of windows and keys.

    Raises:
        PadError: This is not Windows.
    """
    if sys.platform != "win32":
        raise PadError(f"user32 is Windows' own, this is {sys.platform}. Use X11's keys here.")
    return ctypes.WinDLL("user32", use_last_error=True)
