"""What every telemetry is to a game: the newest reading, in the same units for all protocols."""

from typing import NamedTuple, Protocol, runtime_checkable


class Reading(NamedTuple):
    """What a game told at one time. ``None``: this protocol does not tell it, or not now.

    A game that is paused, in a menu or at the end of a race tells of no driving: its reading has
    neither speed nor controls.
    """

    received_ns: int
    """When it came, monotonic clock."""
    speed_mps: float | None
    """Speed over ground, 0 or more."""
    acceleration_braking: float | None
    """Throttle less brake, in [-1, 1]."""
    steering: float | None
    """In [-1, 1], positive right."""
    location: tuple[float, float, float] | None
    """Position in the game's world and along its own axes, metres."""


@runtime_checkable
class TelemetrySource(Protocol):
    """Readings of one game. Used from one thread; receives in its own."""

    @property
    def malformed(self) -> int:
        """Packets that could not be what they should be; each was dropped."""
        ...

    @property
    def last_malformed(self) -> str:
        """What was wrong with the last of them; empty before the first."""
        ...

    def newest(self) -> Reading | None:
        """The newest reading, or ``None`` before the first. Does not block."""
        ...

    def explain(self) -> str:
        """For a person: where it listens, what came, and what is wrong if nothing did."""
        ...

    def close(self) -> None:
        """Release everything. May be called twice; does not raise."""
        ...
