"""The player: drives a game with a network that is still learning.

One loop on absolute deadlines: take the game's instant, predict, put the controls on the pad. New
parameters are staged in the background and swapped in between two ticks. The pad is touched only
after everything is compiled, and it is neutral whenever the network does not drive: before the
first checkpoint, without frames, without a finite prediction, and on every way out.
"""

import time
from dataclasses import dataclass, field, replace

import numpy as np

from charles.human_samples import HumanSamples, HumanTally
from charles.io.game import Game, Scene, Telemetry
from charles.io.pads.pad import Pad, applied_by
from charles.observer import Observer
from charles.policy import ControlFilter, Policy
from charles.stage_log import StageLog
from charles.staging import Refusal, Staged, Stager
from charles.takeover import Takeover, TakeoverTally, Turn
from charles.timing import NS_PER_S, Cadence, CadenceReport, JitterBuffer, Quantiles, RateKeeper
from charles.unstuck import Unstuck

LOST_S = 0.5
"""Age of an instant from which on its pixels count as lost: a car at 15 m/s is 7 m further."""


@dataclass
class Tally:
    """What a player counted."""

    ticks: int = 0
    swaps: int = 0
    unstucks: int = 0
    collisions: int = 0
    lost: int = 0
    """Instants too old to drive by."""
    not_finite: int = 0
    """Predictions that were no numbers."""


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """How a session of driving went."""

    tally: Tally = field(default_factory=Tally)
    step: int = -1
    """Step of the parameters that drove last; -1 if none ever did."""
    missed: int = 0
    """Deadlines that were missed."""
    cadence: CadenceReport
    """Of the pad's updates."""
    frames: CadenceReport
    """Of the game's instants."""
    stages_ms: dict[str, Quantiles]
    latency_ms: Quantiles
    """Capture to pad."""
    refusals: tuple[Refusal, ...] = ()
    compilations: int = 0
    takeover: TakeoverTally | None = None
    """Of a person's turns at the wheel, where one may take it."""
    human: HumanTally | None = None
    """What became of them as samples."""


class Player:
    """Drives one game with one policy. One thread only.

    Args:
        game: The game; the caller closes it.
        pad: What the controls go to; the caller closes it.
        policy: The network; warmed up by the caller.
        stager: Where new parameters come from.
        takeover: Decides whether a person drives instead; by default nobody does.
        human: Where a person's instants go; by default nowhere.
    """

    def __init__(
        self,
        game: Game,
        pad: Pad,
        policy: Policy,
        stager: Stager,
        *,
        takeover: Takeover | None = None,
        human: HumanSamples | None = None,
    ) -> None:
        play = policy.config.play
        self.tally = Tally()
        self.log = StageLog()
        self.keeper = RateKeeper(play.rate_hz)
        self._jitter = JitterBuffer(round(play.longest_hold * self.keeper.period_ns))
        self.cadence = Cadence(play.rate_hz)
        """Of the pad's updates."""
        self.frames = Cadence(play.rate_hz)
        """Of the game's instants."""
        self.step = -1
        self.predictions: dict[str, float] = {}
        self.controls = np.zeros(len(policy.spec.controls), np.float32)
        self.policy = policy
        self._game, self._pad, self._stager = game, pad, stager
        self._observer = Observer(policy.spec)
        outputs, controls = policy.config.outputs, policy.spec.controls
        self._filter = ControlFilter(outputs, controls, play.smoothing)
        self._unstuck = Unstuck(play.unstuck, play.rate_hz)
        self._takeover, self._human = takeover, human
        self._turn: Turn | None = None
        self._applied = np.zeros(len(policy.spec.controls), np.float32)
        if takeover is not None:
            takeover.begin(policy.spec.controls)
        self._swap_at_unstuck = play.swap_at == "unstuck"
        self._see_every = max(1, round(play.rate_hz))

    def begin(self, scene: Scene) -> None:
        """Build the scene, rehearse one tick while the game's own driver drives, take over."""
        self._swap(self._stager.newest)
        self._game.reset(scene)
        self._see_and_predict()  # the first picture of a scene is slow, and so is a cold network
        self._game.set_npc(False)
        self._game.tick()  # a real-time game's instants and our deadlines now keep step
        self._restart()

    def tick(self) -> None:
        """Wait for the deadline, then see, predict and act once, at an even time."""
        self.keeper.wait()
        telemetry, captured_ns = self._see_and_predict()
        self._jitter.wait(self.keeper.deadline_ns)
        self.log.mark()
        self._act(captured_ns)
        self.log.mark()
        self.log.end(captured_ns)
        self.cadence.add(time.monotonic_ns())
        self.frames.add(captured_ns)
        self._after(telemetry, captured_ns)

    def _see_and_predict(self) -> tuple[Telemetry, int]:
        """From the game's next instant to controls; returns the instant and its capture time."""
        log = self.log
        log.begin()
        telemetry = self._game.tick()
        captured_ns = telemetry.captured_ns if self._game.is_realtime else time.monotonic_ns()
        log.mark()
        self._game.grab(self._observer.frame)
        log.mark()
        inputs = self._observer.observe(telemetry)
        log.mark()
        self.predictions = self.policy.predict(inputs)
        log.mark()
        self.controls = self._filter.apply(self.predictions)
        log.mark()
        return telemetry, captured_ns

    def _act(self, captured_ns: int) -> None:
        """Put the controls on the pad, or let go of it where they cannot be trusted."""
        self._turn = self._takeover.step() if self._takeover is not None else None
        if self._takeover is not None and self._turn is not None:
            self._let_person_drive(self._turn, passes_through=self._takeover.passes_through)
            return
        is_lost = time.monotonic_ns() - captured_ns > LOST_S * NS_PER_S
        is_finite = bool(np.isfinite(self.controls).all())
        self.tally.lost += is_lost
        self.tally.not_finite += not is_finite
        if is_lost or not is_finite:
            self._let_go()
        else:
            self._pad.update(self.controls)
            self._applied = applied_by(self._pad, self.controls)

    def _let_person_drive(self, turn: Turn, *, passes_through: bool) -> None:
        """Put a person's controls on the pad, unless the game has them from the person's own."""
        self.controls = turn.controls
        if passes_through:
            self._pad.update(turn.controls)
            self._applied = applied_by(self._pad, turn.controls)
        else:
            self._pad.neutral()
            self._applied = turn.controls

    def _let_go(self) -> None:
        self._pad.neutral()
        self._applied = np.zeros_like(self._applied)

    def _record_person(self, telemetry: Telemetry, captured_ns: int) -> bool:
        """Keep the instant if a person drove; whether one did. Before it is remembered."""
        turn = self._turn
        if turn is None or turn.is_lost:
            if self._human is not None:
                self._human.end()
        elif self._human is not None:
            self._human.add(
                self._observer.inputs,
                telemetry,
                turn.controls,
                captured_ns=captured_ns,
                may_be_over=turn.may_be_over,
            )
        return turn is not None

    def _after(self, telemetry: Telemetry, captured_ns: int) -> None:
        """What has time until the next deadline: a person's instants, history, unstuck, new
        parameters."""
        self.tally.ticks += 1
        self.tally.collisions += telemetry.is_collision
        is_human = self._record_person(telemetry, captured_ns)
        self._observer.remember(telemetry, self._applied)
        if self.tally.ticks % self._see_every == 0:
            self._stager.see(self._observer.inputs)
        if is_human:  # who may stand where they like
            self._unstuck.reset()
        is_stuck = not is_human and self._unstuck.add(telemetry.speed_mps)
        if is_stuck:
            self._put_elsewhere()
        if is_stuck or not self._swap_at_unstuck:
            self._swap(self._stager.newest)

    def _swap(self, newest: Staged | None) -> None:
        """Drive with other parameters from the next tick on, if there are any."""
        if newest is not None and newest.step != self.step:
            self.policy.variables = newest.variables
            self.step = newest.step
            self.tally.swaps += 1

    def _put_elsewhere(self) -> None:
        self.tally.unstucks += 1
        self._let_go()
        self._game.teleport()
        self._restart()

    def _restart(self) -> None:
        """A wanted pause is over: forget what was before it."""
        self._observer.restart()
        self._filter.restart()
        self._unstuck.reset()
        self.cadence.pause()
        self.frames.pause()
        self.keeper.restart()

    @property
    def is_human_driving(self) -> bool:
        """Whether a person drove at the last tick."""
        return self._turn is not None

    def person_note(self) -> str:
        """What is to be said of a person who may take the wheel; empty where there is nothing."""
        return "" if self._takeover is None else self._takeover.note

    def human_tally(self) -> HumanTally | None:
        """What became of a person's instants, where one may take the wheel beside a trainer."""
        return None if self._human is None else self._human.tally

    def report(self) -> PlayReport:
        """How it went so far."""
        return PlayReport(
            tally=replace(self.tally),
            step=self.step,
            missed=self.keeper.missed,
            cadence=self.cadence.report(),
            frames=self.frames.report(),
            stages_ms=self.log.stages_ms(),
            latency_ms=self.log.latency_ms(),
            refusals=self._stager.refusals,
            compilations=self.policy.num_compilations(),
            takeover=replace(self._takeover.tally) if self._takeover is not None else None,
            human=self._human.tally if self._human is not None else None,
        )
