"""How a person at a player's wheel is listened to: the trainer's figures of it."""

from charles.intake import Intake, IntakeView
from charles.metrics import MetricsLog
from charles.timing import NS_PER_S, clock_ns


class HumanFigures:
    """Logs how many samples of takeovers there are, and how soon they were trained on.

    Args:
        intake: Where the samples are.
        log: The run's log.
    """

    def __init__(self, intake: Intake, log: MetricsLog) -> None:
        self._intake, self._log = intake, log
        self._latency_s = 0.0
        """0 while this session has not measured any."""

    def trained(self, step: int, since_ns: int) -> None:
        """After a step: if it was the first with a person's turn, log how long that took.

        Args:
            step: Steps done.
            since_ns: When the turn's first picture was captured; 0 if this batch is not the first.
        """
        if since_ns:
            self._latency_s = (clock_ns() - since_ns) / NS_PER_S
            self.write(step)

    def write(self, step: int) -> None:
        """Log how many samples there are, once there were any."""
        intake = self._intake.view()
        if intake.human_received:
            scalars = {
                "received": float(intake.human_received),
                "held": float(intake.human_held),
                "drawn": float(intake.human_drawn),
                "latency_s": self._latency_s,
            }
            self._log.write_human(step, scalars)

    def notes(self, intake: IntakeView) -> list[str]:
        """What the console says, once there were any."""
        if not intake.human_received:
            return []
        note = (
            f"person at the wheel: {intake.human_received} samples, {intake.human_held} still to "
            f"be drawn from, {intake.human_drawn} draws"
        )
        if self._latency_s:
            note += f", the last turn in training after {self._latency_s:.1f} s"
        return [note]
