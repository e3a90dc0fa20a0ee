"""What a network is shown: an instant of a game as the collector stores it and the player sees it.

Collector, player and evaluation share this, so that nothing drives on pictures it never learned.
"""

import numpy as np

from charles.data.history import FrameHistory, History
from charles.data.pixels import to_pixels
from charles.io.game import WEATHERS, Telemetry
from charles.sample import SampleFlag, SampleSpec
from charles.timing import clock_ns

Inputs = dict[str, np.ndarray]
"""``pixels`` uint8 ``[1, ...]``, ``speed`` float32 ``[1]``, ``purpose`` float32 ``[1, 2]`` and
``history`` float32 ``[1, T, D]``."""


class Observer:
    """Turns instants of a game into a network's inputs, as the collector stores them.

    Use from one thread. The inputs are buffers of the observer, overwritten by the next call.

    Args:
        spec: The shape of a sample.
    """

    def __init__(self, spec: SampleSpec) -> None:
        self.spec = spec
        self.frame = np.zeros((spec.height, spec.width, 3), np.uint8)
        """Where the game's frame goes, RGB uint8 ``[H, W, 3]``."""
        self.inputs = blank_inputs(spec)
        self._history = History(spec.history_length, spec.history_features)
        self._frames = FrameHistory(spec)

    @property
    def needs_every_frame(self) -> bool:
        """Whether later instants are shown this one's picture, so that :attr:`frame` must have it
        when it is remembered."""
        return self.spec.num_frames > 1

    def observe(self, telemetry: Telemetry) -> Inputs:
        """Inputs for the instant whose pixels are in :attr:`frame`; does not remember it."""
        inputs = self.inputs
        self.write_pixels(inputs["pixels"][0])
        inputs["speed"][0] = telemetry.shown_speed_mps
        inputs["purpose"][0] = telemetry.purpose
        self.write_history(inputs["history"][0])
        return inputs

    @property
    def current(self) -> np.ndarray:
        """The controls that applied at the instant before, float32 ``[A]``: the history's newest.

        Zeros at the start of an episode, and where no history is kept. Overwritten later.
        """
        return self._history.newest_controls

    def write_pixels(self, out: np.ndarray) -> None:
        """Write the present picture, and those before it, into ``out`` of ``pixels_shape``."""
        if self.spec.num_frames == 1:
            to_pixels(self.frame, self.spec, out)
        else:
            to_pixels(self.frame, self.spec, out[-1])
            self._frames.write_into(out)

    def write_history(self, out: np.ndarray) -> None:
        """Write the past into ``out``, float32 ``[T, D]``, oldest first."""
        self._history.write_into(out)

    def remember(self, telemetry: Telemetry, applied: np.ndarray | None = None) -> None:
        """Add the instant to the history, so that the next one knows it.

        Args:
            telemetry: What the game told of it.
            applied: What the caller drives with from this instant on, float32 ``[A]``; taken where
                the game does not tell its controls, as the label of such a game is.
        """
        told = telemetry.controls
        controls = told if telemetry.has_controls or applied is None else applied
        self._history.append(controls, telemetry.shown_speed_mps, telemetry.purpose)
        self._frames.append(self.frame)

    def restart(self) -> None:
        """Forget the past, as after a teleport."""
        self._history.clear()
        self._frames.clear()


def write_header(
    header: np.ndarray,
    telemetry: Telemetry,
    label: np.ndarray,
    *,
    captured_ns: int,
    peer: int,
    episode: int,
    frame_index: int,
    flags: SampleFlag,
    picked_for: int,
) -> None:
    """Write all of a sample's header but its sequence numbers and its history.

    Args:
        header: Record ``[]`` of the sample's ``header_dtype``, as ``Writing`` gives it.
        telemetry: What the game told of the instant.
        label: What would have been right, float32 ``[A]``.
        captured_ns: When its picture was captured, monotonic clock.
        peer: Number of the collector or player, from the server.
        episode: Which of its episodes.
        frame_index: Rises with the peer's instants.
        flags: What is special about the sample.
        picked_for: Number of the output that it is balanced for.
    """
    header["captured_ns"] = captured_ns
    header["applied_ns"] = clock_ns()
    header["episode"] = (peer << 32) | episode
    header["frame_index"] = frame_index
    header["collector"] = peer
    header["flags"] = flags
    header["picked_for"] = picked_for
    header["weather"] = WEATHERS.index(telemetry.weather)
    header["time_of_day_h"] = telemetry.time_of_day_h
    header["speed_mps"] = telemetry.shown_speed_mps
    header["controls"] = telemetry.controls
    header["label"] = label
    header["purpose"] = telemetry.purpose


def blank_inputs(spec: SampleSpec) -> Inputs:
    """Inputs of the right shapes and types, all zero."""
    return {
        "pixels": np.zeros((1, *spec.pixels_shape), np.uint8),
        "speed": np.zeros(1, np.float32),
        "purpose": np.zeros((1, 2), np.float32),
        "history": np.zeros((1, spec.history_length, spec.history_features), np.float32),
    }
