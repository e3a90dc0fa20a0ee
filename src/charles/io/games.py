"""Making the game that a config names. A game from outside needs no entry here."""

from typing import TYPE_CHECKING, get_args

from charles.config import FrameConfig, GameConfig
from charles.errors import require
from charles.game_config import GameName
from charles.io.game import Game

if TYPE_CHECKING:
    from charles.io.deepgtav_options import DeepGTAVOptions


def make_game(
    config: GameConfig,
    frame: FrameConfig,
    *,
    seed: int,
    restart_command: str = "",
    needs_labels: bool = True,
) -> Game:
    """The game that ``config`` names; nothing is started before its first ``reset``.

    A window game opens its capture, telemetry and pad at once, so that what is missing is named.

    Args:
        config: Which game.
        frame: Size of its frames.
        seed: Seeds what scenes leave open.
        restart_command: Command line that restarts the game, for games that need it. It is the
            user's of this host, never part of a config that came from elsewhere.
        needs_labels: Whether somebody learns from the game's own driver; a game whose labels cannot
            be is an error then.

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
    from charles.io.deepgtav_options import DeepGTAVOptions

    options = DeepGTAVOptions(
        car=config.gta.car,
        restart_after=config.gta.restart_after,
        restart_command=restart_command,
        trust_controls=config.gta.trust_controls,
        needs_labels=needs_labels,
    )
    return _make_gta(config, frame, options, seed=seed)


def _make_gta(
    config: GameConfig, frame: FrameConfig, options: "DeepGTAVOptions", *, seed: int
) -> Game:
    """GTA V, through the mod that ``config`` names."""
    from charles.io.deepgtav import DeepGTAVGame

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
        screen=config.gta.screen,
        options=options,
    )
