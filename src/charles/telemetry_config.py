"""Settings of what a game tells beside its pictures; see :mod:`charles.io.telemetry`."""

import math
from dataclasses import dataclass
from typing import Literal

from charles.errors import require

TelemetryKind = Literal["none", "codemasters", "forza", "trackmania", "outgauge"]

USUAL_PORTS = {"codemasters": 20777, "forza": 9999, "trackmania": 9000, "outgauge": 4444}
"""Ports where none is set; Forza has none of its own, so this is the one to enter in the game."""

FORZA_OWN_PORTS = (5200, 5300)
"""Ports that the Forza games keep for themselves: first and last."""


@dataclass(frozen=True, kw_only=True)
class TelemetryConfig:
    """Which protocol a game tells its speed and controls by, and where it is heard."""

    kind: TelemetryKind = "none"
    """``codemasters``: DiRT, older F1, mods for GTA V. ``forza``: Data Out. ``trackmania``: the
    plugin of tmrl. ``outgauge``: BeamNG and Live for Speed, which tell no steering."""
    host: str = "127.0.0.1"
    """Where to listen (UDP; ``0.0.0.0`` to hear another machine), or where the game is (TCP:
    trackmania)."""
    port: int = 0
    """Port; 0 for the usual one: codemasters 20777, forza 9999, trackmania 9000, outgauge 4444."""
    timeout_s: float = 0.25
    """A reading older than this is not used, and nothing is learned without one."""
    is_left_positive: bool = False
    """Whether the sender's steering is positive to the left, as ikt32's mod for GTA V has it."""

    def __post_init__(self) -> None:
        kinds = ("none", *USUAL_PORTS)
        require(self.kind in kinds, "telemetry.kind", f"be one of {kinds}", self.kind)
        require(bool(self.host), "telemetry.host", "name a host", self.host)
        require(0 <= self.port < 65536, "telemetry.port", "lie in 0..65535", self.port)
        is_timeout = math.isfinite(self.timeout_s) and self.timeout_s > 0
        require(is_timeout, "telemetry.timeout_s", "be positive", self.timeout_s)
        first, last = FORZA_OWN_PORTS
        is_free = self.kind != "forza" or not first <= self.port <= last
        require(is_free, "telemetry.port", f"lie outside {first}..{last} for forza", self.port,
                "The game uses these itself.")  # fmt: skip

    @property
    def used_port(self) -> int:
        """The port that is meant."""
        return self.port or USUAL_PORTS.get(self.kind, 0)
