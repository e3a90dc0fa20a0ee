"""What differs between the mods of the DeepGTAV family: how they are reached and what they read.

Both are told the same scenes and tell the same telemetry. :class:`TcpDialect` is the public v2 mod,
:class:`charles.io.deepgtav_zmq.ZmqDialect` the fork for newer builds of the game.
"""

import json
from typing import Any, Protocol

import cv2
import numpy as np

from charles.errors import GameError
from charles.io.deepgtav_link import TcpLink
from charles.io.deepgtav_options import Camera
from charles.io.deepgtav_pairs import Link
from charles.town import protocol

RATE_HZ = 40
"""Asked for to get a steady 30: the mod sends once *more* than a period has passed, and only ever
at a tick of the game, so a request for 30 would come out between 20 and 30."""

WANTED = ("throttle", "brake", "steering", "speed", "yawRate", "location", "time")
"""Telemetry that is asked for."""


class Dialect(Protocol):
    """What one mod understands. Messages are ready to be sent."""

    name: str
    """The mod, for error texts."""
    are_controls_doubtful: bool
    """Whether the mod is known to read the car's controls wrongly."""
    may_be_ignored: bool
    """Whether a connection may stand and yet never be served, because an earlier one was not quite
    gone when it was made."""
    resizer: str
    """What makes pictures the size that is asked for."""
    num_stale: int
    """Pairs after a change of scene that may still show what was before."""

    @property
    def camera(self) -> str:
        """What it calls the camera that it takes pictures with, or where that is."""
        ...

    def connect(self, address: tuple[str, int], *, timeout_s: float) -> Link:
        """A connection to the game.

        Raises:
            OSError: The game cannot be reached.
        """
        ...

    def start(self, scenario: dict[str, Any]) -> list[bytes]:
        """Begin a scene and send pairs of it, whatever a client before has left behind."""
        ...

    def config(self, scenario: dict[str, Any]) -> list[bytes]:
        """Build another scene."""
        ...

    def commands(self, throttle: float, brake: float, steering: float) -> bytes:
        """Hold these controls."""
        ...

    def stop(self) -> list[bytes]:
        """Let go of the car and send nothing more."""
        ...

    def light(self, weather: str, hour: int, minute: int) -> list[bytes] | None:
        """Change weather and clock and nothing else; ``None`` if only a new scene can do that."""
        ...

    def aim(self, camera: Camera) -> list[bytes]:
        """Put the camera elsewhere, in this scene and in those to come.

        Raises:
            GameError: The mod's camera is fixed.
        """
        ...

    def write_picture(self, frame: bytearray, out: np.ndarray) -> None:
        """Write a frame's pixels into ``out``, RGB uint8 ``[H, W, 3]``, C-contiguous."""
        ...


def text_of(key: str, body: Any) -> bytes:
    """A message's JSON.

    Raises:
        GameError: It is too long for the mod, as with an absurd vehicle name.
    """
    text = json.dumps({key: body}, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > protocol.MAX_REQUEST_BYTES:
        raise GameError(
            f"DeepGTAV: a {key} message must have at most {protocol.MAX_REQUEST_BYTES} bytes, "
            f"got {len(text)}. Shorten the scene's car."
        )
    return text


class TcpDialect:
    """The public v2 mod: JSON behind a length over TCP; pictures come in the size asked for.

    Args:
        height: Frame height in pixels.
        width: Frame width in pixels.
    """

    name = "DeepGTAV"
    are_controls_doubtful = False
    may_be_ignored = False
    camera = "hood"
    resizer = "nearest-by-mod"
    num_stale = 0

    def __init__(self, *, height: int, width: int) -> None:
        self._height, self._width = height, width

    def connect(self, address: tuple[str, int], *, timeout_s: float) -> Link:
        """See :class:`Dialect`."""
        size = protocol.frame_bytes(self._height, self._width)
        return TcpLink(address, frame_bytes=size, timeout_s=timeout_s)

    def start(self, scenario: dict[str, Any]) -> list[bytes]:
        """See :class:`Dialect`. The mod stops by itself when a client leaves."""
        dataset = {"rate": RATE_HZ, "frame": [self._width, self._height]}
        dataset |= dict.fromkeys(WANTED, True)
        return [self._framed("start", {"scenario": scenario, "dataset": dataset})]

    def config(self, scenario: dict[str, Any]) -> list[bytes]:
        """See :class:`Dialect`."""
        return [self._framed("config", {"scenario": scenario})]

    def commands(self, throttle: float, brake: float, steering: float) -> bytes:
        """See :class:`Dialect`."""
        body = {"throttle": throttle, "brake": brake, "steering": steering}
        return self._framed("commands", body)

    def stop(self) -> list[bytes]:
        """See :class:`Dialect`."""
        return [self._framed("stop", None)]

    def light(self, weather: str, hour: int, minute: int) -> list[bytes] | None:
        """See :class:`Dialect`."""
        return None

    def aim(self, camera: Camera) -> list[bytes]:
        """See :class:`Dialect`."""
        raise GameError("DeepGTAV: the v2 mod's camera is fixed; the ZeroMQ fork can move its own.")

    def write_picture(self, frame: bytearray, out: np.ndarray) -> None:
        """See :class:`Dialect`."""
        pixels = protocol.frame_pixels(frame, self._height, self._width)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=out)

    def _framed(self, key: str, body: Any) -> bytes:
        text = text_of(key, body)
        return protocol.PREFIX.pack(len(text)) + text
