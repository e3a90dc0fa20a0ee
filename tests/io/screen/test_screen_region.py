"""Rectangles, and windows chosen by their titles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import CaptureError, WindowHiddenError
from charles.io.screen.region import Rectangle, Window, find_window, part_of, require_visible

SCREEN = Rectangle(0, 0, 1280, 720)

rectangles = st.builds(
    Rectangle, st.integers(-20, 60), st.integers(-20, 60), st.integers(1, 40), st.integers(1, 40)
)


def window(title, rectangle=(0, 0, 640, 480), *, is_shown=True, handle=1):
    return Window(handle=handle, title=title, rectangle=Rectangle(*rectangle), is_shown=is_shown)


def painted(rectangle):
    canvas = np.zeros((150, 150), bool)
    left, top = rectangle.left + 30, rectangle.top + 30
    canvas[top : top + rectangle.height, left : left + rectangle.width] = True
    return canvas


@settings(deadline=None)
@given(rectangles, rectangles)
def test_overlap_counts_the_pixels_that_both_have(one, other):
    both = (painted(one) & painted(other)).sum()
    assert one.overlap(other) == other.overlap(one) == both
    assert one.is_inside(other) == (both == painted(one).sum())


@pytest.mark.parametrize(
    ("title", "found"),
    [("Game", 1), ("game 2", 2), ("GAME", 1), ("another", 4), ("Hidden", 5)],
)
def test_a_title_finds_the_same_then_the_same_but_for_case_then_a_part(title, found):
    windows = [
        window("Game", handle=1),
        window("Game 2", handle=2),
        window("Game", handle=3, is_shown=False),
        window("Another one", handle=4),
        window("hidden", handle=5, is_shown=False),
    ]
    assert find_window(title, windows).handle == found


def test_a_title_that_is_not_there_names_those_that_are():
    windows = [window("Grand Theft Auto V"), window("Mail", (5, 6, 70, 80), is_shown=False)]
    with pytest.raises(CaptureError) as caught:
        find_window("Grand Theft Autos", windows)
    text = str(caught.value)
    assert "screen.title must match a window, got 'Grand Theft Autos'" in text
    assert "Did you mean 'Grand Theft Auto V'?" in text
    assert "'Mail', 70×80 at (5, 6), hidden" in text
    with pytest.raises(CaptureError, match="There is no window with a title"):
        find_window("Game", [])


def test_a_title_of_two_windows_names_both():
    with pytest.raises(CaptureError, match=r"must match one window.*\n.*'Game 1'.*\n.*'Game 2'"):
        find_window("game", [window("Game 1"), window("Game 2")])


def test_a_region_is_counted_from_the_corner_of_its_whole():
    whole = Rectangle(-1280, 100, 1280, 720)
    assert part_of(whole, None, "it") == whole
    assert part_of(whole, (10, 20, 1270, 700), "it") == (-1270, 120, 1270, 700)


@pytest.mark.parametrize("region", [(-1, 0, 10, 10), (0, 0, 1281, 10), (1000, 700, 100, 21)])
def test_a_region_outside_names_what_there_is(region):
    with pytest.raises(CaptureError, match=r"screen.region must lie inside monitor 2.*1280×720"):
        part_of(SCREEN, region, "monitor 2")


@pytest.mark.parametrize(
    ("target", "above", "text"),
    [
        (window("G", is_shown=False), [], "'G' is minimised or hidden"),
        (window("G", (700, 0, 640, 480)), [], r"'G' must lie on the screen.*640×480 at \(700, 0\)"),
        (window("G"), [window("Mail", (600, 400, 99, 99))], "'G' is covered by another, 'Mail'"),
        (window("G"), [window("", (600, 0, 40, 48))], "one without a title.* over 1% of it"),
    ],
)
def test_a_window_that_is_not_wholly_seen_is_refused(target, above, text):
    with pytest.raises(WindowHiddenError, match=text):
        require_visible(target, target.rectangle, above, SCREEN)


def test_a_window_beside_another_is_fine_and_so_is_its_part_that_is_seen():
    target, other = window("G"), window("Mail", (600, 0, 100, 100))
    require_visible(target, target.rectangle, [window("Mail", (640, 0, 9, 9))], SCREEN)
    require_visible(target, Rectangle(0, 0, 600, 480), [other], SCREEN)
