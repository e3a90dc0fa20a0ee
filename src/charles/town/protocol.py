"""The wire protocol of the DeepGTAV v2 mod: framing, pixel layout, names. Plain functions.

Both ends are length-prefixed over TCP. The game's end sends pairs: a frame, then a JSON object of
telemetry. The client's end sends JSON objects whose one top-level key (``start``, ``config``,
``commands``, ``stop``) says what they ask for. Nothing is acknowledged.

References:
    A. Ruano, 2017, "DeepGTAV v2", https://github.com/aitorzip/DeepGTAV
"""

import json
import struct
from typing import Any

import numpy as np

PREFIX = struct.Struct("<i")
"""Length of what follows, in bytes, without the prefix itself."""

MAX_REQUEST_BYTES = 4095
"""Longest JSON a client may send; the mod's buffer has no bounds check, so more crashes it."""

DEAD_ZONE = 0.25
"""Share of each axis that the game ignores around neutral."""

WEATHERS: dict[str, tuple[str, ...]] = {
    "clear": ("CLEAR", "EXTRASUNNY", "NEUTRAL"),
    "overcast": ("OVERCAST", "CLOUDS", "SMOG", "XMAS", "SNOWLIGHT", "SNOW", "BLIZZARD"),
    "rain": ("RAIN", "CLEARING", "THUNDER"),
    "fog": ("FOGGY",),
}
"""GTA V's names for each of ours; the first is the one that is asked for."""

REQUESTABLE = ("throttle", "brake", "steering", "speed", "yawRate", "location", "time")
"""Telemetry that is sent only if the dataset asks for it, in the order in which it is sent."""


def our_weather(name: str) -> str:
    """Our name for one of GTA V's weathers; an unknown one counts as ``clear``."""
    known = {theirs: ours for ours, names in WEATHERS.items() for theirs in names}
    return known.get(name.upper(), "clear")


def row_bytes(width: int) -> int:
    """Bytes from one row of a frame to the next: 3 per pixel, padded to a multiple of 4."""
    return 4 * -(-3 * width // 4)


def frame_bytes(height: int, width: int) -> int:
    """Bytes of a whole frame on the wire."""
    return row_bytes(width) * height


def frame_pixels(buffer: Any, height: int, width: int) -> np.ndarray:
    """A view of the pixels in a frame's bytes, BGR uint8 ``[H, W, 3]``; the padding is skipped.

    Args:
        buffer: At least ``frame_bytes(height, width)`` bytes; the view writes through if it can.
    """
    stride = row_bytes(width)
    return np.ndarray((height, width, 3), np.uint8, buffer, strides=(stride, 3, 1))


def is_due(since_s: float, rate_hz: int) -> bool:
    """Whether the mod sends a pair at a tick this long after it finished the last: *more* than a
    period must have passed, so what comes out is slower than what was asked for."""
    return rate_hz > 0 and since_s > 1.0 / rate_hz


def request(key: str, body: Any) -> bytes:
    """A client's message, ready to send.

    Args:
        key: ``start``, ``config``, ``commands`` or ``stop``.
        body: What JSON allows; floats must be finite.

    Raises:
        ValueError: It is longer than the mod can hold, or a number is not finite.
    """
    text = json.dumps({key: body}, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MAX_REQUEST_BYTES:
        raise ValueError(
            f"a {key} message must have at most {MAX_REQUEST_BYTES} bytes, got {len(text)}"
        )
    return PREFIX.pack(len(text)) + text


def through_dead_zone(value: float, dead_zone: float = DEAD_ZONE) -> float:
    """What the game makes of an axis at ``value``: 0 inside the dead zone, rescaled outside."""
    size = abs(value)
    if size <= dead_zone:
        return 0.0
    return float(np.copysign((size - dead_zone) / (1.0 - dead_zone), value))
