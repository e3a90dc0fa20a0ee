"""MetaDrive's engine, set up to draw a hood camera quickly in software, and only when asked.

What is switched off costs most of a frame without a GPU: shadows, multisampling, anisotropic
textures, wheels of other cars, cars far away. The engine draws at every step by itself; here its
drawing is taken out of the loop, so that an instant without pixels costs none.

There is one engine in a process: MetaDrive keeps it in a global.
"""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from charles.errors import ExtraMissingError, GameError
from charles.metadrive_config import MetaDriveConfig

STEPS_PER_INSTANT = 2
STEP_S = 1.0 / 60.0
NUM_SEEDS = 250_000
"""Maps have the seeds below this."""
AGENT = "default_agent"

_CAMERAS = {"hood": ((0.0, 1.0, 1.35), -12.0), "chase": ((0.0, -7.5, 3.4), -13.0)}
"""Place in the car's frame (right, forward, up) and pitch, degrees."""
_FAR_M = 100.0
_KINDS = (0.4, 0.4, 0.0, 0.2, 0.0, 0.0)
"""Shares of small, medium, large and extra large cars, and two more: the large one has most of all
corners."""
_SETTINGS = (
    "load-display p3headlessgl", "aux-display p3tinydisplay", "framebuffer-multisample 0",
    "multisamples 0", "notify-level-display fatal", "notify-level-egldisplay fatal",
    "notify-level-device fatal", "notify-level-glgsg fatal", "print-pipe-types 0",
)  # fmt: skip
_NO_ANISOTROPY = "-GL_EXT_texture_filter_anisotropic -GL_ARB_texture_filter_anisotropic"
"""For Mesa: filtering textures along the road takes a minute a frame in software."""
_WAYMO = "metadrive.utils.waymo_utils.protos.scenario_pb2"
"""Protocol buffers of Waymo's recordings, made for a library of 2022, which newer ones refuse.
MetaDrive does without where they cannot be imported."""


class Engine:
    """MetaDrive with one car of ours, stepped and seen. Use from one thread.

    Args:
        config: Maps, traffic and camera.
        height: Picture height in pixels.
        width: Picture width in pixels.

    Raises:
        ExtraMissingError: MetaDrive is not installed.
        GameError: An engine is already running in this process, or no picture can be drawn.
    """

    def __init__(self, config: MetaDriveConfig, *, height: int, width: int) -> None:
        self._config = config
        self._env = _make_env(config, height=height, width=width)
        from panda3d import core  # pyright: ignore[reportAttributeAccessIssue]

        engine = self._env.engine
        self._texture = core.Texture()
        engine.win.addRenderTexture(self._texture, core.GraphicsOutput.RTM_copy_ram)
        engine.taskMgr.remove("igLoop")
        kinds = np.array(_KINDS)
        traffic = engine.managers["traffic_manager"]
        traffic.random_vehicle_type = lambda: _random_kind(traffic.np_random, kinds)
        self._node_path = core.NodePath
        self._height, self._width = height, width
        self._seed = -1

    @property
    def car(self) -> Any:
        """The car of the last reset, MetaDrive's ``BaseVehicle``."""
        return self._env.vehicle

    @property
    def is_arrived(self) -> bool:
        """Whether the car is at the end of its route."""
        return bool(self._env._is_arrive_destination(self.car))

    @property
    def is_out_of_road(self) -> bool:
        """Whether it left the road, or is on a line that must not be crossed."""
        return bool(self._env._is_out_of_road(self.car))

    @property
    def is_crashed(self) -> bool:
        """Whether it touches another car or an object."""
        car = self.car
        return bool(car.crash_vehicle or car.crash_object or car.crash_building)

    def reset(self, seed: int, *, traffic: float) -> None:
        """Build the map of a seed, with ``traffic`` times the usual number of cars.

        Raises:
            GameError: There is no map of that seed.
        """
        if not 0 <= seed < NUM_SEEDS:
            raise GameError(f"scene.seed must lie in 0..{NUM_SEEDS - 1} for MetaDrive, got {seed}.")
        env = self._env
        env.engine.global_config["traffic_density"] = self._config.traffic_density * traffic
        env.reset(force_seed=seed)
        maps = env.engine.map_manager.maps
        if self._seed not in (-1, seed) and maps.get(self._seed) is not None:
            maps[self._seed].destroy()  # they would be kept for good
            maps[self._seed] = None
        self._seed = seed
        for other in self._others():
            for wheel in other.system.getWheels():
                self._node_path(wheel.getNode()).hide()
        if self._config.camera == "hood":
            self.car.origin.hide()

    def step(self, steering: float, pedal: float) -> None:
        """Move on by an instant; ``steering`` is positive to the right."""
        engine = self._env.engine
        engine.before_step({AGENT: [-steering, pedal]})
        engine.step(STEPS_PER_INSTANT)
        engine.after_step()

    def picture(self) -> np.ndarray:
        """What the camera sees now, RGB uint8 ``[H, W, 3]``; a view, valid until the next one."""
        engine, car = self._env.engine, self.car
        for other in self._others():
            is_far = np.linalg.norm(other.position - car.position) > _FAR_M
            (other.origin.hide if is_far else other.origin.show)()
        place, pitch = _CAMERAS[self._config.camera]
        engine.cam.reparentTo(car.origin)
        engine.cam.setPos(*place)
        engine.cam.setHpr(0.0, pitch, 0.0)
        engine.graphicsEngine.renderFrame()
        pixels = np.frombuffer(self._texture.getRamImageAs("RGB"), np.uint8)
        return pixels.reshape(self._height, self._width, 3)[::-1]

    def place(self, lane: Any, along_m: float) -> None:
        """Put the car on a lane, standing still, on its way to where it was going."""
        car = self.car
        route, final = car.navigation.checkpoints, car.navigation.checkpoints[-1]
        before = car.config["spawn_lane_index"], car.config["destination"]
        car.config["spawn_lane_index"], car.config["destination"] = lane.index, final
        heading = float(np.degrees(lane.heading_theta_at(along_m)))
        car.reset(position=np.array(lane.position(along_m, 0.0)), heading=heading)
        car.config["spawn_lane_index"], car.config["destination"] = before
        car.navigation.checkpoints = route
        car.navigation._target_checkpoints_index = _targets(route, lane.index)
        car.after_step()

    def is_free(self, place: Sequence[float] | np.ndarray, radius_m: float) -> bool:
        """Whether nobody else is near."""
        return all(
            np.linalg.norm(other.position - np.asarray(place)) > radius_m
            for other in self._others()
        )

    def close(self) -> None:
        """End the engine."""
        self._env.close()

    def _others(self) -> list[Any]:
        return [car for car in self._env.engine.traffic_manager.vehicles if car is not self.car]


def _targets(route: list[str], index: tuple[Any, ...]) -> list[int]:
    """Which two checkpoints a car on a lane heads for, as MetaDrive's navigation counts them."""
    first = route.index(index[0])
    return [first, min(first + 1, len(route) - 2)]


def _random_kind(random: Any, shares: np.ndarray) -> Any:
    kinds = importlib.import_module("metadrive.component.vehicle.vehicle_type")
    return kinds.random_vehicle_type(random, shares)


def _make_env(config: MetaDriveConfig, *, height: int, width: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = _env_class()(_settings(config, height=height, width=width))
        try:
            env.lazy_init()
        except Exception as err:  # Panda3D's own, when there is nothing to draw with
            raise GameError(
                f"MetaDrive must have OpenGL through EGL to draw with, got none ({err}). On "
                "Debian: apt install libegl1 libgl1 libgl1-mesa-dri libx11-6."
            ) from err
    return env


def _env_class() -> Any:
    """MetaDrive's environment, without observations: those are taken from the engine itself."""
    load = _load()
    if load("metadrive.engine.engine_utils").engine_initialized():
        raise GameError("There can be one MetaDrive in a process. Close the first one.")
    _switch_multisampling_off(load("metadrive.engine.core.our_pbr"))
    spaces = load("gym.spaces")

    class Blank(load("metadrive.obs.observation_base").ObservationBase):
        @property
        def observation_space(self) -> Any:
            return spaces.Dict({"image": spaces.Box(0, 1, (1,))})

        def observe(self, vehicle: Any) -> dict[str, Any]:
            return {}

    class Env(load("metadrive.envs.metadrive_env").MetaDriveEnv):
        def get_single_observation(self, vehicle_config: Any) -> Any:
            return Blank(vehicle_config)

    return Env


def _load() -> Callable[[str], Any]:
    """Prepare for MetaDrive, import it, and give what imports its modules.

    Raises:
        ExtraMissingError: It, or what it needs, is not installed.
    """
    os.environ.setdefault("MESA_EXTENSION_OVERRIDE", _NO_ANISOTROPY)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's own threads cost more than they bring
    blocked: dict[str, Any] = {_WAYMO: None}
    for name, module in blocked.items():
        sys.modules.setdefault(name, module)
    _configure_panda3d()
    silence = io.StringIO()  # what it was registered as, and that gym is old
    try:
        with redirect_stdout(silence), redirect_stderr(silence):
            importlib.import_module("metadrive.envs.metadrive_env")
    except ImportError as err:
        raise ExtraMissingError(
            f"MetaDrive 0.3.0.1 needs packages that are not installed ({err}). docs/games.md says "
            "how to install it beside this project."
        ) from err
    _configure_panda3d()  # importing it asked for other things
    return importlib.import_module


def _configure_panda3d() -> None:
    from panda3d import core  # pyright: ignore[reportAttributeAccessIssue]

    for setting in _SETTINGS:
        core.load_prc_file_data("", setting)


def _switch_multisampling_off(pipelines: Any) -> None:
    """Draw without what MetaDrive asks for in its code and software cannot do."""
    made = pipelines.OurPipeline.__init__
    if made.__name__ == "without_multisampling":
        return

    def without_multisampling(self: Any, **options: Any) -> None:
        made(self, **{**options, "msaa_samples": 0})

    pipelines.OurPipeline.__init__ = without_multisampling


def _settings(config: MetaDriveConfig, *, height: int, width: int) -> dict[str, Any]:
    return {
        "image_observation": True,
        "window_size": (width, height),
        "start_seed": 0,
        "environment_num": NUM_SEEDS,
        "map": config.blocks,
        "traffic_density": config.traffic_density,
        "physics_world_step_size": STEP_S,
        "decision_repeat": STEPS_PER_INSTANT,
        "multi_thread_render": False,
        "global_light": False,
        "disable_model_compression": True,
        "show_interface": False,
        "show_fps": False,
        "show_logo": False,
        "interface_panel": [],
        "vehicle_config": {
            "image_source": "main_camera",
            "show_navi_mark": False,
            "lidar": {"num_lasers": 0, "distance": 50},
        },
    }
