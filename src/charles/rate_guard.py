"""Slowing a trainer down while a player on the same machine falls behind.

A player has deadlines and a trainer has not, but both want the same device. Cores are given to the
player first, by priority (:data:`NICENESS`). An accelerator knows none, nor do caches and memory;
so where that is not enough, the trainer takes a
*share* of its time, all of it at first: when the player, or the game it sees, comes short of its
target twice running, the share shrinks by a factor; while it is met, it grows by a constant. That
is how senders share a line fairly, and it settles close below the share at which the target is met.

Where slowing down does not help, because the player's network or its game is too slow by itself,
the guard lets go for a while instead of holding training up for nothing.

References:
    Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in
    computer networks", 1989, https://doi.org/10.1016/0169-7552(89)90019-6.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from charles.server import PeerInfo
from charles.training_config import RateGuardConfig

NICENESS = 10
"""Of a trainer from when a player first drives: a tenth of a contended core is the trainer's."""

SHRINK = 0.75
"""Factor of the share when a player is behind."""

GROW = 0.04
"""Added to the share when it keeps up: all of it is back within half a minute."""

PATIENCE = 2
"""Reports running that must fall short: a swap or a hiccup is one."""

HOPELESS = 12
"""Reports at the least share after which it must have helped."""

HELP = 1.1
"""Factor in the rate that counts as help."""

LET_GO = 120
"""Reports for which the guard lets go after it did not help."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a player fared since its last report."""

    player: int
    """Which one."""
    ticks: int
    """Predictions since it began; tells a new report from one that was seen."""
    missed: int
    """Deadlines missed since it began."""
    rate_hz: float
    """Predictions per second lately."""
    frames_hz: float
    """New frames of the game per second lately; 0 where it is not known."""


class RateGuard:
    """Decides how much of its time a trainer takes. Pure but for its own memory; one thread.

    Args:
        config: When to slow down, and how far.
        target_hz: The player's rate, predictions per second.

    Attributes:
        share: Share of its time that the trainer may take, in (0, 1].
    """

    def __init__(self, config: RateGuardConfig, target_hz: float) -> None:
        self.share = 1.0
        self._config, self._target_hz = config, target_hz
        self._last: Pace | None = None
        self._short = self._at_least = self._let_go = 0
        self._full_hz = 0.0

    def hear(self, pace: Pace | None, *, is_paused: bool = False) -> None:
        """Consider the newest report of the player, of the slowest where there are several.

        Args:
            pace: The report, which may be one that was heard before; ``None`` while nobody drives,
                and nothing is to be slowed down for.
            is_paused: Whether the trainer stands still just now. A player that keeps its rate
                then says nothing about steps, which may take seconds: it is judged by the whole of
                a step and its pause, at the pause's end.
        """
        if pace is None or not self._config.is_enabled:
            self._forget()
            return
        if is_paused:
            return
        last, self._last = self._last, pace
        if last is None or pace.player != last.player or pace.ticks <= last.ticks:
            return  # there is nothing to compare with, or no new report
        if self._let_go:
            self._let_go -= 1
            return
        rate_hz = self._rate(pace, last)
        if self.share == 1.0:
            self._full_hz = rate_hz
        if rate_hz < self._config.target * self._target_hz:
            self._fall_behind(rate_hz)
        else:
            self._short = self._at_least = 0
            self.share = min(1.0, self.share + GROW)

    def pause_s(self, step_s: float) -> float:
        """How long to stand still after a step that took ``step_s`` seconds."""
        return step_s * (1.0 / self.share - 1.0)

    @property
    def text(self) -> str:
        """What to tell a person: ``slowed to 60 % for the player: 27.1/30 Hz``; or nothing."""
        if self._let_go:
            return (
                f"the player keeps {self._full_hz:.1f}/{self._target_hz:g} Hz however slow training"
                " is: not slowed"
            )
        if self.share == 1.0 or self._last is None:
            return ""
        told = [hz for hz in (self._last.rate_hz, self._last.frames_hz) if hz]
        rate_hz = min(told, default=0.0)
        return (
            f"slowed to {self.share:.0%} for the player: {rate_hz:.1f}/{self._target_hz:g} Hz"
        ).replace("%", " %")

    def _rate(self, pace: Pace, last: Pace) -> float:
        """The player's rate, or what would have kept its rate if no deadline had been missed."""
        ticks, missed = pace.ticks - last.ticks, max(0, pace.missed - last.missed)
        kept_hz = self._target_hz * ticks / (ticks + missed)
        told = [hz for hz in (pace.rate_hz, pace.frames_hz) if hz > 0]
        return min([kept_hz, *told])

    def _fall_behind(self, rate_hz: float) -> None:
        self._short += 1
        if self._short < PATIENCE:
            return
        least = self._config.least
        self._at_least += self.share <= least
        self.share = max(least, self.share * SHRINK)
        if self._at_least >= HOPELESS and rate_hz < HELP * self._full_hz:
            self.share, self._let_go = 1.0, LET_GO
            self._short = self._at_least = 0

    def _forget(self) -> None:
        self.share, self._last = 1.0, None
        self._short = self._at_least = self._let_go = 0


def slowest_pace(peers: Iterable[PeerInfo]) -> Pace | None:
    """The report of the slowest player that drives; ``None`` if none does."""
    paces = [
        Pace(
            player=peer.id,
            ticks=_count(peer, "ticks"),
            missed=_count(peer, "missed"),
            rate_hz=peer.rate_hz,
            frames_hz=float(peer.detail.get("fps", 0.0)),
        )
        for peer in peers
        if peer.role == "player" and peer.state in ("driving", "unstuck")
    ]
    return min(paces, key=lambda pace: pace.rate_hz, default=None)


def _count(peer: PeerInfo, name: str) -> int:
    return int(peer.detail.get(name, 0))
