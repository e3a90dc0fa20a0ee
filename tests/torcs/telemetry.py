"""Let TORCS tell what its car does: its physics in a wrapper of ours, see ``telemetry.cpp``.

Debian has no headers of the game; its source package has. Nothing of either is kept here. ::

    apt-get install g++ libplib-dev
    apt-get source --download-only torcs && tar xf torcs_*.orig.tar.xz --wildcards '*/src/*'
    export TORCS_SOURCE=$PWD/torcs-1.3.7+dfsg/src
"""

import os
import shutil
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/torcs")
SOURCE = os.environ.get("TORCS_SOURCE", "")
"""The folder ``src`` of TORCS' source."""
PLIB = os.environ.get("PLIB_INCLUDE", "/usr/include")
"""Where the headers of libplib-dev are."""
MODULE = "told"
HEADERS = ("interfaces", "libs/tgf", "linux", "libs/portability")


def is_buildable() -> bool:
    """Whether there are a compiler and all headers."""
    found = [Path(SOURCE) / "interfaces/car.h", Path(PLIB) / "plib/sg.h"]
    return bool(SOURCE) and shutil.which("g++") is not None and all(p.exists() for p in found)


def build(folder: Path) -> Path:
    """Compile the module, beside links to all that the game has; returns what ``-L`` is to name."""
    library = folder / "library"
    (library / "modules/simu").mkdir(parents=True)
    for name in ("drivers", "lib", "modules/graphic", "modules/telemetry", "modules/track"):
        (library / name).symlink_to(LIBRARIES / name)
    headers = folder / "headers"
    headers.mkdir()
    (headers / "tmath").symlink_to(Path(SOURCE) / "libs/math")  # as the game's build lays it out
    places = [headers, *(Path(SOURCE) / name for name in HEADERS), PLIB]
    out = library / f"modules/simu/{MODULE}.so"
    source = Path(__file__).with_suffix(".cpp")
    command = ["g++", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", *(f"-I{p}" for p in places)]
    subprocess.run([*command, "-o", out, source], check=True)
    return library


def environment(
    ports: tuple[int, ...], limit_mps: float, pushes_s: float, pictures_hz: float
) -> dict[str, str]:
    """What the module reads."""
    return {
        "TORCS_PICTURES": f"{pictures_hz:g}",
        "TORCS_PUSHES": f"{pushes_s:g}",
        "TORCS_TELEMETRY_PORTS": ",".join(map(str, ports)),
        "TORCS_SPEED_LIMIT": f"{limit_mps:g}",
        "TORCS_PHYSICS": str(LIBRARIES / "modules/simu/simuv2.so"),
    }


@dataclass(frozen=True, kw_only=True)
class Instant:
    """What one packet says."""

    time_s: float
    """Since the start; negative while the lights are red."""
    raced_m: float
    speed_mps: float
    throttle: float
    steering: float
    """What is asked for; positive to the right."""
    brake: float
    wheel: float
    """Where the front wheels are, which turn at most so fast: a share of their lock."""
    middle_m: float
    """From the middle of the road, positive to the left."""
    width_m: float
    damage: float

    @property
    def is_off(self) -> bool:
        """Whether the middle of the car has left the road."""
        return abs(self.middle_m) > self.width_m / 2

    @classmethod
    def of(cls, packet: bytes) -> Self:
        field = struct.unpack("<66f", packet)
        return cls(time_s=field[0], raced_m=field[3], speed_mps=field[7], throttle=field[29],
                   steering=field[30], brake=field[31], wheel=field[62], middle_m=field[63],
                   width_m=field[64], damage=field[65])  # fmt: skip


class Listener:
    """Receives a game's packets at a port of its own. Use from one thread; close it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def wait(self, timeout_s: float) -> Instant | None:
        """The next packet; ``None`` if there is none for so long."""
        self._socket.settimeout(timeout_s)
        try:
            return Instant.of(self._socket.recv(2048))
        except TimeoutError:
            return None

    def newest(self) -> Instant | None:
        """The last that has come and was not asked for; ``None`` if nothing has."""
        self._socket.setblocking(False)
        packet = None
        try:
            while True:
                packet = self._socket.recv(2048)
        except BlockingIOError:
            return None if packet is None else Instant.of(packet)

    def close(self) -> None:
        self._socket.close()
