"""A pad of a game in which the same deflection does not always do the same.

Controls are what a game tells that it applies, for example the angle of the front wheels; how far a
stick must go for that may depend on the speed. So controls are divided by what full deflection does
at the speed of the moment, before the pad below undoes the axis' dead zone.
"""

import numpy as np

from charles.io.calibration import AxesCalibration
from charles.io.pads.pad import Pad, driving_indices
from charles.sample import DRIVING_CONTROLS


class CalibratedPad:
    """A pad that asks for the deflection that has the wanted effect. Closes the pad below.

    Args:
        pad: Undoes the dead zones of the calibration.
        axes: What was measured.
        controls: Names of the game's controls, among them those of a car.

    Raises:
        PadError: The game is not driven like a car.
    """

    def __init__(
        self, pad: Pad, axes: AxesCalibration, controls: tuple[str, ...] = DRIVING_CONTROLS
    ) -> None:
        self.refused = 0
        self._pad, self._axes = pad, axes
        self._pedal, self._wheel = driving_indices(controls)
        self._speed_mps = 0.0

    def at_speed(self, speed_mps: float | None) -> None:
        """See :class:`charles.io.pads.pad.SpeedAware`."""
        self._speed_mps = speed_mps or 0.0

    def update(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.pads.pad.Pad`. What is out of reach becomes full deflection."""
        values = np.array(controls, dtype=np.float32)
        if values.ndim == 1 and len(values) > max(self._pedal, self._wheel):
            axes, speed = self._axes, self._speed_mps
            pedal = axes.accelerate if values[self._pedal] > 0 else axes.brake
            values[self._pedal] /= pedal.gain(speed)
            values[self._wheel] /= axes.steering.gain(speed)
        self._pad.update(values)  # which clamps them
        self.refused = self._pad.refused

    def neutral(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        self._pad.neutral()

    def close(self) -> None:
        """See :class:`charles.io.pads.pad.Pad`."""
        self._pad.close()
