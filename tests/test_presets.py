"""Presets are whole, sendable configurations, and a misspelt name is helped with."""

import msgspec
import pytest

from charles import presets
from charles.config import TrainConfig
from charles.errors import ConfigError
from charles.run import as_data
from charles.sample import SampleSpec


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_a_config_whose_frames_can_be_stored(name):
    config = presets.get(name)
    frame = config.frame
    SampleSpec(height=frame.height, width=frame.width, pixel_format=frame.pixel_format)
    assert presets.PRESETS[name].__doc__


def test_default_is_the_documented_system():
    config = presets.get("default")
    assert config == TrainConfig()
    assert (config.frame.height, config.frame.width) == (270, 480)
    assert (config.data.buffer_capacity, config.data.keep_fraction) == (25_000, 0.9)
    assert (config.data.replay_ratio, config.batch_size) == (0, 32)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_survive_being_packed(name):
    config = presets.get(name)
    packed = msgspec.msgpack.encode(as_data(config))
    assert msgspec.msgpack.decode(packed, type=TrainConfig, dec_hook=lambda kind, x: kind(x)) == (
        config
    )


@pytest.mark.parametrize(
    ("wrong", "meant"), [("town_liv", "town_live"), ("defualt", "default"), ("tny", "tiny")]
)
def test_a_misspelt_name_is_answered_with_the_nearest(wrong, meant):
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        presets.get(wrong)


def test_a_name_like_no_other_gets_the_list_alone():
    with pytest.raises(ConfigError) as caught:
        presets.get("zzzzzz")
    assert all(name in str(caught.value) for name in presets.PRESETS)
    assert "mean" not in str(caught.value)
