"""MetaDrive as a game: maps by their seed, its own driver as the teacher, a hood camera."""

from contextlib import suppress
from importlib import metadata
from typing import Any

import numpy as np

from charles.config import GameConfig
from charles.errors import GameError
from charles.io.capture import CaptureInfo
from charles.io.game import Progress, Scene, Telemetry, checked_controls, chosen_scene
from charles.io.metadrive.engine import STEP_S, STEPS_PER_INSTANT, Engine
from charles.io.metadrive.route import RouteView
from charles.io.metadrive.teacher import Teacher
from charles.io.screen.resize import check_frame
from charles.sample import DRIVING_CONTROLS
from charles.timing import InstantClock

RATE_HZ = 1.0 / (STEP_S * STEPS_PER_INSTANT)

_ROOM_M = 15.0
_PLACE_TRIES = 20


class MetaDriveGame:
    """MetaDrive as a :class:`charles.io.game.Game`; one in a process, used from one thread.

    Its task is a route through the map, and it ends by arriving, leaving the road (or crossing a
    line that must not be crossed) or a crash. After an arrival, the next instant is at the start of
    the same route again and is marked as a collision, so that nobody takes the two for one drive.
    A map has neither weather nor hours; a scene may name them, and they are told back.

    Args:
        config: Which maps; whether it runs in real time.
        height: Frame height in pixels.
        width: Frame width in pixels.
        seed: Seeds what a scene leaves open.
    """

    def __init__(self, config: GameConfig, *, height: int, width: int, seed: int) -> None:
        self.controls: tuple[str, ...] = DRIVING_CONTROLS
        self.frame_shape: tuple[int, int, int] = (height, width, 3)
        self.is_advising = True
        self.is_realtime = config.is_realtime
        self.capture = CaptureInfo(
            name="metadrive",
            version=_version(),
            camera=config.metadrive.camera,
            resizer="rendered",
        )
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._engine: Engine | None = None
        self._clock = InstantClock(RATE_HZ, is_realtime=config.is_realtime)
        self._scene: Scene | None = None
        self._route: Any = None
        self._teacher: Any = None
        self._is_npc_driving, self._is_closed = True, False
        self._neutral = np.zeros(len(self.controls), np.float32)
        self._acting = self._applied = self._advice = self._neutral
        self._ended, self._along_m = "", 0.0

    @property
    def missed(self) -> int:
        """Instants that real time had and the caller was too late for; 0 when stepped."""
        return self._clock.missed

    def progress(self) -> Progress:
        """How far the car is on its route."""
        if self._route is None:
            return Progress()
        length_m = self._route.length_m
        share = 1.0 if self._ended == "done" else self._along_m / length_m
        return Progress(length_m=length_m, completion=share, ended=self._ended)

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`. Takes about a second, the first time ten.

        Raises:
            ExtraMissingError: MetaDrive is not installed.
        """
        if self._is_closed:
            raise GameError("The game is closed. Make a new one.")
        low, high = self._config.seeds
        seed = int(self._rng.integers(low, high)) if scene.seed is None else scene.seed
        self._scene = chosen_scene(scene, self._config, self._rng)
        if self._engine is None:
            height, width, _ = self.frame_shape
            self._engine = Engine(self._config.metadrive, height=height, width=width)
        self._engine.reset(seed, traffic=scene.traffic)
        self._route = RouteView(self._engine.car)
        if scene.place is not None:
            self._put(scene.place)
        self._start_over(seed)
        self._is_npc_driving = True

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`."""
        engine, scene = self._ready()
        is_again = self._ended == "done"
        if is_again:
            self._put(None, is_start=True)
            self._start_over(int(self._rng.integers(2**31)))
        was_ended = self._ended
        for _ in range(self._clock.wait()):
            self._applied = self._advice if self._is_npc_driving else self._acting
            engine.step(float(self._applied[1]), float(self._applied[0]))
            self._advice = self._teacher.advise()
            self._ended = self._ended or self._ending(engine)
            self._along_m = max(self._along_m, self._route.along_m())
        now_ns = self._clock.stamp()
        has_failed = self._ended in ("crash", "off_route") and not was_ended
        assert scene.weather is not None
        assert scene.time_of_day_h is not None
        x, y = engine.car.position
        return Telemetry(
            captured_ns=now_ns,
            controls=self._applied.copy(),
            label=self._advice.copy(),
            speed_mps=max(float(engine.car.speed_km_h) / 3.6, 0.0),
            purpose=np.array(self._route.marker(), np.float32),
            location=(float(x), float(y), 0.0),
            weather=scene.weather,
            time_of_day_h=scene.time_of_day_h,
            is_collision=is_again or has_failed,
            is_off_road=engine.is_out_of_road,
        )

    def grab(self, out: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`; ``out`` must be C-contiguous."""
        engine, _ = self._ready()
        check_frame(out, self.frame_shape)
        np.copyto(out, engine.picture())

    def act(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`."""
        values = checked_controls(controls, self.controls)
        if not self._is_npc_driving:
            self._acting = values

    def set_npc(self, is_driving: bool) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_npc_driving = is_driving
        self._acting = self._neutral

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """See :class:`charles.io.game.Game`: somewhere on the same route, where nobody is."""
        self._ready()
        self._put(place)
        self._start_over(int(self._rng.integers(2**31)))

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_closed = True
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _ready(self) -> tuple[Engine, Scene]:
        if self._engine is None or self._scene is None:
            raise GameError("A game must be reset before it is used, and not after it is closed.")
        return self._engine, self._scene

    def _put(self, place: tuple[float, float] | None, *, is_start: bool = False) -> None:
        """Onto the route: at its start, near ``place``, or anywhere but on its last piece."""
        engine, _ = self._ready()
        roads = self._route.roads
        if is_start:
            lane = roads[0][0]
            engine.place(lane, min(5.0, lane.length))
            return
        if place is not None:
            lanes = [lane for road in roads for lane in road]
            goal = np.array(place)
            lane = min(lanes, key=lambda each: each.distance(goal))
            along_m = float(lane.local_coordinates(goal)[0])
            engine.place(lane, min(max(along_m, 1.0), lane.length - 1.0))
            return
        lane, along_m = self._anywhere()
        tries = 1
        while tries < _PLACE_TRIES and not engine.is_free(lane.position(along_m, 0.0), _ROOM_M):
            lane, along_m = self._anywhere()
            tries += 1
        engine.place(lane, along_m)

    def _anywhere(self) -> tuple[Any, float]:
        """A lane of the route, and a place on it, but on its last piece."""
        roads = self._route.roads
        road = roads[int(self._rng.integers(max(len(roads) - 1, 1)))]
        lane = road[int(self._rng.integers(len(road)))]
        return lane, float(self._rng.uniform(0.1, 0.9)) * lane.length

    def _start_over(self, seed: int) -> None:
        """A drive begins where the car is: nothing of the one before is known."""
        engine, _ = self._ready()
        self._teacher = Teacher(
            engine.car, seed=seed % 2**31, rate_hz=RATE_HZ,
            speed_km_h=self._config.metadrive.speed_km_h,
        )  # fmt: skip
        self._advice = self._teacher.advise()
        self._acting = self._applied = self._neutral
        self._ended, self._along_m = "", 0.0
        self._clock.restart()

    def _ending(self, engine: Engine) -> str:
        if engine.is_crashed:
            return "crash"
        if engine.is_arrived:
            return "done"
        return "off_route" if engine.is_out_of_road else ""


def _version() -> str:
    """Of MetaDrive; empty where it is not installed as a package."""
    with suppress(metadata.PackageNotFoundError):
        return f"metadrive-{metadata.version('metadrive-simulator')}"
    return ""
