"""Which part of the screen: rectangles, and the choice of a window by its title.

Pure functions; what windows there are is told by :mod:`charles.io.screen.x11_windows` and
:mod:`charles.io.screen.win32`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from charles.errors import CaptureError, WindowHiddenError, did_you_mean, list_rows

REGION = "screen.region"


class Rectangle(NamedTuple):
    """Pixels of a screen; ``left`` and ``top`` may be negative beside the first monitor."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """One past the last column."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """One past the last row."""
        return self.top + self.height

    def overlap(self, other: "Rectangle") -> int:
        """How many pixels both have."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0, width) * max(0, height)

    def is_inside(self, other: "Rectangle") -> bool:
        """Whether every pixel of this is one of ``other``."""
        return self.overlap(other) == self.width * self.height

    def shifted(self, left: int, top: int) -> "Rectangle":
        """The same size, moved."""
        return self._replace(left=self.left + left, top=self.top + top)

    def __str__(self) -> str:
        return f"{self.width}×{self.height} at ({self.left}, {self.top})"


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window as the system tells of it."""

    handle: int
    """The system's own number for it."""
    title: str
    """As shown; may be empty."""
    rectangle: Rectangle
    """Its content, without frame and title bar."""
    is_shown: bool
    """Whether it is on the screen at all, rather than minimised or withdrawn."""


def find_window(title: str, windows: Iterable[Window]) -> Window:
    """The one window that ``title`` means: the same title, else the same but for case, else a part.

    Windows that are shown go before hidden ones.

    Raises:
        CaptureError: None, or more than one; the text names the windows there are.
    """
    windows = list(windows)
    folded = title.casefold()
    for matches in (
        [one for one in windows if one.title == title],
        [one for one in windows if one.title.casefold() == folded],
        [one for one in windows if folded in one.title.casefold()],
    ):
        shown = [one for one in matches if one.is_shown] or matches
        if len(shown) == 1:
            return shown[0]
        if shown:
            raise CaptureError(
                f"screen.title must match one window, got {title!r}, which matches:\n"
                f"{_listed(shown)}\nUse a longer part of the title, or close the others."
            )
    raise CaptureError(_not_there(title, windows))


def _not_there(title: str, windows: Sequence[Window]) -> str:
    named = [one for one in windows if one.title]
    if not named:
        return f"screen.title must match a window, got {title!r}. There is no window with a title."
    hint = did_you_mean(title, [one.title for one in named])
    start = f"screen.title must match a window, got {title!r}."
    return f"{start}{' ' + hint if hint else ''} There are:\n{_listed(named)}"


def _listed(windows: Iterable[Window]) -> str:
    return list_rows(
        [f"  {one.title!r}, {one.rectangle}{'' if one.is_shown else ', hidden'}" for one in windows]
    )


def part_of(whole: Rectangle, region: tuple[int, int, int, int] | None, what: str) -> Rectangle:
    """The ``region`` (left, top, width, height) of ``whole``, in the coordinates of the screen.

    Args:
        whole: What the region is counted from, and must lie in.
        region: ``None`` for all of it.
        what: The words for ``whole``, for example ``monitor 1``.

    Raises:
        CaptureError: The region is not inside.
    """
    if region is None:
        return whole
    part = Rectangle(*region)
    if not part.is_inside(Rectangle(0, 0, whole.width, whole.height)):
        raise CaptureError(
            f"{REGION} must lie inside {what}, which has {whole.width}×{whole.height} pixels, "
            f"got {part}. Choose a smaller one with --{REGION}."
        )
    return part.shifted(whole.left, whole.top)


def hidden_error(window: Window) -> WindowHiddenError:
    """What to say of a window that is not on the screen at all."""
    return WindowHiddenError(f"The window {window.title!r} is minimised or hidden. Bring it back.")


def require_visible(
    window: Window, area: Rectangle, above: Iterable[Window], screen: Rectangle
) -> None:
    """Refuse to grab pixels that would not be the window's.

    Args:
        window: The one to capture.
        area: The part of it that is wanted, in the coordinates of the screen.
        above: All windows that are shown in front of it.
        screen: All that can be grabbed.

    Raises:
        WindowHiddenError: It is minimised, reaches beyond the screen, or is covered.
    """
    name = repr(window.title)
    if not window.is_shown:
        raise hidden_error(window)
    if not area.is_inside(screen):
        raise WindowHiddenError(
            f"The window {name} must lie on the screen, which is {screen}, got {area}. Move it."
        )
    for other in above:
        covered = area.overlap(other.rectangle)
        if covered:
            share = covered / (area.width * area.height)
            by = repr(other.title) if other.title else "one without a title"
            raise WindowHiddenError(
                f"The window {name} is covered by another, {by}, {other.rectangle}, over "
                f"{share:.0%} of it. Move that one away, or give a {REGION} that it does not cover."
            )
