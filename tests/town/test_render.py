"""What the cameras show, on a straight street made by hand and in generated towns."""

import hashlib
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from panda3d import core

from charles.errors import ConfigError, GameError
from charles.town.layout import Body, Building, Crosswalk, Junction, Road, TownMap, Tree, WorldView
from charles.town.map import make_map
from charles.town.render import Renderer

HEIGHT, WIDTH = 135, 240


def make_street() -> TownMap:
    """One street due east along y = 0, with a house on each side, a tree and a crosswalk."""
    centre = np.stack([np.arange(0.0, 102.0, 2.0), np.zeros(51)], axis=1)
    square = np.array([(-5.0, -3.5), (5.0, -3.5), (5.0, 3.5), (-5.0, 3.5)])
    ends = tuple(
        Junction(position=np.array([x, 0.0]), outline=np.add(square, (x, 0.0)), roads=(0,))
        for x in (-5.0, 105.0)
    )
    house = {"size_m": (60.0, 10.0, 9.0), "heading": 0.0}
    houses = tuple(
        Building(position=np.array([50.0, y]), style=style, **house)
        for style, y in enumerate((-13.0, 13.0))
    )
    zebra = Crosswalk(start=np.array([60.0, -3.5]), end=np.array([60.0, 3.5]), width_m=3.5)
    return TownMap(
        seed=0,
        roads=(Road(centre=centre, lanes_per_direction=1, lane_width_m=3.5, junctions=(0, 1)),),
        junctions=ends,
        crosswalks=(zebra,),
        buildings=houses,
        trees=(Tree(position=np.array([15.0, 8.0]), height_m=6.0),),
        extent_m=(-50.0, -50.0, 150.0, 50.0),
    )


STREET = make_street()


def body(x: float, y: float, style: int = 0, **changes: object) -> Body:
    return Body(x, y, 0.0, 5.0, 0.0, False, style)._replace(**changes)


def make_view(**changes: object) -> WorldView:
    """The ego in its lane at x = 10, alone, at noon in clear weather."""
    view = WorldView(
        map=STREET,
        ego=body(10.0, -1.75, style=1),
        vehicles=(),
        pedestrians=(),
        marker=(400.0, 400.0),
        weather="clear",
        time_of_day_h=12.0,
        time_s=1.0,
    )
    return replace(view, **changes)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    made = Renderer(HEIGHT, WIDTH)
    yield made
    made.close()


def draw(renderer: Renderer, view: WorldView, camera: str = "hood") -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    renderer.render(view, out, camera)
    return out


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pixels that differ clearly, bool ``[H, W]``."""
    return np.abs(first.astype(int) - second).max(axis=2) > 40


def is_red(frame: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(frame.astype(int), 2, 0)
    return (red > 200) & (green < 70) & (blue < 70)


def busy_view() -> WorldView:
    cars = tuple(body(22.0 + 8.0 * k, (-1.75, 1.75)[k % 2], style=7 * k) for k in range(4))
    walkers = tuple(body(20.0 + 5.0 * k, -5.0, style=k) for k in range(3))
    return make_view(vehicles=cars, pedestrians=walkers, marker=(50.0, -1.75))


@pytest.mark.parametrize("weather", ["clear", "overcast", "rain", "fog"])
@pytest.mark.parametrize("hour", [0.0, 12.0, 19.0])
def test_same_view_gives_identical_bytes_whatever_was_drawn_before(renderer, weather, hour):
    view = replace(busy_view(), weather=weather, time_of_day_h=hour)
    first = draw(renderer, view)
    draw(renderer, make_view(weather="fog"), "chase")
    draw(renderer, make_view(vehicles=(body(20.0, 1.75, style=3),)))
    assert np.array_equal(draw(renderer, view), first)


def test_every_process_draws_the_same_bytes(renderer):
    program = (
        "import sys; sys.path.insert(0, 'tests/town')\n"
        "import hashlib, numpy as np, test_render as t\n"
        "renderer = t.Renderer(t.HEIGHT, t.WIDTH)\n"
        "print(hashlib.sha256(t.draw(renderer, t.busy_view())).hexdigest())\n"
        "renderer.close()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    environment = {"PYTHONPATH": "src", "PATH": ""}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    wanted = hashlib.sha256(draw(renderer, busy_view())).hexdigest()
    for process in started:
        output, noise = process.communicate(timeout=60)
        assert output.decode().strip() == wanted, noise.decode()
        assert noise == b"", "the renderer must not write to the console"


def test_renderers_one_after_another_in_one_process_agree():
    frames = []
    for _ in range(2):
        one = Renderer(HEIGHT, WIDTH)
        frames.append(draw(one, busy_view()))
        one.close()
        one.close()
    assert np.array_equal(*frames)


def test_weather_and_time_of_day_change_the_whole_picture(renderer):
    moods = [("clear", 12.0), ("overcast", 12.0), ("rain", 12.0), ("fog", 12.0), ("clear", 0.0),
             ("clear", 19.0)]  # fmt: skip
    frames = [draw(renderer, make_view(weather=w, time_of_day_h=h)) for w, h in moods]
    for i, first in enumerate(frames):
        for second in frames[:i]:
            assert np.abs(first.astype(int) - second).mean() > 8.0
    noon, night = frames[0], frames[4]
    assert night.mean() < 0.6 * noon.mean()


def test_rain_moves_with_time(renderer):
    first, second = (draw(renderer, make_view(weather="rain", time_s=t)) for t in (1.0, 1.1))
    assert (first != second).any(axis=2).mean() > 0.02


def test_fog_leaves_what_is_near_and_hides_what_is_far(renderer):
    def contrast(x: float) -> float:
        car = make_view(weather="fog", vehicles=(body(x, -1.75, style=4),))
        empty = draw(renderer, replace(car, vehicles=()))
        return float(np.abs(draw(renderer, car).astype(int) - empty).max())

    assert contrast(20.0) > 90
    assert contrast(100.0) < 30


def test_sky_is_above_the_road_and_lines_lie_on_both_sides_of_the_lane(renderer):
    frame = draw(renderer, make_view()).astype(int)
    assert frame[2, WIDTH // 2, 2] > frame[2, WIDTH // 2, 0] + 40, "blue sky in the top row"
    row = frame[HEIGHT * 3 // 4]
    yellow = np.flatnonzero((row[:, 0] > 200) & (row[:, 2] < 90))
    white = np.flatnonzero(row.min(axis=1) > 215)
    assert len(yellow) > 0
    assert yellow.max() < WIDTH // 2, "the middle of the road is on the left"
    assert white.min() > WIDTH // 2, "its edge is on the right"
    assert (row[WIDTH // 2] < 100).all(), "asphalt lies ahead"


@pytest.mark.parametrize(("y", "side"), [(1.75, "left"), (-5.0, "right")])
def test_what_is_on_a_side_shows_on_that_side(renderer, y, side):
    seen = changed(
        draw(renderer, make_view()), draw(renderer, make_view(vehicles=(body(24.0, y),)))
    )
    columns = np.flatnonzero(seen.any(axis=0))
    assert len(columns) > 8
    assert (columns.mean() < WIDTH / 2) == (side == "left")


def test_braking_lights_up_red(renderer):
    ahead = body(22.0, -1.75, style=5)
    dark = draw(renderer, make_view(vehicles=(ahead,)))
    bright = draw(renderer, make_view(vehicles=(ahead._replace(is_braking=True),)))
    assert is_red(dark).sum() == 0
    assert is_red(bright).sum() > 40


def test_walking_legs_move_and_standing_ones_do_not(renderer):
    def legs(speed: float, time_s: float) -> np.ndarray:
        walker = body(16.0, -1.75, heading=math.pi / 2.0, speed_mps=speed)
        return draw(renderer, make_view(pedestrians=(walker,), time_s=time_s))

    assert changed(legs(1.3, 1.0), legs(1.3, 1.35)).sum() > 10
    assert np.array_equal(legs(0.0, 1.0), legs(0.0, 1.35))


def test_bodies_that_left_are_gone(renderer):
    empty = draw(renderer, make_view())
    assert changed(draw(renderer, busy_view()), empty).sum() > 100
    assert np.array_equal(draw(renderer, make_view()), empty)


def test_chase_camera_shows_the_own_car(renderer):
    other_paint = make_view(ego=body(10.0, -1.75, style=0))
    seen = changed(draw(renderer, make_view(), "chase"), draw(renderer, other_paint, "chase"))
    rows, columns = np.nonzero(seen)
    assert len(rows) > 200
    assert abs(columns.mean() - WIDTH / 2) < 10


def test_another_town_replaces_the_first_and_the_first_comes_back_unchanged(renderer):
    first = draw(renderer, make_view())
    town = make_map(3)
    road = town.roads[0].centre
    step = road[5] - road[4]
    ego = Body(*road[4], math.atan2(step[1], step[0]), 5.0, 0.0, False, 0)
    assert changed(draw(renderer, make_view(map=town, ego=ego)), first).mean() > 0.2
    assert np.array_equal(draw(renderer, make_view()), first)


def test_marker_is_seen_from_afar_and_leaves_the_lane_free(renderer):
    marked = draw(renderer, make_view(marker=(60.0, -1.75))).astype(int)
    magenta = (marked[..., 0] > 180) & (marked[..., 1] < 130) & (marked[..., 2] > 130)
    rows, columns = np.nonzero(magenta)
    assert len(rows) > 30
    assert np.ptp(columns) < 0.15 * WIDTH
    assert rows.max() < 0.6 * HEIGHT


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((WIDTH, HEIGHT, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
        np.zeros((HEIGHT, WIDTH, 6), np.uint8)[..., :3],
    ],
)
def test_foreign_memory_is_refused(renderer, out):
    with pytest.raises(GameError, match=r"Expected out as C-contiguous uint8 \[135, 240, 3\]"):
        renderer.render(make_view(), out)


def test_closed_renderer_refuses_to_draw():
    one = Renderer(HEIGHT, WIDTH)
    one.close()
    with pytest.raises(GameError, match="closed"):
        draw(one, make_view())


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ConfigError, match="must be positive"):
        Renderer(*size)


def test_drawing_a_long_drive_keeps_no_memory(renderer):
    """Places of moving things are forgotten; they once cost 23 MB per 1,000 pictures."""
    view = busy_view()
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    counts = []
    for step in range(600):
        ego = view.ego._replace(x=view.ego.x + 0.02 * step)
        vehicles = tuple(b._replace(x=b.x - 0.01 * step) for b in view.vehicles)
        renderer.render(replace(view, ego=ego, vehicles=vehicles), out)
        counts.append(core.TransformState.get_num_states())
    assert max(counts[300:]) < max(counts[:300]) + 100
