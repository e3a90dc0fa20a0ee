"""Plots: that they show what they are given, and read what a run wrote."""

import cv2
import numpy as np
import pytest

from charles.errors import StorageError
from charles.ui.plots import balance_plot, loss_plot, read_metrics, smooth


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
