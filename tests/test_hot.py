"""The hot file: what a person may write into it while training runs."""

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles import presets
from charles.errors import ConfigError
from charles.hot import FILE_NAME, HotFile, HotValues

VALUES = HotValues(learning_rate=0.001, loss_weights={"steering": 1.0, "acceleration_braking": 2.0})

numbers = st.floats(0, 1e30)


@given(numbers, numbers, numbers)
def test_what_is_written_is_read_again_exactly(rate, first, second):
    values = HotValues(
        learning_rate=rate, loss_weights={"steering": first, "acceleration_braking": second}
    )
    assert VALUES.changed(values.text()) == values


def test_what_is_left_out_stays():
    values = VALUES.changed('{"loss_weights": {"steering": 3}}')
    assert values.learning_rate == 0.001
    assert values.loss_weights == {"steering": 3.0, "acceleration_braking": 2.0}
    assert values.differences(VALUES) == ["steering loss weight 1 → 3"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"learning_rate": 0.1', "must be JSON"),
        ("", "must be JSON"),
        ("[1]", "be an object"),
        ('{"learning_rate": NaN}', "finite number of 0 or more, got nan"),
        ('{"learning_rate": Infinity}', "finite number"),
        ('{"learning_rate": 1e39}', "finite number"),  # more than a float32 holds
        ('{"learning_rate": -1}', "got -1"),
        ('{"learning_rate": "fast"}', "got 'fast'"),
        ('{"learning_rate": true}', "got True"),
        ('{"learning_rate": null}', "got None"),
        ('{"loss_weights": {"steering": -0.5}}', "steering must"),
        ('{"loss_weights": {"stering": 1}}', "got 'stering'"),
        ('{"loss_weights": 3}', "be an object"),
        ('{"rate": 0.1}', "got ['rate']"),
    ],
)
def test_what_cannot_be_taken_is_named(text, reason):
    with pytest.raises(ConfigError) as caught:
        VALUES.changed(text)
    assert reason in str(caught.value)
    assert FILE_NAME in str(caught.value)


def test_a_run_begins_by_writing_what_holds(tmp_path):
    config = presets.tiny()
    hot = HotFile(tmp_path, HotValues.of(config))
    written = json.loads((tmp_path / FILE_NAME).read_text())
    assert written["learning_rate"] == config.optimizer.learning_rate
    assert written["loss_weights"] == {"acceleration_braking": 1.0, "steering": 1.0}
    assert not hot.poll()
    assert not hot.problem


def test_a_change_is_seen_once_and_a_bad_one_leaves_what_held(tmp_path):
    hot, path = HotFile(tmp_path, VALUES), tmp_path / FILE_NAME
    path.write_text('{"learning_rate": 0.5}')
    assert hot.poll()
    assert hot.values == replace(VALUES, learning_rate=0.5)
    assert not hot.poll()
    path.write_text('{"learning_rate": -1}')
    assert not hot.poll()
    assert "got -1" in hot.problem
    assert hot.values.learning_rate == 0.5
    path.unlink()
    assert not hot.poll()
    assert hot.problem
    path.write_text('{"learning_rate": 0.5, "loss_weights": {}}')
    assert not hot.poll()  # good again, and nothing new
    assert not hot.problem


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path):
    hot, path = HotFile(tmp_path, VALUES), tmp_path / FILE_NAME
    about = path.stat()
    path.write_text('{"learning_rate": 0.25}')
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert hot.poll()


def test_a_resumed_run_begins_with_what_its_file_says(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"learning_rate": 0.25}')
    assert HotFile(tmp_path, VALUES, before=VALUES).values.learning_rate == 0.25
    (tmp_path / FILE_NAME).write_text("{")
    damaged = HotFile(tmp_path, VALUES, before=VALUES)
    assert damaged.values == VALUES
    assert damaged.problem
    assert HotFile(tmp_path, VALUES).values == VALUES
    assert json.loads((tmp_path / FILE_NAME).read_text())["learning_rate"] == 0.001


def test_a_directory_that_cannot_be_written_is_a_note_and_no_error(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    hot = HotFile(tmp_path, VALUES)
    assert "cannot be written" in hot.problem
    assert hot.values == VALUES


def test_what_the_command_line_of_a_resume_changes_holds_over_the_file(tmp_path):
    text = '{"learning_rate": 0.25, "loss_weights": {"steering": 3.0}}'
    (tmp_path / FILE_NAME).write_text(text)
    now = replace(VALUES, learning_rate=0.125)
    hot = HotFile(tmp_path, now, before=VALUES)
    assert hot.values.learning_rate == 0.125
    assert hot.values.loss_weights["steering"] == 3.0  # nobody changed that since
    assert not hot.poll()
    assert HotFile(tmp_path, now, before=now).values == hot.values  # the file says so now
