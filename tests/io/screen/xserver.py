"""A real X server without a screen, and windows on it."""

import contextlib
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

START_S = 20.0


@contextlib.contextmanager
def x_server(width: int, height: int) -> Iterator[subprocess.Popen]:
    """Xvfb, on a display that it chooses itself and that ``DISPLAY`` names meanwhile."""
    path = shutil.which("Xvfb")
    assert path is not None
    read, write = os.pipe()
    size = f"{width}x{height}x24"
    command = [path, "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    before = os.environ.get("DISPLAY")
    try:
        ready, _, _ = select.select([read], [], [], START_S)
        number = os.read(read, 16).decode().strip() if ready else ""
        assert number, "Xvfb did not start"
        os.environ["DISPLAY"] = f":{number}"
        yield server
    finally:
        os.close(read)
        os.environ.pop("DISPLAY", None)
        if before is not None:
            os.environ["DISPLAY"] = before
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@dataclass
class Client:
    """Somebody with windows on the display."""

    display: Any

    @property
    def root(self) -> Any:
        return self.display.screen().root

    def window(
        self,
        title: str,
        rectangle: tuple[int, int, int, int],
        colour: int = 0xFFFFFF,
        *,
        parent: Any = None,
        border: int = 0,
    ) -> Any:
        """A mapped window; ``colour`` is 0xRRGGBB."""
        made = (parent or self.root).create_window(*rectangle, border, 24, background_pixel=colour)
        if title:
            utf8 = self.display.intern_atom("UTF8_STRING")
            name = self.display.intern_atom("_NET_WM_NAME")
            made.change_property(name, utf8, 8, title.encode())
        made.map()
        self.display.sync()
        return made

    def set_atoms(self, window: Any, name: str, values: list[str]) -> None:
        atoms = [self.display.intern_atom(value) for value in values]
        atom, kind = self.display.intern_atom(name), self.display.intern_atom("ATOM")
        window.change_property(atom, kind, 32, atoms)
        self.display.sync()

    def set_text(self, window: Any, name: str, text: str) -> None:
        atom, kind = self.display.intern_atom(name), self.display.intern_atom("STRING")
        window.change_property(atom, kind, 8, text.encode())
        self.display.sync()

    def set_numbers(self, window: Any, name: str, kind: str, values: list[int]) -> None:
        atom = self.display.intern_atom(name)
        window.change_property(atom, self.display.intern_atom(kind), 32, values)
        self.display.sync()

    def do(self, window: Any, action: str, **how: int) -> None:
        getattr(window, action)(**how)
        self.display.sync()


@contextlib.contextmanager
def x_client() -> Iterator[Client]:
    from Xlib import display, error  # pyright: ignore

    made = Client(display.Display())
    try:
        yield made
    finally:
        with contextlib.suppress(error.ConnectionClosedError, OSError):
            made.display.close()
