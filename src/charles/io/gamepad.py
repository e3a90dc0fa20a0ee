"""Pads: where a player's predictions go.

A pad takes controls in [-1, 1], float32 ``[A]``, in the order of the game's own controls. Whatever
the pad, a prediction that is not finite is never sent: the pad goes to neutral and counts it, and
values out of range are clamped. Used from one thread.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from charles.errors import ExtraMissingError, GameError, PadError, require
from charles.io.deadzones import DeadZone, to_axis
from charles.io.game import Game
from charles.sample import DRIVING_CONTROLS


@runtime_checkable
class Pad(Protocol):
    """What a player drives with."""

    refused: int
    """Predictions that were not finite; each was answered with neutral controls."""

    def update(self, controls: np.ndarray) -> None:
        """Hold ``controls``, float32 ``[A]``, until the next call. Must not block for long.

        Raises:
            PadError: ``controls`` has another shape, or the pad is gone.
            GameError: The game that carries the pad's commands is gone.
        """
        ...

    def neutral(self) -> None:
        """Let go of everything."""
        ...

    def close(self) -> None:
        """Let go of everything and give the pad back. May be called twice; does not raise."""
        ...


def clamped(controls: np.ndarray, num: int) -> np.ndarray | None:
    """``controls`` as float32 ``[num]`` clamped to [-1, 1]; ``None`` if a value is not finite.

    Raises:
        PadError: The shape is not ``[num]``.
    """
    values = np.asarray(controls, dtype=np.float32)
    if values.shape != (num,):
        raise PadError(f"controls must be float32 [{num}], got {values.dtype} {values.shape}.")
    return np.clip(values, -1.0, 1.0) if np.isfinite(values).all() else None


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
        """See :class:`Pad`."""
        values = clamped(controls, self._num)
        self.refused += values is None
        self._game.act(np.zeros(self._num, np.float32) if values is None else values)

    def neutral(self) -> None:
        """See :class:`Pad`."""
        self._game.act(np.zeros(self._num, np.float32))

    def close(self) -> None:
        """See :class:`Pad`. A game that is gone already holds no controls."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.neutral()
        except GameError:
            return


class Recorded(NamedTuple):
    """One update of a :class:`RecordingPad`."""

    time_ns: int
    """When it was made, monotonic clock."""
    controls: np.ndarray
    """What would have been sent, float32 ``[A]``."""


class RecordingPad:
    """Remembers what it is told instead of driving: for measurements, and for looking on.

    Args:
        controls: Names of the controls.
        capacity: How many of the newest updates are kept.
    """

    def __init__(
        self, controls: Sequence[str] = DRIVING_CONTROLS, *, capacity: int = 10_000
    ) -> None:
        require(capacity > 0, "capacity", "be positive", capacity)
        self.refused = 0
        self.updates: deque[Recorded] = deque(maxlen=capacity)
        self._num = len(controls)
        self._is_open = True

    def update(self, controls: np.ndarray) -> None:
        """See :class:`Pad`."""
        values = clamped(controls, self._num)
        self.refused += values is None
        self._record(np.zeros(self._num, np.float32) if values is None else values)

    def neutral(self) -> None:
        """See :class:`Pad`."""
        self._record(np.zeros(self._num, np.float32))

    def close(self) -> None:
        """See :class:`Pad`."""
        if self._is_open:
            self.neutral()
        self._is_open = False

    def _record(self, values: np.ndarray) -> None:
        if not self._is_open:
            raise PadError("The pad is closed. Make a new one.")
        self.updates.append(Recorded(time.monotonic_ns(), values))


class PadReport(NamedTuple):
    """The axes of an Xbox 360 pad, as plain numbers within their ranges."""

    left_trigger: float
    """Brake and reverse, 0 to 1."""
    right_trigger: float
    """Accelerate, 0 to 1."""
    stick_x: float
    """Left stick, -1 to 1, positive right."""


def pad_report(
    acceleration_braking: float, steering: float, *, triggers: DeadZone, stick: DeadZone
) -> PadReport:
    """What the pad must show for the game to apply two finite controls in [-1, 1]."""
    pedal = float(to_axis(acceleration_braking, triggers))
    return PadReport(
        left_trigger=min(max(-pedal, 0.0), 1.0),
        right_trigger=min(max(pedal, 0.0), 1.0),
        stick_x=min(max(float(to_axis(steering, stick)), -1.0), 1.0),
    )


class VirtualPad:
    """A virtual Xbox 360 pad that any game sees as a real one. Windows and Linux.

    Args:
        controls: Names of the game's controls, among them those of a driving game.
        triggers: Dead zone of the game's triggers.
        stick: Dead zone of the game's steering stick.
        device: A vgamepad ``VX360Gamepad``; by default a new one is plugged in.

    Raises:
        ExtraMissingError: vgamepad is not installed.
        PadError: The system cannot make a virtual pad; the text says what is missing.
    """

    def __init__(
        self,
        controls: Sequence[str] = DRIVING_CONTROLS,
        *,
        triggers: DeadZone | None = None,
        stick: DeadZone | None = None,
        device: Any = None,
    ) -> None:
        for name in DRIVING_CONTROLS:
            if name not in controls:
                raise PadError(f"A virtual pad needs the control {name!r}, got {tuple(controls)}.")
        self.refused = 0
        self._num = len(controls)
        self._pedal, self._wheel = (list(controls).index(name) for name in DRIVING_CONTROLS)
        self._triggers, self._stick = triggers or DeadZone(), stick or DeadZone()
        self._device = plug_in() if device is None else device
        self.neutral()

    def update(self, controls: np.ndarray) -> None:
        """See :class:`Pad`."""
        values = clamped(controls, self._num)
        if values is None:
            self.refused += 1
            values = np.zeros(self._num, np.float32)
        pedal, wheel = float(values[self._pedal]), float(values[self._wheel])
        self._send(pad_report(pedal, wheel, triggers=self._triggers, stick=self._stick))

    def neutral(self) -> None:
        """See :class:`Pad`."""
        self._send(PadReport(0.0, 0.0, 0.0))

    def close(self) -> None:
        """See :class:`Pad`. The device is unplugged once nothing refers to it."""
        if self._device is None:
            return
        try:
            self.neutral()
        except PadError:
            pass  # the driver went first and took the pad with it
        finally:
            self._device = None

    def _send(self, report: PadReport) -> None:
        if self._device is None:
            raise PadError("The pad is closed. Make a new one.")
        # vgamepad checks no range: 1.01 on the stick would wrap round to full opposite lock, so
        # only a PadReport, whose values are plain floats within range, ever gets here.
        try:
            self._device.left_trigger_float(value_float=report.left_trigger)
            self._device.right_trigger_float(value_float=report.right_trigger)
            self._device.left_joystick_float(x_value_float=report.stick_x, y_value_float=0.0)
            self._device.update()
        except Exception as err:  # the drivers below raise bare exceptions
            raise PadError(f"The virtual pad stopped working: {err}. Restart the player.") from err


def plug_in() -> Any:
    """A new vgamepad ``VX360Gamepad``.

    Raises:
        ExtraMissingError: vgamepad is not installed.
        PadError: The system cannot make a virtual pad; the text says what is missing.
    """
    try:
        import vgamepad  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as err:
        raise ExtraMissingError(
            "A virtual pad needs vgamepad. Install it: pip install 'charles[gamepad]'."
        ) from err
    except Exception as err:  # a missing driver shows as OSError or RuntimeError at the import
        raise PadError(explained(err)) from err
    try:
        return vgamepad.VX360Gamepad()
    except Exception as err:
        raise PadError(explained(err)) from err


def explained(err: Exception) -> str:
    """What is missing for a virtual pad, and what to do about it, from vgamepad's own error."""
    text = f"{type(err).__name__}: {err}"
    if "VIGEM" in text.upper():
        fix = "The driver ViGEmBus is missing or stopped: install ViGEmBus 1.17 and restart."
    elif "libevdev" in text:
        fix = "The library libevdev is missing: apt-get install libevdev2."
    elif isinstance(err, PermissionError):
        fix = (
            '/dev/uinput may not be opened: add the rule KERNEL=="uinput", TAG+="uaccess" to '
            "/etc/udev/rules.d/50-uinput.rules and log in again, or chmod 0666 /dev/uinput once."
        )
    elif isinstance(err, FileNotFoundError):
        fix = "/dev/uinput is missing: modprobe uinput; a container needs --device /dev/uinput."
    else:
        fix = "Virtual pads work on Windows with ViGEmBus and on Linux with uinput."
    return f"Cannot make a virtual pad ({text}). {fix} Or drive through the game's own commands."
