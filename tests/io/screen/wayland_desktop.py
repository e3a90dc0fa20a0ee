"""A real Wayland desktop without a screen: compositor, PipeWire and portal, on a bus of its own.

xdg-desktop-portal-wlr refuses a compositor that draws without a GPU, for want of GPU memory that it
would not use (https://github.com/emersion/xdg-desktop-portal-wlr/issues/289). So its connection
goes through this file, run as a program, which offers that memory in the compositor's name.
"""

import contextlib
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 1280, 720
LEFT, TOP = 100, 60

START_S = 20.0
PACKAGES = {
    "dbus-daemon": "dbus",
    "pipewire": "pipewire",
    "pw-dump": "pipewire-bin",
    "wireplumber": "wireplumber",
    "sway": "sway",
    "xdg-desktop-portal": "xdg-desktop-portal",
    "xdg-desktop-portal-wlr": "xdg-desktop-portal-wlr",
}
BACKEND, PORTAL = "org.freedesktop.impl.portal.desktop.wlr", "org.freedesktop.portal.Desktop"
DAEMONS = "/usr/libexec:/usr/lib:/usr/lib/xdg-desktop-portal"
AS_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
"""Before sway, which does not run as root."""

BUS_CONFIG = """<busconfig>
  <listen>unix:path={run}/bus</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
WINDOWS, PLACE = '[shell="xdg_shell"]', f"move absolute position {LEFT} {TOP}"
SWAY_CONFIG = f"""
output HEADLESS-1 mode {WIDTH}x{HEIGHT}@60Hz
xwayland disable
default_floating_border none
for_window {WINDOWS} floating enable, {PLACE}
"""
PORTAL_CONFIG = """[screencast]
output_name=HEADLESS-1
chooser_type=none
"""


def why_not() -> str:
    """What a desktop lacks here; empty if nothing."""
    lacking = [package for name, package in PACKAGES.items() if _path(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install {' '.join(lacking)}"
    if os.geteuid() == 0 and subprocess.run([*AS_USER, "true"], capture_output=True).returncode:
        return "sway does not run as root, and there are no user namespaces: use another user"
    return ""


@dataclass
class Desktop:
    """What runs, and where."""

    folder: Path
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self, name: str, *arguments: str, **environment: str) -> None:
        """Start a program; what it says goes to a file."""
        path = _path(name)
        assert path is not None
        before = AS_USER if name == "sway" and os.geteuid() == 0 else []
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [*before, path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def wait(self, name: str, is_ready: Callable[[], Any]) -> None:
        """Wait for what a program does first."""
        ends_s = time.monotonic() + START_S
        while not is_ready():
            is_running = self.processes[name].poll() is None and time.monotonic() < ends_s
            assert is_running, (self.folder / f"{name}.log").read_text()[-2000:]
            time.sleep(0.01)

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def set_mode(self, width: int, height: int) -> None:
        """Give the screen another size."""
        for command in (f"output HEADLESS-1 mode {width}x{height}@60Hz", f"{WINDOWS} {PLACE}"):
            subprocess.run(["swaymsg", command], check=True, capture_output=True)

    def streams(self) -> int:
        """How many programs PipeWire gives pictures to, or takes them from."""
        told = subprocess.run(["pw-dump", "Node"], check=True, capture_output=True, text=True)
        return len(re.findall(r'"media.class": "[^"]*Video[^"]*"', told.stdout))


@contextlib.contextmanager
def session_bus() -> Iterator[Desktop]:
    """A session with a bus and nobody on it, in this process's environment meanwhile."""
    with tempfile.TemporaryDirectory(prefix="wl") as folder:
        desktop = Desktop(Path(folder))
        desktop.run.mkdir(mode=0o700)
        (desktop.folder / "bus.conf").write_text(BUS_CONFIG.format(run=desktop.run))
        with _environment(desktop):
            try:
                desktop.start("dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork")
                desktop.wait("dbus-daemon", (desktop.run / "bus").exists)
                yield desktop
            finally:
                for name in reversed(list(desktop.processes)):
                    desktop.stop(name)


@contextlib.contextmanager
def wayland_desktop() -> Iterator[Desktop]:
    """A session with a screen of 1280×720, which its portal hands out without asking anybody."""
    with session_bus() as desktop:
        folder, run = desktop.folder, desktop.run
        (folder / "sway.conf").write_text(SWAY_CONFIG)
        (folder / "portal.conf").write_text(PORTAL_CONFIG)
        desktop.start("pipewire")
        desktop.wait("pipewire", (run / "pipewire-0").exists)
        desktop.start("wireplumber")
        desktop.start("sway", "--config", str(folder / "sway.conf"))
        desktop.wait("sway", (run / "wayland-1").exists)
        desktop.start("python", __file__, str(run / "portals"), str(run / "wayland-1"))
        desktop.wait("python", (run / "portals").exists)
        config = str(folder / "portal.conf")
        desktop.start("xdg-desktop-portal-wlr", "--config", config, WAYLAND_DISPLAY="portals")
        desktop.wait("xdg-desktop-portal-wlr", lambda: _is_on_the_bus(BACKEND))
        desktop.start("xdg-desktop-portal")
        desktop.wait("xdg-desktop-portal", lambda: _is_on_the_bus(PORTAL))
        yield desktop


def _path(name: str) -> str | None:
    if name == "python":
        return sys.executable
    return shutil.which(name) or shutil.which(name, path=DAEMONS)


def _is_on_the_bus(name: str) -> bool:
    bus = "org.freedesktop.DBus"
    asked = [f"--dest={bus}", "--print-reply", "/", f"{bus}.NameHasOwner", f"string:{name}"]
    told = subprocess.run(["dbus-send", *asked], check=True, capture_output=True, text=True)
    return "boolean true" in told.stdout


@contextlib.contextmanager
def _environment(desktop: Desktop) -> Iterator[None]:
    changed = {
        "XDG_RUNTIME_DIR": str(desktop.run),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={desktop.run}/bus",
        "WAYLAND_DISPLAY": "wayland-1",
        "SWAYSOCK": str(desktop.run / "sway"),
        "XDG_CURRENT_DESKTOP": "sway",
        "WLR_BACKENDS": "headless",
        "WLR_LIBINPUT_NO_DEVICES": "1",
        "WLR_RENDERER": "pixman",
        **{f"XDG_{kind}_HOME": str(desktop.folder) for kind in ("CONFIG", "STATE", "DATA")},
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def offering_gpu_memory(data: bytes) -> bytes:
    """Events of a compositor, and after each that offers shared memory for a picture of the screen
    one that offers a GPU's (of ``zwlr_screencopy_frame_v1``: kinds 0 and 5)."""
    events = b""
    while data:
        frame, size_and_kind = struct.unpack_from("<2I", data)
        size = size_and_kind >> 16
        event, data = data[:size], data[size:]
        events += event
        if size_and_kind == 24 << 16:
            _, width, height, row_bytes = struct.unpack_from("<4I", event, 8)
            if row_bytes == 4 * width:
                events += struct.pack("<2I4s2I", frame, 20 << 16 | 5, b"XR24", width, height)
    return events


def main() -> None:
    """Pass on what one client and the compositor say, with their files."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    client, _ = listener.accept()
    compositor = socket.socket(socket.AF_UNIX)
    compositor.connect(sys.argv[2])
    while True:
        for source in select.select([client, compositor], [], [])[0]:
            data, files, _, _ = socket.recv_fds(source, 1 << 16, 64)
            if not data:
                return
            target = compositor if source is client else client
            if source is compositor:
                data = offering_gpu_memory(data)
            target.sendall(data[socket.send_fds(target, [data], files) :])
            for file in files:
                os.close(file)


if __name__ == "__main__":
    main()
