"""The pad that is no device: a game's own command channel."""

import numpy as np

from charles.errors import GameError
from charles.io.game import Game
from charles.io.pads.pad import clamped


class CommandPad:
    """Drives through the game's own command channel; needs no driver. Does not close the game.

    Args:
        game: The game; its NPC must have been told to stop.
    """

    def __init__(self, game: Game) -> None:
        self.refused = 0
        self._game = game
        self._num = len(game.controls)
        self._is_open = True

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        values = clamped(controls, self._num)
        self.refused += values is None
        self._game.act(np.zeros(self._num, np.float32) if values is None else values)

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        self._game.act(np.zeros(self._num, np.float32))

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`. A game that is gone already holds no controls."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.neutral()
        except GameError:
            return
