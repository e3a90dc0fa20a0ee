"""Making the environment that a config names, and finding its expert."""

import os
import sys
import warnings
from typing import Any

import numpy as np

from charles.errors import CharlesError, ExtraMissingError, GameError, did_you_mean
from charles.game_config import GameConfig
from charles.gymnasium_config import GymnasiumConfig
from charles.io.gym.car_racing import CarRacingExpert, CarRacingWorld
from charles.io.gym.game import GymnasiumGame
from charles.io.gym.roles import Expert, World
from charles.io.human.make import make_human
from charles.io.human.source import HumanInput

CAR_RACING = "CarRacing-v"


class HumanExpert:
    """A person with a pad or wheel, as an :class:`charles.io.gym.roles.Expert`.

    The pad is opened when the person is first asked: somebody who only watches needs none.
    """

    is_advising = False

    def __init__(self, config: GymnasiumConfig) -> None:
        self._config = config.human
        self._input: HumanInput | None = None

    def start(self, env: Any) -> None:
        """See :class:`charles.io.gym.roles.Expert`."""

    def advise(self, env: Any) -> np.ndarray | None:
        """See :class:`charles.io.gym.roles.Expert`."""
        if self._input is None:
            self._input = make_human(self._config)
            assert self._input is not None, "checked by the config"
        reading = self._input.read()
        return reading.controls.astype(np.float32) if reading.is_active else None

    def close(self) -> None:
        """See :class:`charles.io.gym.roles.Expert`."""
        if self._input is not None:
            self._input.close()


def make_gymnasium_game(config: GameConfig, *, height: int, width: int, seed: int) -> GymnasiumGame:
    """The environment that ``config.gymnasium`` names, as a game, with its expert.

    Raises:
        ExtraMissingError: Gymnasium, or what the environment needs, is not installed.
        GameError: There is no such environment, its actions do not fit, or it has no expert.
        ConfigError: ``game.gymnasium.actions`` does not fit its actions.
    """
    options = config.gymnasium
    is_known = options.env.startswith(CAR_RACING)
    expert = _make_expert(options, is_known=is_known)
    env = make_env(options.env)
    world: World | None = CarRacingWorld() if is_known else None
    try:
        return GymnasiumGame(
            config, env, height=height, width=width, seed=seed, expert=expert, world=world
        )
    except CharlesError:
        env.close()
        raise


def _make_expert(options: GymnasiumConfig, *, is_known: bool) -> Expert | None:
    if options.expert == "none":
        return None
    if options.expert == "human":
        return HumanExpert(options)
    if is_known:
        return CarRacingExpert()
    raise GameError(
        f"game.gymnasium.expert must say whom to learn {options.env} from, got 'auto', which "
        "has an expert for CarRacing only. Show it yourself: --game.gymnasium.expert human "
        "--game.gymnasium.human.kind evdev; or write an expert (charles.io.gym.roles.Expert) and "
        "pass a GymnasiumGame with it to charles.collect.collect(make_game=...)."
    )


def make_env(name: str) -> Any:
    """An environment that renders to arrays, without a time limit.

    Raises:
        ExtraMissingError: Gymnasium, or what the environment needs, is not installed.
        GameError: There is no such environment.
    """
    if sys.platform == "linux" and not _has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with warnings.catch_warnings():
        # Box2D's binding warns on import, and crashes where warnings are errors.
        warnings.simplefilter("ignore")
        try:
            import gymnasium
        except ImportError as err:
            raise _missing("Gymnasium") from err
        try:
            return gymnasium.make(
                name, render_mode="rgb_array", disable_env_checker=True, max_episode_steps=-1
            )
        except gymnasium.error.DependencyNotInstalled as err:
            raise _missing(name) from err
        except (gymnasium.error.Error, ImportError) as err:
            known = did_you_mean(name, gymnasium.registry)
            raise GameError(
                f"game.gymnasium.env must name an environment of Gymnasium, got {name!r}: {err} "
                f"{known}".rstrip()
            ) from err


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _missing(what: str) -> ExtraMissingError:
    return ExtraMissingError(
        f"{what} needs packages that are not installed. Install them: "
        "pip install 'charles[gymnasium]'."
    )
