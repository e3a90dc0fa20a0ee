import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.data.history import History
from charles.errors import ConfigError


@given(st.integers(0, 7), st.lists(st.one_of(st.none(), st.floats(-1, 1, width=32)), max_size=30))
def test_history_holds_the_last_instants_oldest_first_and_never_the_present_one(length, instants):
    history = History(length, 5)
    out = np.full((length, 5), np.nan, np.float32)
    past = []
    for action in instants:
        if action is None:  # a new episode
            history.clear()
            past = []
            continue
        history.write_into(out)  # the sample of this instant, written before it is appended
        rows = [np.zeros(5)] * length + past
        expected = np.array(rows[len(rows) - length :], np.float32).reshape(length, 5)
        np.testing.assert_array_equal(out, expected)
        history.append(np.array([action, 2], np.float32), 3.0, np.array([4, 5], np.float32))
        past.append([action, 2, 3, 4, 5])


def test_wrong_sizes_are_refused():
    with pytest.raises(ConfigError, match="history_length must be 0 or more, got -1"):
        History(-1, 5)
    with pytest.raises(ConfigError, match="history features"):
        History(1, 3)


def test_the_newest_controls_are_those_of_the_last_row_and_zero_at_first():
    for length in (0, 1, 3):
        history = History(length, 5)
        assert history.newest_controls.tolist() == [0.0, 0.0]
        for number in range(1, 6):
            history.append(np.array([number, -number], np.float32), 1.0, np.ones(2, np.float32))
            out = np.zeros((length, 5), np.float32)
            history.write_into(out)
            wanted = out[-1, :2].tolist() if length else [0.0, 0.0]
            assert history.newest_controls.tolist() == wanted
        history.clear()
        assert history.newest_controls.tolist() == [0.0, 0.0]
