"""When a picture is too old to drive by, and when it is only still."""

import numpy as np
import pytest

from charles.io.game import Telemetry
from charles.sight import LOST_S, NUDGE_S, is_lost

OLD = LOST_S + 0.1


def told(**values):
    nothing = np.zeros(2, np.float32)
    return Telemetry(captured_ns=0, controls=nothing, label=None, purpose=nothing,
                     location=(0.0, 0.0, 0.0), **values)  # fmt: skip


@pytest.mark.parametrize(
    ("age_s", "is_still", "speed_mps", "expected"),
    [
        (0.1, False, 20.0, False),
        (OLD, False, 0.0, True),  # nothing came: who knows where the car is
        (OLD, True, 0.0, False),  # a car that stands sees nothing new
        (60.0, True, 0.2, False),
        (OLD, True, 5.0, True),  # a car that drives does: the game hangs
        (OLD, True, None, True),
        (NUDGE_S + 0.1, True, None, False),  # a try
        (NUDGE_S + OLD, True, None, True),
    ],
)
def test_who_sees_nothing_new_drives_only_if_the_car_may_stand(
    age_s, is_still, speed_mps, expected
):
    assert is_lost(age_s, told(is_still=is_still, speed_mps=speed_mps)) is expected


def test_what_is_hidden_or_silent_is_lost_at_once():
    assert is_lost(0.0, told(is_whole=False, speed_mps=0.0))
