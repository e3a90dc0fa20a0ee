"""The live loop under random kills; ``python -m benchmarks.soak`` goes on for longer."""

import pytest
from benchmarks.soak import soak


@pytest.mark.slow
def test_random_kills_lose_nothing_and_leave_nothing_behind(tmp_path):
    found, step = soak(tmp_path, minutes=2.0, seed=1)
    assert not found.faults
    assert sum(found.kills.values()) > 5
    assert step > 0
