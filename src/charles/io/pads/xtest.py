"""Keys on X11, by the XTEST extension through python-xlib.

Under Wayland it reaches X windows only (XWayland), among them every game under Proton. Keys that
were pressed when a process is killed stay down: the server does not tie them to a connection.
"""

from collections.abc import Iterable
from typing import Any

from charles.errors import ExtraMissingError, PadError

KEYSYMS = {
    "up": "Up", "down": "Down", "left": "Left", "right": "Right",
    "space": "space", "shift": "Shift_L", "ctrl": "Control_L",
}  # fmt: skip
"""X's names of our keys, where they differ."""


class XTestKeys:
    """Keys of an X display. One thread at a time.

    Args:
        names: Keys that will be pressed.
        display: For example ``:0``; by default what the environment says.

    Raises:
        ExtraMissingError: python-xlib is not installed.
        PadError: There is no such display, it has no XTEST, or a key is not on its layout.
    """

    def __init__(self, names: Iterable[str], display: str = "") -> None:
        self._xlib = _xlib()
        self._display = _connect(self._xlib, display)
        try:
            if not self._display.has_extension("XTEST"):
                raise PadError(
                    f"The X server of display {display!r} has no XTEST extension, by which keys "
                    "are pressed. Start it without '-extension XTEST'."
                )
            self._codes = {name: self._code(name) for name in names}
        except BaseException:
            self._display.close()
            raise

    def press(self, name: str) -> None:
        """See :class:`charles.io.pads.keyboard.Keys`."""
        self._send(self._xlib.X.KeyPress, name)

    def release(self, name: str) -> None:
        """See :class:`charles.io.pads.keyboard.Keys`."""
        self._send(self._xlib.X.KeyRelease, name)

    def close(self) -> None:
        """See :class:`charles.io.pads.keyboard.Keys`."""
        try:
            self._display.sync()
            self._display.close()
        except Exception:  # the server went first
            return

    def _send(self, kind: int, name: str) -> None:
        self._xlib.ext.xtest.fake_input(self._display, kind, self._codes[name])
        self._display.flush()

    def _code(self, name: str) -> int:
        keysym = self._xlib.XK.string_to_keysym(KEYSYMS.get(name, name))
        code = self._display.keysym_to_keycode(keysym)
        if not code:
            raise PadError(f"The X display's layout has no key {name!r}. Choose others: --pad.keys")
        return code


def _xlib() -> Any:
    try:
        import Xlib.display  # pyright: ignore[reportMissingModuleSource]
        import Xlib.ext.xtest  # pyright: ignore[reportMissingModuleSource]
        import Xlib.XK  # pyright: ignore[reportMissingModuleSource]
    except ModuleNotFoundError as err:
        raise ExtraMissingError(
            "A keyboard pad on X11 needs python-xlib. Install it: pip install 'charles[keyboard]'."
        ) from err
    return Xlib


def _connect(xlib: Any, display: str) -> Any:
    try:
        return xlib.display.Display(display or None)
    except Exception as err:  # bad name, refused, no permission: each has a class of its own
        name = f"the X display {display!r}" if display else "an X display ($DISPLAY)"
        raise PadError(
            f"A keyboard pad needs {name} ({type(err).__name__}: {err}). Start the player within "
            "the desktop session that shows the game, or name its display: --pad.display :0."
        ) from err
