"""What a client of the wire protocol asks for, read as the mod reads it, its quirks included."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from charles.town import protocol

MAX_FRAME_SIDE = 4096
"""Larger frames are not drawn; the request counts as left out."""

MAX_RANDOM_FLAGS = 32768
"""The mod draws a random driving style below this where it is asked for null."""

Number = TypeVar("Number", int, float)


@dataclass
class Asked:
    """What the client asked for, as the mod remembers it from one message to the next."""

    location: tuple[float, float] = (0.0, 0.0)
    hour: int = 12
    minute: int = 0
    weather: str = "CLEAR"
    vehicle: str = ""
    wants_reward: bool = False
    driving_flags: int = -1
    rate_hz: int = 10
    width: int = 320
    height: int = 160
    keys: frozenset[str] = frozenset()

    @property
    def is_manual(self) -> bool:
        """Whether the client drives."""
        return self.driving_flags < 0

    def read(
        self, body: dict[str, Any], rng: np.random.Generator, *, frame_key: str = "frame"
    ) -> None:
        """Take over what a ``start`` or ``config`` says; what it leaves out stays as it is.

        Args:
            body: The message's ``scenario`` and ``dataset``; wrong types count as left out.
            rng: Draws the driving style where the message has null for it.
            frame_key: The setting of the dataset that says how large the pictures are.
        """
        scenario, dataset = (
            part if isinstance(part := body.get(key), dict) else {}
            for key in ("scenario", "dataset")
        )
        self.location = both(scenario.get("location"), self.location, number)
        self.hour, self.minute = both(scenario.get("time"), (self.hour, self.minute), integer)
        self.weather = str(scenario.get("weather") or self.weather)
        self.vehicle = str(scenario.get("vehicle") or self.vehicle)
        mode = scenario.get("drivingMode")
        if isinstance(mode, list) and mode:
            # Its second element, setSpeed, is ignored: the mod never honoured it. A mode that is
            # no array, as a bare -1, is overlooked too.
            self.driving_flags = integer(mode[0], int(rng.integers(MAX_RANDOM_FLAGS)))
        self.rate_hz = integer(dataset.get("rate"), self.rate_hz)
        self.wants_reward = self.wants_reward or dataset.get("reward") is not None
        size = both(dataset.get(frame_key), (self.width, self.height), integer)
        if min(size) > 0 and max(size) <= MAX_FRAME_SIDE:
            self.width, self.height = size
        for key in protocol.REQUESTABLE:
            if isinstance(is_wanted := dataset.get(key), bool):
                self.keys = self.keys | {key} if is_wanted else self.keys - {key}


def number(value: Any, otherwise: float) -> float:
    """A JSON number as the mod's float; anything else leaves ``otherwise``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        return otherwise
    return float(value)


def integer(value: Any, otherwise: int) -> int:
    """A JSON number as the mod's int, which reads the low half of what was sent as a double."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return otherwise
    if isinstance(value, float):
        return struct.unpack_from("<i", struct.pack("<d", value))[0]
    return (value + 2**31) % 2**32 - 2**31


def both(
    value: Any, otherwise: tuple[Number, Number], read: Callable[[Any, Number], Number]
) -> tuple[Number, Number]:
    """Two numbers from a JSON array; each may be null, which leaves the one of ``otherwise``."""
    if not isinstance(value, list) or len(value) < 2:
        return otherwise
    return (read(value[0], otherwise[0]), read(value[1], otherwise[1]))
