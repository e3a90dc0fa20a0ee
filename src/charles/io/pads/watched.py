"""A pad that lets go by itself when whoever holds it stands still.

A driver's pad and a keyboard hold what they were told last. A player waits for the game's next
instant, and a game may be silent for as long as it takes to be restarted: meanwhile nobody would
steer. Commands of the game itself need no such watch; its adapter lets go where it waits.
"""

import threading
import time
from contextlib import suppress

import numpy as np

from charles.errors import CharlesError
from charles.io.pads.pad import Pad, SpeedAware, applied_by

PATIENCE_S = 0.5
"""How long controls hold that nobody renews: a car at 15 m/s is 7 m further."""

JOIN_S = 2.0
"""How long a closing pad waits for its thread."""


class WatchedPad:
    """A pad whose controls hold for :data:`PATIENCE_S` at most. Closes the pad below.

    A thread of its own does it. Calls of the pad below never overlap.

    Args:
        pad: What is watched.
        patience_s: How long controls hold.

    Attributes:
        lapses: How often it let go by itself.
    """

    def __init__(self, pad: Pad, *, patience_s: float = PATIENCE_S) -> None:
        self.lapses = 0
        self._pad, self._patience_s = pad, patience_s
        self._controls = np.zeros(0, np.float32)
        self._changed = threading.Condition()
        self._until_s: float | None = None
        """When controls that are held end; ``None`` while nothing is held."""
        self._is_open = True
        self._thread = threading.Thread(target=self._watch, name="pad watch", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> int:
        """See :class:`charles.io.pads.pad.Pad`."""
        return self._pad.refused

    def at_speed(self, speed_mps: float | None) -> None:
        """See :class:`charles.io.pads.pad.SpeedAware`."""
        if isinstance(self._pad, SpeedAware):
            with self._changed:
                self._pad.at_speed(speed_mps)

    @property
    def applied(self) -> np.ndarray:
        """See :class:`charles.io.pads.pad.Applying`."""
        with self._changed:
            return applied_by(self._pad, self._controls)

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        with self._changed:
            self._pad.update(controls)
            self._controls = np.array(controls, np.float32)
            is_first, self._until_s = self._until_s is None, time.monotonic() + self._patience_s
            if is_first:
                self._changed.notify()

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        with self._changed:
            self._rest()

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join(JOIN_S)
        self._pad.close()

    def _rest(self) -> None:
        self._until_s, self._controls = None, np.zeros_like(self._controls)
        self._pad.neutral()

    def _watch(self) -> None:
        """The thread: whenever controls end, until the pad is closed."""
        with self._changed:
            while self._is_open:
                if self._until_s is None:
                    self._changed.wait()
                elif (left_s := self._until_s - time.monotonic()) > 0:
                    self._changed.wait(left_s)
                else:
                    self.lapses += 1
                    with suppress(CharlesError):  # a pad that is gone says so to the next update
                        self._rest()
