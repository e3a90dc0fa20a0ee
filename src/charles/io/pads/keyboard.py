"""The pad of games that have none: keys of the window in front, by pulse width.

A thread of the pad presses and lets go between two updates, which come too seldom for that. Keys
are pressed by :class:`Keys`: XTest on X11, SendInput on Windows.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from charles.errors import PadError
from charles.io.pads.pad import clamped, driving_indices
from charles.io.pads.pulse import Pulse
from charles.io.pads.xbox import Axes
from charles.pad_config import KeysConfig, PadConfig, ZonesConfig
from charles.sample import DRIVING_CONTROLS

JOIN_S = 2.0
"""How long a closing pad waits for its thread."""


class Keys(Protocol):
    """A keyboard that a system believes in. Names as in :data:`charles.pad_config.KEY_NAMES`."""

    def press(self, name: str) -> None:
        """Hold a key. May raise anything; must not block."""
        ...

    def release(self, name: str) -> None:
        """Let go of a key, whether it is down or not. May raise anything; must not block."""
        ...

    def close(self) -> None:
        """Give the keyboard back once all that was sent has arrived. Called once."""
        ...


class KeyboardPad:
    """Drives with four keys, each held for the share of the time that its control asks for.

    At the start all four are released: those of a player that was killed stay down.

    Args:
        keys: A system's keyboard with these keys; closed with this pad.
        controls: Names of the game's controls, among them those of a car.
        config: Keys and their period. Of the dead zones all but ``game`` hold: keys have none.

    Raises:
        PadError: The game is not driven like a car, or keys cannot be pressed.
    """

    def __init__(
        self,
        keys: Keys,
        controls: Sequence[str] = DRIVING_CONTROLS,
        *,
        config: PadConfig | None = None,
    ) -> None:
        config = config or PadConfig(kind="keyboard")
        self.refused = 0
        self._num = len(controls)
        self._keys = keys
        self._axes = Axes(_without_game(config.zones))
        pairs = _pairs(config.keys)
        self._pulses = [(Pulse(config.pulse_ms / 1e3), names) for names in pairs]
        self._down: list[str | None] = [None, None]
        self._failure: Exception | None = None
        self._is_open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._pulse, name="keyboard pad", daemon=True)
        try:
            self._pedal, self._wheel = driving_indices(controls)
            self._let_go()
        except PadError:
            keys.close()
            raise
        except Exception as err:
            keys.close()
            raise PadError(_lost(err)) from err
        self._thread.start()

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`. Does not wait for the keyboard."""
        values = clamped(controls, self._num)
        if values is None:
            self.refused += 1
            self.neutral()
            return
        report = self._axes.report(float(values[self._pedal]), float(values[self._wheel]))
        self._aim(report.right_trigger - report.left_trigger, report.stick_x)

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`. Has sent the keys' release when it returns."""
        self._axes.rest()
        self._aim(0.0, 0.0)

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`. The keys are up when it returns."""
        with self._changed:
            if not self._is_open:
                return
            self._is_open = False
            self._changed.notify()
        self._thread.join(JOIN_S)
        try:
            self._let_go()
        except Exception:  # the display went first, and every key of it
            return
        finally:
            self._keys.close()

    def _aim(self, *controls: float) -> None:
        """Let each axis' mean be its control from now on."""
        with self._changed:
            if not self._is_open:
                raise PadError("The pad is closed. Make a new one.")
            if self._failure is not None:
                raise PadError(_lost(self._failure)) from self._failure
            now_s = time.perf_counter()
            for (pulse, _), control in zip(self._pulses, controls, strict=True):
                pulse.aim(control, now_s)
            try:
                self._apply()
            except Exception as err:
                raise PadError(_lost(err)) from err
            self._changed.notify()

    def _apply(self) -> None:
        """Press and let go as the pulses say; the key that goes up goes first."""
        for index, (pulse, names) in enumerate(self._pulses):
            wanted, held = names.get(pulse.side), self._down[index]
            if wanted == held:
                continue
            if held is not None:
                self._keys.release(held)
            if wanted is not None:
                self._keys.press(wanted)
            self._down[index] = wanted

    def _pulse(self) -> None:
        """The thread: whenever a press or a release is due, until the pad is closed."""
        with self._changed:
            while self._is_open:
                now_s = time.perf_counter()
                for pulse, _ in self._pulses:
                    pulse.advance(now_s)
                try:
                    self._apply()
                except Exception as err:  # whoever calls the pad next is told
                    self._failure = err
                    return
                wait_s = min(pulse.wait_s() for pulse, _ in self._pulses)
                self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))

    def _let_go(self) -> None:
        for _, names in self._pulses:
            for name in names.values():
                self._keys.release(name)


def _pairs(keys: KeysConfig) -> tuple[dict[int, str], dict[int, str]]:
    """Each axis' keys by the sign of its control."""
    return {1: keys.accelerate, -1: keys.brake}, {1: keys.right, -1: keys.left}


def _without_game(zones: ZonesConfig) -> ZonesConfig:
    return ZonesConfig(
        accelerate=replace(zones.accelerate, game=0.0),
        brake=replace(zones.brake, game=0.0),
        steering=replace(zones.steering, game=0.0),
    )


def _lost(err: Exception) -> str:
    return f"Keys cannot be pressed any more: {err}. Restart the player within the desktop session."
