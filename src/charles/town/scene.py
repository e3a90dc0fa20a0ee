"""The town as Panda3D nodes: what stands still is built once per map, what moves is pooled.

Flat ground is painted in a fixed order without depth, all else by depth. Every upright node carries
in the alpha of its colour scale how much contrast the air leaves it (see ``town/weather.py``).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from panda3d import core  # pyright: ignore[reportAttributeAccessIssue]

from charles.town import meshes, sky
from charles.town.facades import facade_atlas, make_building
from charles.town.layout import Body, TownMap, WorldView
from charles.town.meshes import Mesh
from charles.town.sky import Light

_SMALL_M = 75.0
"""Trees, lamps, cars and people farther than this are a few pixels high, and are not drawn."""
_SHARES = 12
"""Steps of contrast left; a node is touched only when it moves to another step."""
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
    """Steps of contrast, int64 of 0..12, that the air leaves at ``distance_m``."""
    return np.round(_SHARES * np.exp(-distance_m / light.haze_m)).astype(np.int64)


def _show(node: core.NodePath, is_shown: bool) -> None:
    if is_shown:
        node.show()
    else:
        node.hide()


class _Upright:
    """A node whose colour follows the light and the air; ``lamp``, if any, shines by itself.

    ``glow`` is the lamp's light on the ground, a node of its own.
    """

    def __init__(
        self,
        node: core.NodePath,
        lamp: core.NodePath | None = None,
        glow: core.NodePath | None = None,
        *,
        is_tinted: bool = True,
    ) -> None:
        self.node, self.lamp, self.glow = node, lamp, glow
        self._is_tinted = is_tinted

    def show(self, is_shown: bool) -> None:
        """Draw it from now on, or do not."""
        for node in (self.node, self.glow):
            if node is not None:
                _show(node, is_shown)

    def dress(self, share: int, light: Light) -> None:
        """Set the colours; ``share`` is the contrast that the air leaves."""
        tint = light.tint if self._is_tinted else _PLAIN
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
        self._root = parent.attach_new_node("surroundings")
        self._ground = self._root.attach_new_node("ground")
        self._cells: dict[meshes.Cell, core.NodePath] = {}
        for order, (_, cells) in enumerate(meshes.make_ground(town).items(), start=1):
            layer = self._ground.attach_new_node("layer")
            _paint_flat(layer, order)
            for mesh in cells.values():
                upload(mesh).reparent_to(layer)
        self._uprights: list[_Upright] = []
        self._places: list[tuple[float, float, float]] = []  # x, y, and how far it reaches
        self._glows = self._root.attach_new_node("glows")
        _paint_flat(self._glows, len(meshes.LAYERS) + 1)
        self._glows.set_transparency(core.TransparencyAttrib.M_alpha)
        self._glows.set_attrib(core.ShadeModelAttrib.make(core.ShadeModelAttrib.M_smooth))
        self._add_buildings(town, atlas)
        self._add_trees(town)
        self._add_lamp_posts(town)
        self._where = np.array(self._places).reshape(-1, 3)
        # Buildings were added first; all after them is small.
        self._is_small = np.arange(len(self._uprights)) >= len(town.buildings)
        self._is_shown = np.full(len(self._uprights), True)
        self._shares = np.full(len(self._uprights), -1)

    def _cell(self, place: meshes.Point) -> core.NodePath:
        cell = meshes.cell_of(place)
        if cell not in self._cells:
            self._cells[cell] = self._root.attach_new_node("cell")
            self._cells[cell].set_bin(_UPRIGHT, 0)
        return self._cells[cell]

    def _add_buildings(self, town: TownMap, atlas: core.Texture) -> None:
        for building in town.buildings:
            node = upload(make_building(building))
            node.set_texture(atlas)
            node.reparent_to(self._cell(building.position))
            self._uprights.append(_Upright(node, is_tinted=False))
            self._places.append((*building.position, min(building.size_m[:2]) / 2.0))

    def _add_trees(self, town: TownMap) -> None:
        kinds = [upload(meshes.make_tree(seed)) for seed in range(8)]
        for i, tree in enumerate(town.trees):
            node = kinds[i % len(kinds)].copy_to(self._cell(tree.position))
            x, y = tree.position
            node.set_pos_hpr_scale((x, y, 0.0), (47.0 * i % 360.0, 0.0, 0.0), (tree.height_m,) * 3)
            self._uprights.append(_Upright(node))
            self._places.append((x, y, 0.0))

    def _add_lamp_posts(self, town: TownMap) -> None:
        post, lamp, glow = (upload(mesh) for mesh in meshes.make_lamp_post())
        for x, y, heading in meshes.lamp_post_places(town):
            place = self._cell((x, y)).attach_new_node("lamp post")
            place.set_pos_hpr(x, y, 0.0, math.degrees(heading), 0.0, 0.0)
            light = glow.copy_to(self._glows)
            light.set_pos_hpr(x, y, 0.0, math.degrees(heading), 0.0, 0.0)
            self._uprights.append(_Upright(place, lamp.copy_to(place), light))
            self._places.append((x, y, 0.0))
            post.copy_to(place)

    def update(self, light: Light, x: float, y: float, *, is_new_light: bool) -> None:
        """Follow the light, and the distances from the camera at ``x``, ``y``."""
        if is_new_light:
            self._ground.set_color_scale(*_ground_tint(light), 1.0)
            _show(self._glows, light.is_dark)
            self._shares[:] = -1
        far = np.hypot(self._where[:, 0] - x, self._where[:, 1] - y) - self._where[:, 2]
        is_shown = ~self._is_small | (far < _SMALL_M)
        for index in np.flatnonzero(is_shown != self._is_shown).tolist():
            self._uprights[index].show(bool(is_shown[index]))
        self._is_shown = is_shown
        if math.isinf(light.haze_m) and not is_new_light:
            return
        shares = share_left(np.maximum(far, 0.0), light)
        for index in np.flatnonzero(shares != self._shares).tolist():
            self._uprights[index].dress(int(shares[index]), light)
        self._shares = shares

    def remove(self) -> None:
        """Take all nodes out of the scene."""
        self._root.remove_node()


def _paint_flat(node: core.NodePath, order: int) -> None:
    node.set_bin("background", order)
    node.set_depth_test(False)
    node.set_depth_write(False)


def _ground_tint(light: Light) -> np.ndarray:
    is_wet = 50.0 < light.haze_m < math.inf
    return light.tint * (0.78 if is_wet else 1.0)


class _Car:
    """A car that can be posed."""

    def __init__(self, parent: core.NodePath, style: int) -> None:
        self.node = parent.attach_new_node("car")
        body, brakes, lamps = (upload(mesh) for mesh in meshes.make_car(style))
        for node in (body, brakes, lamps):
            node.reparent_to(self.node)
        self._body, self._brakes, self._lamps = body, brakes, lamps
        self._look: tuple[int, bool, Light] | None = None

    def pose(self, body: Body, share: int, light: Light, time_s: float) -> None:
        """Show ``body``; ``share`` is the contrast that the air leaves."""
        self.node.set_pos_hpr(body.x, body.y, 0.0, math.degrees(body.heading), 0.0, 0.0)
        look = (share, body.is_braking, light)
        if look == self._look:
            return
        self._look = look
        self._body.set_color_scale(*light.tint, share / _SHARES)
        for lamps, is_on in ((self._brakes, body.is_braking), (self._lamps, light.is_dark)):
            _show(lamps, is_on)
            lamps.set_color_scale(1.0, 1.0, 1.0, math.sqrt(share / _SHARES))


class _Pedestrian:
    """A pedestrian that can be posed."""

    def __init__(self, parent: core.NodePath, style: int) -> None:
        self._switch = core.SwitchNode("pedestrian")
        self.node = parent.attach_new_node(self._switch)
        for stride in range(meshes.NUM_STRIDES + 1):
            upload(meshes.make_pedestrian(style, stride)).reparent_to(self.node)
        self._look: tuple[int, Light] | None = None

    def pose(self, body: Body, share: int, light: Light, time_s: float) -> None:
        """Show ``body``; ``share`` is the contrast that the air leaves."""
        self.node.set_pos_hpr(body.x, body.y, 0.0, math.degrees(body.heading), 0.0, 0.0)
        if (share, light) != self._look:
            self._look = (share, light)
            self.node.set_color_scale(*light.tint, share / _SHARES)
        stride = meshes.NUM_STRIDES
        if body.speed_mps > 0.1:
            steps = time_s * body.speed_mps / _STRIDE_M + 0.37 * body.style
            stride = int(steps * meshes.NUM_STRIDES) % meshes.NUM_STRIDES
        self._switch.set_visible_child(stride)


class _Pool:
    """Nodes for bodies, made once per style and used again from instant to instant."""

    def __init__(self, make: Callable[[int], _Car | _Pedestrian], num_styles: int) -> None:
        self._make = make
        self._num_styles = num_styles
        self._members: dict[int, list[_Car | _Pedestrian]] = defaultdict(list)
        self._used: dict[int, int] = {}

    def place(
        self, bodies: Sequence[Body], light: Light, camera: tuple[float, float], time_s: float
    ) -> None:
        """Show those of ``bodies`` that are near enough, and nothing else."""
        used: dict[int, int] = defaultdict(int)
        x, y = camera
        near = [(body, math.hypot(body.x - x, body.y - y)) for body in bodies]
        near = [(body, far) for body, far in near if far < _SMALL_M]
        shares = share_left(np.array([far for _, far in near]), light).tolist()
        for (body, _), share in zip(near, shares, strict=True):
            style = body.style % self._num_styles
            members, index = self._members[style], used[style]
            if index == len(members):
                members.append(self._make(style))
            elif index >= self._used.get(style, 0):
                members[index].node.show()
            members[index].pose(body, share, light, time_s)
            used[style] += 1
        for style, count in self._used.items():
            for member in self._members[style][used[style] : count]:
                member.node.hide()
        self._used = dict(used)


class Scene:
    """Everything there is to draw. Owns its nodes; use from one thread."""

    def __init__(self) -> None:
        self.root = core.NodePath("town")
        self.root.set_attrib(core.ShadeModelAttrib.make(core.ShadeModelAttrib.M_flat))
        # The camera is mirrored top to bottom, so that rows come out in the order of an image.
        self.root.set_attrib(core.CullFaceAttrib.make_reverse())
        self._atlas = core.Texture("facades")
        self._sky: core.NodePath | None = None
        self._town: TownMap | None = None
        self._surroundings: Surroundings | None = None
        self._light: Light | None = None
        # What is near is drawn first and hides what is far before that is coloured.
        bins = core.CullBinManager.get_global_ptr()
        if bins.find_bin(_UPRIGHT) < 0:
            bins.add_bin(_UPRIGHT, core.CullBinManager.BT_front_to_back, 20)
        bodies = self.root.attach_new_node("bodies")
        bodies.set_bin(_UPRIGHT, 0)
        self._cars = _Pool(lambda style: _Car(bodies, style), meshes.NUM_CAR_STYLES)
        self._pedestrians = _Pool(
            lambda style: _Pedestrian(bodies, style), meshes.NUM_PEDESTRIAN_STYLES
        )
        self._ring, self._column = (upload(mesh) for mesh in meshes.make_marker())
        self._ring.reparent_to(self.root)
        _paint_flat(self._ring, len(meshes.LAYERS) + 2)
        self._column.reparent_to(self.root)
        self._column.set_transparency(core.TransparencyAttrib.M_alpha)
        self._column.set_color_scale(1.0, 1.0, 1.0, 0.75)
        self._column.set_depth_write(False)

    def update(
        self, view: WorldView, light: Light, camera: tuple[float, float], *, with_ego: bool
    ) -> None:
        """Show ``view`` in ``light``, as seen from ``camera``, world x and y."""
        is_new_light = light is not self._light
        if not _is_same_town(self._town, view.map):
            if self._surroundings is not None:
                self._surroundings.remove()
            self._surroundings = Surroundings(self.root, view.map, self._atlas)
            self._town = view.map
            is_new_light = True
        if is_new_light:
            self._relight(light, view.map.seed)
        if self._surroundings is not None:
            self._surroundings.update(light, *camera, is_new_light=is_new_light)
        if self._sky is not None:
            self._sky.set_pos(*camera, 1.3)
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
        if self._sky is not None:
            self._sky.remove_node()
        dome = upload(sky.make_sky(light, seed))
        dome.reparent_to(self.root)
        dome.set_attrib(core.ShadeModelAttrib.make(core.ShadeModelAttrib.M_smooth))
        dome.set_two_sided(True)
        _paint_flat(dome, 0)
        self._sky = dome

    def background(self, light: Light) -> np.ndarray:
        """Colour of bare ground, float64 ``[3]`` in 0..1."""
        return np.array(meshes.GRASS) / 255.0 * _ground_tint(light)


def _is_same_town(known: TownMap | None, town: TownMap) -> bool:
    if known is None or known is town:
        return known is town
    same = (known.seed, known.extent_m, len(known.buildings), len(known.trees))
    return same == (town.seed, town.extent_m, len(town.buildings), len(town.trees))
