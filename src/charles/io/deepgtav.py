"""GTA V, or anything that speaks the DeepGTAV v2 protocol, as a game.

The mod acknowledges nothing, builds a scene in silence, forgets what it was not told again and
reports nonsense as controls on any build of the game but its own. So everything is sent explicitly
and every time, silence is waited out, and what comes back is checked before it may be learned from.

The purpose is ours: a random target within a few hundred metres of the car, a new one once it is
reached. Its direction is relative to the car's last motion, as the mod tells no heading; until the
car has moved the purpose is (0, 0). The mod's NPC does not drive towards it.

References:
    A. Ruano, 2017, "DeepGTAV v2", https://github.com/aitorzip/DeepGTAV
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from charles.config import GameConfig
from charles.errors import GameError, GameProtocolError, require
from charles.io.deadzones import DeadZone, to_axis
from charles.io.deepgtav_link import Data, Link, LinkLost, Pair
from charles.io.deepgtav_watch import ControlCheck, RandomTarget, StartWatch, is_plausible_motion
from charles.io.game import Scene, Telemetry, checked_controls, chosen_scene
from charles.sample import DRIVING_CONTROLS
from charles.timing import NS_PER_S
from charles.town import protocol

DRIVING_FLAGS = 786603
"""GTA V's "normal" driving style: keeps to the rules, waits for lights, goes around obstacles."""

RATE_HZ = 40
"""Asked for to get a steady 30: the mod sends once *more* than a period has passed, and only ever
at a tick of the game, so a request for 30 would come out between 20 and 30."""

BUILD_ADVICE = (
    "The mod reads them at fixed places that are right for GTA V 1.0.1180.2 only. Run that build, "
    "or a mod made for yours, or collect nothing from it: driving needs no such controls."
)


@dataclass(frozen=True, kw_only=True)
class DeepGTAVOptions:
    """What is known about the game's habits, and how patient to be with it."""

    timeout_s: float = 60.0
    """How long a silence may last; building a scene takes seconds."""
    connect_s: float = 5.0
    """How long the first connection is tried for."""
    reconnect_s: float = 30.0
    """How long a lost connection is tried for again."""
    settle_s: float = 0.25
    """Pairs that come this soon after a change of scene may be older than it and are dropped."""
    dead_start_s: float = 15.0
    """A car that has not moved this long after its NPC began never will."""
    constant_s: float = 5.0
    """Controls that stay exactly the same for so long while the car moves are garbage."""
    refused_limit: int = 60
    """So many unusable pairs in a row are not an accident."""
    retries: int = 4
    """So many dead starts, or connections without one good pair, in a row are too many."""
    cruise_mps: float = 15.0
    """The NPC's speed; the mod of the public build draws one by itself instead."""
    car: str = "blista"
    """The vehicle where a scene names none. A name that the game does not know hangs it."""
    area_m: tuple[tuple[float, float], tuple[float, float]] = ((-2500.0, 2500.0), (-2000.0, 6000.0))
    """Where random places are drawn from: x, then y."""
    dead_zone: DeadZone = field(default_factory=lambda: DeadZone(neutral=0.0))
    """How the game treats commands; :meth:`DeepGTAVGame.act` undoes it."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "connect_s", "dead_start_s", "constant_s", "refused_limit"):
            value = getattr(self, name)
            require(value > 0, name, "be positive", value)
        for name in ("reconnect_s", "settle_s", "retries"):
            value = getattr(self, name)
            require(value >= 0, name, "be 0 or more", value)


@dataclass
class Tally:
    """What the game went through."""

    skipped: int = 0
    """Pairs that a newer one replaced before they were asked for."""
    broken: int = 0
    """Pairs whose telemetry could not be read."""
    refused: int = 0
    """Pairs whose controls could not be the car's."""
    reconnects: int = 0
    """Connections that replaced a lost one."""
    dead_starts: int = 0
    """Starts after which the car never moved."""


class DeepGTAVGame:
    """The client as a :class:`charles.io.game.Game`.

    While the NPC drives, the label is what applies; in manual mode there is none. A change of
    driver rebuilds the scene around the car, because the mod knows no other way.

    Args:
        config: Where the game listens, and the weathers and hours to choose from.
        height: Frame height in pixels.
        width: Frame width in pixels.
        seed: Seeds what a scene leaves open.
        options: Patience and habits.
    """

    def __init__(
        self,
        config: GameConfig,
        *,
        height: int,
        width: int,
        seed: int = 0,
        options: DeepGTAVOptions | None = None,
    ) -> None:
        self.controls: tuple[str, ...] = DRIVING_CONTROLS
        self.frame_shape: tuple[int, int, int] = (height, width, 3)
        self.is_advising = False
        self.is_realtime = True
        self._config, self._options = config, options or DeepGTAVOptions()
        self._rng = np.random.default_rng(seed)
        self._check = ControlCheck(constant_s=self._options.constant_s)
        self._watch = StartWatch(self._options.dead_start_s)
        self._purpose = RandomTarget(self._rng)
        self._link: Link | None = None
        self._scene = Scene()
        self._is_npc_driving = True
        self._is_closed = False
        self._neutral = np.zeros(len(self.controls), np.float32)
        self._acting, self._sent = self._neutral, self._neutral
        self._pair: Pair | None = None
        self._here: tuple[float, float] | None = None
        self._counted = Tally()
        self._after_ns = self._refused_in_row = self._dead_in_row = self._fruitless = 0

    @property
    def tally(self) -> Tally:
        """What the game went through so far."""
        link = self._link
        if link is None:
            return replace(self._counted)
        return replace(
            self._counted,
            skipped=self._counted.skipped + link.skipped,
            broken=self._counted.broken + link.broken,
        )

    # The game protocol

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`."""
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
        self._fruitless = self._dead_in_row = 0
        if self._link is None:
            self._connect("", self._options.connect_s)
        else:
            self._rebuild()

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`. Blocks for at most ``timeout_s`` and a reconnect."""
        while True:
            pair = self._next_pair()
            if self._is_refused(pair) or self._is_dead_start(pair):
                continue
            self._refused_in_row = self._fruitless = 0
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
        pixels = protocol.frame_pixels(self._pair.frame, height, width)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=out)

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
        """See :class:`charles.io.game.Game`."""
        self._scene = replace(self._scene, place=place or self._anywhere())
        self._rebuild()

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_closed = True
        if self._link is None:
            return
        try:
            self._link.send(self._commands(self._neutral))
            self._link.send(protocol.request("stop", None))
        except LinkLost:
            pass  # a game that lost its client stops by itself
        self._disconnect()

    # What is asked of the game

    def _anywhere(self) -> tuple[float, float]:
        (west, east), (south, north) = self._options.area_m
        return (float(self._rng.uniform(west, east)), float(self._rng.uniform(south, north)))

    def _stay_here(self) -> None:
        """Have the next scene built where the car is, if that is known."""
        if self._here is not None:
            self._scene = replace(self._scene, place=self._here)

    def _scenario(self) -> dict[str, Any]:
        """The whole scene: what a message leaves out, the mod takes from freed memory."""
        scene = self._scene
        assert scene.place is not None
        assert scene.weather is not None
        assert scene.time_of_day_h is not None
        minutes = round(scene.time_of_day_h * 60) % (24 * 60)
        flags = DRIVING_FLAGS if self._is_npc_driving else -1
        return {
            "location": list(scene.place),
            "time": [minutes // 60, minutes % 60],
            "weather": protocol.WEATHERS[scene.weather][0],
            "vehicle": scene.car,
            # Always an array: the mod overlooks a bare -1 in a config.
            "drivingMode": [flags, self._options.cruise_mps if self._is_npc_driving else 0.0],
        }

    def _start_message(self) -> bytes:
        height, width, _ = self.frame_shape
        wanted = dict.fromkeys(("throttle", "brake", "steering", "speed", "location", "time"), True)
        dataset = {"rate": RATE_HZ, "frame": [width, height], **wanted}
        return _request("start", {"scenario": self._scenario(), "dataset": dataset})

    def _commands(self, controls: np.ndarray) -> bytes:
        zone = self._options.dead_zone
        pedal, wheel = (float(value) for value in to_axis(controls, zone))
        body = {"throttle": max(pedal, 0.0), "brake": max(-pedal, 0.0), "steering": wheel}
        return _request("commands", body)

    def _command(self, controls: np.ndarray) -> None:
        """Send ``controls`` unless they are what the game already holds.

        The mod reads one message per tick, so one that says nothing new would only delay others.
        """
        self._acting = controls
        if np.array_equal(controls, self._sent):
            return
        self._send(self._commands(controls))
        self._sent = controls

    def _rebuild(self) -> None:
        """Have the scene built as it is now wanted; also how a car is put elsewhere."""
        self._send(_request("config", {"scenario": self._scenario()}))
        self._begin()

    def _send(self, *messages: bytes) -> None:
        """Send messages; a lost connection is dealt with by the next tick."""
        if self._link is None:
            raise GameError("A game must be reset before it is used, and not after it is closed.")
        try:
            for message in messages:
                self._link.send(message)
        except LinkLost:
            return  # the reader notices as well, and the reconnect starts with all of this anew

    def _begin(self) -> None:
        """A scene was asked for: forget what belongs to the one before."""
        self._after_ns = time.monotonic_ns() + round(self._options.settle_s * NS_PER_S)
        self._acting = self._sent = self._neutral  # a rebuilt scene begins with neutral commands
        self._here = None
        self._refused_in_row = 0
        self._check.restart()
        self._watch.restart()
        self._purpose.restart()

    # The connection

    def _connect(self, why: str, patience_s: float) -> None:
        """Connect and start the scene, waiting longer between attempts; bounded.

        Raises:
            GameError: The game cannot be reached for ``patience_s``.
        """
        height, width, _ = self.frame_shape
        address = (self._config.host, self._config.port)
        give_up_s, pause_s = time.monotonic() + patience_s, 0.1
        while self._link is None:
            try:
                size = protocol.frame_bytes(height, width)
                self._link = Link(address, frame_bytes=size, timeout_s=patience_s + 1.0)
            except OSError as err:
                if time.monotonic() + pause_s > give_up_s:
                    lost = f"lost the game ({why}) and " if why else ""
                    raise GameError(
                        f"DeepGTAV: {lost}nothing answers at {address[0]}:{address[1]} for "
                        f"{patience_s:g} s ({err}). Start GTA V with the mod, or charles-town, "
                        "or correct game.host and game.port."
                    ) from err
                time.sleep(pause_s)
                pause_s = min(2.0 * pause_s, 5.0)
        self._send(self._start_message())
        self._begin()

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self._counted = self.tally
            self._link = None

    def _next_pair(self) -> Pair:
        """The next pair of the present scene; reconnects if need be.

        Raises:
            GameError: The game is silent, or gone for good.
            GameProtocolError: It answers, but never with a usable pair.
        """
        silent_at_s = time.monotonic() + self._options.timeout_s
        while True:
            if self._link is None:
                raise GameError("A game must be reset before it is ticked.")
            try:
                pair = self._link.take(0.5, after_ns=self._after_ns)
            except LinkLost as err:
                self._restart_connection(str(err))
                continue
            self._require_readable(self._link)
            if pair is not None:
                return pair
            if time.monotonic() > silent_at_s:
                raise GameError(
                    f"DeepGTAV: no frame for {self._options.timeout_s:g} s. Look at the game: is "
                    "it paused or minimised, does it know the vehicle, is another client served?"
                )

    def _restart_connection(self, why: str) -> None:
        self._fruitless += 1
        if self._fruitless > self._options.retries:
            raise GameProtocolError(
                f"DeepGTAV: {self._fruitless} connections in a row ended without a usable pair; "
                f"the last one because {why}. Check what listens on game.port "
                f"{self._config.port}, and that frame.height and frame.width are what it sends."
            )
        self._disconnect()
        self._stay_here()
        self._connect(why, self._options.reconnect_s)
        self._counted.reconnects += 1

    # Whether to believe it

    def _require_readable(self, link: Link) -> None:
        if link.broken_in_row >= self._options.refused_limit:
            raise GameProtocolError(
                "DeepGTAV: telemetry must be JSON with finite controls, got "
                f"{link.broken_in_row} pairs in a row that are not, the last: {link.last_broken}. "
                f"{BUILD_ADVICE}"
            )

    def _is_refused(self, pair: Pair) -> bool:
        """Whether a pair cannot be used; while the NPC drives, its controls must do as a label.

        Raises:
            GameProtocolError: There has been nonsense for too long.
        """
        data, is_npc = pair.data, self._is_npc_driving
        if is_plausible_motion(data) and (not is_npc or self._check.is_possible(data)):
            if is_npc and self._check.is_frozen(data, pair.captured_ns):
                raise GameProtocolError(
                    "DeepGTAV: controls must change while the car moves, got "
                    f"{_shown(data)} for {self._options.constant_s:g} s. {BUILD_ADVICE}"
                )
            return False
        self._counted.refused += 1
        self._refused_in_row += 1
        if self._refused_in_row >= self._options.refused_limit:
            raise GameProtocolError(
                "DeepGTAV: controls must be finite, throttle and steering in [-1, 1], brake in "
                f"[0, 1], and speed and place possible; got {_shown(data)} and the like in "
                f"{self._refused_in_row} pairs in a row. {BUILD_ADVICE}"
            )
        return True

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
        self._counted.dead_starts += 1
        self._dead_in_row += 1
        if self._dead_in_row > self._options.retries:
            raise GameError(
                f"DeepGTAV: the car must move within {self._options.dead_start_s:g} s of a start, "
                f"but stood still after {self._dead_in_row} starts in a row. Look at the game."
            )
        self._scene = replace(self._scene, place=self._anywhere())
        self._send(protocol.request("stop", None), self._start_message())
        self._begin()
        return True

    def _telemetry(self, pair: Pair) -> Telemetry:
        data, scene = pair.data, self._scene
        assert scene.weather is not None
        assert scene.time_of_day_h is not None
        controls = self._acting.copy()
        if self._check.is_possible(data):
            pedal = data.throttle - data.brake
            controls = np.clip(np.array([pedal, data.steering], np.float32), -1.0, 1.0)
        # The mod tells the hour only; while it is still the one asked for, we know better.
        is_same_hour = int(scene.time_of_day_h) % 24 == data.time
        return Telemetry(
            captured_ns=pair.captured_ns,
            controls=controls,
            label=controls.copy() if self._is_npc_driving else None,
            speed_mps=data.speed,
            purpose=self._purpose.purpose(data.location),
            location=data.location,
            weather=scene.weather,
            time_of_day_h=scene.time_of_day_h if is_same_hour else float(data.time),
        )


def _shown(data: Data) -> dict[str, float]:
    """What of a pair's telemetry is in doubt, for an error text."""
    names = ("throttle", "brake", "steering", "speed")
    return {name: getattr(data, name) for name in names}


def _request(key: str, body: dict[str, Any]) -> bytes:
    """A message to the game.

    Raises:
        GameError: It is too long for the mod, as with an absurd vehicle name.
    """
    try:
        return protocol.request(key, body)
    except ValueError as err:
        raise GameError(f"DeepGTAV: {err}. Shorten the scene's car.") from err
