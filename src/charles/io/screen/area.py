"""Means of areas where a few pixels become a few others: 8 become 3 from 1280×720 to 480×270.

Exact in integers: each pixel counts as often as thirds, or whatever the ratio's unit is, of it are
covered. Rows are summed as uint16, of which the processor adds many at once; then columns, with the
four channels of a pixel side by side in one uint64. No sum reaches its neighbour, because none
exceeds 255 times the product of both ratios' numerators: see :data:`MOST_COVERED`.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

MOST_COVERED = 65535 // 255
"""What the product of both numerators may be at most: a sum of that many bytes fits uint16."""

ROWS_AT_ONCE = 144
"""Rows whose sums are made together; what is read again then still lies in the cache."""

Taps = dict[int, list[int]]
"""Indices of pixels by how often they count."""


class AreaMeans:
    """Means of areas, for one size of pictures. Use from one thread.

    Args:
        source: Height and width of what is averaged; :meth:`fits` must hold.
        target: Height and width of the means.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        (self._tall, high), (self._wide, broad) = _ratios(source, target)
        self._rows, self._columns = _taps(self._tall, high), _taps(self._wide, broad)
        height, width = target
        num_groups, num_columns = height // high, width // broad
        step = max(1, min(num_groups, ROWS_AT_ONCE // self._tall))
        self._wider = np.empty((step * self._tall, source[1], 4), np.uint16)
        self._part = np.empty((step, source[1] * 4), np.uint16)
        self._summed = np.empty((num_groups, high, source[1] * 4), np.uint16)
        self._packed_part = np.empty((height, num_columns), np.uint64)
        self._packed = np.empty((height, num_columns, broad), np.uint64)
        self._four: np.ndarray | None = None

    @staticmethod
    def fits(source: tuple[int, int], target: tuple[int, int]) -> bool:
        """Whether means of these sizes can be made here: smaller ones, of simple ratios."""
        (tall, high), (wide, broad) = _ratios(source, target)
        return tall >= high and wide >= broad and tall * wide <= MOST_COVERED

    def into(self, out: np.ndarray, pixels: np.ndarray) -> None:
        """Write the means into ``out``.

        Args:
            out: uint8 ``[H, W, 4]`` of the target's size, C-contiguous; overwritten.
            pixels: uint8 ``[h, w, 3 or 4]`` of the source's size, with any strides.
        """
        if pixels.shape[2] == 3:
            pixels = self._with_fourth(pixels)
        self._sum_rows(pixels)
        sums = self._summed.view(np.uint64).reshape(len(out), -1, self._wide)
        targets = [self._packed[:, :, index] for index in range(len(self._columns))]
        _sum(lambda index: sums[:, :, index], self._columns, targets, self._packed_part)
        means = self._packed.view(np.uint16).reshape(len(out), -1)
        scale = 1.0 / (self._tall * self._wide)
        cv2.convertScaleAbs(means, dst=out.reshape(len(out), -1), alpha=scale)

    def _with_fourth(self, pixels: np.ndarray) -> np.ndarray:
        """The pixels with a fourth channel, so that means do not depend on whether there is one."""
        if self._four is None:
            self._four = np.empty((*pixels.shape[:2], 4), np.uint8)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA, dst=self._four)

    def _sum_rows(self, pixels: np.ndarray) -> None:
        tall, step = self._tall, len(self._part)
        for first in range(0, len(self._summed), step):
            summed = self._summed[first : first + step]
            num = len(summed)
            wider = self._wider[: num * tall]
            np.copyto(wider, pixels[first * tall : (first + num) * tall])
            rows = wider.reshape(num, tall, -1)
            targets = [summed[:, index] for index in range(len(self._rows))]
            _sum(lambda index, rows=rows: rows[:, index], self._rows, targets, self._part[:num])


def _ratios(source: tuple[int, int], target: tuple[int, int]) -> list[tuple[int, int]]:
    """Per axis how many pixels become how many, in lowest terms."""
    pairs = list(zip(source, target, strict=True))
    return [(large // math.gcd(large, small), small // math.gcd(large, small))
            for large, small in pairs]  # fmt: skip


def _taps(large: int, small: int) -> list[Taps]:
    """For each of ``small`` pixels what of ``large`` ones it covers; a pixel is ``small`` units."""
    every = []
    for index in range(small):
        taps: Taps = {}
        for pixel in range(index * large // small, -(-(index + 1) * large // small)):
            ends = min((index + 1) * large, (pixel + 1) * small)
            taps.setdefault(ends - max(index * large, pixel * small), []).append(pixel)
        every.append(taps)
    return every


def _sum(
    part_of: Callable[[int], np.ndarray],
    every: Sequence[Taps],
    targets: Sequence[np.ndarray],
    scratch: np.ndarray,
) -> None:
    """Weighted sums of parts into targets; those of one weight are added before it is applied."""
    for taps, target in zip(every, targets, strict=True):
        total = target
        for weight, pixels in taps.items():
            _weighted(part_of, weight, pixels, total)
            if total is scratch:
                np.add(target, scratch, out=target)
            total = scratch


def _weighted(
    part_of: Callable[[int], np.ndarray], weight: int, pixels: list[int], out: np.ndarray
) -> None:
    if len(pixels) == 1:
        np.multiply(part_of(pixels[0]), weight, out=out)
        return
    np.add(part_of(pixels[0]), part_of(pixels[1]), out=out)
    for pixel in pixels[2:]:
        np.add(out, part_of(pixel), out=out)
    if weight > 1:
        np.multiply(out, weight, out=out)
