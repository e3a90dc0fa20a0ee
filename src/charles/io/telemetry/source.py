"""What every telemetry is to a game: the newest reading, in the same units for all protocols."""

from typing import NamedTuple, Protocol, runtime_checkable


class Reading(NamedTuple):
    """What a game told at one time. ``None``: this protocol does not tell it."""

    received_ns: int
    """When it came, monotonic clock."""
    speed_mps: float | None
    """Speed over ground, 0 or more."""
    acceleration_braking: float | None
    """Throttle less brake, in [-1, 1]."""
    steering: float | None
    """In [-1, 1], positive right."""
    location: tuple[float, float, float] | None
    """Position in the game's world, metres."""


@runtime_checkable
class TelemetrySource(Protocol):
    """Readings of one game. Used from one thread; receives in its own."""

    malformed: int
    """Packets that could not be what they should be; each was dropped."""

    def newest(self) -> Reading | None:
        """The newest reading, or ``None`` before the first."""
        ...

    def close(self) -> None:
        """Release everything. May be called twice; does not raise."""
        ...
