"""How a session of collecting went: what a collector says at its end, and shows meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from charles.data.balancing import BalanceReport
from charles.timing import CadenceReport
from charles.ui.cadence import cadence_text, unlabelled_text
from charles.ui.console import fill


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """Everything that was counted."""

    tally: Mapping[str, int]
    """Instants, samples, starved and so on."""
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    """Why instants had no label, where the game says."""
    torn: int = 0
    """Samples of all collectors that the trainer found torn, and dropped."""
    cadence: CadenceReport
    """Of the game's instants."""
    bins: tuple[BalanceReport, ...] = ()


def describe(report: CollectReport) -> str:
    """What a person wants to know about a session of collecting, in a few lines."""
    counted = ", ".join(f"{name} {count}" for name, count in report.tally.items())
    reasons = unlabelled_text(report.unlabelled)
    return "\n".join(
        [
            f"collected: {counted}, torn {report.torn}",
            *([reasons] if reasons else []),
            f"frames: {cadence_text(report.cadence)}",
            *(_by_bin(each) for each in report.bins),
        ]
    )


def _by_bin(report: BalanceReport) -> str:
    """Samples of the newest sets in each bin."""
    bins = ", ".join(
        f"{name}: {count}" for name, count in zip(report.bins, report.achieved, strict=True)
    )
    return f"{report.output}, {report.num_sets} sets, {fill(report):.0%} balanced: {bins}"
