"""Making the game that a config names. A game from outside needs no entry here."""

from typing import get_args

from charles.config import FrameConfig, GameConfig
from charles.errors import require
from charles.game_config import GameName
from charles.io.game import Game


def make_game(
    config: GameConfig, frame: FrameConfig, *, seed: int, restart_command: str = ""
) -> Game:
    """The game that ``config`` names; nothing is started before its first ``reset``.

    A window game opens its capture, telemetry and pad at once, so that what is missing is named.

    Args:
        config: Which game.
        frame: Size of its frames.
        seed: Seeds what scenes leave open.
        restart_command: Command line that restarts the game, for games that need it. It is the
            user's of this host, never part of a config that came from elsewhere.

    Raises:
        ConfigError: There is no game of that name.
        CharlesError: A window game's pictures, telemetry or pad cannot be opened; an environment
            is not installed or has no expert.
    """
    known = get_args(GameName)
    require(config.name in known, "game.name", f"be one of {known}", config.name)
    if config.name == "town":
        from charles.io.town import TownGame

        return TownGame(config, height=frame.height, width=frame.width, seed=seed)
    if config.name == "window":
        from charles.io.window import make_window_game

        return make_window_game(config.window, height=frame.height, width=frame.width)
    if config.name == "gymnasium":
        from charles.io.gym.make import make_gymnasium_game

        return make_gymnasium_game(config, height=frame.height, width=frame.width, seed=seed)
    if config.name == "metadrive":
        from charles.io.metadrive.game import MetaDriveGame

        return MetaDriveGame(config, height=frame.height, width=frame.width, seed=seed)
    return _make_gta(config, frame, seed=seed, restart_command=restart_command)


def _make_gta(config: GameConfig, frame: FrameConfig, *, seed: int, restart_command: str) -> Game:
    """GTA V, through the mod that ``config`` names."""
    from charles.io.deepgtav import DeepGTAVGame
    from charles.io.deepgtav_options import DeepGTAVOptions

    gta = config.gta
    options = DeepGTAVOptions(
        car=gta.car,
        restart_after=gta.restart_after,
        restart_command=restart_command,
        trust_controls=gta.trust_controls,
    )
    if config.name == "deepgtav":
        return DeepGTAVGame(
            config, height=frame.height, width=frame.width, seed=seed, options=options
        )
    from charles.io.deepgtav_zmq import make_zmq_game

    return make_zmq_game(
        config,
        height=frame.height,
        width=frame.width,
        seed=seed,
        screen=gta.screen,
        options=options,
    )
