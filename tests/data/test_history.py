import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.data.history import FrameHistory, History
from charles.errors import ConfigError
from charles.sample import SampleSpec


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


def frames_of(num_frames, stride, seen):
    """Which of the pictures 1, 2, ... ``seen`` a sample of the last one has."""
    spec = SampleSpec(height=2, width=2, pixel_format="rgb", num_frames=num_frames,
                      frame_stride=stride)  # fmt: skip
    history = FrameHistory(spec)
    for number in range(1, seen):
        history.append(np.full((2, 2, 3), number, np.uint8))
    out = np.zeros(spec.pixels_shape, np.uint8)
    out[-1] = seen
    history.write_into(out)
    assert (out == out[:, :1, :1, :1]).all()
    return out[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("num_frames", "stride", "seen", "expected"),
    [
        (3, 1, 9, [7, 8, 9]),
        (3, 2, 9, [5, 7, 9]),
        (7, 1, 20, [14, 15, 16, 17, 18, 19, 20]),
        (3, 2, 1, [1, 1, 1]),
        (3, 2, 2, [1, 1, 2]),
        (3, 2, 4, [1, 2, 4]),
    ],
)
def test_a_sample_has_the_pictures_before_it_oldest_first(num_frames, stride, seen, expected):
    assert frames_of(num_frames, stride, seen) == expected


def test_pictures_of_an_episode_do_not_reach_into_the_next():
    spec = SampleSpec(height=2, width=2, pixel_format="rgb", num_frames=2)
    history = FrameHistory(spec)
    history.append(np.full((2, 2, 3), 7, np.uint8))
    history.clear()
    out = np.zeros(spec.pixels_shape, np.uint8)
    out[-1] = 9
    history.write_into(out)
    assert (out == 9).all()
