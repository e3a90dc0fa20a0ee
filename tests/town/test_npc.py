"""The teacher drives well, comes back from anywhere, and acts only on what its pupil could see."""

import math

import numpy as np
import pytest

from charles.town import npc
from charles.town.ground import Ground
from charles.town.layout import Body
from charles.town.map import make_map
from charles.town.physics import CarState
from charles.town.route import LaneGraph, Route
from charles.town.world import World, WorldConfig


@pytest.fixture(scope="module")
def ground():
    return Ground(make_map(3))


@pytest.fixture(scope="module")
def route():
    graph = LaneGraph(make_map(3))
    route = Route(graph, 0, 0.0, np.random.default_rng(0))
    route.extend(300.0)
    return route


@pytest.fixture(scope="module")
def lonely_world():
    return World(WorldConfig(seed=3, vehicles=0, pedestrians=0))


def sight(route, along=10.0, right=0.0, turn=0.0, speed=8.0, **seen):
    (x, y), (to_x, to_y) = route.point(along), route.point(along + 0.5)
    heading = math.atan2(to_y - y, to_x - x)
    x, y = x + right * math.sin(heading), y - right * math.cos(heading)
    car = CarState(x, y, heading + turn, speed, 0.0)
    located = route.locate(x, y, round(along))
    parts = {"vehicles": (), "pedestrians": (), "junction": None} | seen
    return npc.Sight(car=car, route=route, located=located, **parts)


def body_on(route, along, right=0.0, speed=0.0, turn=0.0):
    (x, y), (to_x, to_y) = route.point(along), route.point(along + 0.5)
    heading = math.atan2(to_y - y, to_x - x)
    x, y = x + right * math.sin(heading), y - right * math.cos(heading)
    return Body(x, y, heading + turn, speed, 0.0, False, 0)


def test_it_steers_back_towards_its_lane(route):
    assert npc.act(sight(route, right=1.0))[1] < npc.act(sight(route))[1] - 0.05
    assert npc.act(sight(route, right=-1.0))[1] > npc.act(sight(route))[1] + 0.05
    assert npc.act(sight(route, turn=0.3))[1] > 0.1


def test_its_action_is_finite_in_range_and_repeatable_from_any_state(route):
    rng = np.random.default_rng(0)
    for _ in range(300):
        state = sight(
            route,
            along=float(rng.uniform(0, 250)),
            right=float(rng.uniform(-12, 12)),
            turn=float(rng.uniform(-math.pi, math.pi)),
            speed=float(rng.uniform(0, 20)),
            vehicles=(body_on(route, float(rng.uniform(0, 280)), float(rng.uniform(-4, 4))),),
        )
        action = npc.act(state)
        assert action.dtype == np.float32
        assert action.shape == (2,)
        assert np.abs(action).max() <= 1.0
        np.testing.assert_array_equal(action, npc.act(state))


def test_its_action_changes_little_when_the_state_changes_little(route):
    for along in np.arange(5.0, 200.0, 2.3):
        for right in (-2.0, 0.0, 1.0):
            one = npc.act(sight(route, along=along, right=right, speed=5.0))
            other = npc.act(sight(route, along=along + 0.05, right=right + 0.02, speed=5.05))
            assert np.abs(one - other).max() < 0.08


def test_it_brakes_for_a_standing_car_in_its_lane_but_not_for_one_in_the_next(route):
    free = npc.act(sight(route))[0]
    assert npc.act(sight(route, vehicles=(body_on(route, 24.0),)))[0] < -0.5
    oncoming = body_on(route, 24.0, right=-3.5, speed=8.0, turn=math.pi)
    assert npc.act(sight(route, vehicles=(oncoming,)))[0] == pytest.approx(free, abs=1e-6)


def test_it_brakes_for_a_pedestrian_walking_into_its_way_but_not_for_one_walking_out(route):
    free = npc.act(sight(route))[0]
    coming = body_on(route, 24.0, right=3.0, speed=1.4, turn=math.pi / 2.0)
    assert npc.act(sight(route, pedestrians=(coming,)))[0] < -0.4
    leaving = body_on(route, 24.0, right=3.0, speed=1.4, turn=-math.pi / 2.0)
    assert npc.act(sight(route, pedestrians=(leaving,)))[0] == pytest.approx(free, abs=1e-6)


def test_it_sees_only_what_the_hood_camera_shows(ground):
    road = make_map(3).roads[0].centre
    x, y = road[5]
    step = road[6] - road[5]
    heading = math.atan2(step[1], step[0])
    car = CarState(x, y, heading, 0.0, 0.0)

    def at(distance, bearing):
        angle = heading + bearing
        return Body(
            x + distance * math.cos(angle), y + distance * math.sin(angle), 0.0, 0.0, 0.0, False, 0
        )

    assert npc.see(ground, car, [at(10.0, 0.0)])
    assert npc.see(ground, car, [at(10.0, math.radians(39.0))])
    assert not npc.see(ground, car, [at(10.0, math.radians(41.0))])
    assert not npc.see(ground, car, [at(10.0, math.pi)])
    assert not npc.see(ground, car, [at(46.0, 0.0)])


def test_what_is_out_of_sight_never_changes_the_label():
    world = World(WorldConfig(seed=5, vehicles=10, pedestrians=10))
    blind = World(WorldConfig(seed=5, vehicles=0, pedestrians=0))
    compared = 0
    for _ in range(400):
        label = world.label()
        view = world.view()
        seen = npc.see(world._ground, world._car, view.vehicles + view.pedestrians)
        if not seen:
            compared += 1
            np.testing.assert_array_equal(label, blind.label())
        # Both egos get the same controls, so they stay at the same place.
        world.step(label)
        blind.step(label)
        assert blind.location == world.location
    assert compared > 40


def recovers(world, *, lateral_m=0.0, heading_error=0.0, push=0.0):
    """Whether the NPC is back in its lane, and stays there, within 6 s of being put off it."""
    world.place_ego(None, lateral_m, heading_error, 6.0)
    for _ in range(30 if push else 0):
        pedal, steering = world.label()
        world.step(np.array([pedal, steering + push], dtype=np.float32))
    replans, held = world.replans, 0
    for _ in range(180):
        world.step(None)
        held = held + 1 if abs(world.cross_track_m) < 0.6 else 0
        assert world.collided is None
    return held >= 30 and world.replans == replans


def test_it_returns_to_its_lane_from_an_offset_and_a_wrong_heading(lonely_world):
    rng = np.random.default_rng(0)
    for _ in range(12):
        offset, turn = float(rng.uniform(-2.5, 2.5)), float(rng.uniform(-0.5, 0.5))
        assert recovers(lonely_world, lateral_m=offset, heading_error=turn), (offset, turn)


@pytest.mark.parametrize("push", [-0.5, 0.5])
def test_it_returns_to_its_lane_after_the_steering_was_pushed(lonely_world, push):
    for _ in range(4):
        assert recovers(lonely_world, push=push)


@pytest.mark.slow
def test_it_returns_to_its_lane_in_every_one_of_a_hundred_cases():
    for seed in range(10):
        world = World(WorldConfig(seed=seed, vehicles=0, pedestrians=0))
        rng = np.random.default_rng(seed)
        for _ in range(5):
            offset, turn = float(rng.uniform(-2.5, 2.5)), float(rng.uniform(-0.5, 0.5))
            assert recovers(world, lateral_m=offset, heading_error=turn), (seed, offset, turn)
            assert recovers(world, push=float(rng.choice([-0.5, 0.5]))), seed


def drive_route(seed, route_seed, length_m):
    """Completion, kilometres, collisions, seconds off road, longest standstill of the NPC."""
    config = WorldConfig(seed=seed, route_seed=route_seed, route_length_m=length_m)
    world = World(config)
    collisions = off_road = still = longest = 0
    while not world.is_route_done and world.time_s < length_m / 2.0:
        world.step(None)
        collisions += world.collided is not None
        off_road += world.is_off_road
        still = still + 1 if world.speed_mps < 0.3 else 0
        longest = max(longest, still)
    completion = min(world.route_progress_m / world.route_length_m, 1.0)
    return completion, world.route_progress_m / 1000.0, collisions, off_road / 30.0, longest / 30.0


def test_it_completes_routes_in_traffic_without_a_collision():
    for seed in (100,):
        completion, _, collisions, off_road_s, longest_s = drive_route(seed, 0, 300.0)
        assert completion > 0.99
        assert collisions == 0
        assert off_road_s == 0.0
        assert longest_s < 20.0


@pytest.mark.slow
def test_it_completes_95_percent_of_forty_routes_on_twenty_seeds():
    drives = [drive_route(seed, r, 400.0 + 200.0 * r) for seed in range(20) for r in range(2)]
    completion, km, collisions, off_road_s, longest_s = (
        np.array(v) for v in zip(*drives, strict=True)
    )
    assert completion.mean() > 0.95
    assert collisions.sum() / km.sum() < 0.1
    assert off_road_s.sum() / km.sum() < 0.1
    assert longest_s.max() < 20.0
