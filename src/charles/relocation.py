"""Putting a car that is stuck elsewhere, faded out and in again where the game can."""

from typing import Literal

from charles.io.abilities import Fading
from charles.io.game import Game


class Relocation:
    """One jump after another. Use from one thread; the caller ticks the game.

    Where the game fades, a jump takes twice the fade; what the game shows meanwhile is neither
    predicted on nor kept. A stepped game never fades: nobody watches it.

    Args:
        game: The game.
        fade_s: Length of each of both fades; 0 for none.
        rate_hz: Instants per second.
    """

    def __init__(self, game: Game, fade_s: float, rate_hz: float) -> None:
        is_fading = game.is_realtime and isinstance(game, Fading) and fade_s > 0
        self._game, self._fade_s = game, fade_s
        self._fade_ticks = max(1, round(fade_s * rate_hz)) if is_fading else 0
        self._phase: Literal["", "out", "in"] = ""
        self._left = 0

    @property
    def is_under_way(self) -> bool:
        """Whether the picture is being faded; from the moment the car is stuck to the last tick."""
        return self._phase != ""

    def begin(self) -> None:
        """Begin a jump; without a fade it is over at once."""
        if self._fade_ticks:
            self._fade("out")
        else:
            self._game.teleport()

    def step(self) -> None:
        """Call after every tick of the game while a jump is under way."""
        self._left -= 1
        if self._left > 0:
            return
        if self._phase == "out":
            self._game.teleport()
            self._fade("in")
        else:
            self._phase = ""

    def _fade(self, phase: Literal["out", "in"]) -> None:
        assert isinstance(self._game, Fading)
        self._phase, self._left = phase, self._fade_ticks
        self._game.fade(self._fade_s, is_out=phase == "out")
