"""Capture of a real X display: windows found, followed, hidden, covered, closed."""

import subprocess
import time

import numpy as np
import pytest
from tests.io.screen.xserver import x_client, x_server

from charles.errors import CaptureError, ConfigError, WindowHiddenError
from charles.io.builds import build_of
from charles.io.screen.make import make_source
from charles.io.screen.source import FrameSource
from charles.screen_config import ScreenConfig

ORANGE = 0xFF8040


@pytest.fixture
def make():
    """Makes sources, and closes them."""
    made = []

    def make_one(height=90, width=160, **settings):
        made.append(make_source(ScreenConfig(**settings), height, width))
        return made[-1]

    yield make_one
    for one in made:
        one.close()
        one.close()


def grabbed(source):
    out = np.zeros(source.frame_shape, np.uint8)
    source.grab(out)
    return out


def is_all(frame, colour):
    return (frame == (colour >> 16, colour >> 8 & 255, colour & 255)).all()


def test_a_window_is_grabbed_without_its_border_wherever_it_is(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE, border=5)
    source = make(title="Game")
    assert isinstance(source, FrameSource)
    assert is_all(grabbed(source), ORANGE)
    client.do(game, "configure", x=900, y=500)
    assert is_all(grabbed(source), ORANGE)
    client.do(game, "configure", width=200, height=333, x=0, y=0)
    assert is_all(grabbed(source), ORANGE)


def test_colours_and_places_are_those_of_the_window(client, make):
    game = client.window("Game", (100, 50, 160, 90), 0)
    pen = game.create_gc(foreground=0x0A1428)
    game.fill_rectangle(pen, 30, 20, 10, 5)
    client.display.sync()
    frame = grabbed(make(title="Game"))
    wanted = np.zeros((90, 160, 3), np.uint8)
    wanted[20:25, 30:40] = (0x0A, 0x14, 0x28)
    np.testing.assert_array_equal(frame, wanted)
    part = grabbed(make(title="Game", region=(28, 18, 10, 5), height=5, width=10))
    np.testing.assert_array_equal(part, wanted[18:23, 28:38])


def test_whose_program_shows_a_window_is_told_if_the_window_tells(client, make):
    game = client.window("Game", (100, 50, 160, 90))
    assert make(title="Game").build == ""
    program = subprocess.Popen(["sleep", "60"])
    try:
        client.set_numbers(game, "_NET_WM_PID", "CARDINAL", [program.pid])
        assert make(title="Game").build == build_of(program.pid) != ""
        client.set_text(game, "WM_CLIENT_MACHINE", "elsewhere")
        assert make(title="Game").build == ""
    finally:
        program.kill()
        program.wait()


def test_a_region_of_the_screen_is_grabbed_as_it_is(client, make):
    client.window("", (200, 100, 50, 40), ORANGE)
    client.window("", (225, 100, 25, 40), 0x112233)
    frame = grabbed(make(region=(200, 100, 50, 40), height=40, width=50))
    assert is_all(frame[:, :25], ORANGE)
    assert is_all(frame[:, 25:], 0x112233)
    assert grabbed(make(monitor=0)).any()


def test_a_covered_window_is_refused_until_it_is_seen_again(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE)
    source, part = make(title="Game"), make(title="Game", region=(0, 0, 100, 100))
    other = client.window("Mail", (300, 50, 320, 180), 0x0000FF)
    with pytest.raises(WindowHiddenError, match=r"'Game' is covered by another, 'Mail'.*38% of it"):
        grabbed(source)
    assert is_all(grabbed(part), ORANGE)
    client.do(game, "configure", stack_mode=0)
    assert is_all(grabbed(source), ORANGE)
    client.do(other, "configure", stack_mode=0)
    with pytest.raises(WindowHiddenError, match="'Mail'"):
        grabbed(source)
    client.do(other, "unmap")
    assert is_all(grabbed(source), ORANGE)


def test_a_window_within_a_frame_is_found_and_followed_and_its_frame_does_not_cover_it(
    client, make
):
    frame = client.window("Game", (40, 30, 330, 220), 0x333333)
    client.window("Game", (5, 30, 320, 180), ORANGE, parent=frame)
    source = make(title="Game")
    assert is_all(grabbed(source), ORANGE)
    client.do(frame, "configure", x=500, y=300)
    assert is_all(grabbed(source), ORANGE)
    cover = client.window("", (500, 300, 40, 40), 0x444444)
    client.window("Chat", (0, 0, 40, 40), 0x444444, parent=cover)
    with pytest.raises(WindowHiddenError, match="covered by another, 'Chat'"):
        grabbed(source)


def test_a_minimised_window_is_refused_until_it_is_back(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE)
    source = make(title="Game")
    client.do(game, "unmap")
    with pytest.raises(WindowHiddenError, match="'Game' is minimised"):
        grabbed(source)
    with pytest.raises(WindowHiddenError, match="'Game' is minimised"):
        grabbed(make(title="Game"))
    client.do(game, "map")
    assert is_all(grabbed(source), ORANGE)
    client.set_atoms(game, "_NET_WM_STATE", ["_NET_WM_STATE_HIDDEN"])
    with pytest.raises(WindowHiddenError, match="'Game' is minimised"):
        grabbed(source)


def test_a_window_of_another_workspace_is_refused(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE)
    source = make(title="Game")
    try:
        client.set_numbers(client.root, "_NET_CURRENT_DESKTOP", "CARDINAL", [0])
        client.set_numbers(game, "_NET_WM_DESKTOP", "CARDINAL", [1])
        with pytest.raises(WindowHiddenError, match="'Game' is minimised or hidden"):
            grabbed(source)
        client.set_numbers(game, "_NET_WM_DESKTOP", "CARDINAL", [0xFFFFFFFF])
        assert is_all(grabbed(source), ORANGE)
    finally:
        client.root.delete_property(client.display.intern_atom("_NET_CURRENT_DESKTOP"))
        client.display.sync()


def test_a_window_that_leaves_the_screen_or_closes_is_told(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE)
    source = make(title="Game")
    client.do(game, "configure", x=1000)
    with pytest.raises(WindowHiddenError, match=r"'Game' must lie on the screen.*1280×720"):
        grabbed(source)
    client.do(game, "destroy")
    for _ in range(2):
        with pytest.raises(CaptureError, match="'Game' was closed"):
            grabbed(source)


def test_a_window_that_shrinks_below_its_region_is_told(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE)
    source = make(title="Game", region=(200, 100, 100, 80))
    assert is_all(grabbed(source), ORANGE)
    client.do(game, "configure", width=250)
    with pytest.raises(CaptureError, match=r"screen.region must lie inside the window 'Game'"):
        grabbed(source)


def test_a_window_that_is_not_there_names_those_that_are(client, make):
    client.window("Straße nach Süden", (100, 50, 320, 180), ORANGE)
    with pytest.raises(CaptureError, match=r"got 'Nirvana'\. There are:\n  'Straße nach Süden'"):
        make(title="Nirvana")
    source = make(title="STRASSE")
    assert is_all(grabbed(source), ORANGE)


def test_windows_that_the_manager_lists_are_the_ones_to_choose_from(client, make):
    game = client.window("Game", (100, 50, 320, 180), ORANGE)
    client.window("Game", (600, 50, 320, 180), 0)
    try:
        client.set_numbers(client.root, "_NET_CLIENT_LIST", "WINDOW", [game.id])
        assert is_all(grabbed(make(title="Game")), ORANGE)
    finally:
        client.root.delete_property(client.display.intern_atom("_NET_CLIENT_LIST"))
        client.display.sync()


@pytest.mark.parametrize("region", [(1200, 0, 100, 100), (-10, 0, 100, 100), (0, 700, 50, 21)])
def test_a_region_outside_the_screen_is_refused(display, make, region):
    with pytest.raises(CaptureError, match="must lie inside monitor 1, which has 1280×720"):
        make(region=region)


def test_a_monitor_that_is_not_there_is_refused(display, make):
    with pytest.raises(ConfigError, match=r"screen.monitor must be one of .*1: 1280×720.*got 7"):
        make(monitor=7)


@pytest.mark.parametrize("name", [":987", "", "nonsense"])
@pytest.mark.parametrize("title", ["", "Game"])
def test_no_display_is_named(display, make, monkeypatch, name, title):
    monkeypatch.setenv("DISPLAY", name)
    began_s = time.monotonic()
    with pytest.raises(CaptureError, match=r"no X display to capture.*set DISPLAY"):
        make(title=title)
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize("title", ["", "Game"])
def test_a_display_that_closes_is_told(display, make, title):
    with x_server(320, 200) as server, x_client() as client:
        client.window("Game", (0, 0, 320, 180), ORANGE)
        source = make(title=title)
        grabbed(source)
        server.kill()
        server.wait()
        for _ in range(2):
            with pytest.raises(CaptureError):
                grabbed(source)


def test_other_frames_are_refused_and_so_are_grabs_after_the_end(client, make):
    client.window("Game", (100, 50, 320, 180), ORANGE)
    source = make(title="Game")
    with pytest.raises(CaptureError, match=r"uint8 \[90, 160, 3\], got"):
        source.grab(np.zeros((90, 160, 4), np.uint8))
    source.close()
    with pytest.raises(CaptureError, match="closed"):
        grabbed(source)
