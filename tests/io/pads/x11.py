"""An X server without a screen, and a client of it that watches the keyboard as a game does."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("Xlib", reason="python-xlib is not installed: pip install 'charles[keyboard]'")

from Xlib import XK, X
from Xlib.display import Display

if shutil.which("Xvfb") is None:
    pytest.skip("Xvfb is missing: apt-get install xvfb", allow_module_level=True)


@contextmanager
def x_server(*arguments: str) -> Iterator[str]:
    """A running Xvfb with further arguments; yields the name of its display."""
    reads, writes = os.pipe()
    command = ["Xvfb", "-displayfd", str(writes), "-screen", "0", "640x480x24", "-nolisten", "tcp",
               *arguments]  # fmt: skip
    server = subprocess.Popen(command, pass_fds=[writes], stderr=subprocess.DEVNULL)
    os.close(writes)
    try:
        with os.fdopen(reads) as pipe:  # it writes the number once it serves
            yield f":{pipe.readline().strip()}"
    finally:
        server.terminate()
        server.wait(10.0)


class Onlooker:
    """A window in front, and what the keyboard did to it. Switches repeating of held keys off.

    Args:
        display: Name of the display.
    """

    def __init__(self, display: str) -> None:
        self._display = Display(display)
        screen = self._display.screen()
        mask = X.KeyPressMask | X.KeyReleaseMask | X.ExposureMask
        window = screen.root.create_window(
            0, 0, 100, 100, 0, screen.root_depth, event_mask=mask, override_redirect=True
        )
        window.map()
        self._display.change_keyboard_control(auto_repeat_mode=X.AutoRepeatModeOff)
        while self._display.next_event().type != X.Expose:  # only a window that shows takes focus
            pass
        window.set_input_focus(X.RevertToParent, X.CurrentTime)
        self._display.sync()

    def is_down(self, key: str) -> bool:
        """Whether the server holds a key down."""
        code = self._display.keysym_to_keycode(XK.string_to_keysym(key))
        return bool(self._display.query_keymap()[code // 8] >> code % 8 & 1)

    def any_down(self) -> bool:
        """Whether the server holds any key down."""
        return any(self._display.query_keymap())

    def wait_for(self, key: str, *, is_down: bool, timeout_s: float = 60.0) -> None:
        """Wait until a key is down, or up."""
        ends_s = time.monotonic() + timeout_s
        while self.is_down(key) != is_down:
            assert time.monotonic() < ends_s, f"{key} is still {'up' if is_down else 'down'}"
            time.sleep(0.05)

    def events(self) -> list[tuple[float, str, bool]]:
        """What came since: the server's time in seconds, the key, whether it went down."""
        self._display.sync()
        found = []
        while self._display.pending_events():
            event = self._display.next_event()
            if event.type in (X.KeyPress, X.KeyRelease):
                key = XK.keysym_to_string(self._display.keycode_to_keysym(event.detail, 0))
                found.append((event.time / 1e3, key, event.type == X.KeyPress))
        return found

    def close(self) -> None:
        """Leave; the server forgets the window."""
        self._display.close()
