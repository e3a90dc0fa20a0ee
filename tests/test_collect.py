"""A person may be whom a collector learns from, in any game."""

from dataclasses import replace

import pytest

from charles import presets
from charles.collect import make_driven_game, with_human
from charles.errors import ExtraMissingError, PadError
from charles.human_config import HumanConfig


@pytest.fixture
def config(tmp_path):
    config = replace(presets.tiny(), run_dir=tmp_path / "run")
    return replace(config, collect=replace(config.collect, scene_s=20.0))


@pytest.mark.parametrize(("name", "place"), [("gymnasium", "gymnasium"), ("town", "window")])
def test_a_collectors_person_has_the_place_that_its_game_has_for_one(config, name, place):
    run = replace(config, game=replace(config.game, name=name))
    human = HumanConfig(kind="xinput", slot=2)
    given = with_human(run, human).game
    assert getattr(given, place).human == human
    assert given.gymnasium.expert == ("human" if name == "gymnasium" else "auto")
    assert with_human(run, HumanConfig()) == run


def test_a_person_who_is_missing_is_named_before_the_game_is_made(config):
    human = HumanConfig(kind="evdev", device="/nowhere/event0")
    with pytest.raises((PadError, ExtraMissingError), match=r"nowhere|charles\[evdev\]"):
        make_driven_game(with_human(config, human), 0, restart_command="", is_by_person=True)
