"""Making the game that a config names. A game from outside needs no entry here."""

from charles.config import FrameConfig, GameConfig
from charles.errors import require
from charles.io.game import Game


def make_game(config: GameConfig, frame: FrameConfig, *, seed: int) -> Game:
    """The game that ``config`` names; nothing is started before its first ``reset``.

    A window game opens its capture, telemetry and pad at once, so that what is missing is named.

    Args:
        config: Which game.
        frame: Size of its frames.
        seed: Seeds what scenes leave open.

    Raises:
        ConfigError: There is no game of that name.
        CharlesError: A window game's pictures, telemetry or pad cannot be opened.
    """
    known = ("town", "deepgtav", "window")
    require(config.name in known, "game.name", f"be one of {known}", config.name)
    if config.name == "town":
        from charles.io.town import TownGame

        return TownGame(config, height=frame.height, width=frame.width, seed=seed)
    if config.name == "window":
        from charles.io.window import make_window_game

        return make_window_game(config.window, height=frame.height, width=frame.width)
    from charles.io.deepgtav import DeepGTAVGame

    return DeepGTAVGame(config, height=frame.height, width=frame.width, seed=seed)
