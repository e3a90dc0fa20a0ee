"""Any game that can be seen, as a game: its pictures, its telemetry, and the person who plays it.

There is no command channel. Somebody at the game's own controls drives, or a virtual pad does; a
scene cannot be asked for, and a car cannot be put elsewhere. What such a game does not tell stays
at its neutral value: the purpose, the weather, the hour. Where there is no telemetry the speed is
unknown.

The label of an instant is what the person does with the pad or wheel; without one it is what the
telemetry says of pedals and steering, if it says both. There is no label at an instant that is not
what it seems: the picture is old, telemetry that should be there is not, the game tells of no
driving, or nobody holds the pad. :class:`WindowTally` counts these, by reason.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from charles.errors import GameError, WindowHiddenError
from charles.game_config import WindowConfig
from charles.io.capture import CaptureInfo
from charles.io.game import Scene, Telemetry
from charles.io.human.make import make_human
from charles.io.human.source import HumanInput
from charles.io.screen.interleaved import InterleavedSource
from charles.io.screen.make import make_source
from charles.io.screen.resize import RESIZER
from charles.io.screen.source import Capture, FrameSource, OfProgram
from charles.io.telemetry.make import make_telemetry
from charles.io.telemetry.source import Reading, TelemetrySource
from charles.sample import DRIVING_CONTROLS
from charles.timing import NS_PER_S, RateKeeper, clock_ns

_POLL_S = 0.02
_NOTHING = Reading(0, None, None, None, None)


@dataclass
class WindowTally:
    """Instants, and why some of them have no label; the first reason counts."""

    instants: int = 0
    hidden: int = 0
    """The window was covered, minimised or being moved; the picture is the one before."""
    stale: int = 0
    """The picture had not changed for too long."""
    silent: int = 0
    """The newest telemetry was too old."""
    not_driving: int = 0
    """The game told of no driving: a menu, a pause, the end of a race."""
    idle: int = 0
    """Nobody held the pad."""
    untold: int = 0
    """There is no person's pad, and the telemetry does not have both pedals and steering."""


class WindowGame:
    """A watched game as a :class:`charles.io.game.Game`. Real time; closes what it is made of.

    An instant's picture is captured by :meth:`tick`, so that picture, telemetry and label are of
    one time, and :meth:`grab` copies it.

    Args:
        frames: The game's pictures.
        telemetry: What it tells about itself, if it does.
        human: The pad or wheel of the person who plays, if one does.
        config: Rate and patience.
        restart: Puts the car back on its road, for example by pressing the game's own restart key;
            called by :meth:`teleport`. Nothing happens there without one.
    """

    def __init__(
        self,
        frames: FrameSource,
        *,
        telemetry: TelemetrySource | None = None,
        human: HumanInput | None = None,
        config: WindowConfig | None = None,
        restart: Callable[[], None] | None = None,
    ) -> None:
        self.controls: tuple[str, ...] = DRIVING_CONTROLS
        self.frame_shape: tuple[int, int, int] = frames.frame_shape
        self.is_advising = False
        self.is_realtime = True
        self._frames, self._telemetry, self._human = frames, telemetry, human
        self._config, self._restart = config or WindowConfig(), restart
        self._frame = np.zeros(frames.frame_shape, np.uint8)
        self._keeper: RateKeeper | None = None
        self.trouble = ""
        """See :class:`charles.io.abilities.Troubled`."""
        self._has_heard = self._is_closed = False
        self._is_expert_driving = True
        self._captured_ns: int | None = None
        """Of the newest picture; ``None`` before there is one."""
        self._changed_ns = 0
        self._counted = WindowTally()

    @property
    def tally(self) -> WindowTally:
        """What was seen so far."""
        return replace(self._counted)

    def unlabelled(self) -> dict[str, int]:
        """See :class:`charles.io.abilities.Accounting`."""
        counts = vars(self._counted)
        return {name: count for name, count in counts.items() if name != "instants"}

    @property
    def capture(self) -> CaptureInfo:
        """How its pictures come about. Its telemetry may tell controls only once it drives."""
        config, human = self._config, self._human
        return CaptureInfo(
            name="window",
            title=config.screen.title,
            build=self._frames.build if isinstance(self._frames, OfProgram) else "",
            camera="screen",
            resizer=RESIZER,
            region=config.screen.region,
            read=config.human.zones if human is not None else None,
            tells_controls=human is None and self._telemetry is not None,
        )

    @property
    def missed(self) -> int:
        """Instants that the caller was too late for."""
        return self._keeper.missed if self._keeper is not None else 0

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`. The scene is what the game shows; none can be asked.

        Raises:
            GameError: Telemetry should be there, and none came within ``start_s``.
        """
        if self._is_closed:
            raise GameError("The game is closed. Make a new one.")
        self._await_telemetry()
        self._is_expert_driving = True
        if self._keeper is None:
            self._keeper = RateKeeper(self._config.rate_hz)
        self._keeper.restart()

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`.

        Raises:
            GameError: There was no reset.
            CaptureError: The window is gone, or was never seen.
            PadError: The person's pad is gone.
        """
        if self._keeper is None or self._is_closed:
            raise GameError("A game must be reset before it is used, and not after it is closed.")
        self._keeper.wait()
        capture = self._look()
        reading, is_silent = self._heard()
        told = _told(reading)
        label = self._label(told, reading, is_hidden=capture is None, is_silent=is_silent)
        if not self.trouble:
            self.trouble = self._telemetry_trouble(reading, is_silent=is_silent)
        controls = label if label is not None else told
        known = reading or _NOTHING
        return Telemetry(
            captured_ns=self._captured_ns or 0,
            is_still=capture is not None and not capture.is_new,
            is_whole=not self.trouble,
            controls=np.zeros(len(self.controls), np.float32) if controls is None else controls,
            label=None if label is None else label.copy(),
            speed_mps=known.speed_mps,
            purpose=np.zeros(2, np.float32),
            location=known.location or (0.0, 0.0, 0.0),
            has_controls=controls is not None,
            is_human=label is not None and self._human is not None,
        )

    def grab(self, out: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`."""
        if self._captured_ns is None:
            raise GameError("A frame can be grabbed only after a tick.")
        if out.shape != self.frame_shape or out.dtype != np.uint8:
            raise GameError(
                f"Expected out as uint8 {list(self.frame_shape)}, got {out.dtype} "
                f"{list(out.shape)}."
            )
        np.copyto(out, self._frame)

    @property
    def cameras(self) -> tuple[str, ...]:
        """See :class:`charles.io.abilities.ManyCameras`; one, unless the game shows more."""
        return self._frames.cameras if isinstance(self._frames, InterleavedSource) else ("hood",)

    def grab_camera(self, camera: str, out: np.ndarray) -> int:
        """See :class:`charles.io.abilities.ManyCameras`."""
        if not isinstance(self._frames, InterleavedSource):
            raise GameError(f"camera must be one that the game shows, got {camera!r}.")
        return self._frames.grab_camera(camera, out)

    def act(self, controls: np.ndarray) -> None:
        """Always refused: a window takes no commands.

        Raises:
            GameError: Always.
        """
        raise GameError(
            "A window game takes no commands: the player must drive through a virtual pad or the "
            "keyboard. Choose one by the player's pad settings."
        )

    def set_npc(self, is_driving: bool) -> None:
        """See :class:`charles.io.game.Game`. Says only whether there is somebody to learn from."""
        self._is_expert_driving = is_driving

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """See :class:`charles.io.game.Game`. Calls ``restart``; ``place`` cannot be asked for."""
        if self._restart is not None:
            self._restart()
        if self._keeper is not None:
            self._keeper.restart()

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_closed = True
        for source in (self._frames, self._telemetry, self._human):
            if source is not None:
                source.close()

    def _telemetry_trouble(self, reading: Reading | None, *, is_silent: bool) -> str:
        """Why nobody should drive by what is told; empty where nothing is said against it."""
        if self._telemetry is not None and is_silent:
            return f"no telemetry comes: {self._telemetry.explain()}"
        if reading is not None and reading.speed_mps is None:
            return "the game tells of no driving: a menu, a pause, or the end of a race"
        return ""

    def _look(self) -> Capture | None:
        """The window as it is now; ``None`` if something hides it that may pass.

        Raises:
            CaptureError: The window is gone, or was never seen.
        """
        try:
            capture = self._frames.grab(self._frame)
        except WindowHiddenError as err:
            if self._captured_ns is None:
                raise
            self.trouble = str(err)
            return None
        self.trouble = ""
        if capture.is_new or self._captured_ns is None:
            self._changed_ns = capture.captured_ns
        self._captured_ns = capture.captured_ns
        return capture

    def _await_telemetry(self) -> None:
        """Wait for the first reading ever: a game that is set up wrongly is found out here."""
        if self._telemetry is None or self._has_heard:
            return
        give_up_s = time.monotonic() + self._config.start_s
        while self._telemetry.newest() is None:
            if time.monotonic() > give_up_s:
                raise GameError(
                    f"No telemetry came from the game for {self._config.start_s:g} s: "
                    f"{self._telemetry.explain()}. Switch its telemetry on, let it send to this "
                    "machine and port, and drive; or set telemetry.kind to none."
                )
            time.sleep(_POLL_S)
        self._has_heard = True

    def _heard(self) -> tuple[Reading | None, bool]:
        """The newest reading if it is fresh, and whether one is missing that should be there."""
        if self._telemetry is None:
            return None, False
        reading = self._telemetry.newest()
        oldest_ns = clock_ns() - round(self._config.telemetry.timeout_s * NS_PER_S)
        if reading is None or reading.received_ns < oldest_ns:
            return None, True
        return reading, False

    def _label(
        self, told: np.ndarray | None, reading: Reading | None, *, is_hidden: bool, is_silent: bool
    ) -> np.ndarray | None:
        """What the expert does at this instant, or ``None`` and a count of the reason."""
        counted = self._counted
        counted.instants += 1
        if not self._is_expert_driving:
            return None
        human = self._human.read() if self._human is not None else None
        age_ns = clock_ns() - self._changed_ns
        if is_hidden:
            counted.hidden += 1
        elif age_ns > self._config.max_frame_age_s * NS_PER_S:
            counted.stale += 1
        elif is_silent:
            counted.silent += 1
        elif reading is not None and reading.speed_mps is None:
            counted.not_driving += 1
        elif human is not None and not human.is_active:
            counted.idle += 1
        elif human is not None:
            return human.controls
        elif told is None:
            counted.untold += 1
        else:
            return told
        return None


def _told(reading: Reading | None) -> np.ndarray | None:
    """Controls that telemetry has, float32 ``[2]``; ``None`` unless it has both."""
    if reading is None or reading.acceleration_braking is None or reading.steering is None:
        return None
    return np.array([reading.acceleration_braking, reading.steering], np.float32)


def make_window_game(config: WindowConfig, *, height: int, width: int) -> WindowGame:
    """The watched game that ``config`` describes, with everything open.

    Raises:
        CaptureError: The window or screen cannot be captured.
        GameError: The port of its telemetry is taken.
        PadError: The person's pad is not there.
        ExtraMissingError: What reads that pad is not installed.
    """
    with ExitStack() as opened:
        frames = make_source(config.screen, height, width)
        opened.callback(frames.close)
        telemetry = make_telemetry(config.telemetry)
        if telemetry is not None:
            opened.callback(telemetry.close)
        human = make_human(config.human)
        opened.pop_all()  # all of it is the game's now
    return WindowGame(frames, telemetry=telemetry, human=human, config=config)
