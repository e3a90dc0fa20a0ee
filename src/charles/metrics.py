"""Where a run's figures go: TensorBoard, and a table per kind of figure."""

import csv
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

VALIDATION = "validation/"
"""What the names of figures of held-out samples begin with."""

HUMAN = "human/"
"""What the names of figures of a person's takeovers begin with."""

_OF_OUTPUTS = ("_loss", "_mae")
"""How the names end of figures that belong to an output; their tags are documented ones."""


class MetricsLog:
    """Writes figures to TensorBoard, with the documented tags, and to ``metrics.csv``.

    Those of held-out samples go to ``validation.csv`` and those of a person's takeovers to
    ``human.csv``: they come at other steps. A run that is gone on with adds to its tables, cut to
    the steps that are not done again; one with other columns is moved aside first, and ``note``
    says so.

    A full disk ends the log, not the training: ``failure`` says why.

    Args:
        run_dir: The run's directory.
        step: Steps done: rows of later ones are of a crash. By default none is.
    """

    def __init__(self, run_dir: Path, *, step: int | None = None) -> None:
        self.failure = self.note = ""
        self._run_dir, self._step = run_dir, step
        purge_step = None if step is None else step + 1
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)
        self._files = ExitStack()
        self._tables: dict[str, tuple[Any, csv.DictWriter]] = {}

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add one row of ``metrics.csv``, unless the log has ended."""
        self._attempt(lambda: self._write("metrics.csv", step, scalars))

    def write_validation(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add one row of ``validation.csv``, unless the log has ended.

        Args:
            step: Steps done.
            scalars: Named as those of a step; the tags begin with ``validation/``.
        """
        named = {f"{VALIDATION}{name}": value for name, value in scalars.items()}
        self._attempt(lambda: self._write("validation.csv", step, named))

    def write_human(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add one row of ``human.csv``, unless the log has ended.

        Args:
            step: Steps done.
            scalars: Of samples that a person showed at a player's wheel; tags begin with
                ``human/``.
        """
        named = {f"{HUMAN}{name}": value for name, value in scalars.items()}
        self._attempt(lambda: self._write("human.csv", step, named))

    def write_picture(self, step: int, tag: str, picture: np.ndarray) -> None:
        """Add a picture, RGB uint8 ``[H, W, 3]``, unless the log has ended; from any thread."""
        self._attempt(lambda: self._writer.add_image(tag, picture, step, dataformats="HWC"))

    def _attempt(self, write: Callable[[], object]) -> None:
        try:
            if not self.failure:
                write()
        except OSError as err:
            self.failure = f"no more metrics are written: {err.strerror}"

    def _write(self, table: str, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            is_documented = name.endswith(_OF_OUTPUTS) and not name.startswith(VALIDATION)
            self._writer.add_scalar(f"ModelOutputs.{name}" if is_documented else name, value, step)
        row = {"step": step, **scalars}
        if table not in self._tables:
            self._tables[table] = self._open(self._run_dir / table, list(row))
        opened, writer = self._tables[table]
        writer.writerow(row)
        opened.flush()

    def _open(self, path: Path, names: list[str]) -> tuple[Any, csv.DictWriter]:
        """Open a table to which rows of these columns can be added."""
        if path.is_file() and (aside := _make_ready(path, names, self._step)):
            self.note = f"{path.name} had other columns, its rows are in {aside.name}"
        opened = path.open("a", newline="", encoding="utf-8")
        self._files.callback(_close, opened)
        writer = csv.DictWriter(opened, fieldnames=names)
        if opened.tell() == 0:
            writer.writeheader()
        return opened, writer

    def close(self) -> None:
        """Flush and close everything."""
        try:
            self._writer.close()
        except OSError:
            _abandon(self._writer)
        self._files.close()


def _make_ready(path: Path, names: list[str], step: int | None) -> Path | None:
    """Cut what a crash left: an unfinished line, and rows of steps that come again; move a table of
    other columns out of the way.

    Returns:
        Where the table was moved, ``NAME.1.csv`` and so on; ``None`` if its columns are these.
    """
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    is_known = not whole or next(csv.reader([whole[0].decode("utf-8", "replace")])) == names
    if is_known:
        last = float("inf") if step is None else step
        kept = [*whole[:1], *takewhile(lambda row: _step_of(row) <= last, whole[1:])]
        os.truncate(path, sum(map(len, kept)))
        return None
    free = (path.with_suffix(f".{number}{path.suffix}") for number in count(1))
    return path.rename(next(each for each in free if not each.exists()))


def _step_of(row: bytes) -> int:
    """The step of a table's row; 0 of one that is no row of ours, which stays where it is."""
    first = row.partition(b",")[0]
    return int(first) if first.isdigit() else 0


def _close(opened: Any) -> None:
    with suppress(OSError):  # every row was flushed, or its failure told
        opened.close()


def _abandon(writer: SummaryWriter) -> None:
    """Let a writer go that cannot flush; it would try again, and fail, when the process ends."""
    file_writer: Any = writer.file_writer
    events = file_writer.event_writer
    events._worker.stop()
    events._closed = True
