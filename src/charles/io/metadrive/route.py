"""Where a car of MetaDrive is on its route, and the place it should head for."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

MARKER_M = 15.0
"""How far ahead on the route the marker stands."""


class RouteView:
    """The route of MetaDrive's navigation, as lengths and a marker.

    Args:
        car: MetaDrive's vehicle, just reset: its navigation has the whole route.
    """

    def __init__(self, car: Any) -> None:
        self._car = car
        navigation = car.navigation
        graph = navigation.map.road_network.graph
        stops = navigation.checkpoints
        self.roads: list[list[Any]] = [graph[start][end] for start, end in pairwise(stops)]
        """Lanes of each piece, in driving order."""
        lengths = [lanes[0].length for lanes in self.roads]
        self._before_m = np.concatenate([[0.0], np.cumsum(lengths)])
        self.length_m = float(self._before_m[-1])
        """From the start of the first piece to the end of the last."""

    def along_m(self) -> float:
        """How far along the route the car is."""
        lane, along_m, number = self._lane()
        share = min(max(along_m / lane.length, 0.0), 1.0)
        before_m, after_m = self._before_m[number : number + 2]
        return float(before_m + share * (after_m - before_m))

    def marker(self) -> tuple[float, float]:
        """Direction (radians, positive right) and distance (m) of the marker from the car."""
        lane, along_m, number = self._lane()
        ahead_m = along_m + MARKER_M
        if ahead_m > lane.length and number + 1 < len(self.roads):
            end = np.array(lane.position(lane.length, 0.0))
            following = self.roads[number + 1]
            ahead_m -= lane.length
            lane = min(following, key=lambda each: _distance(each.position(0.0, 0.0), end))
            ahead_m = min(ahead_m, lane.length)
        car = self._car
        way = np.array(lane.position(ahead_m, 0.0)) - car.position
        forward, right = car.heading @ way, car.heading[0] * way[1] - car.heading[1] * way[0]
        return math.atan2(right, forward), float(math.hypot(*way))

    def _lane(self) -> tuple[Any, float, int]:
        """The lane of the route that the car is on or next to, how far along, and its piece."""
        car = self._car
        number = min(car.navigation._target_checkpoints_index[0], len(self.roads) - 1)
        lanes = self.roads[number]
        places = [lane.local_coordinates(car.position) for lane in lanes]
        best = min(range(len(lanes)), key=lambda index: abs(places[index][1]))
        return lanes[best], float(places[best][0]), number


def _distance(place: Any, other: np.ndarray) -> float:
    return float(np.linalg.norm(np.array(place) - other))
