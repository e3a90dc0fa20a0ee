"""Plots as PNG files: losses over steps, and how balanced a set of labels is.

Matplotlib is imported when a plot is made, and draws into memory: no display is needed.
"""

import csv
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from charles.errors import StorageError, require
from charles.files import put_in_place
from charles.sample import DRIVING_CONTROLS

DPI = 120
MOST_POINTS = 2000
"""Points drawn of a noisy curve; more only make it a slower blot."""

BINS = 61
"""Of each axis; an odd number, so that 0 lies in the middle of one."""

TICKS = (-1.0, -0.5, 0.0, 0.5, 1.0)

PLOT_S = 60.0
"""Between two drawings of the same plot."""

MOST_KEPT = 200_000
"""Newest labels that a collector's plot shows."""


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Columns of a run's ``metrics.csv``, float64 ``[N]`` each, ``step`` among them.

    A last line that is cut short, as by a kill, is left out.

    Raises:
        StorageError: The file is missing, or is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError) as err:
        raise StorageError(f"{path} must be a readable metrics table, got: {err}.") from err
    if "step" not in header:
        raise StorageError(f"{path} must have a column 'step', got {header}.")
    if rows and len(rows[-1]) < len(header):
        rows.pop()
    try:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(header))
    except ValueError as err:
        raise StorageError(f"{path} must hold numbers in even rows, got: {err}.") from err
    return {name: table[:, column] for column, name in enumerate(header)}


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average of ``values`` ``[N]``, of the same length; ends use what there is."""
    if window <= 1 or len(values) == 0:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(len(values))
    low = np.maximum(middle - window // 2, 0)
    high = np.minimum(middle + window // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def loss_plot(metrics: Path | Mapping[str, np.ndarray], path: Path) -> None:
    """Draw the loss of each output over the steps, raw and smoothed, on a logarithmic scale.

    Args:
        metrics: A run's ``metrics.csv``, or its columns: ``step`` and ``<output>_loss``, ``[N]``.
        path: The PNG to write.

    Raises:
        StorageError: The table is missing, or has no losses.
    """
    columns = read_metrics(metrics) if isinstance(metrics, Path) else metrics
    names = [name for name in columns if name.endswith("_loss")]
    if not names:
        raise StorageError(f"The metrics must have a column '<output>_loss', got {list(columns)}.")
    steps = np.asarray(columns["step"])
    window = max(1, len(steps) // 40)
    figure, axes = _figure(8.0, 4.5)
    for index, name in enumerate(names):
        _draw_loss(axes, steps, np.asarray(columns[name]), window, label=name, index=index)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(f"Training loss (thick: mean of {window} points)")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    _save(figure, path)


def _draw_loss(
    axes: Any, steps: np.ndarray, losses: np.ndarray, window: int, *, label: str, index: int
) -> None:
    colour, every = f"C{index}", max(1, len(steps) // MOST_POINTS)
    axes.plot(steps[::every], losses[::every], color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(
        steps,
        smooth(losses, window),
        color=colour,
        linewidth=2.0,
        label=label.removesuffix("_loss").replace("_", " "),
    )


def balance_plot(
    labels: np.ndarray,
    path: Path,
    *,
    names: Sequence[str] = DRIVING_CONTROLS,
    title: str = "Training data balancing",
) -> None:
    """Draw how often two controls take which values, together and each on its own.

    Args:
        labels: float32 ``[N, A]`` in [-1, 1]; the first control is drawn upwards, the second
            across, others not at all.
        path: The PNG to write.
        names: Of the controls.
        title: Heading.

    Raises:
        ConfigError: There are not two controls.
        StorageError: The file cannot be written.
    """
    _save(_balance_figure(labels, names, title), path)


def balance_picture(
    labels: np.ndarray,
    *,
    names: Sequence[str] = DRIVING_CONTROLS,
    title: str = "Training data balancing",
) -> np.ndarray:
    """As :func:`balance_plot`, as RGB uint8 ``[H, W, 3]``."""
    figure = _balance_figure(labels, names, title)
    figure.set_dpi(DPI)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _balance_figure(labels: np.ndarray, names: Sequence[str], title: str) -> Any:
    from matplotlib.colors import PowerNorm

    require(len(names) > 1, "plot", "be left out for a game with a single control", tuple(names))
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    counts, _, _ = np.histogram2d(labels[:, 0], labels[:, 1], bins=(edges, edges))
    figure, _ = _figure(8.0, 7.3, num_axes=0)
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 2), wspace=0.0, hspace=0.0,
                               left=0.08, right=0.92, top=0.86, bottom=0.06)  # fmt: skip
    joint = figure.add_subplot(grid[1, 1])
    # Few samples of a combination are to be told from none, which even steps would hide.
    shades = PowerNorm(0.5, vmin=0.0, vmax=max(1.0, counts.max()))
    joint.pcolormesh(edges, edges, counts, cmap="viridis", norm=shades)
    joint.yaxis.tick_right()
    across = figure.add_subplot(grid[0, 1], sharex=joint)
    upwards = figure.add_subplot(grid[1, 0], sharey=joint)
    _draw_marginals(across, upwards, counts, edges)
    across.set_title(names[1].replace("_", " / ").title())
    upwards.set_title(names[0].replace("_", " / ").title())
    figure.text(0.06, 0.9, f"{title}\n", fontsize=16, va="center")
    figure.text(0.06, 0.875, f"{len(labels):,} samples", fontsize=11, va="center", color="0.35")
    return figure


class Repeated:
    """Draws again and again, in a thread of its own: a drawing takes a quarter of a second.

    At most one drawing is under way. Use from one thread.

    Args:
        draw: Draws labels, float32 ``[N, A]``, and puts the picture where it belongs; called from
            another thread. Its failures to write are not told: who needs to know draws last.
        every_s: Between the beginnings of two drawings; the first begins after as long.
    """

    def __init__(self, draw: Callable[[np.ndarray], None], *, every_s: float = PLOT_S) -> None:
        self._draw, self._every_s = draw, every_s
        self._began_s = time.monotonic()
        self._thread: threading.Thread | None = None

    def show(self, labels: Callable[[], np.ndarray]) -> None:
        """Begin to draw what ``labels`` gives, if it is time; returns at once."""
        is_drawing = self._thread is not None and self._thread.is_alive()
        if is_drawing or time.monotonic() - self._began_s < self._every_s:
            return
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(labels(),), name="plot")
        self._thread.start()

    def close(self) -> None:
        """Wait for the drawing that is under way. May be called twice."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, labels: np.ndarray) -> None:
        with suppress(StorageError):
            self._draw(labels)


class KeptPlot:
    """A PNG of how balanced the samples are that a collector has kept, lately up to 200,000.

    Written at once, so that a path that cannot be written is refused before anything is collected,
    then every minute, and when it is closed. Use from one thread.

    Args:
        path: The PNG.
        names: Of the game's controls.

    Raises:
        ConfigError: There are not two controls.
        StorageError: The file cannot be written; from :meth:`close` too.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._kept: deque[np.ndarray] = deque()
        self._num_kept = 0
        self._draw(self._labels())
        self._repeated = Repeated(self._draw)

    def add(self, labels: np.ndarray) -> None:
        """Take in the labels, float32 ``[N, A]``, of samples that were kept."""
        self._kept.append(labels)
        self._num_kept += len(labels)
        while self._num_kept > MOST_KEPT:
            self._num_kept -= len(self._kept.popleft())
        self._repeated.show(self._labels)

    def close(self) -> None:
        """Draw what was kept in the end."""
        self._repeated.close()
        self._draw(self._labels())

    def _labels(self) -> np.ndarray:
        return np.concatenate([np.empty((0, len(self._names)), np.float32), *self._kept])

    def _draw(self, labels: np.ndarray) -> None:
        balance_plot(labels, self._path, names=self._names, title="Samples that were kept")


def _draw_marginals(across: Any, upwards: Any, counts: np.ndarray, edges: np.ndarray) -> None:
    """Bars above and left of the joint histogram, coloured by their height."""
    from matplotlib import colormaps

    viridis, width = colormaps["viridis"], edges[1] - edges[0]
    columns, rows = counts.sum(axis=0), counts.sum(axis=1)
    colours = [viridis(each / max(1.0, each.max())) for each in (columns, rows)]
    across.bar(edges[:-1], columns, width=width, align="edge", color=colours[0])
    across.xaxis.tick_top()
    across.set_yticks([])
    upwards.barh(edges[:-1], rows, height=width, align="edge", color=colours[1])
    upwards.invert_xaxis()
    upwards.set_xticks([])
    for axes, hidden in ((across, ("left", "right")), (upwards, ("top", "bottom"))):
        axes.spines[list(hidden)].set_visible(False)
    across.set(xlim=(-1, 1), xticks=TICKS)
    upwards.set(ylim=(-1, 1), yticks=TICKS)


def _figure(width: float, height: float, num_axes: int = 1) -> tuple[Any, Any]:
    """A figure that belongs to no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if num_axes else None)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot() if num_axes else None


def _save(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all: somebody may be looking at the file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, dpi=DPI, format="png")
        put_in_place(partial, path)
    except OSError as err:
        raise StorageError(f"{path} must be writable, got: {err.strerror or err}.") from err
