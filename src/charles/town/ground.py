"""What lies where: the town as a raster of small cells, so that every question is one look-up."""

import math

import cv2
import numpy as np

from charles.town.geometry import box_corners, offset_line
from charles.town.layout import TownMap

CELL_M = 0.2
OPEN, ROAD, BUILDING, TREE = range(4)
_SUBPIXEL_BITS = 4


class Ground:
    """Road, buildings and trees by place. Read only; about 5 MB for a town."""

    def __init__(self, town: TownMap) -> None:
        west, south, east, north = town.extent_m
        self._west, self._south = west, south
        self._columns = math.ceil((east - west) / CELL_M)
        self._rows = math.ceil((north - south) / CELL_M)
        image = np.zeros((self._rows, self._columns), dtype=np.uint8)
        for road in town.roads:
            right = offset_line(road.centre, -road.half_width_m)
            left = offset_line(road.centre, road.half_width_m)
            self._fill(image, np.concatenate([right, left[::-1]]), ROAD)
        for junction in town.junctions:
            self._fill(image, junction.outline, ROAD)
        for building in town.buildings:
            plan = box_corners(building.position, building.size_m, building.heading)
            self._fill(image, plan, BUILDING)
        for tree in town.trees:
            self._fill(image, box_corners(tree.position, (0.5, 0.5), 0.0), TREE)
        # Bytes are read one at a time several times faster than array elements.
        self._cells = image.tobytes()

    def at(self, x: float, y: float) -> int:
        """What lies at a place: ``OPEN``, ``ROAD``, ``BUILDING`` or ``TREE``."""
        column, row = int((x - self._west) / CELL_M), int((y - self._south) / CELL_M)
        if 0 <= column < self._columns and 0 <= row < self._rows:
            return self._cells[row * self._columns + column]
        return OPEN

    def is_hidden(self, x: float, y: float, other_x: float, other_y: float) -> bool:
        """Whether a building stands between two places."""
        distance = math.hypot(other_x - x, other_y - y)
        steps = int(distance)
        if steps == 0:
            return False
        scale = 1.0 / (steps * CELL_M)
        dx, dy = (other_x - x) * scale, (other_y - y) * scale
        column, row = (x - self._west) / CELL_M, (y - self._south) / CELL_M
        cells, columns, size = self._cells, self._columns, len(self._cells)
        for k in range(1, steps):
            cell = int(row + k * dy) * columns + int(column + k * dx)
            if 0 <= cell < size and cells[cell] == BUILDING:
                return True
        return False

    def _fill(self, image: np.ndarray, polygon: np.ndarray, value: int) -> None:
        # fillPoly takes a pixel's centre, not its corner, as its coordinate.
        scaled = (polygon - (self._west, self._south)) / CELL_M - 0.5
        points = np.round(scaled * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(image, [points], value, shift=_SUBPIXEL_BITS)
