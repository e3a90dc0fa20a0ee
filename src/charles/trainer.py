"""The trainer: a server that collectors and players join, and a loop of jitted steps on live data.

Order of one round: take the next batch (already on the device), step, log, save, look after the
processes that were started along. A round that finds no batch names the reason and waits.
"""

import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import jax
import numpy as np

from charles.checkpoint import Checkpoints
from charles.companions import companions
from charles.config import TrainConfig
from charles.contract import (
    CaptureContract,
    read_contract,
    resumed_contract,
    write_contract,
)
from charles.data.loader import Batch, Loader, pending_ids
from charles.hot import HotFile, HotValues
from charles.human_figures import HumanFigures
from charles.intake import Intake, Refilled
from charles.learner import Learner, NotFiniteError, Restored
from charles.messages import Checkpoint, Demand
from charles.metrics import MetricsLog
from charles.process import lower_priority, stop_on_signals
from charles.rate_guard import NICENESS, RateGuard, slowest_pace
from charles.run import CONFIG_FILE, read_run, write_run
from charles.server import Server
from charles.transfer import check_frozen, missing_origins
from charles.ui.console import TrainConsole, TrainView
from charles.ui.plots import PLOT_S, Repeated, balance_picture

DEMAND_S = 2.0
"""How often collectors are told what is short."""

GUARD_S = 0.5
"""How often the trainer looks whether a player falls behind."""

HOT_S = 0.5
"""How often the hot file is looked at."""

FULL_SHARE = 0.9
"""Draws, as a share of its capacity, from which on a buffer has enough while another has not."""

FLUSH_S = 5.0
"""Most time that a checkpoint waits for the disk copy of its samples."""

BATCH_WAIT_S = 0.2
"""How long a round waits for a batch before it looks after everything else."""


@dataclass
class Clock:
    """Where the wall time of a run goes, seconds."""

    started_s: float = field(default_factory=time.monotonic)
    first_step_s: float | None = None
    """When the first step, which compiles, was over."""
    stepping_s: float = 0.0
    paused_s: float = 0.0
    """Waiting because a buffer is short."""
    held_s: float = 0.0
    """Standing still so that a player keeps its rate."""

    def since_start(self) -> float:
        """Seconds since the run started."""
        return time.monotonic() - self.started_s

    def share_stepping(self) -> float:
        """Share of the wall time since the first step that was spent in steps, pauses apart for
        lack of samples or for a player."""
        if self.first_step_s is None:
            return 0.0
        busy = time.monotonic() - self.first_step_s - self.paused_s - self.held_s
        return self.stepping_s / busy if busy > 0 else 0.0


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    steps: int
    reason: str
    minutes: float
    share_stepping: float


class Trainer:
    """One run, from the first sample to the last checkpoint.

    Args:
        config: The run's settings.
        collectors: Collectors to start along; more may join by hand at any time.
        has_player: Whether to start a player along.
        has_console: Whether to draw the console.
        resume: Whether to go on from the run directory's newest checkpoint.
        stop: Ends the run when set.
        accept_contract: Whether it may go on with other pictures or settings than it learned with.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        collectors: int,
        has_player: bool,
        has_console: bool,
        resume: bool,
        stop: threading.Event,
        accept_contract: bool = False,
    ) -> None:
        if Checkpoints(config.run_dir / "checkpoints").latest() is None:
            check_frozen(config.network.frozen, config.transfer, config.network.spec)
        contract = resumed_contract(config, is_accepted=accept_contract) if resume else None
        self._is_resumed = resume and (config.run_dir / CONFIG_FILE).exists()
        self._before = HotValues.of(read_run(config.run_dir)) if self._is_resumed else None
        if not self._is_resumed and write_run(config.run_dir, config, resume=resume):
            contract = read_contract(config.run_dir)  # of the same settings, so it holds
        self._config = config
        self._stop = stop
        self._has_console = has_console
        self._clock = Clock()
        self._scalars: dict[str, float] = {}
        self._notes: list[str] = []
        self._pause = ""
        self._validated = self._turned = ""
        self._guard = RateGuard(config.guard, config.play.rate_hz)
        self._last_demand_s = self._last_hot_s = self._last_guard_s = 0.0
        self._is_behind = False
        """Whether players go first; Linux lets nobody rise again."""
        self._saved_mark: tuple[int, set[int]] | None = None
        self._stack = ExitStack()
        self._contract, self._accepts = contract, accept_contract
        try:
            self._open(collectors, has_player=has_player, resume=resume)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, collectors: int, *, has_player: bool, resume: bool) -> None:
        """Take what the run needs, in the order in which it must not be missing."""
        config = self._config
        enter = self._stack.enter_context
        self._server = enter(closing(Server(config)))  # first: a busy port is found before all else
        self._intake = enter(closing(Intake(config)))
        self._stack.callback(self._server.close)  # before the intake: nobody joins a closed pool
        self._server.open_lane = self._intake.open_lane
        self._server.close_lane = self._intake.close_lane
        self._server.first_step = Checkpoints(config.run_dir / "checkpoints").latest() or 0
        self._server.contract, self._server.keep_contract = self._contract, self._keep_contract
        self._workers = enter(
            companions(
                config.server,
                collectors=collectors,
                has_player=has_player,
                accept_contract=self._accepts,
            )
        )
        self._server.start()
        self._learner = enter(closing(Learner(config)))
        restored = self._learner.restore(resume=resume, accepts_contract=self._accepts)
        refilled = self._intake.refill(restored.data_state if restored else None)
        if self._is_resumed:  # only now it is sure that these settings fit what is there
            write_run(config.run_dir, config, resume=True)
        self._first_step = self._last_saved = self._learner.step_number
        self._note_start(restored, refilled)
        self._open_hot_file()
        self._log = enter(closing(MetricsLog(config.run_dir, step=self._first_step)))
        self._human = HumanFigures(self._intake, self._log)
        self._plots = enter(closing(Repeated(self._draw_balance, every_s=PLOT_S)))
        self._console = enter(closing(TrainConsole(is_enabled=self._has_console)))
        self._loader = enter(
            closing(
                Loader(
                    self._intake.pool,
                    config.batch_size,
                    draw=self._intake.draw,
                    release=self._intake.release,
                    finish=self._intake.finish,
                    convert=self._learner.put,
                    pending=refilled.pending,
                )
            )
        )
        self._intake.start()

    def _keep_contract(self, contract: CaptureContract) -> None:
        """Write down how the first collector captures; from the server's thread."""
        directories = [self._config.run_dir]
        if self._intake.storage is not None:
            directories.append(self._intake.storage.directory)
        for directory in directories:
            write_contract(directory, contract)

    def _note_start(self, restored: Restored | None, refilled: Refilled) -> None:
        """Remember for the console what the run begins with."""
        if restored is not None:
            exact = "exactly" if not refilled.missing else f"without {refilled.missing} samples"
            self._notes.append(f"resumed {exact} at step {restored.step}")
        else:
            self._notes += missing_origins(self._config.transfer, self._config.network.spec)
        if refilled.samples:
            self._notes.append(f"{refilled.samples} samples from disk")
        if refilled.torn:
            self._notes.append(f"{refilled.torn} torn files from a crash dropped")

    def _open_hot_file(self) -> None:
        """Begin with what the run's hot file says, and tell where the configuration differs."""
        configured = HotValues.of(self._config)
        self._hot = HotFile(self._config.run_dir, configured, before=self._before)
        self._learner.turn(self._hot.values)
        changes = self._hot.values.differences(configured)
        self._turned = f"hot.json at the start: {', '.join(changes)}" if changes else ""

    def run(self) -> TrainResult:
        """Train until the steps are done, the time is up, or somebody stops the run.

        Raises:
            CharlesError: A step was not finite, a worker failed, or the data plane broke; what was
                trained and collected until then is on disk.
        """
        try:
            with jax.transfer_guard("disallow"):
                reason = self._loop()
        finally:
            try:
                self._save()
            finally:
                self._stack.close()
        return TrainResult(
            steps=self._learner.step_number,
            reason=reason,
            minutes=self._clock.since_start() / 60,
            share_stepping=self._clock.share_stepping(),
        )

    def _loop(self) -> str:
        config, learner, clock = self._config, self._learner, self._clock
        while learner.step_number < config.steps:
            if self._stop.is_set():
                return "stopped"
            if config.minutes and clock.since_start() > config.minutes * 60:
                return "time is up"
            batch = self._next_batch()
            if batch is not None:
                metrics = self._timed_step(batch)
                if learner.step_number % config.log_every == 0:
                    self._scalars = learner.host_scalars(metrics)
                    self._scalars["guard_share"] = self._guard.share
                    self._log.write(learner.step_number, self._scalars)
                    self._human.write(learner.step_number)
                if learner.step_number % config.checkpoint.every_steps == 0:
                    self._save()
                if learner.step_number % config.validation.every_steps == 0:
                    self._validate()
            self._look_after_others()
        return "all steps done"

    def _next_batch(self) -> Batch | None:
        """The next batch, or ``None`` after a moment; the wait is booked under its cause."""
        batch = self._loader.get(timeout_s=0.0)
        if batch is not None:
            self._pause = ""
            return batch
        short = self._intake.view().shortfall
        started_s = time.monotonic()
        batch = self._loader.get(timeout_s=BATCH_WAIT_S)
        if short:
            self._clock.paused_s += time.monotonic() - started_s
        reasons = [f"{name} {reason}" for name, reason in short.items()]
        self._pause = f"waiting: {', '.join(reasons)}" if reasons else ""
        return batch

    def _timed_step(self, batch: Batch) -> dict[str, jax.Array]:
        clock = self._clock
        started_s = time.monotonic()
        try:
            metrics = self._learner.step(batch.data)
        except NotFiniteError:  # such a batch is not to be the first of a resume
            self._loader.finish(batch)
            raise
        self._loader.finish(batch)
        self._human.trained(self._learner.step_number, batch.draw.since_ns)
        ended_s = time.monotonic()
        if clock.first_step_s is None:  # it compiled; the clock runs from here
            clock.first_step_s, clock.paused_s = ended_s, 0.0
        else:
            clock.stepping_s += ended_s - started_s
            self._hold_back(ended_s - started_s)
        return metrics

    def _hold_back(self, step_s: float) -> None:
        """After a step, leave the device to a player that falls behind; look after the rest."""
        started_s = now_s = time.monotonic()
        while not self._stop.is_set() and now_s < started_s + self._guard.pause_s(step_s):
            self._stop.wait(min(BATCH_WAIT_S, started_s + self._guard.pause_s(step_s) - now_s))
            self._look_after_others(is_paused=True)
            now_s = time.monotonic()
        self._clock.held_s += now_s - started_s

    def _validate(self) -> None:
        """Measure on what is held out, if there is a batch of it."""
        step = self._learner.step_number
        scalars = self._learner.validate(self._intake.held_out_batches())
        if scalars:
            self._log.write_validation(step, scalars)
            scores = [
                f"{output.name} loss {scalars[f'{output.name}_loss']:.4g} "
                f"MAE {scalars[f'{output.name}_mae']:.4g}"
                for output in self._config.outputs
            ]
            self._validated = f"validation at step {step}: {', '.join(scores)}"

    def _save(self) -> None:
        """Write a checkpoint in the background, and tell the players.

        Every sample that its buffers hold is on disk before the checkpoint is, unless the disk
        takes longer than :data:`FLUSH_S`: a resume then says how many it goes on without. Files of
        used-up samples stay until the next checkpoint is written.
        """
        learner, storage = self._learner, self._intake.storage
        if learner.step_number in (0, self._last_saved):
            return
        learner.wait_saved()
        learner.capture = self._server.contract
        if storage is None:
            learner.save(self._loader.state(self._intake.state))
        else:
            mark, state = storage.mark(), self._loader.state(self._intake.state)
            storage.flush(timeout_s=FLUSH_S)
            if self._saved_mark is not None:
                storage.commit(*self._saved_mark)
            # A batch under way may hold samples that newer ones have replaced since it was drawn.
            self._saved_mark = (mark, pending_ids(state))
            learner.save(state)
        self._last_saved = learner.step_number
        self._server.broadcast(Checkpoint(step=learner.step_number))

    def _look_after_others(self, *, is_paused: bool = False) -> None:
        """Raise what failed elsewhere, heed the hot file and the player, tell collectors what is
        short, show."""
        for worker in self._workers:
            error = worker.error()
            if error is not None:
                raise error
        now_s = time.monotonic()
        if now_s - self._last_hot_s > HOT_S:
            self._last_hot_s = now_s
            self._heed_hot_file()
        if now_s - self._last_guard_s > GUARD_S:
            if not is_paused:  # or the end of a pause would come too soon to be heard
                self._last_guard_s = now_s
            self._heed_players(is_paused=is_paused)
        if now_s - self._last_demand_s > DEMAND_S:
            self._last_demand_s = now_s
            intake = self._intake.view()
            demand = Demand(
                short={"weather": self._intake.rarest_weather()},
                full=self._full_outputs(),
                is_validation_full=intake.is_validation_full,
                torn=intake.torn,
            )
            self._server.broadcast(demand, role="collector")
        self._plots.show(self._intake.labels)
        self._console.show(self._view)

    def _heed_hot_file(self) -> None:
        """Go on with what the hot file says now."""
        before = self._hot.values
        if self._hot.poll():
            self._learner.turn(self._hot.values)
            changes = ", ".join(self._hot.values.differences(before))
            self._turned = f"hot.json at step {self._learner.step_number}: {changes}"

    def _draw_balance(self, labels: np.ndarray) -> None:
        """Show in TensorBoard how balanced the buffers are; called from another thread."""
        names = self._intake.pool.spec.sample.controls
        if len(names) > 1:
            picture = balance_picture(labels, names=names, title="Samples in the buffers")
            self._log.write_picture(self._learner.step_number, "balance", picture)

    def _heed_players(self, *, is_paused: bool) -> None:
        """Let the slowest player that drives go first, and slow down where that is not enough."""
        pace = slowest_pace(self._server.peers())
        if pace is not None and self._config.guard.is_enabled and not self._is_behind:
            self._is_behind = True
            lower_priority(NICENESS)
        self._guard.hear(pace, is_paused=is_paused)

    def _full_outputs(self) -> tuple[str, ...]:
        """Outputs that have enough, while others have not: their collecting would be wasted."""
        enough = FULL_SHARE * self._config.data.buffer_capacity
        stock = self._intake.view().stock
        full = tuple(name for name, draws in stock.items() if draws >= enough)
        return full if len(full) < len(stock) else ()

    def _view(self) -> TrainView:
        """What the console shows."""
        config, clock, intake = self._config, self._clock, self._intake.view()
        names = [output.name for output in config.outputs]
        steps_per_s = self._steps_done() / clock.stepping_s if clock.stepping_s else 0.0
        notes = [*self._notes, f"{intake.received} samples received"]
        if self._server.contract is not None:
            notes.append(f"contract {self._server.contract.fingerprint}")
        if intake.torn or intake.foreign:
            notes.append(f"{intake.torn} torn, {intake.foreign} foreign samples dropped")
        if intake.storage_failure:
            notes.append(f"no disk copy: {intake.storage_failure}")
        if config.data.validation_share:
            notes.append(f"{intake.held_out} samples held out")
        notes += self._human.notes(intake)
        more = (self._guard.text, self._validated, self._turned, self._hot.problem)
        notes += [text for text in (*more, self._log.note, self._log.failure) if text]
        return TrainView(
            title=str(config.run_dir),
            step=self._learner.step_number,
            steps=config.steps,
            elapsed_s=clock.since_start(),
            buffers=intake.sizes,
            capacity=config.data.buffer_capacity,
            losses={name: self._scalars.get(f"{name}_loss", float("nan")) for name in names},
            errors={name: self._scalars.get(f"{name}_mae", float("nan")) for name in names},
            learning_rate=self._scalars.get("learning_rate", 0.0),
            steps_per_s=steps_per_s,
            samples_per_s=steps_per_s * config.batch_size,
            share_stepping=clock.share_stepping(),
            pause=self._pause,
            peers=self._server.peers(),
            notes=notes,
        )

    def _steps_done(self) -> int:
        """Steps done in this process, the first one apart."""
        return max(0, self._learner.step_number - self._first_step - 1)


def train(
    config: TrainConfig,
    *,
    collectors: int = 0,
    player: bool = False,
    console: bool = True,
    resume: bool = False,
    stop: threading.Event | None = None,
    accept_contract: bool = False,
) -> TrainResult:
    """Train live until the run ends. Blocks; SIGINT and SIGTERM end it cleanly.

    Args:
        config: The run's settings.
        collectors: Collectors to start along.
        player: Whether to start a player along.
        console: Whether to draw the console.
        resume: Whether to go on from the newest checkpoint of ``config.run_dir``.
        accept_contract: Whether a run may go on with pictures that are captured otherwise, or with
            other settings than its parameters have learned with.
        stop: Ends the run when set; by default SIGINT and SIGTERM do.

    Raises:
        CharlesError: See :class:`Trainer` and :meth:`Trainer.run`.
    """
    trainer = Trainer(
        config,
        collectors=collectors,
        has_player=player,
        has_console=console,
        resume=resume,
        stop=stop or stop_on_signals(),
        accept_contract=accept_contract,
    )
    return trainer.run()
