"""TORCS, a real racing game, on an X server without a screen, with one of its robots driving.

Debian's package ``torcs``; its home is a folder of the test's. The settings say who drives where
and that nothing is drawn over the road; the menus are gone through by key, as somebody would who
looks at the screen: the next key is pressed when the picture shows that the last one has worked.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests.io.screen.xserver import x_client, x_server
from tests.torcs import telemetry

from charles.errors import CaptureError, WindowHiddenError
from charles.io.screen.source import FrameSource
from charles.io.screen.x11 import X11Source
from charles.screen_config import ScreenConfig

DATA = Path("/usr/share/games/torcs")

START_S = 400.0
"""How long a start, with that of the race, may take: 10 s alone, minutes on a busy machine."""

STILL_S = 3.0
"""A picture that stands still for so long waits for a key. One too many does no harm."""

OVERLAYS = (
    "debug info",
    "enable mirror",
    "driver board",
    "leader board",
    "driver counter",
    "G graph",
    "arcade",
)

NO_TEXTURE_FILTER = "-GL_EXT_texture_filter_anisotropic -GL_ARB_texture_filter_anisotropic"
"""Without these llvmpipe draws textured roads many times faster."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """Who drives where, and what is seen of it."""

    track: str = "e-track-3"
    """One of the road tracks."""
    driver: str = "bt"
    """Module of a robot, or ``human`` for the keyboard. This one drives in the middle of the road;
    others take a racing line, which is not seen."""
    index: int = 3
    """Which of the module's cars."""
    laps: int = 100
    height: int = 270
    width: int = 480
    limit_mps: float = 0.0
    """Speed that the car is held to, where it tells what it does; 0: none."""
    pushes_s: float = 0.0
    """Mean time between pushes of its steering, where it tells what it does, and sometimes stops;
    0: neither."""
    pictures_hz: float = 0.0
    """Most pictures that are drawn in a second, where it tells what it does; 0: all it can."""


HUMAN_CAR = "car2-trb1"
"""What a person drives: the car of :class:`Race`'s robot."""


MOVED_SHARE = 0.3
"""Share of pixels that differ between two pictures of a drive."""


class Torcs:
    """A running game. Use from one thread.

    Args:
        race: What it was started with.
        process: The program.
        client: A connection to its display.
    """

    def __init__(self, race: Race, process: subprocess.Popen, client: Any) -> None:
        self.race, self.process = race, process
        self._display = client.display
        self._root = client.root

    def source(self) -> X11Source:
        """The capture of its window, by title; the caller closes it."""
        config = ScreenConfig(title="torcs")
        return X11Source(config, height=self.race.height, width=self.race.width)

    def hold(self, key: str, *, is_down: bool) -> None:
        """Press or let go of a key by its X name, for example ``Return``."""
        from Xlib import XK, X  # pyright: ignore
        from Xlib.ext import xtest  # pyright: ignore

        code = self._display.keysym_to_keycode(XK.string_to_keysym(key))
        xtest.fake_input(self._display, X.KeyPress if is_down else X.KeyRelease, code)
        self._display.sync()

    def tap(self, key: str) -> None:
        """Press a key for a moment.

        Without a window manager keys go to the window under the pointer, which stays where the
        server puts it, in the middle: moving it would take the focus off the menu's first entry.
        """
        self.hold(key, is_down=True)
        time.sleep(0.05)
        self.hold(key, is_down=False)

    def is_alive(self) -> bool:
        return self.process.poll() is None


@contextlib.contextmanager
def torcs(
    folder: Path,
    race: Race,
    *,
    library: Path | None = None,
    listener: telemetry.Listener | None = None,
    port: int = 0,
) -> Iterator[Torcs]:
    """The game with the race under way; ``DISPLAY`` names its display meanwhile.

    Args:
        folder: Becomes its home.
        race: Who drives where.
        library: What :func:`tests.torcs.telemetry.build` made, for a game that tells what it does.
        listener: Hears it then, from the moment when the lights turn green.
        port: Where it is told as well; 0: nowhere.
    """
    configure(folder, race, is_telling=library is not None)
    ports = (*([listener.port] if listener else []), *([port] if port else []))
    told = [] if library is None else ["-L", str(library)]
    with x_server(race.width, race.height), x_client() as client:
        process = subprocess.Popen(
            [_program(), *told],
            env={
                **os.environ,
                **telemetry.environment(ports, race.limit_mps, race.pushes_s, race.pictures_hz),
                "HOME": str(folder),
                "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu/torcs/lib",
                "MESA_EXTENSION_OVERRIDE": NO_TEXTURE_FILTER,
                "ALSOFT_DRIVERS": "null",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its launcher is a shell script: end them together
        )
        game = Torcs(race, process, client)
        try:
            begin(game, listener)
            yield game
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, 9)
            process.wait()


def configure(folder: Path, race: Race, *, is_telling: bool = False) -> None:
    """Write the settings that differ from the package's, where the game looks for them first."""
    home = folder / ".torcs" / "config"
    (home / "raceman").mkdir(parents=True, exist_ok=True)
    screen = (DATA / "config" / "screen.xml").read_text(encoding="utf-8")
    for name, before, value in (("x", 640, race.width), ("y", 480, race.height)):
        screen = _replaced(screen, f'name="{name}" val="{before}"', f'name="{name}" val="{value}"')
    (home / "screen.xml").write_text(screen, encoding="utf-8")
    nothing = "".join(f'<attnum name="{name}" val="0"/>' for name in OVERLAYS)
    # The third of the views that F2 goes through.
    hood = '<attnum name="camera head list" val="0"/><attnum name="camera" val="2"/>'
    view = "".join(
        f'<section name="{whose}">{nothing}<attnum name="map mode" val="1"/>{hood}</section>'
        # The screen's, and a driver's: some modules count their names from 1.
        for whose in ("0", "Player", *(f"{race.driver} {race.index + i}" for i in (0, 1)))
    )
    graph = (DATA / "config" / "graph.xml").read_text(encoding="utf-8")
    graph = _replaced(graph, '<section name="Player">', '<section name="Nobody">')  # a person's
    start = '<section name="Display Mode">'
    (home / "graph.xml").write_text(_replaced(graph, start, start + view), encoding="utf-8")
    engine = (DATA / "config" / "raceengine.xml").read_text(encoding="latin-1")
    if is_telling:
        engine = _replaced(engine, 'val="simuv2"', f'val="{telemetry.MODULE}"')
    (home / "raceengine.xml").write_text(engine, encoding="latin-1")
    _configure_keys(folder / ".torcs" / "drivers" / "human")
    quick = (DATA / "config" / "raceman" / "quickrace.xml").read_text(encoding="utf-8")
    quick = _replaced(quick, 'val="forza"', f'val="{race.track}"')
    quick = _replaced(quick, 'name="laps" val="3.000000"', f'name="laps" val="{race.laps}"')
    quick = quick[: quick.index('<section name="Drivers">')] + _drivers(race)
    (home / "raceman" / "quickrace.xml").write_text(quick, encoding="utf-8")


def _configure_keys(home: Path) -> None:
    """Arrow keys steer at once and fully, as a pad that holds them for a share of the time needs.

    By itself the game turns the wheel slowly while a key is held, and slower at speed. What it
    calls sensitivity is the seconds that it takes to full lock.
    """
    home.mkdir(parents=True, exist_ok=True)
    theirs = DATA / "drivers" / "human"
    keys = (theirs / "preferences.xml").read_text(encoding="utf-8")
    mouse = keys.index('<section name="mouse">')  # has the keys, too
    ours = _replaced(keys[mouse:], 'name="steer sensitivity" val="0.8"',
                     'name="steer sensitivity" val="0.01"')  # fmt: skip
    ours = _replaced(ours, 'name="steer speed sensitivity" val="0.7"',
                     'name="steer speed sensitivity" val="0.0"')  # fmt: skip
    (home / "preferences.xml").write_text(keys[:mouse] + ours, encoding="utf-8")
    person = (theirs / "human.xml").read_text(encoding="utf-8")
    person = _replaced(person, 'val="car7-trb1"', f'val="{HUMAN_CAR}"')
    (home / "human.xml").write_text(person, encoding="utf-8")


def _drivers(race: Race) -> str:
    """The end of the race's file: one driver, whom the camera follows."""
    return f"""<section name="Drivers">
      <attnum name="maximum number" val="1"/>
      <attstr name="focused module" val="{race.driver}"/>
      <attnum name="focused idx" val="{race.index}"/>
      <section name="1">
        <attnum name="idx" val="{race.index}"/>
        <attstr name="module" val="{race.driver}"/>
      </section>
    </section>
    <section name="Configuration">
      <section name="1"><attstr name="type" val="track select"/></section>
      <section name="2"><attstr name="type" val="drivers select"/></section>
      <section name="3">
        <attstr name="type" val="race config"/>
        <attstr name="race" val="Quick Race"/>
        <section name="Options">
          <section name="1"><attstr name="type" val="race length"/></section>
        </section>
      </section>
    </section>
</params>
"""


def _replaced(text: str, before: str, after: str) -> str:
    assert before in text, f"TORCS' settings have no {before!r}"
    return text.replace(before, after, 1)


def _program() -> str:
    found = shutil.which("torcs") or shutil.which("torcs", path="/usr/games")
    assert found is not None
    return found


def begin(game: Torcs, listener: telemetry.Listener | None = None) -> None:
    """Through the menus: Race, Quick Race, New Race, Start. A person's car then still stands."""
    deadline_s = time.monotonic() + START_S
    source = _window(game, deadline_s)
    if listener is not None:
        listener.newest()  # of another race
    try:
        while _is_black(source):
            assert time.monotonic() < deadline_s, "TORCS drew nothing"
            time.sleep(0.1)
        while not _has_begun(game, source, listener, deadline_s):
            game.tap("Return")
    finally:
        source.close()


def _window(game: Torcs, deadline_s: float) -> X11Source:
    while True:
        assert game.is_alive(), "TORCS ended"
        try:
            return game.source()
        except CaptureError:
            assert time.monotonic() < deadline_s, "TORCS opened no window"
            time.sleep(0.1)


def _look(source: FrameSource, out: np.ndarray) -> bool:
    """Grab, and tell whether the picture is new; its window comes and goes while it starts."""
    try:
        return source.grab(out).is_new
    except WindowHiddenError:
        return False


def _is_black(source: FrameSource) -> bool:
    out = np.zeros(source.frame_shape, np.uint8)
    _look(source, out)
    return not out.any()


def _has_begun(
    game: Torcs, source: FrameSource, listener: telemetry.Listener | None, deadline_s: float
) -> bool:
    """Wait until the race is under way (``True``), or nothing moves: a menu, or a long load.

    A game that tells what it does is believed. Else, when the car drives, most pixels change from
    picture to picture, again and again, however few pictures there are; a menu changes so only
    once, for a key.
    """
    before = out = np.empty(source.frame_shape, np.uint8)
    moves, since_s = 0, time.monotonic()
    while time.monotonic() - since_s < STILL_S:
        assert time.monotonic() < deadline_s, "the race did not begin"
        assert game.is_alive(), "TORCS ended"
        time.sleep(0.01)
        told = None if listener is None else listener.newest()
        if told is not None:
            since_s = time.monotonic()
            if told.time_s > 0.0:
                return True
        if not _look(source, out):
            continue
        moves = moves + 1 if (out != before).any(axis=2).mean() > MOVED_SHARE else 0
        if moves >= 3 and listener is None:
            return True
        before, since_s = out.copy(), time.monotonic()
    return False
