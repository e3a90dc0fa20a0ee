"""What weather and darkness do to a finished picture, row by row and in place.

The renderer marks every pixel in alpha: 0 for the ground and the sky, and for all that stands on
the ground how much of its contrast the air leaves, 255 for all of it. The ground's own share
follows from its row, because the camera's height and pitch are known.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from charles.town.sky import Light

_GAIN_UNIT = 48
"""A head-light gain of 1 in the gain maps, which are uint8."""
_HEADLIGHT = np.array((1.15, 1.0, 0.62))
"""Colour of head lights: warm, against the blue of the night."""
_RAIN_PERIOD_S = 0.25


@dataclass(frozen=True, kw_only=True)
class View:
    """Where a camera sits on the car, and what it sees."""

    ahead_m: float
    """In front of the car's centre."""
    height_m: float
    pitch: float
    """Radians above the horizontal."""
    focal: float
    """Focal length as a share of half the picture's width."""
    yaw: float = 0.0
    """Radians to the left of the car's own direction; beyond a right angle it looks behind, where
    no head light shines."""


def ground_rays(view: View, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's ray meets the ground, relative to the car's centre.

    Returns:
        ``(ahead_m, left_m)``, float64 ``[H, W]``; infinite ahead at and above the horizon.
    """
    half = width / 2.0
    right = (np.arange(width) + 0.5 - half) / (half * view.focal)
    up = (height / 2.0 - np.arange(height) - 0.5) / (half * view.focal)
    forward = math.cos(view.pitch) - up * math.sin(view.pitch)
    rise = math.sin(view.pitch) + up * math.cos(view.pitch)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(rise < -1e-4, -view.height_m / rise, np.inf)
        ahead = np.where(np.isfinite(scale), scale * forward + view.ahead_m, np.inf)
    left = -np.where(np.isfinite(scale), scale, 0.0)[:, None] * right[None, :]
    return np.broadcast_to(ahead[:, None], (height, width)), left


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


class Weather:
    """Finishes pictures of one camera in one light. Use from one thread.

    Args:
        view: The camera.
        height: Picture height in pixels.
        width: Picture width in pixels.
        light: Weather and time of day.
    """

    def __init__(self, view: View, height: int, width: int, light: Light) -> None:
        ahead, left = ground_rays(view, height, width)
        self._horizon = int(np.argmax(np.isfinite(ahead[:, 0])))
        self._is_hazy = math.isfinite(light.haze_m)
        self._is_raining = light.weather == "rain"
        self._has_lights = light.is_dark and abs(view.yaw) < math.pi / 2
        self._plane = np.empty((height, width), np.uint8)
        self._mask, self._spare = (np.empty((height, width, 3), np.uint8) for _ in range(2))
        if self._is_hazy:
            left_over = _bytes(255.0 * np.exp(-(ahead - view.ahead_m) / light.haze_m))
            self._num_hazy = int(np.argmax(left_over[:, 0] > 245)) or height
            self._ground = np.ascontiguousarray(left_over[: self._num_hazy])
            self._haze = float(light.horizon.mean())
        if self._has_lights:
            self._first_lit, self._gain = _headlight_gain(ahead, left, light)
        if self._is_raining:
            self._streaks = _make_streaks(height, width, light)
            self._sheen = _make_sheen(self._horizon, height, width)

    def finish(self, raw: np.ndarray, out: np.ndarray, time_s: float) -> None:
        """Convert a raw picture and add weather and head lights to it.

        Args:
            raw: From the renderer, uint8 BGRA ``[H, W, 4]``.
            out: Written, uint8 RGB ``[H, W, 3]``.
            time_s: Moves the rain.
        """
        cv2.cvtColor(raw, cv2.COLOR_BGRA2RGB, dst=out)
        if self._is_hazy or self._is_raining:
            cv2.extractChannel(raw, 3, dst=self._plane)
        if self._is_raining:
            self._wet(out)
        if self._has_lights:
            rows = out[self._first_lit :]
            cv2.multiply(rows, self._gain, dst=rows, scale=1.0 / _GAIN_UNIT)
        if self._is_hazy:
            self._fade(out)
        if self._is_raining:
            share = time_s / _RAIN_PERIOD_S
            height = len(out)
            sheet = self._streaks[int(share) % len(self._streaks)]
            start = height - int(share % 1.0 * height)
            cv2.add(out, sheet[start : start + height], dst=out)

    def _fade(self, out: np.ndarray) -> None:
        """Blend towards the haze, a grey: ``haze + (out - haze) * share left``."""
        rows = self._num_hazy
        plane, mask, seen = self._plane[:rows], self._mask[:rows], out[:rows]
        cv2.max(plane, self._ground, dst=plane)
        cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB, dst=mask)
        cv2.multiply(seen, mask, dst=seen, scale=1.0 / 255.0)
        cv2.bitwise_not(plane, dst=plane)
        cv2.convertScaleAbs(plane, dst=plane, alpha=self._haze / 255.0)
        cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB, dst=mask)
        cv2.add(seen, mask, dst=seen)

    def _wet(self, out: np.ndarray) -> None:
        """Mirror what is above the horizon in the ground below it."""
        horizon, rows = self._horizon, len(self._sheen)
        mirrored, mask = self._spare[:rows], self._mask[:rows]
        cv2.flip(out[horizon - rows : horizon], 0, dst=mirrored)
        ground = self._plane[horizon : horizon + rows]
        cv2.cvtColor(cv2.bitwise_not(ground), cv2.COLOR_GRAY2RGB, dst=mask)
        cv2.min(mask, self._sheen, dst=mask)
        cv2.multiply(mirrored, mask, dst=mirrored, scale=1.0 / 255.0)
        below = out[horizon : horizon + rows]
        cv2.add(below, mirrored, dst=below)


def _headlight_gain(ahead: np.ndarray, left: np.ndarray, light: Light) -> tuple[int, np.ndarray]:
    """First row that head lights reach, and their gain on it and all rows below, uint8."""
    height, width = ahead.shape
    rows = np.arange(height)
    horizon = int(np.argmax(np.isfinite(ahead[:, 0])))
    first = max(0, horizon - round(0.13 * height))
    # What stands in the light reaches above the horizon; take it to be 30 m away.
    reach = np.where(np.isfinite(ahead), np.minimum(ahead, 1e3), 1e3)
    sideways = np.where(np.isfinite(ahead) & (ahead < 30.0), left, 0.0)
    across = (np.arange(width) + 0.5 - width / 2.0) / (width / 2.0)
    angle = np.where(reach < 30.0, sideways / np.maximum(reach, 1.0), -0.84 * across[None, :])
    beam = np.exp(-((angle / 0.42) ** 2)) * np.clip((reach - 3.2) / 5.0, 0.0, 1.0)
    fall = 1.0 / (1.0 + (np.minimum(reach, 34.0) / 26.0) ** 2)
    fade = np.clip((rows - first) / max(1, horizon - first), 0.0, 1.0)[:, None]
    strength = 3.2 * min(1.0, light.lamps)
    lit = strength * beam * fall * fade**1.5
    gain = 1.0 + lit[first:, :, None] * _HEADLIGHT
    return first, np.ascontiguousarray(_bytes(_GAIN_UNIT * gain))


def _make_streaks(height: int, width: int, light: Light) -> list[np.ndarray]:
    """Sheets of rain, uint8 ``[2H, W, 3]``, each repeating after ``H`` rows."""
    rng = np.random.default_rng(9)
    bright = round(40 + 50 * float(light.tint.mean()))
    sheets = []
    for _ in range(4):
        sheet = np.zeros((height, width), np.uint8)
        for _ in range(width // 3):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            length = int(rng.integers(height // 24, height // 9))
            tip = (x - length // 7, y + length)
            cv2.line(sheet, (x, y), tip, int(rng.integers(bright // 2, bright)), 1)
        sheets.append(cv2.cvtColor(np.concatenate([sheet, sheet]), cv2.COLOR_GRAY2RGB))
    return sheets


def _make_sheen(horizon: int, height: int, width: int) -> np.ndarray:
    """How much of the mirrored picture the ground shows, uint8 ``[rows, W, 3]``."""
    rows = min(horizon, height - horizon)
    share = np.linspace(64.0, 0.0, rows)[:, None, None]
    return np.repeat(np.repeat(_bytes(share), width, axis=1), 3, axis=2)
