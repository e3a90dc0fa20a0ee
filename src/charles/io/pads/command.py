"""The pad that is no device: a game's own command channel."""

from typing import Protocol, runtime_checkable

import numpy as np

from charles.errors import GameError, PadError
from charles.io.game import Game
from charles.io.pads.pad import clamped
from charles.io.pads.xbox import PadReport


@runtime_checkable
class AxesGame(Protocol):
    """A game whose command channel takes a pad's axes as they are, dead zones and all."""

    def show_axes(self, accelerate: float, brake: float, steering: float) -> None:
        """Hold two pedals, 0 to 1, and a stick, -1 to 1, until others are shown.

        Has no effect while the NPC drives.
        """
        ...


class CommandDevice:
    """A game's command channel as a :class:`charles.io.pads.xbox.XboxDevice`.

    Args:
        game: The game.

    Raises:
        PadError: Its commands are no axes.
    """

    def __init__(self, game: Game) -> None:
        if not isinstance(game, AxesGame):
            raise PadError(
                f"pad.kind must be a pad that {type(game).__name__} reads, got 'command': it takes "
                "no axes as commands. Choose virtual or uinput."
            )
        self._game = game

    def show(self, report: PadReport) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`."""
        self._game.show_axes(report.right_trigger, report.left_trigger, report.stick_x)

    def press_a(self, is_down: bool) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`. Commands have no buttons."""

    def close(self) -> None:
        """See :class:`charles.io.pads.xbox.XboxDevice`."""


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
