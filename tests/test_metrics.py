"""A run's figures: in TensorBoard under the documented tags, and in tables whose columns agree."""

import csv
import struct
import sys
from contextlib import closing

import pytest
from tensorboardX.proto import event_pb2

from charles.metrics import MetricsLog


def scalars_of(run_dir):
    """What TensorBoard would read: values by tag."""
    (events,) = (run_dir / "tensorboard").iterdir()
    content, found = events.read_bytes(), {}
    while content:  # a record: its length, a checksum, the event, a checksum
        (length,) = struct.unpack_from("<Q", content)
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[16 + length :]
    return found


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def write(run_dir, step, scalars):
    with closing(MetricsLog(run_dir)) as log:
        log.write(step, scalars)
    return log


@pytest.mark.skipif(sys.platform == "win32", reason="has no full device")
def test_a_full_disk_ends_the_metrics_and_nothing_else(tmp_path):
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    log = MetricsLog(tmp_path)
    log.write(1, {"loss": 0.5})
    assert "No space left" in log.failure
    log.write(2, {"loss": 0.5})
    log.close()


def test_figures_of_outputs_have_the_documented_tags_and_validation_its_own(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, {"loss": 0.5, "steering_loss": 0.5, "steering_mae": 0.75, "learning_rate": 0.25})
    log.write_validation(1, {"steering_loss": 0.25, "steering_mae": 0.125})
    log.write(2, {"loss": 0.5, "steering_loss": 0.5, "steering_mae": 1.0, "learning_rate": 0.25})
    log.close()
    assert scalars_of(tmp_path) == {
        "loss": [(1, 0.5), (2, 0.5)],
        "ModelOutputs.steering_loss": [(1, 0.5), (2, 0.5)],
        "ModelOutputs.steering_mae": [(1, 0.75), (2, 1.0)],
        "learning_rate": [(1, 0.25), (2, 0.25)],
        "validation/steering_loss": [(1, 0.25)],
        "validation/steering_mae": [(1, 0.125)],
    }
    assert [row["steering_mae"] for row in rows_of(tmp_path / "metrics.csv")] == ["0.75", "1.0"]
    table = (tmp_path / "validation.csv").read_text().splitlines()
    assert table == ["step,validation/steering_loss,validation/steering_mae", "1,0.25,0.125"]


def test_a_run_that_is_gone_on_with_adds_to_its_table(tmp_path):
    write(tmp_path, 1, {"loss": 0.5, "grad_norm": 2.0})
    log = write(tmp_path, 2, {"loss": 0.25, "grad_norm": 1.0})
    assert not log.note
    rows = rows_of(tmp_path / "metrics.csv")
    assert rows == [
        {"step": "1", "loss": "0.5", "grad_norm": "2.0"},
        {"step": "2", "loss": "0.25", "grad_norm": "1.0"},
    ]


def test_steps_that_are_done_again_after_a_crash_have_one_row(tmp_path):
    with closing(MetricsLog(tmp_path)) as log:
        for step in range(1, 5):
            log.write(step, {"loss": 0.5})
    with closing(MetricsLog(tmp_path, step=2)) as log:  # of which the checkpoint is
        log.write(3, {"loss": 0.25})
    rows = [(row["step"], row["loss"]) for row in rows_of(tmp_path / "metrics.csv")]
    assert rows == [("1", "0.5"), ("2", "0.5"), ("3", "0.25")]


@pytest.mark.parametrize(
    "others", [{"loss": 0.5, "steering_loss": 0.5}, {"grad_norm": 2.0, "loss": 0.5}, {"loss": 1.0}]
)
def test_other_columns_go_to_a_new_table_and_the_old_ones_stay(tmp_path, others):
    write(tmp_path, 1, {"loss": 0.5, "grad_norm": 2.0})
    log = write(tmp_path, 2, others)
    assert "metrics.1.csv" in log.note
    assert not write(tmp_path, 3, others).note
    assert "metrics.2.csv" in write(tmp_path, 4, {"else": 0.0}).note
    assert rows_of(tmp_path / "metrics.1.csv") == [{"step": "1", "loss": "0.5", "grad_norm": "2.0"}]
    as_text = {name: str(value) for name, value in others.items()}
    wanted = [{"step": str(step), **as_text} for step in (2, 3)]
    assert rows_of(tmp_path / "metrics.2.csv") == wanted
    assert rows_of(tmp_path / "metrics.csv") == [{"step": "4", "else": "0.0"}]


@pytest.mark.parametrize("left", ["", "ste", "step,loss\n", "step,loss\n1,0.5\n2,0."])
def test_a_line_that_a_crash_left_unfinished_is_cut(tmp_path, left):
    (tmp_path / "metrics.csv").write_text(left)
    assert not write(tmp_path, 2, {"loss": 0.25}).note
    before = [{"step": "1", "loss": "0.5"}] * ("1,0.5" in left)
    assert rows_of(tmp_path / "metrics.csv") == [*before, {"step": "2", "loss": "0.25"}]
