"""Whose turn at the wheel it is: touching, resting, the hotkey, a pad that is gone."""

import time

import pytest
from tests.persons import ScriptedPerson, ScriptedSwitch

from charles.errors import ConfigError, PadError
from charles.options import PlayOptions
from charles.pad_config import KeysConfig, PadConfig
from charles.takeover import Takeover
from charles.takeover_config import TakeoverConfig

CONTROLS = ("acceleration_braking", "steering")


def make(person=None, switch=None, **settings):
    takeover = Takeover(person or ScriptedPerson(), switch, **{"release_s": 0.05, **settings})
    takeover.begin(CONTROLS)
    return takeover


def test_a_touch_hands_over_at_once_and_rest_hands_back():
    person = ScriptedPerson(release_s=0.05)
    takeover = make(person)
    assert takeover.step() is None
    person.move(pedal=-0.5, steering=0.25)
    turn = takeover.step()
    assert turn.controls.tolist() == [-0.5, 0.25]
    assert not turn.may_be_over
    time.sleep(0.1)
    assert takeover.step() is not None  # held still, away from neutral
    person.move()
    assert takeover.step().may_be_over
    time.sleep(0.1)
    assert takeover.step() is None
    assert (takeover.tally.takeovers, takeover.tally.ticks) == (1, 3)


def test_controls_go_where_the_game_has_them():
    person = ScriptedPerson()
    takeover = make(person)
    takeover.begin(("gear", "steering", "acceleration_braking"))
    takeover.step()
    person.move(pedal=1.0, steering=-0.5)
    assert takeover.step().controls.tolist() == [0.0, -0.5, 1.0]
    with pytest.raises(PadError, match="needs the control 'steering'"):
        takeover.begin(("acceleration_braking", "gear"))


def press(takeover, switch):
    """Press the hotkey; the turns while it is held down, and after."""
    switch.is_held = True
    turns = [takeover.step(), takeover.step()]
    switch.is_held = False
    return [*turns, takeover.step()]


def test_a_hotkey_hands_over_whatever_the_pad_does_and_back():
    person, switch = ScriptedPerson(release_s=0.01), ScriptedSwitch()
    takeover = make(person, switch)
    takeover.step()
    turns = press(takeover, switch)
    assert all(turn is not None and not turn.may_be_over for turn in turns)
    time.sleep(0.03)
    assert takeover.step() is not None  # rest does not hand back what the key took
    assert press(takeover, switch) == [None] * 3


def test_after_the_hotkey_handed_back_the_pad_must_rest_before_it_counts_again():
    person, switch = ScriptedPerson(release_s=0.02), ScriptedSwitch()
    takeover = make(person, switch)
    takeover.step()
    person.move(steering=1.0)
    assert takeover.step() is not None
    assert press(takeover, switch) == [None] * 3
    person.move(steering=0.5)
    assert takeover.step() is None
    person.move()
    takeover.step()
    time.sleep(0.05)
    assert takeover.step() is None
    person.move(steering=0.5)
    assert takeover.step() is not None


def test_an_unplugged_pad_is_neutral_for_a_while_and_then_the_network_drives(capsys):
    person = ScriptedPerson()
    takeover = make(person, release_s=0.05)
    takeover.step()
    person.move(pedal=1.0)
    assert takeover.step().controls.any()
    person.is_plugged_in = False
    turn = takeover.step()
    assert turn.is_lost
    assert not turn.controls.any()
    assert person.is_closed
    time.sleep(0.1)
    assert takeover.step() is None
    assert "unplugged" in takeover.note
    assert "unplugged" in capsys.readouterr().err


def test_a_pad_that_is_unplugged_while_the_network_drives_changes_nothing():
    person, switch = ScriptedPerson(), ScriptedSwitch()
    takeover = make(person, switch)
    takeover.step()
    person.is_plugged_in = False
    assert takeover.step() is None
    assert press(takeover, switch) == [None] * 3


def test_a_hotkey_whose_keyboard_went_away_leaves_the_pad_to_hand_over():
    person, switch = ScriptedPerson(), ScriptedSwitch()
    takeover = make(person, switch)
    switch.is_plugged_in = False
    assert takeover.step() is None
    assert "no hotkey" in takeover.note
    person.move(steering=1.0)
    assert takeover.step() is not None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "mouse"}, r"^takeover\.kind must"),
        ({"release_s": 0.0}, r"^takeover\.release_s must"),
        ({"hotkey": "f8"}, r"^takeover\.kind must say what"),
        ({"kind": "keys", "hotkey": "F8"}, r"^takeover\.hotkey must .*f8"),
        ({"kind": "keys", "hotkey": "up"}, r"^takeover\.hotkey must be none of the keys"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        TakeoverConfig(**changes)


def test_a_person_and_a_keyboard_pad_cannot_share_keys():
    pad = PadConfig(kind="keyboard")
    PlayOptions(pad=pad, takeover=TakeoverConfig(kind="keys"))
    with pytest.raises(ConfigError, match=r"takeover\.keys .*\('a', 'd', 's', 'w'\)"):
        PlayOptions(pad=pad, takeover=TakeoverConfig(kind="keys", keys=KeysConfig()))
