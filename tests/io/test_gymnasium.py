"""Environments of Gymnasium as games: their actions, their experts, and CarRacing's."""

import contextlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from charles.config import FrameConfig, GameConfig
from charles.errors import ConfigError, GameError
from charles.gymnasium_config import GymnasiumConfig
from charles.human_config import HumanConfig
from charles.io.game import Scene
from charles.io.games import make_game
from charles.io.gym.actions import ActionMap
from charles.io.gym.game import GymnasiumGame
from charles.io.gym.roles import Expert

gymnasium = pytest.importorskip("gymnasium", reason="needs pip install 'charles[gymnasium]'")
pytest.importorskip("pygame", reason="needs pip install 'charles[gymnasium]'")

FRAME = FrameConfig(height=40, width=60)
PENDULUM = GymnasiumConfig(env="Pendulum-v1", actions=("-steering",), expert="none")


@contextlib.contextmanager
def opened(options=None, **changes):
    config = GameConfig(name="gymnasium", gymnasium=options or GymnasiumConfig(), **changes)
    with contextlib.closing(make_game(config, FRAME, seed=1)) as game:
        yield game


def test_an_action_spans_the_range_of_its_number_and_rests_at_neutral():
    space = gymnasium.spaces.Box(np.float32([-2, 0, 1, -1]), np.float32([2, 1, 3, 1]))
    action = ActionMap(("steering", "acceleration*0.5", "-acceleration_braking", "neutral"), space,
                       "Car")  # fmt: skip
    np.testing.assert_allclose(action([0.0, 0.0]), [0.0, 0.0, 2.0, 0.0])
    np.testing.assert_allclose(action([1.0, 1.0]), [2.0, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(action([-1.0, -0.5]), [-1.0, 0.0, 3.0, 0.0])


def test_a_gain_turns_pedals_and_wheel_into_what_car_racing_can_use():
    with opened() as game:
        action = game._action
        np.testing.assert_allclose(action([1.0, -1.0]), [-0.4, 0.3, 0.0], atol=1e-6)
        np.testing.assert_allclose(action([-1.0, 0.5]), [0.2, 0.0, 0.3], atol=1e-6)


@pytest.mark.parametrize(
    ("actions", "said"),
    [((), "at least one"), (("gas",), "be a signal"), (("steering*",), "be a signal")],
)
def test_an_action_that_cannot_be_read_is_refused(actions, said):
    with pytest.raises(ConfigError, match=said):
        GymnasiumConfig(actions=actions)


def test_too_few_actions_are_refused_with_what_there_is():
    with (
        pytest.raises(ConfigError, match="have 3 entries"),
        opened(GymnasiumConfig(actions=("steering",))),
    ):
        pass


def test_discrete_actions_are_refused():
    options = GymnasiumConfig(env="CartPole-v1", actions=("steering",), expert="none")
    with pytest.raises(GameError, match="continuous actions"), opened(options):
        pass


def test_an_environment_that_is_not_there_is_one_clear_error():
    options = GymnasiumConfig(env="CarRacing-v9")
    with pytest.raises(GameError, match=r"CarRacing-v9.*CarRacing-v3"), opened(options):
        pass


def test_an_environment_without_an_expert_says_how_to_give_one():
    options = GymnasiumConfig(env="Pendulum-v1", actions=("steering",))
    with pytest.raises(GameError, match=r"expert human.*make_game"), opened(options):
        pass
    with pytest.raises(ConfigError, match=r"human\.kind"):
        GymnasiumConfig(expert="human")


def test_the_expert_drives_a_lap_without_leaving_the_road_and_brakes_for_curves():
    with opened() as game:
        game.reset(Scene(seed=100_000))
        speeds, labels, off = [], [], 0
        while not game.progress().ended:
            told = game.tick()
            off += told.is_off_road
            speeds.append(told.speed_mps)
            labels.append(told.label)
        progress = game.progress()
        assert (progress.ended, progress.completion, off) == ("done", 1.0, 0)
        assert 800 < progress.length_m < 1500
        assert len(speeds) < 30 * 70
        assert max(speeds) > 21.0
        assert min(speeds[90:]) < 16.0
        assert np.min(labels, axis=0)[0] < -0.2
        game.tick()  # the lap is over, the environment is not
        assert game.tick().speed_mps > 5.0


def test_the_expert_finds_its_way_back_from_wherever_it_was_driven():
    rng = np.random.default_rng(0)
    with opened() as game:
        for seed in range(5):
            game.reset(Scene(seed=seed))
            game.teleport()
            game.set_npc(False)
            for _ in range(4):
                game.act(rng.uniform(-1.0, 1.0, 2).astype(np.float32))
                labels = [game.tick().label for _ in range(15)]
                assert np.isfinite(labels).all()
            game.set_npc(True)
            for _ in range(300):
                told = game.tick()
                if not told.is_off_road and told.speed_mps > 10.0:
                    break
            else:
                pytest.fail(f"still lost in track {seed}: {told}")


def test_the_purpose_lies_ahead_and_points_into_the_curve():
    with opened() as game:
        game.reset(Scene(seed=3))
        told = [game.tick() for _ in range(400)]
    directions = np.array([each.purpose[0] for each in told])
    steering = np.array([each.label[1] for each in told])
    assert all(11.0 < each.purpose[1] < 16.0 for each in told)
    assert np.corrcoef(directions, steering)[0, 1] > 0.8


def test_leaving_the_track_far_behind_counts_once_as_a_collision():
    with opened() as game:
        game.reset(Scene(seed=3))
        game.set_npc(False)
        game.act(np.array([0.5, 0.0], np.float32))
        told = [game.tick() for _ in range(300)]
        assert game.progress().ended == "off_route"
    assert sum(each.is_collision for each in told) == 1
    assert told[-1].is_off_road


def test_both_cameras_show_the_car_in_its_colours():
    for camera in ("render", "observation"):
        with opened(GymnasiumConfig(camera=camera)) as game:
            game.reset(Scene(seed=3))
            game.tick()
            frame = np.zeros(game.frame_shape, np.uint8)
            game.grab(frame)
        means = frame[: FRAME.height * 3 // 4].mean(axis=(0, 1))
        assert means[1] > 1.2 * means[0]  # grass is green
        red = (frame[..., 0].astype(int) - frame[..., 2]).max()
        assert red > 60


class Swing:
    """A teacher from outside: swings the pendulum to one side."""

    is_advising = True

    def __init__(self):
        self.started = 0

    def start(self, env):
        self.started += 1

    def advise(self, env):
        return np.array([0.0, 0.5], np.float32)

    def close(self):
        pass


def test_a_teacher_from_outside_is_plugged_in_and_ended_episodes_begin_anew():
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array", max_episode_steps=7)
    expert = Swing()
    assert isinstance(expert, Expert)
    config = GameConfig(name="gymnasium", gymnasium=PENDULUM)
    game = GymnasiumGame(config, env, height=40, width=40, seed=0, expert=expert)
    with contextlib.closing(game):
        assert game.is_advising
        game.reset(Scene(seed=1))
        told = [game.tick() for _ in range(20)]
        frame = np.zeros(game.frame_shape, np.uint8)
        game.grab(frame)
        assert frame.std() > 5
    assert [each.is_collision for each in told].count(True) == 2
    assert expert.started == 3
    assert told[3].speed_mps is None
    np.testing.assert_allclose(told[3].controls, [0.0, 0.5])


def test_nobody_to_learn_from_is_enough_to_drive():
    with opened(PENDULUM) as game:
        assert not game.is_advising
        game.reset(Scene(seed=1))
        assert game.tick().label is None
    options = replace(PENDULUM, camera="observation")
    with opened(options) as game:
        game.reset(Scene(seed=1))
        with pytest.raises(GameError, match="camera"):
            game.grab(np.zeros(game.frame_shape, np.uint8))


def test_a_person_who_plays_is_asked_only_when_it_is_their_turn():
    options = GymnasiumConfig(expert="human", human=HumanConfig(kind="xinput", slot=3))
    with opened(options) as game:
        assert game.is_realtime
        game.reset(Scene(seed=1))
        game.set_npc(False)
        assert game.tick().label is None


def test_without_the_extra_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "from charles.errors import ExtraMissingError\n"
        "from charles.io.gym.make import make_env\n"
        "try:\n    make_env('CarRacing-v3')\n"
        "except ExtraMissingError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert "charles[gymnasium]" in done.stdout
