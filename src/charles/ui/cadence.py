"""In one line: how evenly instants came, and why some of them had no label."""

from collections.abc import Mapping

from charles.timing import CadenceReport


def cadence_text(cadence: CadenceReport) -> str:
    """How well a stream of instants keeps its rate."""
    period = cadence.period_ms
    return (
        f"period p50 {period.p50:.1f} p95 {period.p95:.1f} p99 {period.p99:.1f} "
        f"max {period.max:.1f} ms, "
        f"late {cadence.late}, duplicate {cadence.duplicate}, stale {cadence.stale}"
    )


def unlabelled_text(unlabelled: Mapping[str, int]) -> str:
    """Why instants had no label; empty if they all had, or the game does not say."""
    reasons = ", ".join(f"{name} {count}" for name, count in unlabelled.items() if count)
    return f"no label: {reasons}" if reasons else ""
