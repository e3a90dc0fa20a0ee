"""MetaDrive as a game, in a process of its own: there is one engine in a process."""

import importlib.util
import subprocess
import sys

import pytest

from charles.config import FrameConfig, GameConfig
from charles.errors import ConfigError, GameError
from charles.io.game import Scene
from charles.io.games import make_game
from charles.io.metadrive.teacher import OWN_HZ, Controller
from charles.metadrive_config import MetaDriveConfig

WHY = "needs MetaDrive 0.3.0.1; docs/games.md says how to install it"
has_metadrive = importlib.util.find_spec("metadrive") is not None

DRIVE = """
import math
import numpy as np
from charles.config import FrameConfig, GameConfig
from charles.courses import ScoredGame
from charles.io.game import Game, Scene
from charles.io.games import make_game
from charles.errors import GameError

game = make_game(GameConfig(name="metadrive"), FrameConfig(height=36, width=64), seed=1)
assert isinstance(game, Game) and isinstance(game, ScoredGame)
assert game.is_advising

def frame():
    out = np.full(game.frame_shape, 77, np.uint8)
    game.grab(out)
    return out

def drive(instants):
    return [game.tick() for _ in range(instants)]

# The teacher arrives, seeing no picture, and the same seed is the same drive.
game.reset(Scene(seed=100_000))
told = [game.tick()]
while not game.progress().ended:
    told.append(game.tick())
progress = game.progress()
assert (progress.ended, progress.completion) == ("done", 1.0), progress
assert 250 < progress.length_m < 600
assert max(each.speed_mps for each in told) < 10.0
purpose = np.array([each.purpose for each in told])
steering = np.array([each.label[1] for each in told])
assert np.corrcoef(purpose[:, 0], steering)[0, 1] > 0.6
assert 10.0 < purpose[:, 1].min() and purpose[:, 1].max() < 20.0
assert (np.diff([each.captured_ns for each in told]) > 0).all()
again = game.tick()
assert again.is_collision and game.progress().completion < 0.2
game.reset(Scene(seed=100_000))
before = [each.location for each in told[:60]]
np.testing.assert_allclose([each.location for each in drive(60)], before, atol=1e-3)

# Pictures are those of the last instant; the sky is above, the road below.
first = frame()
np.testing.assert_array_equal(frame(), first)
assert first[:10].mean() != first[-10:].mean() and first.std() > 20
drive(40)
assert (frame() != first).any()

# Acting: neutral first, then what is asked for; to the right is to the right; it is advised.
game.act(np.array([-1.0, 1.0], np.float32))
assert drive(1)[0].controls[0] > -1.0
game.set_npc(False)
assert not drive(1)[0].controls.any()
game.act(np.array([0.5, 0.3], np.float32))
acted = drive(15)
np.testing.assert_allclose(acted[-1].controls, [0.5, 0.3], atol=1e-6)
assert acted[-1].purpose[0] < acted[0].purpose[0] - 0.05
assert acted[-1].label[1] < 0.0

# Off the road the task is over, once; a teleport begins anew on the route.
failed = drive(200)
assert game.progress().ended in ("off_route", "crash"), game.progress()
assert sum(each.is_collision for each in failed) == 1
game.set_npc(True)
game.teleport()
there = drive(60)
assert not there[0].is_off_road and game.progress().ended == ""
assert there[-1].speed_mps > 1.0 and math.dist(there[0].location, failed[-1].location) > 3.0
try:
    game.reset(Scene(seed=10**7))
except GameError as error:
    assert "scene.seed" in str(error)
else:
    raise AssertionError("a seed without a map was taken")
game.close()
game.close()
print("all well")
"""


@pytest.mark.skipif(not has_metadrive, reason=WHY)
def test_metadrive_keeps_the_protocol_its_driver_arrives_and_advises_whoever_drives():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVE],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all well" in done.stdout


@pytest.mark.skipif(has_metadrive, reason="MetaDrive is installed")
def test_without_metadrive_one_line_says_where_installing_is_explained():
    code = (
        "from charles.config import FrameConfig, GameConfig\n"
        "from charles.errors import ExtraMissingError\n"
        "from charles.io.game import Scene\n"
        "from charles.io.games import make_game\n"
        "game = make_game(GameConfig(name='metadrive'), FrameConfig(), seed=0)\n"
        "try:\n    game.reset(Scene())\n"
        "except ExtraMissingError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert "docs/games.md" in done.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks": 0}, "blocks"),
        ({"traffic_density": 1.5}, "traffic_density"),
        ({"speed_km_h": float("nan")}, "speed_km_h"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ConfigError, match=rf"game\.metadrive\.{said}"):
        MetaDriveConfig(**changes)


def test_a_game_that_was_not_reset_or_is_closed_says_so():
    game = make_game(GameConfig(name="metadrive"), FrameConfig(), seed=0)
    with pytest.raises(GameError, match="reset"):
        game.tick()
    game.close()
    with pytest.raises(GameError, match="closed"):
        game.reset(Scene())


def test_a_controller_answers_the_same_at_any_rate():
    gains = (1.7, 3.5)
    slow, fast = Controller(gains, OWN_HZ), Controller(gains, 3 * OWN_HZ)
    for period in range(20):
        answer = slow.get_result(0.1 * period)
        for part in (2, 1, 0):
            finer = fast.get_result(0.1 * period - part / 30.0)
    assert answer == pytest.approx(-(1.7 * 1.9 + 3.5 * 0.1), rel=1e-6)
    assert finer == pytest.approx(answer, rel=0.01)
