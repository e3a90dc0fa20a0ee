"""What lets go of a pad when whoever holds it stands still.

A driver's pad and a keyboard hold what they were told last. A player waits for the game's next
instant, and a game may be silent for as long as it takes to be restarted: meanwhile nobody would
steer. Commands of the game itself need no such watch; its adapter lets go where it waits.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from charles.errors import CharlesError
from charles.io.pads.pad import Pad, SpeedAware, applied_by

PATIENCE_S = 0.5
"""How long controls hold that nobody renews: a car at 15 m/s is 7 m further."""

JOIN_S = 2.0
"""How long a closing watch waits for its thread."""


class Watch:
    """Lets go once what is held was not renewed for a while. Owns a thread.

    Args:
        let_go: What to do then; called in that thread, with ``lock`` held.
        patience_s: For how long.

    Attributes:
        lock: Hold it while the pad is used, so that nobody else uses it meanwhile.
        lapses: How often it let go by itself.
    """

    def __init__(self, let_go: Callable[[], None], *, patience_s: float = PATIENCE_S) -> None:
        self.lock = threading.Condition()
        self.lapses = 0
        self._let_go, self._patience_s = let_go, patience_s
        self._until_s: float | None = None
        """When what is held ends; ``None`` while nothing is held."""
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="pad watch", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Something is held, from now on for as long as patience lasts. Call with the lock."""
        is_first, self._until_s = self._until_s is None, time.monotonic() + self._patience_s
        if is_first:
            self.lock.notify()

    def rest(self) -> None:
        """Nothing is held. Call with the lock."""
        self._until_s = None

    def close(self) -> None:
        """End the thread; waits for :data:`JOIN_S` at most, should the pad hang."""
        if self.lock.acquire(timeout=JOIN_S):
            self._is_open = False
            self.lock.notify()
            self.lock.release()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        with self.lock:
            while self._is_open:
                if self._until_s is None:
                    self.lock.wait()
                elif (left_s := self._until_s - time.monotonic()) > 0:
                    self.lock.wait(left_s)
                else:
                    self._until_s = None
                    self._let_go()
                    self.lapses += 1


class WatchedPad:
    """A pad whose controls hold for :data:`PATIENCE_S` at most. Closes the pad below.

    Args:
        pad: What is watched.
        patience_s: How long controls hold.
    """

    def __init__(self, pad: Pad, *, patience_s: float = PATIENCE_S) -> None:
        self._pad = pad
        self._speed_aware = pad if isinstance(pad, SpeedAware) else None
        self._controls = np.zeros(0, np.float32)
        self._watch = Watch(self._give_up, patience_s=patience_s)

    @property
    def refused(self) -> int:
        """See :class:`charles.io.pads.pad.Pad`."""
        return self._pad.refused

    @property
    def lapses(self) -> int:
        """How often it let go by itself."""
        return self._watch.lapses

    def at_speed(self, speed_mps: float | None) -> None:
        """See :class:`charles.io.pads.pad.SpeedAware`."""
        if self._speed_aware is not None:
            with self._watch.lock:
                self._speed_aware.at_speed(speed_mps)

    @property
    def applied(self) -> np.ndarray:
        """See :class:`charles.io.pads.pad.Applying`."""
        with self._watch.lock:
            return applied_by(self._pad, self._controls)

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        with self._watch.lock:
            self._pad.update(controls)
            self._controls = np.array(controls, np.float32)
            self._watch.renew()

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        with self._watch.lock:
            self._rest()

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        self._watch.close()
        self._pad.close()

    def _rest(self) -> None:
        self._watch.rest()
        self._controls = np.zeros_like(self._controls)
        self._pad.neutral()

    def _give_up(self) -> None:
        with suppress(CharlesError):  # a pad that is gone says so to the next update
            self._rest()
