"""GTA V, or anything that speaks a protocol of the DeepGTAV mods, as a game.

The mods acknowledge nothing, build a scene in silence, forget what they were not told again and
report nonsense as controls on any build of the game but their own. So everything is sent explicitly
and every time, silence is waited out, and what comes back is checked before it may be learned from.

The purpose is ours: a random target within a few hundred metres of the car, a new one once it is
reached. Its direction is relative to the car's last motion, as the mods tell no heading; until the
car has moved the purpose is (0, 0). The mod's NPC does not drive towards it.

References:
    A. Ruano, 2017, "DeepGTAV v2", https://github.com/aitorzip/DeepGTAV
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from charles.config import GameConfig
from charles.errors import GameError, GameProtocolError
from charles.io.builds import build_of_listener
from charles.io.capture import CaptureInfo
from charles.io.deepgtav_dialect import Dialect, TcpDialect
from charles.io.deepgtav_options import Camera, DeepGTAVOptions, Tally
from charles.io.deepgtav_pairs import Data, Pair
from charles.io.deepgtav_session import BUILD_ADVICE, Session
from charles.io.deepgtav_watch import (
    ControlCheck,
    PictureCheck,
    RandomTarget,
    StartWatch,
    is_plausible_motion,
)
from charles.io.game import Scene, Telemetry, checked_controls, chosen_scene
from charles.io.pads.watched import PATIENCE_S
from charles.io.pads.xbox import Axes
from charles.sample import DRIVING_CONTROLS
from charles.timing import NS_PER_S, clock_ns
from charles.town import protocol

DRIVING_FLAGS = 786603
"""GTA V's "normal" driving style: keeps to the rules, waits for lights, goes around obstacles."""

SIGHT_ADVICE = (
    "Run the game in a window at the top left of the primary screen, not covered, not minimised, "
    "not in exclusive full screen (Alt+Enter). If it is, capturing has failed, as it does after "
    "many scenes: restart GTA V, or name a command that does (--restart-command)."
)


class DeepGTAVGame:
    """The client as a :class:`charles.io.game.Game`.

    While the NPC drives, the label is what applies; in manual mode there is none. A change of
    driver rebuilds the scene around the car, because the mods know no other way.

    Args:
        config: Where the game listens, and the weathers and hours to choose from.
        height: Frame height in pixels.
        width: Frame width in pixels.
        seed: Seeds what a scene leaves open.
        options: Patience and habits.
        dialect: Which mod; by default the public v2.
    """

    def __init__(
        self,
        config: GameConfig,
        *,
        height: int,
        width: int,
        seed: int = 0,
        options: DeepGTAVOptions | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self.controls: tuple[str, ...] = DRIVING_CONTROLS
        self.frame_shape: tuple[int, int, int] = (height, width, 3)
        self.is_advising = False
        self.is_realtime = True
        self._config, self._options = config, options or DeepGTAVOptions()
        self._dialect = dialect or TcpDialect(height=height, width=width)
        self._session = Session((config.host, config.port), self._dialect, self._options)
        self._rng = np.random.default_rng(seed)
        options = self._options
        self._check = ControlCheck(constant_s=options.constant_s, num_turning=options.num_turning)
        self._sight = PictureCheck(options.blind_s)
        self._watch = StartWatch(options.dead_start_s)
        self._purpose = RandomTarget(self._rng)
        self._has_labels = options.trust_controls or not self._dialect.are_controls_doubtful
        self._are_refuted = False
        self._axes = Axes(options.zones)
        self._scene = Scene()
        self._is_npc_driving = True
        self._is_closed = False
        self._neutral = np.zeros(len(self.controls), np.float32)
        self._acting, self._sent = self._neutral, self._neutral
        self._pair: Pair | None = None
        self._here: tuple[float, float] | None = None
        self._refused_in_row = self._dead_in_row = 0

    @property
    def tally(self) -> Tally:
        """What the game went through so far."""
        return self._session.tally

    @property
    def capture(self) -> CaptureInfo:
        """How its pictures come about."""
        dialect = self._dialect
        return CaptureInfo(
            name=self._config.name,
            version=dialect.name,
            build=build_of_listener(self._config.host, self._config.port),
            camera=dialect.camera,
            resizer=dialect.resizer,
            write=self._options.zones,
            tells_controls=self._has_labels,
        )

    # The game protocol

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`. Restarts the game if that is due."""
        if self._is_closed:
            raise GameError("The game is closed. Make a new one.")
        if scene.seed is not None:
            self._rng = np.random.default_rng(scene.seed)
            self._purpose = RandomTarget(self._rng)
        scene = chosen_scene(scene, self._config, self._rng)
        self._scene = replace(
            scene, car=scene.car or self._options.car, place=scene.place or self._anywhere()
        )
        self._is_npc_driving = True
        self._dead_in_row = 0
        self._session.is_fruitful()
        if self._session.is_open:
            self._rebuild_or_restart()
        else:
            self._session.open()
            self._start()

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`.

        Blocks for at most ``timeout_s`` and a reconnect, or until the game is restarted; commands
        are let go of once it has blocked for :data:`charles.io.pads.watched.PATIENCE_S`.
        """
        began_s = time.monotonic()
        while True:
            pair = self._next_pair()
            if self._is_blind(pair) or self._is_refused(pair) or self._is_dead_start(pair):
                if time.monotonic() - began_s > PATIENCE_S:
                    self._let_go()
                continue
            self._refused_in_row = 0
            self._session.is_fruitful()
            self._pair, self._here = pair, pair.data.location[:2]
            return self._telemetry(pair)

    def grab(self, out: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`; ``out`` must be C-contiguous."""
        height, width, _ = self.frame_shape
        if self._pair is None:
            raise GameError("A frame can be grabbed only after a tick.")
        if out.shape != self.frame_shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise GameError(
                f"Expected out as C-contiguous uint8 [{height}, {width}, 3], "
                f"got {out.dtype} {list(out.shape)}."
            )
        self._dialect.write_picture(self._pair.frame, out)

    def act(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`. The game's dead zone is undone here."""
        values = checked_controls(controls, self.controls)
        if not self._is_npc_driving:
            self._command(values)

    def set_npc(self, is_driving: bool) -> None:
        """See :class:`charles.io.game.Game`. Rebuilds the scene where the car is."""
        if not is_driving:
            self._command(self._neutral)
        if is_driving == self._is_npc_driving:
            return
        self._is_npc_driving = is_driving
        self._stay_here()
        self._rebuild()

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """See :class:`charles.io.game.Game`. Restarts the game if that is due."""
        self._scene = replace(self._scene, place=place or self._anywhere())
        self._rebuild_or_restart()

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_closed = True
        self._session.close([self._commands(self._neutral), *self._dialect.stop()])

    # Beyond the game protocol

    def set_light(self, *, weather: str | None = None, time_of_day_h: float | None = None) -> None:
        """Change weather and time of day where the car is; ``None`` keeps what there is.

        The ZeroMQ fork does it at once. The v2 mod knows no other way than to rebuild the scene.

        Raises:
            GameError: An unknown weather, an hour beyond 0 to 24, or a game that was not reset.
        """
        weather = self._scene.weather if weather is None else weather
        hour_h = self._scene.time_of_day_h if time_of_day_h is None else time_of_day_h
        scene = replace(self._scene, weather=weather, time_of_day_h=hour_h)
        self._scene = chosen_scene(scene, self._config, self._rng)
        messages = self._dialect.light(self._weather_name(), *self._clock())
        if messages is None:
            self._stay_here()
            self._rebuild()
        else:
            self._session.send(messages)

    def aim(self, camera: Camera) -> None:
        """Put the camera elsewhere, for this scene and those to come.

        Raises:
            GameError: The mod's camera is fixed, or the game was not reset.
        """
        self._session.send(self._dialect.aim(camera))

    def show_axes(self, accelerate: float, brake: float, steering: float) -> None:
        """See :class:`charles.io.pads.command.AxesGame`."""
        if not self._is_npc_driving:
            self._session.send([self._dialect.commands(accelerate, brake, steering)])
            self._sent = np.full(len(self.controls), np.nan, np.float32)  # none that act knows

    # What is asked of the game

    def _anywhere(self) -> tuple[float, float]:
        (west, east), (south, north) = self._options.area_m
        return (float(self._rng.uniform(west, east)), float(self._rng.uniform(south, north)))

    def _stay_here(self) -> None:
        """Have the next scene built where the car is, if that is known."""
        if self._here is not None:
            self._scene = replace(self._scene, place=self._here)

    def _weather_name(self) -> str:
        assert self._scene.weather is not None
        return protocol.WEATHERS[self._scene.weather][0]

    def _clock(self) -> tuple[int, int]:
        """Hour and minute of the scene."""
        assert self._scene.time_of_day_h is not None
        hour, minute = divmod(round(self._scene.time_of_day_h * 60) % (24 * 60), 60)
        return hour, minute

    def _scenario(self) -> dict[str, Any]:
        """The whole scene: what a message leaves out, the mods take from freed memory."""
        assert self._scene.place is not None
        flags = DRIVING_FLAGS if self._is_npc_driving else -1
        return {
            "location": list(self._scene.place),
            "time": list(self._clock()),
            "weather": self._weather_name(),
            "vehicle": self._scene.car,
            # Always an array: the mods overlook a bare -1 in a config.
            "drivingMode": [flags, self._options.cruise_mps if self._is_npc_driving else 0.0],
        }

    def _commands(self, controls: np.ndarray) -> bytes:
        report = self._axes.report(float(controls[0]), float(controls[1]))
        return self._dialect.commands(report.right_trigger, report.left_trigger, report.stick_x)

    def _command(self, controls: np.ndarray) -> None:
        """Send ``controls`` unless they are what the game already holds.

        The mods read one message per tick, so one that says nothing new would only delay others.
        """
        self._acting = controls
        if np.array_equal(controls, self._sent):
            return
        self._session.send([self._commands(controls)])
        self._sent = controls

    def _let_go(self) -> None:
        """Nobody sees where the car goes: command nothing, until there is an instant again."""
        if not self._is_npc_driving:
            self._command(self._neutral)

    def _start(self, *, first: list[bytes] | None = None) -> None:
        """Have a game that is stopped, or that we have just met, build the scene."""
        self._build([*(first or []), *self._dialect.start(self._scenario())])

    def _rebuild(self) -> None:
        """Have the scene built as it is now wanted; also how a car is put elsewhere."""
        self._build(self._dialect.config(self._scenario()))

    def _rebuild_or_restart(self) -> None:
        """Have another scene built, by a game that is started anew if it has built too many."""
        if self._is_restart_due():
            builds = self._session.counted.builds
            self._session.restart_game(f"a restart is due after {builds} scenes", "")
            self._start()
        else:
            self._rebuild()

    def _build(self, messages: list[bytes]) -> None:
        """Ask for a scene, and forget what belongs to the one before."""
        self._session.send(messages)
        self._session.counted.builds += 1
        self._session.forget(clock_ns() + round(self._options.settle_s * NS_PER_S))
        self._acting = self._sent = self._neutral  # a rebuilt scene begins with neutral commands
        self._axes.rest()
        self._here = None
        self._refused_in_row = 0
        self._check.restart()
        self._sight.restart()
        self._watch.restart()
        self._purpose.restart()

    def _is_restart_due(self) -> bool:
        limit = self._options.restart_after
        is_over = 0 < limit <= self._session.counted.builds
        return is_over and self._session.has_restart_command

    # Whether to believe it

    def _next_pair(self) -> Pair:
        """The next pair of the present scene; it is asked for again if the game was lost.

        Raises:
            GameError: The game is silent, or gone for good.
            GameProtocolError: It answers, but never with a usable pair.
        """
        while True:
            pair = self._session.take(self._let_go)
            if pair is not None:
                return pair
            self._stay_here()
            self._start()

    def _is_blind(self, pair: Pair) -> bool:
        """Whether a pair's picture shows nothing; after long enough, the game is restarted.

        Raises:
            GameError: It cannot be restarted, or that did not help.
        """
        is_black = self._sight.is_black(pair)
        self._session.counted.black += is_black
        wrong = self._sight.is_blind(pair)
        if wrong:
            patience_s, builds = self._options.blind_s, self._session.counted.builds
            self._session.restart_game(
                f"pictures must show the game, but {wrong} for {patience_s:g} s, after {builds} "
                "scenes",
                SIGHT_ADVICE,
            )
            self._stay_here()
            self._start()
        return is_black or bool(wrong)

    def _is_refused(self, pair: Pair) -> bool:
        """Whether a pair cannot be used; while the NPC drives, its controls must do as a label.

        Raises:
            GameProtocolError: There has been nonsense for too long.
        """
        data, options = pair.data, self._options
        needs_label = self._is_npc_driving and self._has_labels and options.needs_labels
        if is_plausible_motion(data) and (not needs_label or self._check.is_possible(data)):
            wrong = "" if self._are_refuted or not self._has_labels else self._contradiction(pair)
            if wrong and needs_label:
                raise GameProtocolError(f"DeepGTAV: {wrong} {BUILD_ADVICE}")
            self._are_refuted = self._are_refuted or (bool(wrong) and not options.needs_labels)
            return False
        self._session.counted.refused += 1
        self._refused_in_row += 1
        if self._refused_in_row >= self._options.refused_limit:
            raise GameProtocolError(
                "DeepGTAV: controls must be finite, throttle and steering in [-1, 1], brake in "
                f"[0, 1], and speed and place possible; got {_shown(data)} and the like in "
                f"{self._refused_in_row} pairs in a row. {BUILD_ADVICE}"
            )
        return True

    def _contradiction(self, pair: Pair) -> str:
        """What is wrong with controls that are possible one by one, but not as those of a car that
        drives; empty if nothing."""
        data = pair.data
        if self._is_npc_driving and self._check.is_frozen(data, pair.captured_ns):
            return (
                f"controls must change while the car moves, got {_shown(data)} for "
                f"{self._options.constant_s:g} s."
            )
        if self._check.is_contradicted(data):
            return (
                f"steering must say where the car turns, but in {self._options.num_turning} pairs "
                f"it hardly ever did; now {_shown(data)} at {data.yaw_rate:.3g} degrees/s to the "
                "left."
            )
        return ""

    def _is_dead_start(self, pair: Pair) -> bool:
        """Whether the NPC never began to move; then the game is started anew, elsewhere.

        The mod draws the NPC's speed at a start, 0 included, and keeps it over configs; only
        another start draws again.

        Raises:
            GameError: That did not help, several times.
        """
        if not self._is_npc_driving:
            return False
        if not self._watch.is_dead(pair.data.location, pair.captured_ns):
            self._dead_in_row = 0 if self._watch.has_moved else self._dead_in_row
            return False
        self._session.counted.dead_starts += 1
        self._dead_in_row += 1
        if self._dead_in_row > self._options.retries:
            raise GameError(
                f"DeepGTAV: the car must move within {self._options.dead_start_s:g} s of a start, "
                f"but stood still after {self._dead_in_row} starts in a row. Look at the game."
            )
        self._scene = replace(self._scene, place=self._anywhere())
        self._start(first=self._dialect.stop())
        return True

    def _telemetry(self, pair: Pair) -> Telemetry:
        data, scene = pair.data, self._scene
        assert scene.weather is not None
        assert scene.time_of_day_h is not None
        controls = self._acting.copy()
        is_believed = self._check.is_proven or self._options.trust_controls
        is_told = self._has_labels and not self._are_refuted and self._check.is_possible(data)
        is_told = is_told and (is_believed or self._options.needs_labels)  # who drives needs none
        is_label = is_told and is_believed
        if is_told:
            pedal = data.throttle - data.brake
            controls = np.clip(np.array([pedal, data.steering], np.float32), -1.0, 1.0)
        return Telemetry(
            captured_ns=pair.captured_ns,
            controls=controls,
            has_controls=is_told,
            label=controls.copy() if self._is_npc_driving and is_label else None,
            speed_mps=data.speed,
            purpose=self._purpose.purpose(data.location),
            location=data.location,
            weather=scene.weather,
            time_of_day_h=hour_of(data.time, asked_h=scene.time_of_day_h),
        )


def hour_of(clock: int | tuple[int, int, int], *, asked_h: float) -> float:
    """Time of day by the game's clock; the one asked for, as long as the clock does not differ.

    Args:
        clock: The hour, which is all that the v2 mod tells, or hour, minute and second.
        asked_h: What it was set to last, an hour of 0 to 24.
    """
    if isinstance(clock, int):
        return asked_h if int(asked_h) % 24 == clock else float(clock)
    hour, minute, second = clock
    told_h = hour + minute / 60.0 + second / 3600.0
    return asked_h if abs(asked_h % 24.0 - told_h) < 1.0 / 60.0 else told_h


def _shown(data: Data) -> dict[str, float]:
    """What of a pair's telemetry is in doubt, for an error text."""
    names = ("throttle", "brake", "steering", "speed")
    return {name: getattr(data, name) for name in names}
