"""An Xbox 360 pad that a driver pretends to be plugged in; the driver is a :class:`XboxDevice`.

Right trigger: accelerate. Left trigger: brake and reverse. Left stick: steer.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import numpy as np

from charles.errors import PadError
from charles.io.deadzones import Axis, from_axis
from charles.io.pads.pad import clamped, driving_indices
from charles.pad_config import ZonesConfig
from charles.sample import DRIVING_CONTROLS

WAKE_UP_S = 0.5
"""How long A is held at the start, and the pause before and after: a game that looks for new pads
only now and then must see it go down."""


LET_GO_S = 0.05
"""Between neutral and being unplugged: a game reads its pads once a frame, and the kernel forgets
what was not read when a pad goes."""


class PadReport(NamedTuple):
    """The axes of an Xbox 360 pad, as plain numbers within their ranges."""

    left_trigger: float
    """Brake and reverse, 0 to 1."""
    right_trigger: float
    """Accelerate, 0 to 1."""
    stick_x: float
    """Left stick, -1 to 1, positive right."""


NEUTRAL = PadReport(0.0, 0.0, 0.0)


class Axes:
    """Pedal and wheel as axes of a pad, each with its dead zone.

    Args:
        zones: Dead zones of the game's axes.
    """

    def __init__(self, zones: ZonesConfig) -> None:
        self._zones = zones
        self._accelerate, self._brake = Axis(zones.accelerate), Axis(zones.brake)
        self._steering = Axis(zones.steering)

    def report(self, acceleration_braking: float, steering: float) -> PadReport:
        """What the pad must show for the game to apply two finite controls in [-1, 1]."""
        return PadReport(
            left_trigger=self._brake.show(max(-acceleration_braking, 0.0)),
            right_trigger=self._accelerate.show(max(acceleration_braking, 0.0)),
            stick_x=self._steering.show(steering),
        )

    def applied(self, report: PadReport) -> tuple[float, float]:
        """What the game makes of a report: acceleration less braking, and steering."""
        throttle = from_axis(report.right_trigger, self._zones.accelerate)
        brake = from_axis(report.left_trigger, self._zones.brake)
        return float(throttle - brake), float(from_axis(report.stick_x, self._zones.steering))

    def rest(self) -> PadReport:
        """The report of a pad that nobody touches; forgets where the axes were."""
        for axis in (self._accelerate, self._brake, self._steering):
            axis.rest()
        return NEUTRAL


class XboxDevice(Protocol):
    """A driver's pad. Its values stay until others are sent."""

    def show(self, report: PadReport) -> None:
        """Send the axes; their values are within range. May raise anything."""
        ...

    def press_a(self, is_down: bool) -> None:
        """Press, or let go of, the button A. May raise anything."""
        ...

    def close(self) -> None:
        """Unplug the pad, which lets go of its buttons. Called once."""
        ...


class XboxPad:
    """A pad that any game sees as a real one.

    Args:
        device: A driver's pad, just plugged in; closed with this one.
        controls: Names of the game's controls, among them those of a car.
        zones: Dead zones of the game's axes; GTA V's by default.
        wake_up: Press A once, which takes three times :data:`WAKE_UP_S`.

    Raises:
        PadError: The game is not driven like a car, or the driver failed.
    """

    def __init__(
        self,
        device: XboxDevice,
        controls: Sequence[str] = DRIVING_CONTROLS,
        *,
        zones: ZonesConfig | None = None,
        wake_up: bool = False,
    ) -> None:
        self.refused = 0
        self._device: XboxDevice | None = device
        self._num = len(controls)
        self._shown = NEUTRAL
        self._axes = Axes(zones or ZonesConfig())
        try:
            self._pedal, self._wheel = driving_indices(controls)
            self.neutral()
            if wake_up:
                self._wake_up()
        except BaseException:  # an impatient user's Ctrl-C too: a pressed A must not stay
            self.close()
            raise

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        values = clamped(controls, self._num)
        if values is None:
            self.refused += 1
            self.neutral()
            return
        # Drivers check no range: 1.01 on vgamepad's stick wraps round to full opposite lock. Only
        # a PadReport, whose values are plain floats within range, ever gets there.
        self._send(self._axes.report(float(values[self._pedal]), float(values[self._wheel])))

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        self._send(self._axes.rest())

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`. The pad is unplugged."""
        device, self._device = self._device, None
        if device is None:
            return
        with suppress(Exception):  # the driver may have gone first and taken the pad with it
            device.show(NEUTRAL)
            time.sleep(LET_GO_S)
        with suppress(Exception):
            device.close()

    @property
    def applied(self) -> np.ndarray:
        """See :class:`charles.io.pads.pad.Applying`: what is left of it after both dead zones."""
        controls = np.zeros(self._num, np.float32)
        controls[[self._pedal, self._wheel]] = self._axes.applied(self._shown)
        return controls

    def _send(self, report: PadReport) -> None:
        device = self._require_device()
        self._shown = report
        try:
            device.show(report)
        except Exception as err:  # the drivers below raise bare exceptions
            raise PadError(f"The virtual pad stopped working: {err}. Restart the player.") from err

    def _wake_up(self) -> None:
        device = self._require_device()
        try:
            for is_down in (True, False):
                time.sleep(WAKE_UP_S)
                device.press_a(is_down)
            time.sleep(WAKE_UP_S)
        except Exception as err:
            raise PadError(f"The virtual pad stopped working: {err}. Restart the player.") from err

    def _require_device(self) -> XboxDevice:
        if self._device is None:
            raise PadError("The pad is closed. Make a new one.")
        return self._device
