"""Town, the built-in game, in this process.

Nothing is drawn until :meth:`TownGame.grab` asks for it, so an instant whose sample is not wanted
costs a fraction of one whose pixels are.
"""

from dataclasses import replace

import cv2
import numpy as np

from charles.config import GameConfig
from charles.errors import GameError
from charles.io.capture import CaptureInfo
from charles.io.game import Scene, Telemetry, checked_controls, chosen_scene
from charles.sample import DRIVING_CONTROLS
from charles.timing import InstantClock, clock_ns
from charles.town import VERSION
from charles.town.habits import Late, answer
from charles.town.layout import WorldView
from charles.town.physics import STEP_S
from charles.town.render import CAMERAS, Camera, Renderer
from charles.town.world import World, WorldConfig

_MAX_ROUTE_SEED = 2**31


class TownGame:
    """Town as a :class:`charles.io.game.Game`; its label is there whoever drives.

    Stepped, an instant comes when asked for and ``captured_ns`` counts simulated time, rising over
    resets. In real time, instants come 30 times a second on absolute deadlines and ``captured_ns``
    is the monotonic clock at the step; see :class:`charles.timing.InstantClock`.

    Args:
        config: Which towns, how full, which weathers and hours; whether it runs in real time.
        height: Frame height in pixels.
        width: Frame width in pixels.
        seed: Seeds what a scene leaves open.
    """

    def __init__(self, config: GameConfig, *, height: int, width: int, seed: int) -> None:
        self.controls: tuple[str, ...] = DRIVING_CONTROLS
        self.frame_shape: tuple[int, int, int] = (height, width, 3)
        self.cameras: tuple[str, ...] = CAMERAS
        self.is_advising = True
        self.is_realtime = config.is_realtime
        self.capture = CaptureInfo(
            name="town", version=f"town-{VERSION}", camera="hood", resizer="rendered"
        )
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._renderer: Renderer | None = None
        self._clock = InstantClock(1.0 / STEP_S, is_realtime=config.is_realtime)
        self._world: World | None = None
        self._is_npc_driving = True
        self._acting = np.zeros(len(self.controls), np.float32)
        self._axes: tuple[float, float, float] | None = None
        self._views: Late[WorldView] = Late(config.town.frame_delay)
        self._told: Late[Telemetry] = Late(config.town.telemetry_delay)
        self._brightness, self._brightness_step = 1.0, 0.0
        self._is_closed = False

    @property
    def world(self) -> World:
        """The town of the last reset.

        Raises:
            GameError: There was no reset yet, or the game is closed.
        """
        if self._world is None or self._is_closed:
            raise GameError("A game must be reset before it is used, and not after it is closed.")
        return self._world

    @property
    def missed(self) -> int:
        """Instants that real time had and the caller was too late for; 0 when stepped."""
        return self._clock.missed

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`. Takes about 0.3 s. The same seed, the same scene."""
        if self._is_closed:
            raise GameError("The game is closed. Make a new one.")
        low, high = self._config.seeds
        seed = int(self._rng.integers(low, high)) if scene.seed is None else scene.seed
        rng = self._rng if scene.seed is None else np.random.default_rng(seed)
        scene = chosen_scene(scene, self._config, rng)
        assert scene.weather is not None
        assert scene.time_of_day_h is not None
        self._world = World(
            WorldConfig(
                seed=seed,
                vehicles=round(scene.traffic * self._config.vehicles),
                pedestrians=round(scene.traffic * self._config.pedestrians),
                weather=scene.weather,
                time_of_day_h=scene.time_of_day_h,
                place=scene.place,
                route_seed=int(rng.integers(_MAX_ROUTE_SEED)),
            )
        )
        self._is_npc_driving = True
        self._axes = None
        self._views.clear()
        self._told.clear()
        self._brightness, self._brightness_step = 1.0, 0.0
        self._clock.restart()

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`."""
        world = self.world
        is_collision = False
        for _ in range(self._clock.wait()):
            world.step(None if self._is_npc_driving else self._applied(world))
            is_collision = is_collision or world.collided is not None
            self._brightness = min(1.0, max(0.0, self._brightness + self._brightness_step))
        now_ns = self._clock.stamp()
        if self._config.town.frame_delay:
            self._views.add(world.view())
        self._told.add(self._telemetry(world, is_collision=is_collision))
        told = self._told.shown
        assert told is not None
        return replace(told, captured_ns=now_ns)

    def _telemetry(self, world: World, *, is_collision: bool) -> Telemetry:
        return Telemetry(
            captured_ns=self._clock.now_ns,
            controls=world.controls.copy(),
            label=np.array(world.label(), np.float32),
            speed_mps=world.speed_mps,
            purpose=world.purpose(),
            location=world.location,
            weather=world.config.weather,
            time_of_day_h=world.config.time_of_day_h,
            is_collision=is_collision,
            is_off_road=world.is_off_road,
        )

    def grab(self, out: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`; ``out`` must be C-contiguous."""
        self._draw("hood", out)

    def grab_camera(self, camera: str, out: np.ndarray) -> int:
        """See :class:`charles.io.abilities.ManyCameras`; the picture is drawn now."""
        if camera not in self.cameras:
            raise GameError(f"camera must be one of {CAMERAS}, got {camera!r}.")
        known = CAMERAS[self.cameras.index(camera)]
        self._draw(known, out)
        return clock_ns()

    def fade(self, seconds: float, is_out: bool) -> None:
        """See :class:`charles.io.abilities.Fading`."""
        if not 0.0 <= seconds < float("inf"):
            raise GameError(f"seconds must be finite and 0 or more, got {seconds!r}.")
        target = 0.0 if is_out else 1.0
        self._brightness_step = (target * 2.0 - 1.0) * STEP_S / max(seconds, STEP_S)

    def _draw(self, camera: Camera, out: np.ndarray) -> None:
        view = self._views.shown or self.world.view()
        if self._renderer is None:
            self._renderer = Renderer(*self.frame_shape[:2])
        self._renderer.render(view, out, camera)
        if self._brightness < 1.0:
            cv2.convertScaleAbs(out, dst=out, alpha=self._brightness)

    def act(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`."""
        values = checked_controls(controls, self.controls)
        if not self._is_npc_driving:
            self._acting, self._axes = values, None

    def show_axes(self, accelerate: float, brake: float, steering: float) -> None:
        """See :class:`charles.io.pads.command.AxesGame`; answered as ``game.town`` says."""
        if not self._is_npc_driving:
            self._axes = (accelerate, brake, steering)

    def _applied(self, world: World) -> np.ndarray:
        """What is asked for, or what the pad's axes amount to."""
        if self._axes is None:
            return self._acting
        town, (accelerate, brake, steering) = self._config.town, self._axes
        pedal = answer(accelerate, town.zones.accelerate) - answer(brake, town.zones.brake)
        turned = town.gain(world.speed_mps) * answer(steering, town.zones.steering)
        return np.array([pedal, turned], np.float32)

    def set_npc(self, is_driving: bool) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_npc_driving = is_driving
        self._acting, self._axes = np.zeros(len(self.controls), np.float32), None

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """See :class:`charles.io.game.Game`. The car stands still at first, on a new route."""
        self.world.place_ego(place)
        self._views.clear()
        self._told.clear()
        self._clock.restart()

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_closed = True
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._world = None
