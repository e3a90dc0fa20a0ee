"""What a player without a network of its own and the server that predicts for it say.

::

    player → Join, repeated until answered      server → Joined, or NotJoined
    player → Instant, one at a time             server → Prediction of that number, or Moved

The server remembers nothing of a player between two messages, so it may be restarted at any time.
Every instant names the contract it was made for; a server that serves another answers ``Moved``,
and the player joins again. Arrays travel as their bytes, numbers in little-endian float32.
"""

import hashlib
import json
from typing import Any

import msgspec

from charles.config import TrainConfig
from charles.run import NOT_CONTRACT, as_data
from charles.sample import SampleSpec

PROTOCOL = 1
"""Raised whenever a message changes."""

BESIDE_PIXELS_BYTES = 1 << 16
"""Room in a message for everything but pixels and history."""


class Join(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A player asks what is served."""

    session: int
    """A new random number for every question; the answer repeats it."""
    protocol: int = PROTOCOL


class Joined(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What is served."""

    session: int
    contract: str
    """See :func:`contract_id`."""
    config: TrainConfig
    step: int
    """Of the parameters that predict; -1 while there are none."""
    capture: dict[str, Any] | None = None
    """The capture contract that they were learned under, as plain data; ``None`` if unknown."""


class NotJoined(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The player cannot be served."""

    session: int
    reason: str


class Instant(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What a player sees: a network's inputs, as :class:`charles.observer.Observer` makes them."""

    contract: str
    number: int
    """Counts from a random number, so that no answer of another session fits."""
    speed: float
    purpose: tuple[float, float]
    history: memoryview
    """float32 ``[T, D]``."""
    pixels: memoryview
    """uint8 of the sample's ``pixels_shape``."""


class Prediction(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What the network says of one instant."""

    number: int
    step: int
    """Of the parameters that predicted; -1 if there are none yet, and then no values."""
    values: dict[str, float]
    """Decoded, by the names of the outputs."""
    queued_ms: float
    """How long the instant waited at the server."""
    predict_ms: float


class Moved(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Another run, or other settings, are served here."""

    number: int


ToServer = Join | Instant
ToPlayer = Joined | NotJoined | Prediction | Moved


def contract_id(config: TrainConfig) -> str:
    """What player and server must agree on, as a short text: all settings but places."""
    data = {name: value for name, value in as_data(config).items() if name not in NOT_CONTRACT}
    text = json.dumps(data, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def largest_bytes(spec: SampleSpec) -> int:
    """Size of the largest message that a player of this contract sends."""
    history_bytes = 4 * spec.history_length * spec.history_features
    return spec.pixels_bytes + history_bytes + BESIDE_PIXELS_BYTES
