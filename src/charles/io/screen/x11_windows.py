"""Windows of an X display: found by title, followed, and known to be hidden or covered.

The server tells by events when anything about the windows changes, so that following one costs
next to nothing per picture. Windows of the desktop's other workspaces count as hidden.
"""

import contextlib
import platform
from collections.abc import Iterable, Iterator
from typing import Any

from charles.errors import CaptureError, ExtraMissingError
from charles.io.screen.region import Rectangle, Window, find_window, part_of, require_visible

DEEPEST = 4
"""How far below the root titles are looked for, where no window manager lists its windows."""

ALL_DESKTOPS = 0xFFFFFFFF


class X11Windows:
    """A connection to the display that ``DISPLAY`` names. Use from one thread.

    Raises:
        CaptureError: There is no such display.
        ExtraMissingError: python-xlib is not installed.
    """

    def __init__(self) -> None:
        self._x = _load_xlib()
        try:
            self._display = self._x.display.Display()
        except (self._x.error.DisplayError, OSError) as err:
            raise CaptureError(no_display(err)) from err
        # A window may be gone before a request about it arrives: no reason to print anything.
        self._display.set_error_handler(lambda *_: None)
        self._root = self._display.screen().root
        mask = self._x.X.SubstructureNotifyMask | self._x.X.PropertyChangeMask
        self._root.change_attributes(event_mask=mask)

    @property
    def screen(self) -> Rectangle:
        """All that can be grabbed: every monitor together."""
        size = self._root.get_geometry()
        return Rectangle(0, 0, size.width, size.height)

    def windows(self) -> list[Window]:
        """The windows that have a title, hidden ones too. Takes milliseconds."""
        listed = self._property(self._root, "_NET_CLIENT_LIST")
        if listed is None or not len(listed):
            return list(self._below(self._root, DEEPEST))
        found = []
        for handle in listed:
            with contextlib.suppress(self._x.error.XError):
                found.append(self.window(handle))
        return [one for one in found if one.title]

    def window(self, handle: int) -> Window:
        """What is known of one window.

        Raises:
            Xlib.error.XError: It is gone.
        """
        resource = self._resource(handle)
        size = resource.get_geometry()
        corner = self._root.translate_coords(resource, 0, 0)
        return Window(
            handle=handle,
            title=self._title(resource),
            rectangle=Rectangle(corner.x, corner.y, size.width, size.height),
            is_shown=self._is_shown(resource),
        )

    def pid(self, handle: int) -> int:
        """The process of a window, as it says itself; 0 if it does not, or is another machine's."""
        resource = self._resource(handle)
        found, machine = (self._property(resource, n) for n in ("_NET_WM_PID", "WM_CLIENT_MACHINE"))
        is_here = machine in (None, platform.node(), platform.node().encode())
        return int(found[0]) if found is not None and len(found) and is_here else 0

    def above(self, handle: int) -> list[Window]:
        """What is shown in front of a window, frames and all, from the back to the front.

        Raises:
            Xlib.error.XError: The window is gone.
        """
        ancestor = self._resource(handle)
        parent = ancestor.query_tree().parent
        while parent and parent.id != self._root.id:
            ancestor, parent = parent, parent.query_tree().parent
        stack = self._root.query_tree().children
        handles = [one.id for one in stack]
        if ancestor.id not in handles:
            return []
        found = []
        for other in stack[handles.index(ancestor.id) + 1 :]:
            with contextlib.suppress(self._x.error.XError):  # closed in the meantime
                found += self._opaque(other)
        return found

    def follow(self, handle: int) -> None:
        """Have changes of a window told by :meth:`has_changed`."""
        mask = self._x.X.StructureNotifyMask | self._x.X.PropertyChangeMask
        self._resource(handle).change_attributes(event_mask=mask)
        self._display.sync()

    def has_changed(self) -> bool:
        """Whether anything about the windows changed since the last call. Does not block."""
        count = self._display.pending_events()
        for _ in range(count):
            self._display.next_event()
        return count > 0

    def close(self) -> None:
        """Disconnect. May be called twice."""
        with contextlib.suppress(self._x.error.ConnectionClosedError, OSError):
            self._display.close()

    def _resource(self, handle: int) -> Any:
        return self._display.create_resource_object("window", handle)

    def _property(self, resource: Any, name: str) -> Any:
        atom = self._display.intern_atom(name)
        found = resource.get_full_property(atom, self._x.X.AnyPropertyType)
        return None if found is None else found.value

    def _title(self, resource: Any) -> str:
        for name, encoding in (("_NET_WM_NAME", "utf-8"), ("WM_NAME", "latin-1")):
            value = self._property(resource, name)
            if value:
                raw = value if isinstance(value, bytes) else str(value).encode("utf-8")
                return raw.decode(encoding, "replace").rstrip("\0")
        return ""

    def _is_shown(self, resource: Any) -> bool:
        if resource.get_attributes().map_state != self._x.X.IsViewable:
            return False
        # Some window managers keep what they have minimised, or put elsewhere, on the server.
        hidden = self._display.intern_atom("_NET_WM_STATE_HIDDEN")
        if hidden in (self._property(resource, "_NET_WM_STATE") or ()):
            return False
        mine = self._property(resource, "_NET_WM_DESKTOP")
        current = self._property(self._root, "_NET_CURRENT_DESKTOP")
        if mine is None or current is None or not len(mine) or not len(current):
            return True
        return mine[0] in (current[0], ALL_DESKTOPS)

    def _below(self, resource: Any, depth: int) -> Iterator[Window]:
        """Windows with a title below one; a frame with its content's title is left out."""
        if depth == 0:
            return
        with contextlib.suppress(self._x.error.XError):
            for child in resource.query_tree().children:
                inner = list(self._below(child, depth - 1))
                yield from inner
                with contextlib.suppress(self._x.error.XError):
                    if child.get_attributes().win_class == self._x.X.InputOutput:
                        window = self.window(child.id)
                        if window.title and window.title not in {one.title for one in inner}:
                            yield window

    def _opaque(self, resource: Any) -> list[Window]:
        """The window with its border, unless it shows nothing."""
        shows = resource.get_attributes()
        is_seen = shows.map_state == self._x.X.IsViewable
        if not is_seen or shows.win_class != self._x.X.InputOutput:
            return []
        at = resource.get_geometry()
        border = 2 * at.border_width
        rectangle = Rectangle(at.x, at.y, at.width + border, at.height + border)
        titles = [self._title(resource), *(one.title for one in self._below(resource, 2))]
        title = next((one for one in titles if one), "")
        return [Window(handle=resource.id, title=title, rectangle=rectangle, is_shown=True)]


class FollowedWindow:
    """The part of the screen that shows one window, wherever it moves. Use from one thread.

    Args:
        title: See :class:`charles.screen_config.ScreenConfig`. It counts when the window is looked
            for; afterwards the window is followed whatever its title becomes.
        region: The part of its content; ``None`` for all.

    Attributes:
        pid: Process that shows it; 0 where the window does not tell.

    Raises:
        CaptureError: There is no display, or not one window of that title.
    """

    def __init__(self, title: str, region: tuple[int, int, int, int] | None) -> None:
        self._region, self._area = region, None
        self._desktop = X11Windows()
        try:
            with self._explained():
                self._window = find_window(title, self._desktop.windows())
                self._desktop.follow(self._window.handle)
                self.pid = self._desktop.pid(self._window.handle)
        except CaptureError:
            self.close()
            raise

    def area(self) -> Rectangle:
        """Where the wanted pixels are on the screen now.

        Raises:
            WindowHiddenError: They are not on the screen now.
            CaptureError: The window was closed, or the region does not fit into it any more.
        """
        with self._explained():
            if self._desktop.has_changed() or self._area is None:
                self._area = None  # until it is known to be good
                self._area = self._look()
            return self._area

    def has_changed(self) -> bool:
        """Whether :meth:`area` may be another than it told; then what was grabbed may be wrong."""
        with self._explained():
            if self._desktop.has_changed():
                self._area = None
        return self._area is None

    def close(self) -> None:
        """Disconnect. May be called twice."""
        self._desktop.close()

    def _look(self) -> Rectangle:
        window = self._desktop.window(self._window.handle)
        area = part_of(window.rectangle, self._region, f"the window {window.title!r}")
        above: Iterable[Window] = self._desktop.above(window.handle) if window.is_shown else ()
        require_visible(window, area, above, self._desktop.screen)
        return area

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        errors = _load_xlib().error
        try:
            yield
        except errors.XError as err:
            raise CaptureError(f"The window {self._window.title!r} was closed.") from err
        except (errors.ConnectionClosedError, OSError) as err:
            raise CaptureError("The X display was closed.") from err


def no_display(err: Exception) -> str:
    """What to tell when there is no display to connect to."""
    return (
        f"There is no X display to capture: {err}. Run within a desktop session, or set DISPLAY "
        "to that of the game, for example DISPLAY=:0. Under Wayland use "
        "--game.window.screen.kind wayland."
    )


def _load_xlib() -> Any:
    """python-xlib with the modules that are used here."""
    try:
        import Xlib  # pyright: ignore
        import Xlib.display  # pyright: ignore
        import Xlib.error  # pyright: ignore
        import Xlib.X  # pyright: ignore
    except ImportError as err:
        raise ExtraMissingError(
            "Finding windows on X11 needs python-xlib. Install it: pip install 'charles[screen]'."
        ) from err
    return Xlib
