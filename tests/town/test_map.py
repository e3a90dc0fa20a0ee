"""Towns are reproducible, connected, and nothing stands where something else is."""

import math

import numpy as np
import pytest

from charles.town import map as town_map
from charles.town.ground import BUILDING, OPEN, ROAD, Ground
from charles.town.map import make_map
from charles.town.route import MARKER_M, LaneGraph, Route

SEEDS = (0, 3)


@pytest.fixture(scope="module", params=SEEDS)
def town(request):
    return make_map(request.param)


@pytest.fixture(scope="module")
def graph(town):
    return LaneGraph(town)


def test_same_seed_gives_the_same_town_and_another_seed_another():
    one, again, other = make_map(7), make_map(7), make_map(8)
    for a, b in zip(one.roads, again.roads, strict=True):
        np.testing.assert_array_equal(a.centre, b.centre)
    for a, b in zip(one.buildings, again.buildings, strict=True):
        assert (a.position == b.position).all()
        assert (a.size_m, a.heading, a.style) == (b.size_m, b.heading, b.style)
    assert len(one.trees) == len(again.trees)
    assert not np.array_equal(one.junctions[0].position, other.junctions[0].position)


def test_every_junction_has_three_or_four_arms_and_every_road_two_junctions(town):
    for number, junction in enumerate(town.junctions):
        assert len(junction.roads) in (3, 4)
        for road in junction.roads:
            assert number in town.roads[road].junctions
    for road in town.roads:
        assert road.junctions[0] != road.junctions[1]


def test_outlines_are_counter_clockwise_and_roads_are_evenly_spaced_curves(town):
    for junction in town.junctions:
        x, y = junction.outline.T
        area = 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
        assert area > 50.0
    bends = []
    for road in town.roads:
        steps = np.hypot(*np.diff(road.centre, axis=0).T)
        assert steps.min() > 1.7
        assert steps.max() < 2.3
        heading = np.unwrap(np.arctan2(*np.diff(road.centre, axis=0).T[::-1]))
        bends.append(float(np.ptp(heading)))
        radius = steps.mean() / np.abs(np.diff(heading)).max()
        assert radius > road.half_width_m + 8.0
    assert np.median(bends) > 0.1


def test_no_building_stands_on_a_road_or_in_another_building(town):
    ground = Ground(town)
    for road in town.roads:
        for point in road.centre:
            assert ground.at(*point) == ROAD
        for offset in (-0.95, 0.95, -1.2, 1.2):
            line = town_map.offset_line(road.centre, offset * road.half_width_m)
            kinds = {ground.at(x, y) for x, y in line[4:-4]}
            assert kinds == {ROAD} if abs(offset) < 1.0 else BUILDING not in kinds
    covered = sum(b.size_m[0] * b.size_m[1] for b in town.buildings)
    cells = np.frombuffer(ground._cells, dtype=np.uint8)
    drawn = int((cells == BUILDING).sum()) * 0.2**2
    # Overlapping buildings would cover less ground together than one by one.
    assert drawn > 0.99 * covered


def test_a_building_hides_what_is_behind_it_and_an_open_road_does_not(town):
    ground = Ground(town)
    building = max(town.buildings, key=lambda b: b.size_m[1])
    across = np.array([-math.sin(building.heading), math.cos(building.heading)])
    near = building.position - across * (building.size_m[1] / 2.0 + 1.0)
    far = building.position + across * (building.size_m[1] / 2.0 + 1.0)
    assert ground.is_hidden(*near, *far)
    road = town.roads[0].centre
    assert not ground.is_hidden(*road[2], *road[8])
    assert ground.at(town.extent_m[0] - 100.0, 0.0) == OPEN


def test_crosswalks_reach_from_kerb_to_kerb_and_every_lane_knows_its_own(town, graph):
    assert len(town.crosswalks) >= 15
    known = {number for lane in graph.lanes for number, _ in lane.crosswalks}
    assert known == set(range(len(town.crosswalks)))
    widths = {2.0 * road.half_width_m for road in town.roads}
    for crosswalk in town.crosswalks:
        span = float(np.hypot(*(crosswalk.end - crosswalk.start)))
        assert min(abs(span - width) for width in widths) < 0.01


def test_every_lane_leads_on_smoothly_and_all_lanes_can_be_reached(graph):
    for lane in graph.lanes:
        assert lane.successors
        for number in lane.successors:
            after = graph.lanes[number]
            assert math.hypot(after.x[0] - lane.x[-1], after.y[0] - lane.y[-1]) < 0.01
            turn = after.heading[0] - lane.heading[-1]
            assert math.cos(turn) > math.cos(0.15)
    reached, todo = {0}, [0]
    while todo:
        new = set(graph.lanes[todo.pop()].successors) - reached
        reached |= new
        todo += new
    streets = set(range(graph.num_street_lanes))
    # An avenue's inner lane can only be entered by turning; all outer ones are reached.
    assert len(streets & reached) > 0.9 * len(streets)


def test_conflicts_are_mutual_and_crossing_paths_are_found(graph):
    for number, lane in enumerate(graph.lanes):
        for other in lane.conflicts:
            assert number in graph.lanes[other].conflicts
    turns = [lane for lane in graph.lanes if lane.turn == "left"]
    assert all(lane.conflicts for lane in turns)


def test_route_has_the_length_asked_for_and_its_marker_leads_the_way_to_its_end(graph):
    route = Route(graph, 0, 5.0, np.random.default_rng(1))
    route.finish(500.0)
    assert 495.0 <= route.end_m < 535.0
    line = np.stack([route.x, route.y], axis=1)
    assert np.abs(np.hypot(*np.diff(line, axis=0).T) - 1.0).max() < 0.1
    for along_m in (0.0, 33.3, route.legs[0].entry_m):
        assert route.marker(along_m) == route.point(along_m + MARKER_M)
    assert route.marker(route.end_m - 1.0) == route.point(route.end_m)


def test_a_place_beside_the_route_is_located(graph):
    route = Route(graph, 0, 5.0, np.random.default_rng(1))
    route.extend(200.0)
    for along in (3.0, 40.5, 120.2):
        (x, y), (to_x, to_y) = route.point(along), route.point(along + 0.5)
        heading = math.atan2(to_y - y, to_x - x)
        right = (x + 1.5 * math.sin(heading), y - 1.5 * math.cos(heading))
        located = route.locate(*right, near=round(along))
        assert located.along_m == pytest.approx(along, abs=0.3)
        assert located.right_m == pytest.approx(1.5, abs=0.1)


def test_speeds_planned_along_a_route_can_be_braked_to(graph):
    route = Route(graph, 0, 5.0, np.random.default_rng(1))
    route.extend(600.0)
    speed, along = np.array(route.speed_mps), np.array(route.along_m)
    braking = (speed[:-1] ** 2 - speed[1:] ** 2) / (2.0 * np.diff(along))
    assert braking.max() < 2.01
    assert speed.max() == pytest.approx(8.5)  # a street with two lanes allows it
    assert speed.min() > 2.5
