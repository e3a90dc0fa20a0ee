"""Consoles, on a file and on a pretended terminal."""

import io
import re
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from charles.config import BalancingConfig
from charles.data.balancing import BalanceReport, make_balancer
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig
from charles.server import PeerInfo
from charles.timing import Cadence
from charles.ui import console as console_module
from charles.ui.console import (
    CollectConsole,
    CollectView,
    PlayConsole,
    PlayView,
    TrainConsole,
    TrainView,
    bin_bars,
    buffers_line,
    fill,
    named_bars,
    play_line,
    render_collect,
    render_train,
    shortest,
    sum_bins,
    train_lines,
)


def report_of(achieved, target, output="steering"):
    num = len(achieved)
    return BalanceReport(
        output=output,
        bins=tuple(f"bin {number}" for number in range(num)),
        seen=(0,) * num,
        achieved=tuple(achieved),
        target=tuple(target),
        short=(0,) * num,
        num_sets=3,
    )


def peer(**changes):
    known = {
        "id": 1, "role": "collector", "pid": 9, "state": "collecting", "rate_hz": 31.2,
        "age_s": 75.0, "detail": {"samples": 12}, "bins": None,
    }  # fmt: skip
    return PeerInfo(**known | changes)


VIEW = TrainView(
    title="runs/live",
    step=751647,
    steps=1_000_000,
    buffers={"acceleration_braking": 22525, "steering": 24861},
    capacity=25000,
    losses={"acceleration_braking": 0.0123, "steering": float("nan")},
    errors={"acceleration_braking": 0.1},
    learning_rate=1e-3,
    steps_per_s=4.2,
    samples_per_s=134,
    share_stepping=0.961,
    pause="waiting: acceleration_braking 88 % < 90 %",
    peers=(peer(), peer(id=2, role="player", state="silent", rate_hz=0.0)),
    notes=("2 torn samples dropped",),
)

PLAY_VIEW = PlayView(
    predictions={"acceleration_braking": 0.5609, "steering": -0.3056},
    translated={"acceleration_braking": 0.4146, "steering": -0.0593},
    fps=30.2,
    pps=18.1,
)


def terminal(width=120):
    return Console(file=io.StringIO(), force_terminal=True, width=width)


def plain_file():
    return Console(file=io.StringIO(), force_terminal=False, width=120)


def text_of(console):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def shown(kind, console, view):
    with closing(kind(console=console)) as screen:
        screen.show(view)
    return text_of(console)


def test_player_line_is_the_documented_one():
    documented = "acc/brk:  0.5609( 0.4146), str: -0.3056(-0.0593), FPS: 30.2, PPS: 18.1"
    assert play_line(PLAY_VIEW) == documented
    assert shown(PlayConsole, plain_file(), PLAY_VIEW) == documented + "\n"


def test_player_line_is_cut_to_the_terminal_so_that_it_can_be_written_over():
    text = shown(PlayConsole, terminal(width=40), PLAY_VIEW)
    assert max(len(line) for line in re.split(r"[\r\n]", text)) == 39


def test_buffers_line_is_the_documented_one():
    expected = (
        "buffer: acceleration_braking: 22525/25000 steering: 24861/25000 batch number: 751647"
    )
    assert buffers_line(VIEW) == expected
    assert expected in shown(TrainConsole, plain_file(), VIEW).splitlines()


@pytest.mark.parametrize("make_console", [terminal, plain_file])
def test_trainer_shows_everything_that_was_asked_for(make_console):
    text = shown(TrainConsole, make_console(), VIEW)
    for part in (
        "751647/1000000", "22525/25000", "24861/25000", "0.0123", "0.1000", "1.00e-03",
        "4.2 steps/s", "134 samples/s", "96% in steps", "collector", "collecting", "31.2/s",
        "silent", "waiting: acceleration_braking 88 % < 90 %", "2 torn samples dropped",
    ):  # fmt: skip
        assert part in text, part
    assert "nan" not in text


def test_collector_shows_bins_and_cadence():
    names = ("acceleration_braking", "steering")
    outputs = (ACCELERATION_BRAKING, STEERING)
    balancer = make_balancer(BalancingConfig(), outputs, names, seed=0)
    label = np.zeros(2, np.float32)
    balancer.add(balancer.wants(label, label), label, label, 0)
    cadence = Cadence(30.0)
    for number in range(1, 50):
        cadence.add(number * 33_333_333)
    view = CollectView(
        rate_hz=29.9,
        tally={"samples": 1, "unstucks": 0},
        unlabelled={"stale": 3, "idle": 0},
        cadence=cadence.report(),
        bins=balancer.report(),
    )
    for console in (terminal(), plain_file()):
        text = shown(CollectConsole, console, view)
        for part in ("29.9/s", "samples 1", "steering", "period p50 33.3", "late 0", "stale 3"):
            assert part in text, part


@pytest.mark.parametrize(
    ("output", "ends"),
    [
        (replace(ACCELERATION_BRAKING, bin_width=0.5), ("-1", "1")),
        (OutputConfig(name="steering", type="classification", num_classes=7), ("-1", "1")),
        (OutputConfig(name="steering", type="discrete_delta"), ("-0.3", "+0.3")),
        (OutputConfig(name="steering", bin_width=0.5), ("-1", "1")),
    ],
)
def test_bars_stand_between_where_their_first_bin_begins_and_their_last_ends(output, ends):
    names = ("acceleration_braking", "steering")
    (report,) = make_balancer(BalancingConfig(), (output,), names, seed=0).report()
    assert named_bars(report).plain == f"{ends[0]} {'·' * len(report.bins)} {ends[1]}"
    assert shortest(report).startswith(f"{min(report.bins)} 0%")
    for render in (render_collect, render_train):
        view = (
            CollectView(rate_hz=1.0, tally={}, cadence=Cadence(30.0).report(), bins=[report])
            if render is render_collect
            else TrainView(buffers={report.output: 1}, peers=[peer(bins=(report,))])
        )
        console = plain_file()
        console.print(render(view))
        assert f"{ends[0]} ··" in text_of(console)


def test_bars_are_as_high_as_achieved_against_target():
    bars = bin_bars(report_of([0, 30, 40, 10], [0.25, 0.25, 0.4, 0.1])).plain
    assert bars == "·███"
    assert bin_bars(report_of([10, 90], [0.5, 0.5])).plain == "▂█"


def test_fill_is_the_part_of_the_target_that_is_met():
    assert fill(report_of([1, 1], [0.5, 0.5])) == pytest.approx(1.0)
    assert fill(report_of([4, 0], [0.5, 0.5])) == pytest.approx(0.5)
    assert fill(report_of([0, 0], [0.5, 0.5])) == 0.0


def test_bins_of_all_collectors_are_added_up():
    one, other = report_of([1, 2], [0.5, 0.5]), report_of([3, 4], [0.5, 0.5])
    alone = report_of([5], [1.0], output="acceleration_braking")
    (steering, acceleration) = sum_bins([peer(bins=(one, alone)), peer(bins=(other,)), peer()])
    assert steering.achieved == (4, 6)
    assert steering.num_sets == 6
    assert acceleration == alone


def test_a_log_gets_lines_now_and_then_not_at_every_step(monkeypatch):
    monkeypatch.setattr(console_module, "LINE_S", 0.5)
    console = plain_file()
    with closing(TrainConsole(console=console)) as screen:
        ends_s = time.monotonic() + 1.2
        while time.monotonic() < ends_s:
            screen.show(lambda: replace(VIEW))
            time.sleep(0.001)
    assert 2 <= text_of(console).count("buffer:") <= 4


def test_showing_makes_a_view_only_a_few_times_a_second():
    made = []

    def make_view():
        made.append(1)
        return VIEW

    with closing(TrainConsole(console=terminal())) as screen:
        ends_s = time.monotonic() + 1.0
        while time.monotonic() < ends_s:
            screen.show(make_view)
    assert 2 <= len(made) <= 1.0 / console_module.SHOW_S + 1


class Stuck(io.StringIO):
    """A terminal that takes its time."""

    def write(self, text):
        time.sleep(0.5)
        return super().write(text)


def test_a_slow_terminal_does_not_hold_the_loop_up():
    console = Console(file=Stuck(), force_terminal=True)
    with closing(PlayConsole(console=console)) as screen:
        slowest_s = 0.0
        ends_s = time.monotonic() + 0.8
        while time.monotonic() < ends_s:
            started_s = time.monotonic()
            screen.show(replace(PLAY_VIEW))
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            time.sleep(0.005)
    assert slowest_s < 0.25


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError


def test_a_reader_that_went_away_does_not_end_the_run():
    with closing(PlayConsole(console=Console(file=Closed()))) as screen:
        for _ in range(3):
            screen.show(PLAY_VIEW)
            time.sleep(0.3)


@pytest.mark.parametrize("kind", [TrainConsole, CollectConsole, PlayConsole])
def test_a_console_that_is_off_makes_no_view_and_no_sound(kind):
    console = plain_file()
    with closing(kind(is_enabled=False, console=console)) as screen:
        screen.show(lambda: pytest.fail("a view was made"))
    assert console.file.getvalue() == ""


def test_lines_have_no_empty_parts_before_anybody_joined():
    text = train_lines(TrainView(buffers={"steering": 0}, capacity=64))
    assert text.splitlines()[1:] == ["buffer: steering: 0/64 batch number: 0", "peers: none"]
