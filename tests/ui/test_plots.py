"""Plots: that they show what they are given, and read what a run wrote."""

import threading
import time

import cv2
import numpy as np
import pytest

from charles.errors import ConfigError, StorageError
from charles.ui import plots
from charles.ui.plots import (
    KeptPlot,
    Repeated,
    balance_picture,
    balance_plot,
    loss_plot,
    read_metrics,
    smooth,
)


def write_table(path, text):
    path.write_text(text, encoding="utf-8")
    return path


TABLE = "step,loss,steering_loss,steering_mae\n10,0.5,0.5,0.4\n20,0.25,0.25,0.3\n"


def colours(path):
    """How many different colours a picture has, and its shape."""
    image = cv2.imread(str(path))
    return len(np.unique(image.reshape(-1, 3), axis=0)), image.shape


def test_metrics_are_read_by_column(tmp_path):
    columns = read_metrics(write_table(tmp_path / "metrics.csv", TABLE))
    assert list(columns) == ["step", "loss", "steering_loss", "steering_mae"]
    assert columns["steering_loss"].tolist() == [0.5, 0.25]


def test_a_last_line_that_was_cut_by_a_kill_is_left_out(tmp_path):
    columns = read_metrics(write_table(tmp_path / "metrics.csv", TABLE + "30,0.1"))
    assert columns["step"].tolist() == [10, 20]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "column 'step'"),
        ("a,b\n1,2\n", "column 'step'"),
        ("step,steering_loss\n1,x\n", "numbers"),
        ("step,steering_loss\n1,2\n1\n2,3\n", "numbers"),
        ("step,loss\n1,2\n", "<output>_loss"),
    ],
)
def test_a_table_that_cannot_be_plotted_is_refused(tmp_path, text, reason):
    with pytest.raises(StorageError, match=reason):
        loss_plot(write_table(tmp_path / "metrics.csv", text), tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        read_metrics(tmp_path / "nowhere.csv")


def test_loss_plot_draws_a_run_and_a_run_that_has_just_begun(tmp_path):
    for text in (TABLE, TABLE.splitlines()[0] + "\n"):
        loss_plot(write_table(tmp_path / "m.csv", text), tmp_path / "new" / "loss.png")
        num_colours, shape = colours(tmp_path / "new" / "loss.png")
        assert shape == (540, 960, 3)
        assert num_colours > 20


def test_smoothing_keeps_length_mean_level_and_takes_out_noise():
    noise = np.random.default_rng(0).normal(5.0, 1.0, 4000)
    smoothed = smooth(noise, 100)
    assert smoothed.shape == noise.shape
    assert smoothed.std() < 0.2
    assert np.allclose(smooth(np.full(50, 3.0), 9), 3.0)
    assert smooth(noise, 1) is noise


def test_balance_plot_is_brightest_where_the_samples_are(tmp_path):
    labels = np.tile(np.array([[-0.8, 0.8]], np.float32), (500, 1))  # brakes, to the right
    balance_plot(labels, tmp_path / "balance.png")
    image = cv2.imread(str(tmp_path / "balance.png"))
    yellow = (image[..., 2] > 230) & (image[..., 1] > 200) & (image[..., 0] < 80)
    rows, columns = np.nonzero(yellow)
    height, width, _ = image.shape
    joint = (rows > 0.45 * height) & (columns > 0.52 * width)
    assert joint.any()
    assert rows[joint].mean() > 0.8 * height
    assert columns[joint].mean() > 0.8 * width


def test_balance_plot_of_no_samples_is_a_plot(tmp_path):
    balance_plot(np.empty((0, 2), np.float32), tmp_path / "balance.png")
    assert colours(tmp_path / "balance.png")[0] > 5


def test_the_picture_in_memory_is_that_of_the_file(tmp_path):
    labels = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    picture = balance_picture(labels)
    balance_plot(labels, tmp_path / "balance.png")
    image = cv2.imread(str(tmp_path / "balance.png"))
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - image[..., ::-1]).max() <= 2


def test_a_combination_of_few_samples_is_told_from_one_of_none():
    labels = np.zeros((400, 2), np.float32)
    one_more = np.concatenate([labels, np.full((1, 2), 0.5, np.float32)])
    changed = (balance_picture(labels) != balance_picture(one_more)).any(-1)
    rows, columns = np.nonzero(changed)
    height, width = changed.shape
    joint = (rows > 0.45 * height) & (columns > 0.52 * width)
    assert joint.sum() > 20


def test_a_game_with_one_control_has_no_balance_plot(tmp_path):
    with pytest.raises(ConfigError, match="single control"):
        balance_plot(np.zeros((3, 1), np.float32), tmp_path / "balance.png", names=("steering",))


def test_a_collectors_plot_is_there_at_once_and_shows_at_last_what_was_kept(tmp_path):
    path = tmp_path / "new" / "kept.png"
    plot = KeptPlot(path, ("acceleration_braking", "steering"))
    empty = cv2.imread(str(path))
    kept = np.random.default_rng(0).uniform(-1, 1, (300, 2)).astype(np.float32)
    for start in range(0, 300, 10):
        plot.add(kept[start : start + 10])
    np.testing.assert_array_equal(cv2.imread(str(path)), empty)  # not a minute has passed
    plot.close()
    last = cv2.imread(str(path))
    assert (last != empty).any()
    plots.balance_plot(kept, path, title="Samples that were kept")
    np.testing.assert_array_equal(cv2.imread(str(path)), last)
    assert [each.name for each in path.parent.iterdir()] == ["kept.png"]


def test_a_collectors_plot_shows_the_newest_only(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "MOST_KEPT", 100)
    plot = KeptPlot(tmp_path / "kept.png", ("acceleration_braking", "steering"))
    for value in np.linspace(0.0, 0.9, 10):
        plot.add(np.full((30, 2), value, np.float32))
    assert np.unique(plot._labels()).tolist() == pytest.approx([0.7, 0.8, 0.9])
    plot.close()


def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_collected(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"kept\.png must be writable"):
        KeptPlot(tmp_path / "file" / "kept.png", ("acceleration_braking", "steering"))


def test_repeated_drawing_holds_nobody_up_and_never_runs_twice_at_once():
    drawn, go = [], threading.Event()

    def draw(labels):
        assert go.wait(10)
        drawn.append(labels)

    repeated = Repeated(draw, every_s=0.05)
    repeated.show(lambda: pytest.fail("not yet due"))
    time.sleep(0.06)
    started_s = time.monotonic()
    repeated.show(lambda: "first")
    time.sleep(0.06)
    repeated.show(lambda: pytest.fail("the first is still being drawn"))
    assert time.monotonic() - started_s < 5
    go.set()
    repeated.close()
    repeated.show(lambda: "second")
    repeated.close()
    assert drawn == ["first", "second"]


def test_a_drawing_that_finds_the_disk_full_ends_without_a_word():
    def draw(labels):
        raise StorageError("full")

    repeated = Repeated(draw, every_s=0.0)
    repeated.show(lambda: np.empty((0, 2)))
    repeated.close()
