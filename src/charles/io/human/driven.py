"""A game with controls of its own that a person drives: the person is the expert to learn from."""

from dataclasses import replace

import numpy as np

from charles.io.capture import capture_of
from charles.io.game import Game, Scene, Telemetry
from charles.io.human.source import HumanInput
from charles.io.pads.pad import driving_indices


class DrivenGame:
    """A real-time game as a :class:`charles.io.game.Game` whose driver is a person at a pad.

    The label of an instant is what the person does then, and goes to the game at once. There is
    none while nobody holds the pad.

    Args:
        game: Takes commands; closed with this.
        human: The person's pad or wheel; closed with this.

    Raises:
        PadError: The game is not driven like a car.
    """

    def __init__(self, game: Game, human: HumanInput) -> None:
        self.controls: tuple[str, ...] = tuple(game.controls)
        self.frame_shape: tuple[int, int, int] = game.frame_shape
        self.is_advising = False
        self.is_realtime: bool = game.is_realtime
        self._game, self._human = game, human
        self._indices = list(driving_indices(self.controls))
        self.capture = capture_of(game)

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`; the person drives from the start."""
        self._game.reset(scene)
        self._game.set_npc(False)

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`.

        Raises:
            PadError: The person's pad is gone.
        """
        told = self._game.tick()
        reading = self._human.read()
        controls = np.zeros(len(self.controls), np.float32)
        controls[self._indices] = reading.controls
        self._game.act(controls)
        label = controls if reading.is_active else None
        return replace(told, label=label, is_human=reading.is_active)

    def grab(self, out: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`."""
        self._game.grab(out)

    def act(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`. Has no effect: the person drives."""

    def set_npc(self, is_driving: bool) -> None:
        """See :class:`charles.io.game.Game`. Has no effect: the person drives."""

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """See :class:`charles.io.game.Game`."""
        self._game.teleport(place)

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        self._human.close()
        self._game.close()
