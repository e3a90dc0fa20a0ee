"""Going back to earlier parameters when driving got worse, and only then.

Parameters that drive are *on probation* until they drove for a whole window without being found
worse than the *trusted* ones; then they are trusted themselves. While a network is learning, new
parameters come more often than anything happens, so what is judged is the driving since the trusted
ones, whichever parameters did it, and what is gone back to is the trusted ones. So two sets of
parameters are kept at most, the present and the trusted ones, and few numbers beside.

What counts is incidents: the car was stuck, or hit something. A crash and the unstuck that it leads
to are one, so incidents within ``apart_s`` of one that counted do not count; that spreads them
more evenly than chance would, which makes the test only more careful.

The test is the exact conditional one for two Poisson rates. It is made when the number of incidents
on probation reaches ``incidents``, twice, four times as many and so on; the first look may use half
of the admitted probability of error, the second a quarter, the third an eighth. At a fixed number
of incidents, with the time until it as what is left to chance, the test errs on the careful side;
and by the union bound all looks of one probation together err with less than ``p_value``.

References:
    Przyborowski and Wilenski, "Homogeneity of results in testing samples from Poisson series",
    Biometrika 31, 1940, https://doi.org/10.1093/biomet/31.3-4.313.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from charles.play_config import RollbackConfig
from charles.statistics import poisson_excess

RECENT_SHARE = 0.25
"""Newest part of a window that must be unsuspicious by itself: the rest may have been driven by
other parameters than those that are to be trusted."""

SUSPICIOUS_P = 0.2
"""Probability below which driving is suspicious: not worse for sure, yet not trusted either."""

MOST_WINDOWS = 3
"""Windows after which suspicion alone is no longer a reason not to trust: what is compared with may
have been lucky."""

RECORDS = 64
"""Checkpoints whose driving is remembered."""

Decision = Literal["", "trust", "back"]
"""What to do after an instant: nothing, keep the present parameters as the trusted ones, or drive
with the trusted ones again."""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """What happened while one checkpoint, or several in turn, drove."""

    step: int
    """The checkpoint, the newest of several."""
    seconds: float = 0.0
    unstucks: int = 0
    collisions: int = 0
    incidents: int = 0
    """Unstucks and collisions, those that belong together counted once."""

    @property
    def per_minute(self) -> float:
        """Incidents per minute of driving."""
        return 60.0 * self.incidents / self.seconds if self.seconds else 0.0

    def plus(self, seconds: float, *, unstucks: int, collisions: int, incidents: int) -> "Driven":
        """With another instant."""
        return replace(
            self,
            seconds=self.seconds + seconds,
            unstucks=self.unstucks + unstucks,
            collisions=self.collisions + collisions,
            incidents=self.incidents + incidents,
        )


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """A step back, and why."""

    step: int
    """Checkpoint that is banned."""
    to_step: int
    reason: str
    """``2.4 incidents/min against 0.4, p 0.001``."""

    def __str__(self) -> str:
        return f"rolled back from checkpoint {self.step} to {self.to_step}: {self.reason}"


class Rollback:
    """Judges the parameters that drive. Use from one thread; memory is bounded.

    Args:
        config: When to go back.

    Attributes:
        trusted: The trusted parameters' driving; ``None`` before any are trusted.
        probation: Driving since then; its step is that of the present parameters.
        rollbacks: Every step back so far.
        records: Driving of each of the newest :data:`RECORDS` checkpoints, oldest first.
    """

    def __init__(self, config: RollbackConfig) -> None:
        self.trusted: Driven | None = None
        self.probation = Driven(step=-1)
        self.rollbacks: tuple[RolledBack, ...] = ()
        self.records: deque[Driven] = deque(maxlen=RECORDS)
        self._config = config
        self._window_s = 60.0 * config.window_minutes
        self._incident_s: deque[float] = deque()
        """When the newest incidents on probation were, in seconds of it."""
        self._since_incident_s = config.apart_s
        self._looks = self._windows = 0
        self._held_s = 0.0
        """Driving that the trusted parameters are still given before others may try again."""

    @property
    def is_on_probation(self) -> bool:
        """Whether other parameters than the trusted ones drive."""
        return self.trusted is None or self.probation.step != self.trusted.step

    def accepts(self, step: int) -> bool:
        """Whether the parameters of ``step`` may drive now. Those that were gone back from may not,
        nor older ones; newer ones may once the trusted ones drove as long as what was refused."""
        if not self.rollbacks or not self._config.is_enabled:
            return True
        return step > self.rollbacks[-1].step and self._held_s <= 0.0

    def begin(self, step: int) -> None:
        """Other parameters drive from now on."""
        self.records.append(Driven(step=step))
        is_first = not self.is_on_probation or self.probation.step < 0
        self.probation = Driven(step=step) if is_first else replace(self.probation, step=step)
        if is_first:
            self._forget()

    def add(self, seconds: float, *, is_stuck: bool, is_collision: bool) -> Decision:
        """Count an instant of driving, and say what is to be done after it.

        Args:
            seconds: Time that it stands for.
            is_stuck: Whether the car counts as stuck, and is put elsewhere.
            is_collision: Whether it hit something.
        """
        is_incident = (is_stuck or is_collision) and self._since_incident_s >= self._config.apart_s
        self._since_incident_s = 0.0 if is_incident else self._since_incident_s + seconds
        counts = {"unstucks": is_stuck, "collisions": is_collision, "incidents": is_incident}
        if self.records:
            self.records[-1] = self.records[-1].plus(seconds, **counts)
        if not self.is_on_probation:
            assert self.trusted is not None
            self.trusted = self.trusted.plus(seconds, **counts)
            self._held_s -= seconds
            return ""
        self.probation = self.probation.plus(seconds, **counts)
        if is_incident:
            self._incident_s.append(self.probation.seconds)
        if not self._config.is_enabled:
            return ""
        if is_incident and self.probation.incidents == self._config.incidents << self._looks:
            self._looks += 1
            reason = self._worse()
            if reason:
                return self._go_back(reason)
        return self._trust_if_due()

    def _worse(self) -> str:
        """Why those on probation are worse, by one more look; empty if they need not be."""
        if self.trusted is None:
            return ""
        p_value = _excess(self.probation, self.trusted)
        if p_value >= self._config.p_value / 2**self._looks:
            return ""
        return (
            f"{self.probation.per_minute:.2g} incidents/min against "
            f"{self.trusted.per_minute:.2g}, p {p_value:.1g}"
        )

    def _go_back(self, reason: str) -> Decision:
        assert self.trusted is not None
        banned, to_step = self.probation.step, self.trusted.step
        self.rollbacks += (RolledBack(step=banned, to_step=to_step, reason=reason),)
        self._held_s = self.probation.seconds
        self.probation = Driven(step=to_step)
        self.records.append(Driven(step=to_step))
        self._forget()
        return "back"

    def _trust_if_due(self) -> Decision:
        """Trust the present parameters after a whole window that is not suspicious, nor its newest
        part; what is drives another one, for the next look, until it had time enough."""
        probation = self.probation
        if probation.seconds < (self._windows + 1) * self._window_s:
            return ""
        self._windows += 1  # judged at its ends only: at some instant or other, chance smiles
        if self.trusted is not None and self._windows < MOST_WINDOWS:
            recent_s = RECENT_SHARE * self._window_s
            since_s = probation.seconds - recent_s
            while self._incident_s and self._incident_s[0] < since_s:
                self._incident_s.popleft()
            recent = Driven(step=-1, seconds=recent_s, incidents=len(self._incident_s))
            if min(_excess(each, self.trusted) for each in (probation, recent)) < SUSPICIOUS_P:
                return ""
        self.trusted = probation
        self._forget()
        return "trust"

    def _forget(self) -> None:
        """A probation begins, or has ended."""
        self._incident_s.clear()
        self._looks = self._windows = 0


def _excess(driven: Driven, trusted: Driven) -> float:
    """Probability of so many incidents or more if both drive equally well."""
    return poisson_excess(driven.incidents, driven.seconds, trusted.incidents, trusted.seconds)
