"""Plane geometry of a town: angles in radians, polylines as float64 ``[N, 2]``. Pure functions."""

import math

import numpy as np


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def unit(angle: float) -> np.ndarray:
    """The unit vector that points to ``angle``, float64 ``[2]``."""
    return np.array([math.cos(angle), math.sin(angle)])


def rotation(heading: float) -> np.ndarray:
    """Matrix that takes world vectors (rows) into the frame of ``heading``: ``v @ matrix``."""
    c, s = math.cos(heading), math.sin(heading)
    return np.array([[c, -s], [s, c]])


def box_corners(position: np.ndarray, size_m: tuple[float, ...], heading: float) -> np.ndarray:
    """Corners of a box on the ground, counter-clockwise, float64 ``[4, 2]``."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return position + (signs * np.array(size_m[:2]) / 2.0) @ rotation(heading).T


def bezier(
    start: np.ndarray, first: np.ndarray, second: np.ndarray, end: np.ndarray, num: int
) -> np.ndarray:
    """``num`` points of a cubic Bézier curve with two inner control points."""
    t = np.linspace(0.0, 1.0, num)[:, None]
    return (
        (1 - t) ** 3 * start
        + 3 * (1 - t) ** 2 * t * first
        + 3 * (1 - t) * t**2 * second
        + t**3 * end
    )


def arc_length(line: np.ndarray) -> np.ndarray:
    """Distance along a polyline at each of its points, float64 ``[N]``."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def resample(line: np.ndarray, along: np.ndarray, places_m: np.ndarray) -> np.ndarray:
    """Points of a polyline at ``places_m`` (any shape) along it, float64 ``[..., 2]``."""
    return np.stack([np.interp(places_m, along, line[:, k]) for k in (0, 1)], axis=-1)


def point_at(line: np.ndarray, along: np.ndarray, place_m: float) -> tuple[np.ndarray, float]:
    """Point of a polyline at ``place_m`` along it, and the heading there."""
    point = np.array([np.interp(place_m, along, line[:, k]) for k in (0, 1)])
    index = min(max(int(np.searchsorted(along, place_m)), 1), len(line) - 1)
    step = line[index] - line[index - 1]
    return point, math.atan2(step[1], step[0])


def tangents(line: np.ndarray) -> np.ndarray:
    """Unit vectors along a polyline at its points, float64 ``[N, 2]``."""
    step = np.concatenate([line[1:], line[-1:]]) - np.concatenate([line[:1], line[:-1]])
    return step / np.hypot(*step.T)[:, None]


def offset_line(line: np.ndarray, offset_m: float) -> np.ndarray:
    """The parallel of a polyline, ``offset_m`` to its left."""
    step = tangents(line)
    return line + offset_m * np.stack([-step[:, 1], step[:, 0]], axis=1)
