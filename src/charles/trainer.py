"""The trainer: a server that collectors and players join, and a loop of jitted steps on live data.

Order of one round: take the next batch (already on the device), step, log, save, look after the
processes that were started along. A round that finds no batch names the reason and waits.
"""

import csv
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from tensorboardX import SummaryWriter

from charles.config import TrainConfig
from charles.intake import Intake
from charles.learner import Learner
from charles.run import write_run
from charles.server import Server
from charles.ui.console import TrainConsole

DEMAND_S = 5.0
"""How often collectors are told what is short."""

BATCH_WAIT_S = 0.2
"""How long a round waits for a batch before it looks after everything else."""


@dataclass
class Clock:
    """Where the wall time of a run goes, seconds."""

    started_s: float = field(default_factory=time.monotonic)
    first_step_s: float | None = None
    stepping_s: float = 0.0
    starved_s: float = 0.0
    """Waiting although every buffer holds enough: the loader was too slow."""
    paused_s: float = 0.0
    """Waiting because a buffer is short."""

    def since_start(self) -> float:
        """Seconds since the run started."""
        return time.monotonic() - self.started_s

    def share_stepping(self) -> float:
        """Share of the wall time since the first step, pauses apart, that was spent in steps."""
        if self.first_step_s is None:
            return 0.0
        busy = time.monotonic() - self.first_step_s - self.paused_s
        return self.stepping_s / busy if busy > 0 else 0.0


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    steps: int
    reason: str
    minutes: float
    share_stepping: float


class MetricsLog:
    """Writes metrics to TensorBoard, with the documented tags, and to ``metrics.csv``."""

    def __init__(self, run_dir: Path) -> None:
        self._writer = SummaryWriter(str(run_dir / "tensorboard"))
        self._file = (run_dir / "metrics.csv").open("a", newline="", encoding="utf-8")
        self._csv: csv.DictWriter | None = None

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Add one row."""
        for name, value in scalars.items():
            tag = f"ModelOutputs.{name}" if name.endswith(("_loss", "_error")) else name
            self._writer.add_scalar(tag, value, step)
        row = {"step": step, **scalars}
        if self._csv is None:
            self._csv = csv.DictWriter(self._file, fieldnames=list(row))
            if self._file.tell() == 0:
                self._csv.writeheader()
        self._csv.writerow(row)
        self._file.flush()

    def close(self) -> None:
        """Flush and close both."""
        self._writer.close()
        self._file.close()


class Trainer:
    """One run, from the first sample to the last checkpoint.

    Args:
        config: The run's settings.
        collectors: Collectors to start along; more may join by hand at any time.
        has_player: Whether to start a player along.
        has_console: Whether to draw the console.
        resume: Whether to go on from the run directory's newest checkpoint.
        stop: Ends the run when set.
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
    ) -> None:
        write_run(config.run_dir, config, resume=resume)
        self._config = config
        self._stop = stop
        self._has_console = has_console
        self._clock = Clock()
        self._scalars: dict[str, float] = {}
        self._pause = ""
        self._last_demand_s = 0.0
        self._last_saved = -1
        self._stack = ExitStack()
        try:
            self._open(collectors, has_player=has_player, resume=resume)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, collectors: int, *, has_player: bool, resume: bool) -> None:
        """Take what the run needs, in the order in which it must not be missing."""
        config = self._config
        enter = self._stack.enter_context
        self._server = enter(closing(Server(config)))
        self._intake = enter(closing(Intake(config)))
        self._server.open_lane = self._intake.open_lane
        self._server.close_lane = self._intake.close_lane
        self._workers = self._start_workers(collectors, has_player=has_player)
        self._server.start()
        self._learner = enter(closing(Learner(config)))
        restored = self._learner.restore() if resume else None
        self._intake.refill(restored.data_state if restored else None)
        self._intake.start()
        self._log = enter(closing(MetricsLog(config.run_dir)))
        self._console = enter(closing(TrainConsole(is_enabled=self._has_console)))
        self._loader = enter(closing(self._make_loader()))
