"""What a person sees in the terminal while Charles trains, collects or plays.

A loop hands over the newest view, a frozen dataclass, and goes on at once; a thread of the console
draws it a few times a second, so that neither drawing nor a slow terminal ever holds a loop up.
Where the output is no terminal, plain lines come out instead, one group every few seconds.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from charles.data.balancing import BalanceReport
from charles.server import PeerInfo
from charles.timing import CadenceReport
from charles.ui.cadence import cadence_text, unlabelled_text

SHOW_S = 0.25
"""Between two views that are looked at, and between two drawings of a single line."""

DRAW_S = 0.5
"""Between two drawings of a whole picture, which cost about 10 ms each."""

LINE_S = 10.0
"""Between two groups of plain lines."""

SHORT_NAMES = {
    "acceleration_braking": "acc/brk",
    "acceleration": "acc",
    "braking": "brk",
    "steering": "str",
}
"""How outputs are called where space is short."""

LEVELS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class TrainView:
    """What the trainer shows."""

    title: str = "Charles"
    """Heading, such as the run's directory."""
    step: int = 0
    steps: int = 0
    """Steps after which the run ends."""
    elapsed_s: float = 0.0
    buffers: Mapping[str, int] = field(default_factory=dict)
    """Samples in each output's buffer."""
    capacity: int = 1
    """Samples that a buffer holds at most."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Newest loss of each output."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Newest mean absolute error of each output."""
    learning_rate: float = 0.0
    steps_per_s: float = 0.0
    samples_per_s: float = 0.0
    share_stepping: float = 0.0
    """Share of the wall time inside steps while data suffices, 0..1."""
    pause: str = ""
    """Why it waits: ``waiting: acceleration_braking 88 % < 90 %``; empty while it trains."""
    peers: Sequence[PeerInfo] = ()
    notes: Sequence[str] = ()
    """What a person should know: torn samples, a full disk."""


@dataclass(frozen=True, kw_only=True)
class CollectView:
    """What a collector shows."""

    rate_hz: float
    """Instants per second of wall time."""
    tally: Mapping[str, int]
    """What was counted: instants, samples, unstucks and so on."""
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    """Why instants had no label, where the game says."""
    cadence: CadenceReport
    bins: Sequence[BalanceReport]


@dataclass(frozen=True, kw_only=True)
class PlayView:
    """What a player shows."""

    predictions: Mapping[str, float] = field(default_factory=dict)
    """Raw prediction of each output."""
    translated: Mapping[str, float] = field(default_factory=dict)
    """What went to the pad for it."""
    fps: float = 0.0
    """Frames per second of the game."""
    pps: float = 0.0
    """Predictions per second."""
    state: str = ""
    """Shown alone while nothing is predicted: ``waiting for a checkpoint``."""
    note: str = ""
    """What a person should know: why the newest parameters were refused."""


class _Screen(Protocol):
    """Where views go: a live terminal, or lines."""

    interval_s: float

    def draw(self, view: object) -> None: ...

    def close(self) -> None: ...


class _LiveScreen:
    """Redraws one picture in place."""

    interval_s = DRAW_S

    def __init__(self, console: Console, render: Callable[..., RenderableType]) -> None:
        self._render = render
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def draw(self, view: object) -> None:
        self._live.update(self._render(view), refresh=True)

    def close(self) -> None:
        self._live.stop()


class _LineScreen:
    """Writes lines: new ones each time, or, on a terminal, one line over itself."""

    def __init__(
        self,
        console: Console,
        to_text: Callable[..., str],
        *,
        interval_s: float,
        is_rewriting: bool,
    ) -> None:
        self.interval_s = interval_s
        self._to_text = to_text
        self._file, self._width = console.file, console.width
        self._is_rewriting = is_rewriting

    def draw(self, view: object) -> None:
        text = self._to_text(view)
        if self._is_rewriting:  # a text that wraps could not be written over
            self._file.write(f"\r\x1b[2K{text[: self._width - 1]}")
        else:
            self._file.write(f"{text}\n")
        self._file.flush()

    def close(self) -> None:
        if self._is_rewriting:
            self._file.write("\n")


View = TypeVar("View")


class _Showing(Generic[View]):
    """Draws the newest view from a thread of its own. ``show`` may be called from one thread.

    Args:
        screen: Where to draw; ``None`` shows nothing.
    """

    def __init__(self, screen: _Screen | None) -> None:
        self._screen = screen
        self._newest: object | None = None
        self._drawn: object | None = None
        self._due_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        if screen is not None:
            self._thread.start()

    @property
    def is_due(self) -> bool:
        """Whether a new view would be drawn soon; one that is not due is not looked at."""
        return self._screen is not None and time.monotonic() >= self._due_s

    def show(self, view: View | Callable[[], View]) -> None:
        """Hand over the newest view, or what makes it, which is called only if one is due.

        Returns at once: it costs a microsecond, and what making the view costs a few times a
        second.
        """
        if self._screen is None or not self.is_due:
            return
        self._due_s = time.monotonic() + SHOW_S
        self._newest = view() if callable(view) else view

    def close(self) -> None:
        """Draw what was shown last, and leave the terminal tidy. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._screen is not None
        try:
            while not self._stop.wait(SHOW_S / 5) and self._newest is None:
                pass
            while not self._stop.is_set():
                self._draw_newest(self._screen)
                self._stop.wait(self._screen.interval_s)
            self._draw_newest(self._screen)
            self._screen.close()
        except OSError:  # nobody reads any more, as behind `| head`: the loop matters more
            self._screen = None

    def _draw_newest(self, screen: _Screen) -> None:
        view = self._newest
        if view is not self._drawn:
            screen.draw(view)
            self._drawn = view


def _make_screen(
    console: Console | None,
    *,
    is_enabled: bool,
    render: Callable[..., RenderableType],
    to_text: Callable[..., str],
) -> _Screen | None:
    if not is_enabled:
        return None
    console = console or Console(file=sys.stdout)
    if console.is_terminal:
        return _LiveScreen(console, render)
    return _LineScreen(console, to_text, interval_s=LINE_S, is_rewriting=False)


class TrainConsole(_Showing[TrainView]):
    """The trainer's console: buffers, losses, rates, pauses, who is connected.

    Args:
        is_enabled: Whether to show anything.
        console: Where to; standard output by default.
    """

    def __init__(self, *, is_enabled: bool = True, console: Console | None = None) -> None:
        super().__init__(
            _make_screen(console, is_enabled=is_enabled, render=render_train, to_text=train_lines)
        )


class CollectConsole(_Showing[CollectView]):
    """A collector's console: its rate, what it counted, and how balanced its samples are.

    Args:
        is_enabled: Whether to show anything.
        console: Where to; standard output by default.
    """

    def __init__(self, *, is_enabled: bool = True, console: Console | None = None) -> None:
        super().__init__(
            _make_screen(
                console, is_enabled=is_enabled, render=render_collect, to_text=collect_line
            )
        )


class PlayConsole(_Showing[PlayView]):
    """A player's console: one line, drawn over itself on a terminal.

    It does without rich while it runs: the player shares the interpreter with it and has deadlines.

    Args:
        is_enabled: Whether to show anything.
        console: Where to; standard output by default.
    """

    def __init__(self, *, is_enabled: bool = True, console: Console | None = None) -> None:
        console = console or Console(file=sys.stdout)
        interval_s = SHOW_S if console.is_terminal else LINE_S
        screen = _LineScreen(
            console, play_line, interval_s=interval_s, is_rewriting=console.is_terminal
        )
        super().__init__(screen if is_enabled else None)


def play_line(view: PlayView) -> str:
    """A player's line: raw predictions, what went to the pad in brackets, and rates.

    Example:
        >>> play_line(PlayView(predictions={"steering": -0.3056}, translated={"steering": -0.0593},
        ...                    fps=30.2, pps=18.1))
        'str: -0.3056(-0.0593), FPS: 30.2, PPS: 18.1'
    """
    notes = [view.note] if view.note else []
    if view.state:
        return ", ".join([view.state, *notes])
    parts = [
        f"{SHORT_NAMES.get(name, name)}: {raw:7.4f}({view.translated.get(name, 0.0):7.4f})"
        for name, raw in view.predictions.items()
    ]
    return ", ".join([*parts, f"FPS: {view.fps:.1f}", f"PPS: {view.pps:.1f}", *notes])


def buffers_line(view: TrainView) -> str:
    """``buffer: acceleration_braking: 22525/25000 steering: 24861/25000 batch number: 751647``."""
    sizes = " ".join(f"{name}: {size}/{view.capacity}" for name, size in view.buffers.items())
    return f"buffer: {sizes} batch number: {view.step}"


def train_lines(view: TrainView) -> str:
    """The trainer's plain lines: the step, the buffers, who is there and what is wrong."""
    scores = [
        f"{name} loss {_figure(view.losses, name)} MAE {_figure(view.errors, name)}"
        for name in view.buffers
    ]
    states = [f"{peer.role} {peer.id} {peer.state} {peer.rate_hz:.1f}/s" for peer in view.peers]
    lines = [
        ", ".join([f"step {view.step}/{view.steps}", *scores, rates_text(view)]),
        buffers_line(view),
        "peers: " + (", ".join(states) or "none"),
        *([view.pause] if view.pause else []),
        *view.notes,
    ]
    return "\n".join(lines)


def rates_text(view: TrainView) -> str:
    """Learning rate, speed, and how much of the time went into steps."""
    return (
        f"learning rate {view.learning_rate:.2e}, {view.steps_per_s:.1f} steps/s, "
        f"{view.samples_per_s:.0f} samples/s, {view.share_stepping:.0%} in steps"
    )


def collect_line(view: CollectView) -> str:
    """A collector's plain line."""
    counted = ", ".join(f"{name} {count}" for name, count in view.tally.items())
    bins = ", ".join(f"{each.output} {fill(each):.0%} balanced" for each in view.bins)
    reasons = f"{unlabelled_text(view.unlabelled)}; " if any(view.unlabelled.values()) else ""
    return f"{view.rate_hz:.1f}/s, {counted}, {bins}; {reasons}{cadence_text(view.cadence)}"


def ratios(report: BalanceReport) -> list[float]:
    """Achieved share of each bin, over its target share; 1 is balanced."""
    total = sum(report.achieved)
    return [
        achieved / (total * target) if total and target else 0.0
        for achieved, target in zip(report.achieved, report.target, strict=True)
    ]


def fill(report: BalanceReport) -> float:
    """How much of the wanted distribution is there, 0..1: the targets' part that is achieved."""
    met = zip(ratios(report), report.target, strict=True)
    return sum(min(1.0, ratio) * target for ratio, target in met)


def bin_bars(report: BalanceReport) -> Text:
    """Achieved against target as one character per bin: full height is the target or more."""
    bars = Text()
    for ratio in ratios(report):
        style = "green" if ratio >= 0.9 else "yellow" if ratio >= 0.5 else "red"
        level = LEVELS[min(8, round(8 * ratio))]
        bars.append("·" if ratio == 0 else level, style=style)
    return bars


def named_bars(report: BalanceReport) -> Text:
    """The bars between where the first bin begins and the last ends: values, or signed changes."""
    first, *_ = report.bins[0].strip("()").split(", ")
    *_, last = report.bins[-1].strip("()").split(", ")
    return Text.assemble((f"{first} ", "dim"), bin_bars(report), (f" {last}", "dim"))


def sum_bins(peers: Sequence[PeerInfo]) -> list[BalanceReport]:
    """All collectors' balance as one report per output."""
    merged: dict[str, BalanceReport] = {}
    for peer in peers:
        for each in peer.bins or ():
            so_far = merged.get(each.output)
            if so_far is None or so_far.bins != each.bins:
                merged[each.output] = each
            else:
                merged[each.output] = BalanceReport(
                    output=each.output,
                    bins=each.bins,
                    seen=_add(so_far.seen, each.seen),
                    achieved=_add(so_far.achieved, each.achieved),
                    target=each.target,
                    short=_add(so_far.short, each.short),
                    num_sets=so_far.num_sets + each.num_sets,
                )
    return list(merged.values())


def _add(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def render_train(view: TrainView) -> RenderableType:
    """The trainer's picture."""
    head = Text.assemble((view.title, "bold"), f"  {clock(view.elapsed_s)}  ")
    head.append(f"step {view.step}/{view.steps}", style="bold cyan")
    head.append(f"  {rates_text(view)}")
    parts: list[RenderableType] = [head, _outputs_table(view)]
    if view.pause:
        parts.append(Text(view.pause, style="bold yellow"))
    parts.append(_peers_table(view.peers))
    parts += [Text(note) for note in view.notes]
    return Group(*parts)


def _outputs_table(view: TrainView) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("output", "buffer", "", "loss", "MAE", "bins achieved"):
        table.add_column(name, justify="right" if name in ("loss", "MAE") else "left", no_wrap=True)
    balance = {each.output: each for each in sum_bins(view.peers)}
    for name, size in view.buffers.items():
        report = balance.get(name)
        table.add_row(
            name,
            f"{size}/{view.capacity}",
            ProgressBar(total=view.capacity, completed=size, width=16),
            _figure(view.losses, name),
            _figure(view.errors, name),
            Text("") if report is None else named_bars(report),
        )
    return table


def _peers_table(peers: Sequence[PeerInfo]) -> RenderableType:
    if not peers:
        return Text("nobody connected: start charles-collect, charles-play", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("peer", "role", "state", "rate", "age", "detail"):
        table.add_column(name, justify="right" if name in ("rate", "age") else "left", no_wrap=True)
    for peer in peers:
        detail = ", ".join(f"{name} {_short(value)}" for name, value in peer.detail.items())
        style = "red" if peer.state == "silent" else ""
        rate, age = f"{peer.rate_hz:.1f}/s", clock(peer.age_s)
        table.add_row(str(peer.id), peer.role, peer.state, rate, age, detail, style=style)
    return table


def render_collect(view: CollectView) -> RenderableType:
    """A collector's picture."""
    counted = "  ".join(f"{name} {count}" for name, count in view.tally.items())
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("output", "bins achieved", "balanced", "sets", "shortest bins"):
        table.add_column(name, no_wrap=True)
    for each in view.bins:
        table.add_row(
            each.output, named_bars(each), f"{fill(each):.0%}", str(each.num_sets), shortest(each)
        )
    head = Text.assemble((f"{view.rate_hz:.1f}/s", "bold cyan"), f"  {counted}")
    why = [Text(text) for text in [unlabelled_text(view.unlabelled)] if text]
    return Group(head, table, *why, Text(cadence_text(view.cadence), style="dim"))


def shortest(report: BalanceReport, most: int = 3) -> str:
    """The bins furthest below their target, by name."""
    ranked = sorted(zip(ratios(report), report.bins, strict=True))
    return "  ".join(f"{name} {ratio:.0%}" for ratio, name in ranked[:most] if ratio < 0.9)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _figure(values: Mapping[str, float], name: str) -> str:
    """A loss or an error, or a dash while there is none."""
    value = values.get(name, float("nan"))
    return "-" if value != value else f"{value:.4f}"


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
