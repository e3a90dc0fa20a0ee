"""Settings of the capture that cannot work are refused with their names."""

from pathlib import Path

import pytest

from charles.errors import ConfigError
from charles.screen_config import ScreenConfig


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"kind": "obs"}, "screen.kind must be one of"),
        ({"region": (0, 0, 10, 0)}, "screen.region must be left, top, width, height"),
        ({"monitor": -1}, "screen.monitor must be 0 or more"),
        ({"max_age_s": 0.0}, "screen.max_age_s must be positive"),
        ({"kind": "replay"}, "screen.file must be given to replay"),
        ({"kind": "replay", "file": Path("a.mp4"), "title": "G"}, "screen.title must be left out"),
        ({"file": Path("a.mp4")}, "screen.file must be left out.*only replay reads a file"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        ScreenConfig(**settings)


def test_settings_that_work_are_kept():
    config = ScreenConfig(title="Game", region=(1, 2, 3, 4))
    assert (config.kind, config.title, config.region) == ("x11", "Game", (1, 2, 3, 4))
