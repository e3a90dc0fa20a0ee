"""Town's cameras: a :class:`WorldView` in, a picture out. Software only, no display needed."""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from panda3d import core  # pyright: ignore[reportAttributeAccessIssue]

from charles.errors import GameError, require
from charles.town import meshes, sky
from charles.town.layout import Pose, WorldView
from charles.town.scene import Scene, show, upload
from charles.town.tinydisplay import make_pipe
from charles.town.weather import View, Weather

Camera = Literal["hood", "chase", "rear"]
CAMERAS: tuple[Camera, ...] = ("hood", "chase", "rear")
"""What the network sees; what is behind and above, for people; and a spare one, at the tail."""

FIELD_OF_VIEW = math.radians(80.0)
"""Horizontal field of view of every camera."""
_FOCAL = 1.0 / math.tan(FIELD_OF_VIEW / 2.0)
VIEWS: dict[str, View] = {
    "hood": View(ahead_m=0.7, height_m=1.3, pitch=math.radians(-4.0), focal=_FOCAL),
    "chase": View(ahead_m=-7.5, height_m=3.4, pitch=math.radians(-13.0), focal=_FOCAL),
    "rear": View(ahead_m=-2.2, height_m=1.1, pitch=math.radians(-6.0), focal=_FOCAL, yaw=math.pi),
}
_SILENCE = "notify-level-x11display fatal"
"""Panda3D looks for a display that we do not need, and would say that there is none."""
_FAR_M, _FAR_IN_FOG_M = 140.0, 100.0


class Renderer:
    """Draws a town into memory that the caller owns.

    A process may own several renderers, and several processes may own one each. Use from one
    thread. The same view always gives the same bytes.

    Args:
        height: Picture height in pixels.
        width: Picture width in pixels.

    Raises:
        ConfigError: A size is not positive.
        GameError: The software renderer cannot be loaded.
    """

    def __init__(self, height: int, width: int) -> None:
        require(height > 0, "height", "be positive", height)
        require(width > 0, "width", "be positive", width)
        self.shape = (height, width)
        """Height and width of its pictures, in pixels."""
        core.load_prc_file_data("", _SILENCE)
        pipe = make_pipe()
        self._engine = core.GraphicsEngine(pipe)
        wanted = core.FrameBufferProperties()
        wanted.set_rgba_bits(8, 8, 8, 8)
        wanted.set_depth_bits(24)
        size = core.WindowProperties.size(width, height)
        options = core.GraphicsPipe.BF_refuse_window
        self._buffer = self._engine.make_output(pipe, "town", 0, wanted, size, options)
        if self._buffer is None:
            raise GameError(f"Town's renderer cannot draw pictures of {width} x {height} pixels.")
        self._picture = core.Texture("picture")
        self._buffer.add_render_texture(self._picture, core.GraphicsOutput.RTM_copy_ram)
        self._scene = Scene()
        self._lens = core.PerspectiveLens()
        tall = math.degrees(2.0 * math.atan(height / width / _FOCAL))
        self._lens.set_fov(math.degrees(FIELD_OF_VIEW), tall)
        self._camera = self._scene.root.attach_new_node(core.Camera("camera", self._lens))
        self._buffer.make_display_region().set_camera(self._camera)
        self._bonnet = upload(meshes.make_bonnet())
        self._bonnet.reparent_to(self._camera)
        self._bonnet.set_sz(-1.0)  # undoes the camera's mirroring
        self._bonnet.set_bin("fixed", 10)
        self._bonnet.set_depth_test(False)
        self._bonnet.set_two_sided(True)
        self._weather = lru_cache(maxsize=8)(
            lambda camera, light: Weather(VIEWS[camera], height, width, light)
        )

    def render(self, view: WorldView, out: np.ndarray, camera: Camera = "hood") -> None:
        """Draw one instant.

        Args:
            view: What there is to see.
            out: Written, RGB uint8 ``[H, W, 3]``, C-contiguous.
            camera: One of :data:`CAMERAS`.

        Raises:
            GameError: ``out`` has another shape, type or memory order.
        """
        buffer = self._check(out)
        hour = round(view.time_of_day_h / sky.HOUR_STEP) * sky.HOUR_STEP
        light = sky.light_at(view.weather, hour)
        place = self._aim(view, VIEWS[camera])
        self._scene.update(view, light, place, with_ego=camera == "chase")
        paint = np.array(meshes.PAINTS[view.ego.style % len(meshes.PAINTS)]) / 255.0
        self._bonnet.set_color_scale(*(paint * light.tint), 1.0)
        show(self._bonnet, camera == "hood")
        self._lens.set_near_far(0.3, _FAR_IN_FOG_M if light.weather == "fog" else _FAR_M)
        buffer.set_clear_color((*self._scene.background(light), 0.0))
        self._engine.render_frame()
        # Panda3D keeps every place that a node ever had until it is told to look which are in use.
        core.TransformState.garbage_collect()
        core.RenderState.garbage_collect()
        raw = np.frombuffer(memoryview(self._picture.get_ram_image()), np.uint8)
        self._weather(camera, light).finish(raw.reshape(*self.shape, 4), out, view.time_s)

    def close(self) -> None:
        """Release the renderer. May be called twice."""
        if self._buffer is not None:
            self._engine.remove_window(self._buffer)
            self._buffer = None

    def _check(self, out: np.ndarray) -> core.GraphicsOutput:
        """Refuse foreign memory; what there is to draw into."""
        if out.shape != (*self.shape, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            height, width = self.shape
            raise GameError(
                f"Expected out as C-contiguous uint8 [{height}, {width}, 3], "
                f"got {out.dtype} {list(out.shape)}."
            )
        if self._buffer is None:
            raise GameError("Renderer must be open to draw, got one that is closed.")
        return self._buffer

    def _aim(self, view: WorldView, seat: View) -> Pose:
        ego = view.ego
        x = ego.x + seat.ahead_m * math.cos(ego.heading)
        y = ego.y + seat.ahead_m * math.sin(ego.heading)
        heading = ego.heading + seat.yaw
        turn = (math.degrees(heading) - 90.0, math.degrees(seat.pitch), 0.0)
        self._camera.set_pos_hpr_scale((x, y, seat.height_m), turn, (1.0, 1.0, -1.0))
        return x, y, heading
