"""A person who drives with the keyboard: keys as pedals and wheel."""

from charles.human_config import HumanConfig
from charles.io.human.held_keys import HeldKeys
from charles.io.human.source import Axes, HumanReading, Person
from charles.pad_config import KeysConfig


class KeyboardInput:
    """The keyboard as a :class:`charles.io.human.source.HumanInput`.

    Args:
        held: Which keys are down; closed with this.
        keys: What they mean.
        config: How long the keys may rest.
    """

    def __init__(self, held: HeldKeys, keys: KeysConfig, config: HumanConfig) -> None:
        self._held, self._keys = held, keys
        self._person = Person(config)
        self._person.reading(Axes(0.0, 0.0, 0.0), frozenset())  # a key that is down is touched

    def read(self) -> HumanReading:
        """See :class:`charles.io.human.source.HumanInput`."""
        keys = self._keys
        down = self._held.held() & set(vars(keys).values())
        axes = Axes(
            throttle=float(keys.accelerate in down),
            brake=float(keys.brake in down),
            steering=float(keys.right in down) - float(keys.left in down),
        )
        return self._person.reading(axes, down)

    def close(self) -> None:
        """See :class:`charles.io.human.source.HumanInput`."""
        self._held.close()
