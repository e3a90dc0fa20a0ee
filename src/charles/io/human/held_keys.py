"""Which keys of the keyboard are held down, whichever window is in front: X11 and Windows.

The system is asked for its state, as pads are; nothing is grabbed, so games see every key as well.
Keys that a player's own keyboard pad presses cannot be told from a person's: they must be others.
Under Wayland, X sees keys only while an X window is in front, as a game under Proton is.

References:
    X.Org, "X Window System Protocol", QueryKeymap,
    https://www.x.org/releases/current/doc/xproto/x11protocol.html
    Microsoft, "GetAsyncKeyState function",
    https://learn.microsoft.com/windows/win32/api/winuser/nf-winuser-getasynckeystate
"""

import ctypes
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from charles.errors import ExtraMissingError, PadError
from charles.io.pads.sendinput import VIRTUAL_KEYS, user32
from charles.io.pads.xtest import KEYSYMS

_F1 = 0x70
"""Windows' number of the key F1; the others follow."""


class HeldKeys(Protocol):
    """A keyboard that is watched. Used from one thread."""

    def held(self) -> frozenset[str]:
        """Names of those watched keys that are down now. Does not block for long.

        Raises:
            PadError: The keyboard is gone.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice; does not raise."""
        ...


def make_held_keys(names: Iterable[str], display: str = "") -> HeldKeys:
    """This system's keyboard.

    Args:
        names: Keys to watch, of :data:`charles.takeover_config.HOTKEY_NAMES`.
        display: X display, for example ``:0``; by default the environment's.

    Raises:
        ExtraMissingError: python-xlib is not installed.
        PadError: There is no X display, or a key is not on its layout.
    """
    return WindowsHeldKeys(names) if sys.platform == "win32" else X11HeldKeys(names, display)


class X11HeldKeys:
    """The keyboard of an X display."""

    def __init__(self, names: Iterable[str], display: str = "") -> None:
        try:
            import Xlib.display  # pyright: ignore[reportMissingModuleSource]
            import Xlib.XK  # pyright: ignore[reportMissingModuleSource]
        except ModuleNotFoundError as err:
            raise ExtraMissingError(
                "Reading the keyboard on X11 needs python-xlib. Install it: "
                "pip install 'charles[keyboard]'."
            ) from err
        self._display: Any
        try:
            self._display = Xlib.display.Display(display or None)
        except Exception as err:  # bad name, refused, no permission: each has a class of its own
            name = f"the X display {display!r}" if display else "an X display ($DISPLAY)"
            raise PadError(
                f"Reading the keyboard needs {name} ({type(err).__name__}: {err}). Start the "
                "player within the desktop session, or name its display: --takeover.display :0."
            ) from err
        try:
            self._codes = {name: self._code(Xlib.XK, name) for name in names}
        except BaseException:
            self.close()
            raise

    def held(self) -> frozenset[str]:
        """See :class:`HeldKeys`."""
        if self._display is None:
            raise PadError("The keyboard is closed. Make a new one.")
        try:
            down = self._display.query_keymap()
        except Exception as err:  # python-xlib has a class for every way to lose a connection
            raise PadError(f"The X display went away ({err}). Start the player again.") from err
        return frozenset(
            name for name, code in self._codes.items() if down[code // 8] >> code % 8 & 1
        )

    def close(self) -> None:
        """See :class:`HeldKeys`."""
        display, self._display = self._display, None
        try:
            if display is not None:
                display.close()
        except Exception:  # the server went first
            return

    def _code(self, names: Any, name: str) -> int:
        is_function = name[0] == "f" and name[1:].isdigit()
        keysym = names.string_to_keysym(name.upper() if is_function else KEYSYMS.get(name, name))
        code = self._display.keysym_to_keycode(keysym)
        if not code:
            raise PadError(
                f"The X display's layout has no key {name!r}. Choose others: --takeover.keys, "
                "--takeover.hotkey."
            )
        return code


class WindowsHeldKeys:
    """The keyboard of the Windows session. Run under Wine; no Windows was at hand."""

    def __init__(self, names: Iterable[str]) -> None:
        self._state: Any = user32().GetAsyncKeyState
        self._state.restype = ctypes.c_int16
        self._codes = {name: virtual_key(name) for name in names}

    def held(self) -> frozenset[str]:
        """See :class:`HeldKeys`."""
        return frozenset(name for name, code in self._codes.items() if self._state(code) < 0)

    def close(self) -> None:
        """See :class:`HeldKeys`."""


def virtual_key(name: str) -> int:
    """Windows' number of a key."""
    if name[0] == "f" and name[1:].isdigit():
        return _F1 - 1 + int(name[1:])
    return VIRTUAL_KEYS.get(name) or ord(name.upper())
