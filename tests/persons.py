"""A person who follows a script, on a pad that is read as real ones are."""

from charles.errors import PadError
from charles.human_config import HumanConfig
from charles.io.human.source import Axes, Person
from charles.pad_config import DeadZone, ZonesConfig
from charles.timing import clock_ns


class ScriptedPerson:
    """A pad whose axes a test moves, as a :class:`charles.io.human.source.HumanInput`.

    Args:
        release_s: How long it may rest.
    """

    def __init__(self, release_s=1.0):
        self.axes, self.buttons = Axes(0.0, 0.0, 0.0), 0
        self.is_plugged_in, self.is_closed = True, False
        self.touched_ns = 0
        none = DeadZone(game=0.0)
        zones = ZonesConfig(accelerate=none, brake=none, steering=none)
        config = HumanConfig(zones=zones, idle_s=release_s)
        self._person = Person(config)

    def move(self, *, pedal=0.0, steering=0.0):
        """Put the axes where these controls are meant."""
        self.axes = Axes(max(pedal, 0.0), max(-pedal, 0.0), steering)
        self.touched_ns = clock_ns()

    def read(self):
        if not self.is_plugged_in:
            raise PadError("'pad' was unplugged or switched off. Plug it in and start again.")
        return self._person.reading(self.axes, self.buttons)

    def close(self):
        self.is_closed = True


class ScriptedSwitch:
    """A hotkey that a test holds down."""

    def __init__(self):
        self.is_held, self.is_plugged_in = False, True

    def is_down(self):
        if not self.is_plugged_in:
            raise PadError("The X display went away. Start the player again.")
        return self.is_held

    def close(self):
        pass
