"""Windows of a Windows desktop, through user32. Run under Wine, and by no test."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from charles.errors import CaptureError
from charles.io.screen.region import (
    Rectangle,
    Window,
    find_window,
    hidden_error,
    part_of,
    require_visible,
)

CLOAKED = 14
"""DWMWA_CLOAKED: windows of other workspaces, and of apps that sleep, are "visible" but cloaked."""

FRAME_BOUNDS = 9
"""DWMWA_EXTENDED_FRAME_BOUNDS: a window as it is seen, without its shadow."""


EXTENDED_STYLE, TRANSPARENT_TO_CLICKS = -20, 0x20
"""GWL_EXSTYLE and WS_EX_TRANSPARENT."""

PER_MONITOR = 2
"""PROCESS_PER_MONITOR_DPI_AWARE."""


class Win32Window:
    """The part of the desktop that shows one window, wherever it moves. Use from one thread.

    Args:
        title: See :class:`charles.screen_config.ScreenConfig`.
        region: The part of its content; ``None`` for all.

    Raises:
        CaptureError: This is not Windows, or there is not one window of that title.
    """

    def __init__(self, title: str, region: tuple[int, int, int, int] | None) -> None:
        self._user, self._dwm = _libraries()
        _see_real_pixels(self._user)
        self._region = region
        window = find_window(title, self._stack())
        self.handle, self._title = window.handle, window.title

    @property
    def pid(self) -> int:
        """Process that shows it; 0 where Windows does not say."""
        found = ctypes.c_uint32(0)
        self._user.GetWindowThreadProcessId(ctypes.c_void_p(self.handle), ctypes.byref(found))
        return found.value

    def area(self, *, may_be_covered: bool = False) -> Rectangle:
        """Where the wanted pixels are on the desktop now.

        Raises:
            WindowHiddenError: It is minimised, or, unless it may be covered, not wholly seen on
                the first monitor.
            CaptureError: The window was closed, or the region does not fit into it any more.
        """
        stack = self._stack()  # from the front to the back
        place = next((at for at, one in enumerate(stack) if one.handle == self.handle), None)
        if place is None:
            raise CaptureError(f"The window {self._title!r} was closed.")
        window = stack[place]
        if not window.is_shown:  # whose content has no size
            raise hidden_error(window)
        area = part_of(window.rectangle, self._region, f"the window {window.title!r}")
        above = [
            replace(one, rectangle=self.frame(one.handle) or one.rectangle)
            for one in stack[:place]
            if one.is_shown and one.rectangle.width > 0
        ]
        screen = Rectangle(0, 0, self._user.GetSystemMetrics(0), self._user.GetSystemMetrics(1))
        if may_be_covered:
            above, screen = [], area
        require_visible(window, area, above, screen)
        return area

    def frame(self, handle: int | None = None) -> Rectangle | None:
        """A whole window as it is seen, with frame and title bar; by default this one. ``None``
        where Windows does not say."""
        bounds = (ctypes.c_long * 4)()
        at = ctypes.c_void_p(self.handle if handle is None else handle)
        size = ctypes.sizeof(bounds)
        if self._dwm.DwmGetWindowAttribute(at, FRAME_BOUNDS, bounds, size) != 0:
            return None
        left, top, right, bottom = bounds
        return Rectangle(left, top, right - left, bottom - top)

    def _stack(self) -> list[Window]:
        """All windows with a title or a size, from the front to the back."""
        found: list[Window] = []

        def add(handle: int, _: int) -> bool:
            found.append(self._window(handle))
            return True

        self._user.EnumWindows(_callback(add), None)
        return [one for one in found if one.title or one.is_shown]

    def _window(self, handle: int) -> Window:
        at = ctypes.c_void_p(handle)
        text = ctypes.create_unicode_buffer(512)
        self._user.GetWindowTextW(at, text, len(text))
        size, corner = (ctypes.c_long * 4)(), (ctypes.c_long * 2)()
        self._user.GetClientRect(at, size)
        self._user.ClientToScreen(at, corner)
        cloaked = ctypes.c_int(0)
        self._dwm.DwmGetWindowAttribute(at, CLOAKED, ctypes.byref(cloaked), 4)
        is_shown = self._user.IsWindowVisible(at) and not self._user.IsIconic(at)
        # Overlays of graphics drivers and chats lie over everything, and can be seen through.
        is_overlay = self._user.GetWindowLongW(at, EXTENDED_STYLE) & TRANSPARENT_TO_CLICKS
        return Window(
            handle=handle,
            title=text.value,
            rectangle=Rectangle(corner[0], corner[1], size[2], size[3]),
            is_shown=bool(is_shown) and not cloaked.value and not is_overlay,
        )


def _see_real_pixels(user: Any) -> None:
    """Be told pixels as they are on each monitor, whatever its scaling; else some are missed."""
    libraries = getattr(ctypes, "windll", None)
    try:
        libraries.shcore.SetProcessDpiAwareness(PER_MONITOR)  # pyright: ignore
    except (AttributeError, OSError):  # before Windows 8.1
        user.SetProcessDPIAware()


def _libraries() -> tuple[Any, Any]:
    libraries = getattr(ctypes, "windll", None)
    if libraries is None:
        raise CaptureError(
            "This way of capture needs Windows. On Linux use --game.window.screen.kind x11."
        )
    return libraries.user32, libraries.dwmapi


def _callback(function: Callable[[int, int], bool]) -> Any:
    make = getattr(ctypes, "WINFUNCTYPE")  # noqa: B009, for it exists on Windows only
    return make(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)(function)
