"""How much later frames show a push on the wheel than it is told. Pure functions.

A turning car moves the whole picture sideways. How far, from one frame to the next, comes from
their phase correlation. A push on the wheel bends that series: it is level before, and rises from
the instant on that the frames show it. The corner is where a hinge, level and then rising evenly,
fits best. What comes after, a slow car or a quick one, does not matter.

References:
    C. D. Kuglin, D. C. Hines, 1975, "The phase correlation image alignment method",
    Proc. IEEE Int. Conf. on Cybernetics and Society, 163-165
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from charles.timing import NS_PER_S

LEAST_SHIFT_PX = 0.3
"""A bend of less is none."""

TIMES_NOISE = 6.0
"""How far a bend must stand out from what the series does before the push."""

RISE_SHARE = 0.7
"""The hinge is fitted up to this share of the bend's height."""


@dataclass(frozen=True)
class Pulse:
    """One push on the wheel, as it was recorded.

    Attributes:
        times_ns: When each instant was captured, int64 ``[N]``.
        told: Steering that the game told at each, ``[N]``.
        shift_px: How far the picture moved to the right since the instant before, ``[N]``; the
            first is 0.
        injected_ns: When the pad was moved.
        direction: 1 to the right, -1 to the left.
    """

    times_ns: np.ndarray
    told: np.ndarray
    shift_px: np.ndarray
    injected_ns: int
    direction: int


@dataclass(frozen=True)
class Found:
    """When one pulse was seen, nanoseconds after the pad was moved."""

    frames_ns: float
    told_ns: float | None
    is_to_the_right: bool
    """Whether the picture moved to the right although, or because, the wheel did."""


def shifts(frames: np.ndarray) -> np.ndarray:
    """How far each picture moved to the right since the one before, pixels, ``[N]``.

    Args:
        frames: Grey, uint8 ``[N, H, W]``.
    """
    height, width = frames.shape[1:]
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    moved = [0.0]
    before = frames[0].astype(np.float32)
    for frame in frames[1:]:
        now = frame.astype(np.float32)
        moved.append(cv2.phaseCorrelate(before, now, window)[0][0])
        before = now
    return np.array(moved)


def find(pulse: Pulse) -> Found | None:
    """When a pulse is seen in frames and controls; ``None`` if the frames do not show it."""
    before = pulse.times_ns <= pulse.injected_ns
    before[0] = False  # its picture has none to be compared with
    if before.sum() < 5 or before.all():
        return None
    periods = np.diff(pulse.times_ns, prepend=pulse.times_ns[0] - 1).astype(float)
    period_ns = float(np.median(periods[1:]))
    speed = pulse.shift_px * period_ns / periods  # over a frame that was missed, it moved twice
    level = float(np.median(speed[before]))
    noise = 1.4826 * float(np.median(np.abs(speed[before] - level)))
    series = speed - level
    before[0] = True
    series[before] = np.clip(series[before], -3.0 * noise, 3.0 * noise)
    height = float(np.abs(series[~before]).max())
    if height < max(LEAST_SHIFT_PX, TIMES_NOISE * noise):
        return None
    halfway = int(np.argmax((np.abs(series) >= 0.5 * height) & ~before))
    side = math.copysign(1.0, series[halfway])
    rising = side * series
    beyond = np.flatnonzero((rising >= RISE_SHARE * height) & ~before)
    end = int(beyond[0]) + 1 if len(beyond) else halfway + 1
    at = (pulse.times_ns - pulse.injected_ns) / period_ns
    # What is told at an instant has led to it: its effect began one instant before.
    seen = _corner(at[1:end], rising[1:end]) + 1.0
    return Found(
        frames_ns=seen * period_ns,
        told_ns=_told_ns(pulse, before),
        is_to_the_right=bool(side * pulse.direction > 0),
    )


def _corner(at: np.ndarray, series: np.ndarray) -> float:
    """When a level series ``[N]`` begins to rise; a hinge by least squares.

    Args:
        at: When each sample was taken, rising, in periods.
        series: The samples.
    """
    best, least = float(at[-1]) - 1.0, np.inf
    for corner in np.arange(max(at[0], at[-1] - 40.0), at[-1] - 0.9, 0.05):
        ramp = np.maximum(at - corner, 0.0)
        slope = float(ramp @ series / (ramp @ ramp))
        loss = float(np.square(series - slope * ramp).sum())
        if loss < least:
            best, least = float(corner), loss
    return best


def _told_ns(pulse: Pulse, before: np.ndarray) -> float | None:
    """When the push was first told, after the pad was moved; ``None`` if it never was."""
    level = float(np.median(pulse.told[before]))
    rising = pulse.direction * (pulse.told - level)
    height = float(rising[~before].max(initial=0.0))
    if height < 0.05:
        return None
    first = int(np.argmax((rising >= 0.5 * height) & ~before))
    return float(pulse.times_ns[first] - pulse.injected_ns)


@dataclass(frozen=True)
class Spread:
    """A median and where it lies with 95 % confidence."""

    median: float
    low: float
    high: float


def spread(values: np.ndarray) -> Spread:
    """Median of ``values`` ``[N]``, and the order statistics that hold it with 95 % confidence.

    References:
        W. J. Conover, 1999, "Practical Nonparametric Statistics", section 3.2
    """
    ordered = np.sort(values)
    num = len(ordered)
    below, rank = 0.0, 0
    while rank < num // 2:
        below += math.comb(num, rank) / 2.0**num
        if below > 0.025:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return Spread(float(np.median(ordered)), float(ordered[rank]), float(ordered[num - 1 - rank]))


def in_ms(time_ns: float) -> float:
    """Nanoseconds as milliseconds, to a hundredth."""
    return round(time_ns / NS_PER_S * 1000.0, 2)
