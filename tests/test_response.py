"""Whether a game does what it is asked for is told from what it does, and never without reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.io.pads.pulse import Pulse
from charles.response import WINDOW_S, Response

CONTROLS = ("acceleration_braking", "steering")
RATE_HZ = 30.0
INSTANTS = round(3 * WINDOW_S * RATE_HZ)


def drive(answer, *, size=0.2, instants=INSTANTS):
    """A response after a drive along bends, to whose controls a game gives this answer."""
    response = Response(CONTROLS, RATE_HZ)
    for index in range(instants):
        bend = size * np.sin(index / 40)
        asked = np.array([0.4, bend], np.float32)
        response.hear(asked, answer(asked, index / RATE_HZ))
    return response


def test_a_game_that_does_as_it_is_asked_is_not_spoken_of():
    response = drive(lambda asked, _: asked)
    assert response.shares() == pytest.approx(dict.fromkeys(CONTROLS, 1.0))
    assert response.text() == ""


def test_a_game_that_ignores_its_wheel_is_named_with_it():
    response = drive(lambda asked, _: asked * [1, 0])
    assert response.text().startswith("the game applies 0% of steering that it is asked for")
    assert "acceleration_braking" not in response.text()


def test_a_game_that_ignores_everything_is_named_with_everything():
    text = drive(lambda asked, _: 0 * asked).text()
    assert "0% of acceleration_braking and 0% of steering" in text


def test_a_wheel_that_turns_the_other_way_is_told_as_less_than_nothing():
    assert "-100% of steering" in drive(lambda asked, _: asked * [1, -1]).text()


def test_keys_that_are_pressed_for_their_share_of_the_time_are_an_answer():
    pulse = Pulse(0.1)

    def by_keys(asked, now_s):
        pulse.aim(float(asked[1]), now_s)
        return np.array([asked[0], pulse.side])

    response = drive(by_keys)
    assert response.shares()["steering"] == pytest.approx(1.0, abs=0.1)
    assert response.text() == ""


def test_what_is_told_may_come_a_fifth_of_a_second_late():
    held = [np.zeros(2)] * 6

    def late(asked, _):
        held.append(asked)
        return held.pop(0)

    assert drive(late).shares()["steering"] == pytest.approx(1.0, abs=0.1)


def test_nothing_is_said_of_what_is_hardly_asked_for_or_was_not_heard_for_long():
    def deaf(asked, _):
        return asked * [1, 0]

    assert drive(deaf, size=0.03).text() == ""
    assert drive(deaf, instants=round(WINDOW_S * RATE_HZ) - 1).text() == ""


def test_what_was_found_holds_until_it_is_asked_for_again():
    response = drive(lambda asked, _: asked * [1, 0])
    for _ in range(INSTANTS):
        response.hear(np.zeros(2), np.zeros(2))
    assert "0% of steering" in response.text()


@settings(deadline=None, max_examples=20)
@given(st.floats(0.35, 1.0), st.floats(0.1, 1.0))
def test_a_share_is_found_whatever_is_asked(share, size):
    response = drive(lambda asked, _: asked * [1, share], size=size)
    assert response.shares()["steering"] == pytest.approx(share, rel=1e-3)
    assert response.text() == ""
