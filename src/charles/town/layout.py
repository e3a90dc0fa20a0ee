"""What a town is made of, and what of it can be seen at one instant: plain data, no behaviour.

World axes: x east, y north, z up, metres. Headings are radians, counter-clockwise from east.
Traffic keeps to the right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]
"""A place on the ground: x and y."""
Pose = tuple[float, float, float]
"""Place and heading."""
Crossing = dict[int, list[Point]]
"""Crosswalks in use, by number: where their pedestrians are and are about to be."""
IsSeen = Callable[[Point], bool]
"""Whether the ego would notice something that appears at a place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Road:
    """A two-way road between two junctions."""

    centre: np.ndarray
    """Centre line, float64 ``[N, 2]``, evenly spaced, about 2 m apart, from rim to rim."""
    lanes_per_direction: int
    """1 or 2."""
    lane_width_m: float
    """Width of one lane."""
    junctions: tuple[int, int]
    """Junctions at its first and its last point."""

    @property
    def half_width_m(self) -> float:
        """From the centre line to the kerb."""
        return self.lanes_per_direction * self.lane_width_m


@dataclass(frozen=True, kw_only=True, eq=False)
class Junction:
    """Where roads meet."""

    position: np.ndarray
    """Centre, float64 ``[2]``."""
    outline: np.ndarray
    """Paved area, a simple counter-clockwise polygon, float64 ``[M, 2]``."""
    roads: tuple[int, ...]
    """Roads that meet here, counter-clockwise."""

    @property
    def radius_m(self) -> float:
        """From the centre to the farthest point of the outline."""
        return float(np.hypot(*(self.outline - self.position).T).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class Building:
    """A box with a façade."""

    position: np.ndarray
    """Centre of the ground plan, float64 ``[2]``."""
    size_m: tuple[float, float, float]
    """Width along its heading, depth, height."""
    heading: float
    style: int
    """Picks façade and colour; any number from 0 on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """A tree beside the road."""

    position: np.ndarray
    """Foot of the trunk, float64 ``[2]``."""
    height_m: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Crosswalk:
    """Where pedestrians cross: a strip across a road."""

    start: np.ndarray
    """One kerb, float64 ``[2]``."""
    end: np.ndarray
    """The other kerb, float64 ``[2]``."""
    width_m: float

    @property
    def middle(self) -> np.ndarray:
        """Its centre, float64 ``[2]``."""
        return (self.start + self.end) / 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TownMap:
    """Everything that stands still."""

    seed: int
    roads: tuple[Road, ...]
    junctions: tuple[Junction, ...]
    crosswalks: tuple[Crosswalk, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    extent_m: tuple[float, float, float, float]
    """Least x, least y, greatest x, greatest y."""


class Body(NamedTuple):
    """A car or a pedestrian, as seen."""

    x: float
    y: float
    heading: float
    speed_mps: float
    steering: float
    """The ego's front wheels, in [-1, 1], positive right; 0 for others: nobody sees theirs."""
    is_braking: bool
    style: int
    """Picks model and colour; fixed for the life of the body."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldView:
    """What a camera needs to know about one instant."""

    map: TownMap
    ego: Body
    vehicles: tuple[Body, ...]
    pedestrians: tuple[Body, ...]
    marker: tuple[float, float]
    """Where the target marker stands."""
    weather: str
    """``clear``, ``overcast``, ``rain`` or ``fog``."""
    time_of_day_h: float
    """Hour, 0 to 24."""
    time_s: float
    """Simulated time since the start, seconds; moves rain and legs."""
