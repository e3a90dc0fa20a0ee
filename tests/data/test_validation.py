"""The validation buffer against a plain model, and which worlds are held out."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.data.validation import ValidationBuffer
from charles.sample import is_held_out


@given(
    st.integers(1, 4),
    st.integers(0, 20),
    st.integers(1, 5),
    st.lists(st.integers(0, 3), max_size=60),
)
def test_holds_the_first_of_every_output_and_batches_them_in_order(
    num_outputs, capacity, count_each, outputs
):
    buffer = ValidationBuffer(num_outputs, capacity)
    model = [[] for _ in range(num_outputs)]
    for slot, output in enumerate(outputs):
        output %= num_outputs
        assert buffer.has_room(output) == (len(model[output]) < capacity // num_outputs)
        if buffer.has_room(output):
            buffer.add(output, slot)
            model[output].append(slot)
    assert len(buffer) == sum(map(len, model)) <= capacity
    assert buffer.is_full == all(len(part) == capacity // num_outputs for part in model)
    batches = buffer.batches(count_each)
    num = min(map(len, model)) // count_each
    assert batches.shape == (num, num_outputs * count_each)
    for number, batch in enumerate(batches.tolist()):
        picked = slice(number * count_each, (number + 1) * count_each)
        assert batch == [slot for part in model for slot in part[picked]]
    assert batches.dtype == np.uint32


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_about_the_asked_share_of_worlds_is_held_out(share):
    held_out = [is_held_out(seed, share) for seed in range(10_000)]
    assert np.mean(held_out) == pytest.approx(share, rel=0.1)


@given(st.integers(0, 2**40), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_share_holds_out_the_worlds_of_a_smaller_one(seed, first, second):
    small, large = sorted((first, second))
    assert is_held_out(seed, large) or not is_held_out(seed, small)
    assert not is_held_out(seed, 0.0)


def test_another_process_holds_out_the_same_worlds():
    code = "from charles.sample import is_held_out; print([is_held_out(s, 0.2) for s in range(99)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([is_held_out(seed, 0.2) for seed in range(99)])
