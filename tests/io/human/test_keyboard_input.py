"""A person's keyboard: keys of an X display, held by somebody else, are pedals and wheel."""

import contextlib
import sys
import time

import pytest

from charles.errors import PadError
from charles.human_config import HumanConfig
from charles.io.human.held_keys import WindowsHeldKeys, make_held_keys, virtual_key
from charles.io.human.keyboard import KeyboardInput
from charles.io.human.source import HumanInput
from charles.pad_config import KEY_NAMES, KeysConfig
from charles.takeover import make_human, make_takeover
from charles.takeover_config import HOTKEY_NAMES, TakeoverConfig


class Held:
    """Keys that a test holds down."""

    def __init__(self):
        self.down = set()

    def held(self):
        return frozenset(self.down)

    def close(self):
        self.down = set()


def test_keys_are_pedals_and_wheel_and_others_are_nothing():
    held = Held()
    config = HumanConfig(idle_s=0.02)
    keyboard = KeyboardInput(held, KeysConfig(), config)
    assert isinstance(keyboard, HumanInput)
    assert not keyboard.read().is_active
    held.down = {"f8", "up"}
    assert not keyboard.read().is_active
    held.down = {"w", "a"}
    assert keyboard.read().is_active
    assert keyboard.read().controls.tolist() == [1.0, -1.0]
    held.down = {"s", "a", "d"}
    assert keyboard.read().controls.tolist() == [-1.0, 0.0]
    held.down = set()
    assert keyboard.read().is_active
    time.sleep(0.05)
    assert not keyboard.read().is_active


def test_a_key_that_is_down_at_the_start_counts():
    held = Held()
    held.down = {"w"}
    assert KeyboardInput(held, KeysConfig(), HumanConfig()).read().is_active


@pytest.fixture
def display():
    x11 = pytest.importorskip("tests.io.pads.x11")
    with x11.x_server() as name:
        yield name


def test_keys_of_an_x_display_are_read_whoever_presses_them(display):
    from charles.io.pads.xtest import XTestKeys

    names = ("up", "left", "q", "shift")
    config = TakeoverConfig(kind="keys", hotkey="q", display=display)
    with (
        contextlib.closing(XTestKeys(names, display)) as fingers,
        contextlib.closing(make_held_keys(names, display)) as held,
        contextlib.closing(make_human(config)) as keyboard,
    ):
        assert held.held() == frozenset()
        for name in names:
            fingers.press(name)
        ends_s = time.monotonic() + 30
        while held.held() != frozenset(names):
            assert time.monotonic() < ends_s
        assert keyboard.read().controls.tolist() == [1.0, -1.0]
        for name in names:
            fingers.release(name)
        while held.held():
            assert time.monotonic() < ends_s


def test_the_hotkey_of_an_x_display_hands_over(display):
    from charles.io.pads.xtest import XTestKeys

    config = TakeoverConfig(kind="keys", hotkey="q", display=display)
    with contextlib.closing(XTestKeys(["q"], display)) as fingers, make_takeover(config) as taken:
        assert taken.step() is None
        fingers.press("q")
        ends_s = time.monotonic() + 30
        while taken.step() is None:
            assert time.monotonic() < ends_s
        fingers.release("q")


def test_every_key_is_on_the_layout_of_an_x_display(display):
    make_held_keys(HOTKEY_NAMES, display).close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="X11")
def test_a_display_that_is_not_there_is_named_with_the_setting():
    # python-xlib leaves the sockets of a connection that failed to the garbage collector.
    pytest.importorskip("Xlib")
    with pytest.raises(PadError, match=r"':987'.*--takeover\.display"):
        make_held_keys(["f8"], ":987")


@pytest.mark.skipif(sys.platform == "win32", reason="there it may work")
def test_windows_keys_elsewhere_say_so():
    with pytest.raises(PadError, match="Windows"):
        WindowsHeldKeys(["f8"])


def test_windows_numbers_of_keys():
    assert [virtual_key(name) for name in ("f1", "f12", "w", "7", "up")] == [
        0x70, 0x7B, 0x57, 0x37, 0x26,
    ]  # fmt: skip
    assert len({virtual_key(name) for name in HOTKEY_NAMES}) == len(HOTKEY_NAMES) > len(KEY_NAMES)
