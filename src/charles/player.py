"""The player: drives a game with a network that is still learning.

One loop on absolute deadlines: take the game's instant, predict, put the controls on the pad. New
parameters are staged in the background and swapped in between two ticks; if driving gets worse with
them, earlier ones are swapped back. The pad is touched only after everything is compiled, and it is
neutral whenever the network does not drive: before the first checkpoint, without frames, without a
finite prediction, while a stuck car is put elsewhere, and on every way out.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from charles.alignment import Delay
from charles.config import TrainConfig
from charles.controls import ControlFilter
from charles.human_samples import HumanSamples, HumanTally
from charles.io.abilities import Troubled
from charles.io.game import Game, Scene, Telemetry
from charles.io.pads.pad import Pad, SpeedAware, applied_by
from charles.observer import Inputs, Observer
from charles.relocation import Relocation
from charles.remote import RemoteReport
from charles.response import Response
from charles.rollback import Rollback, RolledBack
from charles.sample import SampleSpec
from charles.sight import LOST_S, is_lost
from charles.spectators import Spectators
from charles.stage_log import StageLog
from charles.staging import Refusal, Staged
from charles.takeover import Takeover, TakeoverTally, Turn
from charles.timing import (
    NS_PER_S,
    Cadence,
    CadenceReport,
    JitterBuffer,
    Quantiles,
    RateKeeper,
    clock_ns,
)
from charles.unstuck import Unstuck


@dataclass
class Tally:
    """What a player counted."""

    ticks: int = 0
    passed: int = 0
    """Instants that were let pass because the picture was being faded."""
    swaps: int = 0
    unstucks: int = 0
    collisions: int = 0
    lost: int = 0
    """Instants too old to drive by."""
    stalls: int = 0
    """Instants that took so long to come that the pad was let go of meanwhile."""
    not_finite: int = 0
    """Predictions that were no numbers."""
    unanswered: int = 0
    """Instants that a server did not predict for in time; what was predicted before held."""


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
    rollbacks: tuple[RolledBack, ...] = ()
    cameras: dict[str, CadenceReport] = field(default_factory=dict)
    """Of the pictures that spectators were shown, by camera; empty without any."""
    unshown: int = 0
    """Pictures for spectators that there was no time for."""
    compilations: int = 0
    remote: RemoteReport | None = None
    """How a server answered, if one predicted."""
    note: str = ""
    """What the backend has to say of the parameters."""
    takeover: TakeoverTally | None = None
    """Of a person's turns at the wheel, where one may take it."""
    human: HumanTally | None = None
    """What became of them as samples."""
    response: str = ""
    """What is to be said of a game that does not do what it is asked for."""


class Acted(NamedTuple):
    """What was done at an instant."""

    turn: Turn | None
    """A person's, if one drove."""
    applied: np.ndarray
    """The controls that were put on the pad, as the game applies them, float32 ``[A]``."""


class Predictor(Protocol):
    """What predicts for a player: :class:`charles.policy.Policy`, or one on a server."""

    variables: Any
    """What predictions use."""

    @property
    def config(self) -> TrainConfig:
        """The run's settings."""
        ...

    @property
    def spec(self) -> SampleSpec:
        """The shape of what it is shown."""
        ...

    def predict(self, inputs: Inputs) -> dict[str, float] | None:
        """Decoded value of every output for one instant; ``None`` if that took too long. Blocks."""
        ...

    def num_compilations(self) -> int:
        """How many times the prediction was compiled."""
        ...


class Source(Protocol):
    """Where a player finds new parameters: :class:`charles.staging.Stager`, or a server's step."""

    @property
    def newest(self) -> Staged | None:
        """The newest parameters that passed."""
        ...

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Those that did not."""
        ...

    def see(self, inputs: Inputs) -> None:
        """Remember an instant for shadow predictions; never blocks."""
        ...


class Player:
    """Drives one game with one policy. One thread only.

    Args:
        game: The game; the caller closes it.
        pad: What the controls go to; the caller closes it.
        policy: The network; warmed up by the caller.
        stager: Where new parameters come from.
        spectators: Who is shown the game's other cameras; nobody by default.
        takeover: Decides whether a person drives instead; by default nobody does.
        human: Where a person's instants go; by default nowhere.
    """

    def __init__(
        self,
        game: Game,
        pad: Pad,
        policy: Predictor,
        stager: Source,
        *,
        spectators: Spectators | None = None,
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
        self.is_lost = False
        """Whether the last instant was too old to drive by."""
        self._predicted_ns = self._answered_ns = 0
        """Capture time of the instant that the controls follow from, and when they were ready."""
        self.predictions: dict[str, float] = {}
        self.controls = np.zeros(len(policy.spec.controls), np.float32)
        self.policy = policy
        self._game, self._pad, self._stager = game, pad, stager
        # Asked once: looking whether an object fits a protocol is slow.
        self._speed_aware = pad if isinstance(pad, SpeedAware) else None
        self._observer = Observer(policy.spec)
        offset_ms = policy.config.collect.latency_offset_ms
        offset_ns = round(max(offset_ms, 0.0) * 1e6)
        self._told: Delay[Telemetry] = Delay(offset_ns)
        """What is told waits for the frames that show it, as it did for what was learned from."""
        self._acted: Delay[Acted] = Delay(offset_ns)
        """And so does what was done."""
        self._shown: Telemetry
        self._is_whole = True
        outputs, controls = policy.config.outputs, policy.spec.controls
        self._filter = ControlFilter(outputs, controls, play.smoothing)
        self._unstuck = Unstuck(play.unstuck, play.rate_hz)
        self._relocation = Relocation(game, play.unstuck.fade_s, play.rate_hz)
        self.rollback = Rollback(play.rollback)
        self.response = Response(controls, play.rate_hz)
        """Of the game, where it tells which controls apply."""
        self._present: Staged | None = None
        self._trusted: Staged | None = None
        self._spectators = spectators
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
        """Wait for the deadline, then see, predict and act once, at an even time; or let the
        instant pass while the picture is being faded."""
        self.keeper.wait()
        if self._relocation.is_under_way:
            self._pass()
            return
        began_ns = clock_ns()
        telemetry, captured_ns = self._see_and_predict()
        self.tally.stalls += clock_ns() - began_ns > LOST_S * NS_PER_S
        self._jitter.wait(self.keeper.deadline_ns)
        self.log.mark()
        self._act(telemetry)
        self.log.mark()
        self.log.end(self._predicted_ns or captured_ns)
        self.cadence.add(clock_ns())
        self.frames.add(captured_ns)
        self._after(telemetry, captured_ns)

    def _see_and_predict(self) -> tuple[Telemetry, int]:
        """From the game's next instant to controls; returns the instant and its capture time."""
        log = self.log
        log.begin()
        telemetry = self._game.tick()
        captured_ns = telemetry.captured_ns if self._game.is_realtime else clock_ns()
        log.mark()
        self._game.grab(self._observer.frame)
        log.mark()
        told = self._told.add(telemetry.captured_ns, telemetry) or self._told.oldest
        self._shown = told or telemetry
        self._is_whole = telemetry.is_whole and self._shown.is_whole
        inputs = self._observer.observe(self._shown)
        log.mark()
        predictions = self.policy.predict(inputs)
        log.mark()
        if predictions is None:  # what was predicted before holds, until it is too old
            self.tally.unanswered += 1
        else:
            self.predictions, self._predicted_ns = predictions, captured_ns
            self._answered_ns = clock_ns()
            self.controls = self._filter.apply(predictions)
        if self._speed_aware is not None:
            self._speed_aware.at_speed(telemetry.speed_mps)
        log.mark()
        return telemetry, captured_ns

    def _act(self, telemetry: Telemetry) -> None:
        """Put the controls on the pad, or let go of it where they cannot be trusted."""
        self.is_lost = False
        self._turn = self._takeover.step() if self._takeover is not None else None
        if self._takeover is not None and self._turn is not None:
            self._let_person_drive(self._turn, passes_through=self._takeover.passes_through)
            return
        is_unanswered = _age_s(self._answered_ns) > LOST_S
        self.is_lost = is_unanswered or is_lost(_age_s(self._predicted_ns), telemetry)
        is_finite = bool(np.isfinite(self.controls).all())
        self.tally.lost += self.is_lost
        self.tally.not_finite += not is_finite
        if self.is_lost or not is_finite:
            self._let_go()
        else:
            self._put(self.controls)

    def _put(self, controls: np.ndarray) -> None:
        """Put controls on the pad; what it makes of them is remembered where no game tells it."""
        self._pad.update(controls)
        if self._shown.has_controls:
            self.response.hear(controls, self._shown.controls)
        else:
            self._applied = applied_by(self._pad, controls)

    def _let_person_drive(self, turn: Turn, *, passes_through: bool) -> None:
        """Put a person's controls on the pad, unless the game has them from the person's own."""
        self.controls = turn.controls
        if passes_through:
            self._put(turn.controls)
        else:
            self._pad.neutral()
            self._applied = turn.controls

    def _let_go(self) -> None:
        self._pad.neutral()
        self._applied = np.zeros_like(self._applied)

    def _remember(self, told_ns: int, captured_ns: int) -> None:
        """Add the instant that the frame shows to the history, and keep it if a person drove."""
        present = Acted(self._turn, self._applied)
        acted = self._acted.add(told_ns, present)
        if self._human is not None:
            turn = acted.turn if acted is not None else None
            self._record_person(self._human, turn, captured_ns)
        shown = self._acted.oldest or present
        self._observer.remember(self._shown, shown.applied)

    def _record_person(self, human: HumanSamples, turn: Turn | None, captured_ns: int) -> None:
        is_old = _age_s(captured_ns) > LOST_S or not self._is_whole
        if turn is None or turn.is_lost or is_old:
            human.end()
            return
        human.add(
            self._observer.inputs,
            self._shown,
            turn.controls,
            captured_ns=captured_ns,
            may_be_over=turn.may_be_over,
        )

    def _after(self, telemetry: Telemetry, captured_ns: int) -> None:
        """What has time until the next deadline: spectators, a person's instants, history, unstuck,
        new parameters."""
        self.tally.ticks += 1
        self.tally.collisions += telemetry.is_collision
        self._remember(telemetry.captured_ns, captured_ns)
        if self.tally.ticks % self._see_every == 0:
            self._stager.see(self._observer.inputs)
        self._show()
        if self._turn is not None or self.is_lost:
            # A person may stand where they like, as must a car that nobody sees the way of; neither
            # is what rollback judges.
            self._unstuck.reset()
            is_stuck = is_back = False
        else:
            is_stuck = self._unstuck.add(telemetry.speed_mps)
            is_back = self._judge(is_stuck=is_stuck, is_collision=telemetry.is_collision)
        if is_stuck:
            self._put_elsewhere()
        if not is_back and (is_stuck or not self._swap_at_unstuck):
            self._swap(self._stager.newest)

    def _judge(self, *, is_stuck: bool, is_collision: bool) -> bool:
        """Count the instant for or against the parameters that drove; whether others took over."""
        period_s = self.keeper.period_ns / NS_PER_S
        decision = self.rollback.add(period_s, is_stuck=is_stuck, is_collision=is_collision)
        if decision == "trust":
            self._trusted = self._present
        elif decision == "back":
            assert self._trusted is not None
            self._drive_with(self._trusted)
        return decision == "back"

    def _swap(self, newest: Staged | None) -> None:
        """Drive with other parameters from the next tick on, if there are any that may drive."""
        if newest is None or newest.step == self.step or not self.rollback.accepts(newest.step):
            return
        self._drive_with(newest)
        self.rollback.begin(newest.step)

    def _drive_with(self, staged: Staged) -> None:
        self.policy.variables = staged.variables
        self._present, self.step = staged, staged.step
        self.tally.swaps += 1

    def _put_elsewhere(self) -> None:
        self.tally.unstucks += 1
        self._let_go()
        self._relocation.begin()
        if self._game.is_realtime and not self._relocation.is_under_way:
            self._game.tick()  # a scene that is built anew takes its time, for which nobody is late
        self._restart()

    def _pass(self) -> None:
        """An instant of a fade: the game goes on, spectators watch, nothing is predicted."""
        self.tally.passed += 1
        self._game.tick()
        self._show()
        self._relocation.step()
        if not self._relocation.is_under_way:
            self._restart()

    @property
    def state(self) -> str:
        """``driving``, ``person drives``, or ``unstuck`` while the car is being put elsewhere."""
        if self._relocation.is_under_way:
            return "unstuck"
        return "person drives" if self.is_human_driving else "driving"

    def _show(self) -> None:
        if self._spectators is not None:
            self._spectators.show(self.keeper.deadline_ns, state=self.state)

    def _restart(self) -> None:
        """A wanted pause begins or is over: forget what was before it."""
        self._predicted_ns = self._answered_ns = 0
        self._observer.restart()
        self._told.clear()
        self._acted.clear()
        self._filter.restart()
        self._unstuck.reset()
        self.cadence.pause()
        self.frames.pause()
        if self._spectators is not None:
            self._spectators.pause()
        self.keeper.restart()

    @property
    def is_human_driving(self) -> bool:
        """Whether a person drove at the last tick."""
        return self._turn is not None

    def sight_note(self) -> str:
        """What is to be said where the game is not seen; empty where it is."""
        if not self.is_lost:
            return ""
        trouble = self._game.trouble if isinstance(self._game, Troubled) else ""
        return f"the pad is let go of: {trouble or 'nothing new is seen'}"

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
            rollbacks=self.rollback.rollbacks,
            cameras=self._spectators.report() if self._spectators is not None else {},
            unshown=self._spectators.dropped if self._spectators is not None else 0,
            compilations=self.policy.num_compilations(),
            takeover=replace(self._takeover.tally) if self._takeover is not None else None,
            human=self._human.tally if self._human is not None else None,
            response=self.response.text(),
        )


def _age_s(time_ns: int) -> float:
    return (clock_ns() - time_ns) / NS_PER_S
