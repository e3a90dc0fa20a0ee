"""The town as Panda3D nodes: what stands still is built once per map, what moves is pooled.

Flat ground is painted in a fixed order without depth, all else by depth. Every upright node carries
in the alpha of its colour scale how much contrast the air leaves it (see ``town/weather.py``).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from panda3d import core  # pyright: ignore[reportAttributeAccessIssue]

from charles.town import meshes, sky
from charles.town.facades import facade_atlas, make_building
from charles.town.layout import Body, Pose, TownMap, WorldView
from charles.town.meshes import Mesh
from charles.town.sky import Light

_SMALL_M = 75.0
"""Trees, lamps, cars and people farther than this are a few pixels high, and are not drawn."""
_BODY_M = 5.0
"""No car or person reaches farther from its place."""
_SHARES = 12
"""Steps of contrast left; a node is touched only when it moves to another step."""
_HIDDEN, _UNKNOWN = -1, -2
"""In place of a step of contrast: not drawn, and not yet dressed in the present light."""
_PLAIN = (1.0, 1.0, 1.0)
_STRIDE_M = 1.3
_UPRIGHT = "upright"
"""The bin of all that is drawn by depth."""


def upload(mesh: Mesh) -> core.NodePath:
    """A node that shows ``mesh``; texture coordinates go with it where it has any."""
    is_textured = len(mesh.uvs) > 0
    kinds = [("point", "<f4", 3), ("colour", "u1", 4)] + [("uv", "<f4", 2)] * is_textured
    rows = np.empty(len(mesh.points), dtype=kinds)
    rows["point"], rows["colour"] = mesh.points, mesh.colours
    if is_textured:
        rows["uv"] = mesh.uvs
    # Neighbours share corners: the software renderer spends most of its time on moving corners.
    rows, corners = np.unique(rows.view(f"V{rows.itemsize}"), return_inverse=True)
    layout = core.GeomVertexFormat.get_v3c4t2() if is_textured else core.GeomVertexFormat.get_v3c4()
    data = core.GeomVertexData("mesh", layout, core.Geom.UH_static)
    data.unclean_set_num_rows(len(rows))
    data.modify_array_handle(0).copy_data_from(rows.tobytes())
    corners = corners[np.asarray(mesh.triangles).ravel()].astype(np.uint16)
    triangles = core.GeomTriangles(core.Geom.UH_static)
    triangles.set_index_type(core.GeomEnums.NT_uint16)
    array = triangles.modify_vertices()
    array.unclean_set_num_rows(len(corners))
    array.modify_handle().copy_data_from(corners.tobytes())
    geom = core.Geom(data)
    geom.add_primitive(triangles)
    node = core.GeomNode("mesh")
    node.add_geom(geom)
    return core.NodePath(node)


def share_left(distance_m: np.ndarray, light: Light) -> np.ndarray:
    """Steps of contrast, whole numbers of 0..12, that the air leaves at ``distance_m``."""
    if math.isinf(light.haze_m):
        return np.full(len(distance_m), _SHARES)
    return np.round(_SHARES * np.exp(-distance_m / light.haze_m)).astype(int)


def show(node: core.NodePath, is_shown: bool) -> None:
    """Draw a node from now on, or do not."""
    if is_shown:
        node.show()
    else:
        node.hide()


@dataclass(kw_only=True)
class _Upright:
    """A thing that stands still, and whose colour follows the light and the air."""

    place: tuple[float, float]
    node: core.NodePath
    lamp: core.NodePath | None = None
    """Shines by itself."""
    glow: core.NodePath | None = None
    """The lamp's light on the ground, a node of its own."""
    is_tinted: bool = True
    reach_m: float = 0.0
    """How far it reaches from its place."""
    seen_m: float = _SMALL_M
    """From how far it is drawn."""

    def dress(self, share: int, light: Light) -> None:
        """Set the colours; ``share`` is the contrast that the air leaves, or ``_HIDDEN``."""
        for node in (self.node, self.glow):
            if node is not None:
                show(node, share != _HIDDEN)
        if share != _HIDDEN:
            tint = light.tint if self.is_tinted else _PLAIN
            self.node.set_color_scale(*tint, share / _SHARES)
            if self.lamp is not None:
                own = _PLAIN if light.is_dark else light.tint
                self.lamp.set_color_scale(*own, math.sqrt(share / _SHARES))


class Surroundings:
    """All of a town that stands still.

    Args:
        parent: Where its nodes go.
        town: The map.
        atlas: The façades.
    """

    def __init__(self, parent: core.NodePath, town: TownMap, atlas: core.Texture) -> None:
        self.root = parent.attach_new_node("surroundings")
        self._ground = self.root.attach_new_node("ground")
        self._cells: dict[meshes.Cell, core.NodePath] = {}
        for order, cells in enumerate(meshes.make_ground(town).values(), start=1):
            layer = self._ground.attach_new_node("layer")
            _paint_flat(layer, order)
            for mesh in cells.values():
                upload(mesh).reparent_to(layer)
        self._glows = self.root.attach_new_node("glows")
        _paint_flat(self._glows, len(meshes.LAYERS) + 1)
        self._glows.set_transparency(core.TransparencyAttrib.M_alpha)
        self._glows.set_attrib(core.ShadeModelAttrib.make(core.ShadeModelAttrib.M_smooth))
        self._uprights = [
            *self._buildings(town, atlas),
            *self._trees(town),
            *self._lamp_posts(town),
        ]
        self._x, self._y = np.array([u.place for u in self._uprights]).T
        self._reach_m = np.array([u.reach_m for u in self._uprights])
        self._seen_m = np.array([u.seen_m for u in self._uprights])
        self._shares = np.full(len(self._uprights), _UNKNOWN)

    def _cell(self, place: meshes.Point) -> core.NodePath:
        cell = meshes.cell_of(place)
        if cell not in self._cells:
            self._cells[cell] = self.root.attach_new_node("cell")
            self._cells[cell].set_bin(_UPRIGHT, 0)
        return self._cells[cell]

    def _buildings(self, town: TownMap, atlas: core.Texture) -> Iterable[_Upright]:
        for building in town.buildings:
            node = upload(make_building(building))
            node.set_texture(atlas)
            node.reparent_to(self._cell(building.position))
            x, y = building.position
            reach_m = min(building.size_m[:2]) / 2.0
            yield _Upright(
                place=(x, y), node=node, is_tinted=False, reach_m=reach_m, seen_m=math.inf
            )

    def _trees(self, town: TownMap) -> Iterable[_Upright]:
        kinds = [upload(meshes.make_tree(seed)) for seed in range(8)]
        for i, tree in enumerate(town.trees):
            node = kinds[i % len(kinds)].copy_to(self._cell(tree.position))
            x, y = tree.position
            node.set_pos_hpr_scale((x, y, 0.0), (47.0 * i % 360.0, 0.0, 0.0), (tree.height_m,) * 3)
            yield _Upright(place=(x, y), node=node)

    def _lamp_posts(self, town: TownMap) -> Iterable[_Upright]:
        post, lamp, glow = (upload(mesh) for mesh in meshes.make_lamp_post())
        for x, y, heading in meshes.lamp_post_places(town):
            node = self._cell((x, y)).attach_new_node("lamp post")
            light = glow.copy_to(self._glows)
            for part in (node, light):
                part.set_pos_hpr(x, y, 0.0, math.degrees(heading), 0.0, 0.0)
            yield _Upright(place=(x, y), node=node, lamp=lamp.copy_to(node), glow=light)
            post.copy_to(node)

    def update(self, light: Light, x: float, y: float, *, is_new_light: bool) -> None:
        """Follow the light, and the distances from the camera at ``x``, ``y``."""
        if is_new_light:
            self._ground.set_color_scale(*_ground_tint(light), 1.0)
            show(self._glows, light.is_dark)
            self._shares[:] = _UNKNOWN
        far = np.hypot(self._x - x, self._y - y) - self._reach_m
        shares = np.where(far < self._seen_m, share_left(np.maximum(far, 0.0), light), _HIDDEN)
        for index in np.flatnonzero(shares != self._shares).tolist():
            self._uprights[index].dress(int(shares[index]), light)
        self._shares = shares


def _paint_flat(node: core.NodePath, order: int) -> None:
    node.set_bin("background", order)
    node.set_depth_test(False)
    node.set_depth_write(False)


def _ground_tint(light: Light) -> np.ndarray:
    return light.tint * (0.78 if light.weather == "rain" else 1.0)


class _Figure:
    """A car or a pedestrian that can be posed.

    Args:
        parent: Where its nodes go.
        bodies: Moments of a step and, last, standing still; or the one shape of a car.
        lamps: A car's while it brakes, and at night.
    """

    def __init__(
        self, parent: core.NodePath, bodies: Sequence[Mesh], lamps: Sequence[Mesh] = ()
    ) -> None:
        self.node = parent.attach_new_node("figure")
        self._switch = core.SwitchNode("bodies")
        self._body = self.node.attach_new_node(self._switch)
        self._num_strides = len(bodies) - 1
        self._lamps = [upload(mesh) for mesh in lamps]
        for mesh in bodies:
            upload(mesh).reparent_to(self._body)
        for lamp in self._lamps:
            lamp.reparent_to(self.node)
        self._look: tuple[int, bool, Light] | None = None

    def pose(self, body: Body, share: int, light: Light, time_s: float) -> None:
        """Show ``body``; ``share`` is the contrast that the air leaves."""
        self.node.set_pos_hpr(body.x, body.y, 0.0, math.degrees(body.heading), 0.0, 0.0)
        look = (share, body.is_braking, light)
        if look != self._look:
            self._look = look
            self._body.set_color_scale(*light.tint, share / _SHARES)
            for lamp, is_on in zip(self._lamps, (body.is_braking, light.is_dark), strict=False):
                show(lamp, is_on)
                lamp.set_color_scale(*_PLAIN, math.sqrt(share / _SHARES))
        if self._num_strides:
            stride = self._num_strides
            if body.speed_mps > 0.1:
                steps = time_s * body.speed_mps / _STRIDE_M + 0.37 * body.style
                stride = int(steps * self._num_strides) % self._num_strides
            self._switch.set_visible_child(stride)


def _make_car(parent: core.NodePath, style: int) -> _Figure:
    body, *lamps = meshes.make_car(style)
    return _Figure(parent, [body], lamps)


def _make_pedestrian(parent: core.NodePath, style: int) -> _Figure:
    strides = range(meshes.NUM_STRIDES + 1)
    return _Figure(parent, [meshes.make_pedestrian(style, stride) for stride in strides])


class _Pool:
    """Nodes for bodies, made once per style and used again from instant to instant."""

    def __init__(self, make: Callable[[int], _Figure], num_styles: int) -> None:
        self._make, self._num_styles = make, num_styles
        self._members: dict[int, list[_Figure]] = defaultdict(list)
        self._shown: set[_Figure] = set()

    def place(self, bodies: Sequence[Body], light: Light, camera: Pose, time_s: float) -> None:
        """Show those of ``bodies`` that are near enough and not behind, and nothing else."""
        x, y, heading = camera
        cos, sin = math.cos(heading), math.sin(heading)
        near = []
        for body in bodies:
            dx, dy = body.x - x, body.y - y
            far = math.hypot(dx, dy)
            if far < _SMALL_M and dx * cos + dy * sin > -_BODY_M:
                near.append((body, far))
        shares = share_left(np.array([far for _, far in near]), light)
        used: dict[int, int] = defaultdict(int)
        shown = set()
        for (body, _), share in zip(near, shares.tolist(), strict=True):
            style = body.style % self._num_styles
            members = self._members[style]
            if used[style] == len(members):
                members.append(self._make(style))
            figure = members[used[style]]
            figure.pose(body, share, light, time_s)
            shown.add(figure)
            used[style] += 1
        for figure in shown - self._shown:
            figure.node.show()
        for figure in self._shown - shown:
            figure.node.hide()
        self._shown = shown


class Scene:
    """Everything there is to draw. Owns its nodes; use from one thread."""

    def __init__(self) -> None:
        self.root = core.NodePath("town")
        self.root.set_attrib(core.ShadeModelAttrib.make(core.ShadeModelAttrib.M_flat))
        # The camera is mirrored top to bottom, so that rows come out in the order of an image.
        self.root.set_attrib(core.CullFaceAttrib.make_reverse())
        self._atlas = core.Texture("facades")
        self._sky = core.NodePath("sky")
        self._town: tuple[int, tuple[float, ...]] | None = None
        self._surroundings: Surroundings | None = None
        self._light: Light | None = None
        # What is near is drawn first and hides what is far before that is coloured.
        bins = core.CullBinManager.get_global_ptr()
        if bins.find_bin(_UPRIGHT) < 0:
            bins.add_bin(_UPRIGHT, core.CullBinManager.BT_front_to_back, 20)
        bodies = self.root.attach_new_node("bodies")
        bodies.set_bin(_UPRIGHT, 0)
        self._cars = _Pool(partial(_make_car, bodies), meshes.NUM_CAR_STYLES)
        make_pedestrian = partial(_make_pedestrian, bodies)
        self._pedestrians = _Pool(make_pedestrian, meshes.NUM_PEDESTRIAN_STYLES)
        self._ring, self._column = (upload(mesh) for mesh in meshes.make_marker())
        self._ring.reparent_to(self.root)
        _paint_flat(self._ring, len(meshes.LAYERS) + 2)
        self._column.reparent_to(self.root)
        self._column.set_transparency(core.TransparencyAttrib.M_alpha)
        self._column.set_color_scale(1.0, 1.0, 1.0, 0.75)
        self._column.set_depth_write(False)

    def update(self, view: WorldView, light: Light, camera: Pose, *, with_ego: bool) -> None:
        """Show ``view`` in ``light``, as seen from ``camera``."""
        town, is_new_light = (view.map.seed, view.map.extent_m), light is not self._light
        if self._surroundings is None or town != self._town:
            if self._surroundings is not None:
                self._surroundings.root.remove_node()
            self._surroundings = Surroundings(self.root, view.map, self._atlas)
            self._town = town
            is_new_light = True
        if is_new_light:
            self._relight(light, view.map.seed)
        self._surroundings.update(light, *camera[:2], is_new_light=is_new_light)
        self._sky.set_pos(*camera[:2], 1.3)
        cars = (*view.vehicles, view.ego) if with_ego else view.vehicles
        self._cars.place(cars, light, camera, view.time_s)
        self._pedestrians.place(view.pedestrians, light, camera, view.time_s)
        for node in (self._ring, self._column):
            node.set_pos(*view.marker, 0.0)

    def _relight(self, light: Light, seed: int) -> None:
        self._light = light
        atlas = facade_atlas(light)
        height, width = atlas.shape[:2]
        self._atlas.setup_2d_texture(
            width, height, core.Texture.T_unsigned_byte, core.Texture.F_rgba
        )
        self._atlas.set_ram_image(atlas.tobytes())
        self._atlas.set_minfilter(core.SamplerState.FT_nearest_mipmap_nearest)
        self._atlas.set_magfilter(core.SamplerState.FT_nearest)
        self._sky.remove_node()
        self._sky = upload(sky.make_sky(light, seed))
        self._sky.reparent_to(self.root)
        self._sky.set_attrib(core.ShadeModelAttrib.make(core.ShadeModelAttrib.M_smooth))
        self._sky.set_two_sided(True)
        _paint_flat(self._sky, 0)

    def background(self, light: Light) -> np.ndarray:
        """Colour of bare ground, float64 ``[3]`` in 0..1."""
        return np.array(meshes.GRASS) / 255.0 * _ground_tint(light)
