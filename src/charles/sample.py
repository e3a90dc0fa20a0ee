"""The sample: what one training example holds, and how it lies in memory.

A sample is one instant of a game: the hood camera's pixels, the controls that applied, the
controls that would have been right (the label), speed, purpose, and the recent past. In a pool
slot, and in a file of the disk copy, it is a fixed-size header followed by the pixels.

Units: seconds and nanoseconds of the monotonic clock, metres, m/s, radians. Controls lie in
[-1, 1]. A positive steering value steers right; a positive purpose direction lies to the right.
"""

import hashlib
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal

import numpy as np

from charles.errors import require

PixelFormat = Literal["rgb", "yuv420"]

DRIVING_CONTROLS = ("acceleration_braking", "steering")
"""Names of the controls of a driving game, in the order of every ``controls`` array."""


class SampleFlag(IntFlag):
    """What is special about a sample."""

    NONE = 0
    PERTURBED = 1
    """The collector was pushing the car off the expert's path; the label is the correction."""
    RECOVERY = 2
    """Within a few seconds after a perturbation: the expert is coming back."""
    HUMAN = 4
    """A person was driving, and the label is theirs."""
    ON_POLICY = 8
    """The network was driving; the label is what the expert would have done."""
    HELD_OUT = 16
    """Of a world that is never trained on: it measures what was learned."""
    TAKEOVER = 32
    """A person had taken the wheel from the network; kept apart, and drawn more often."""


def is_held_out(seed: int, share: float) -> bool:
    """Whether a world is one of the ``share`` that is never trained on.

    The seed alone decides, on any machine and after any restart; a larger share holds out the
    worlds of a smaller one, and more.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """The shape of a sample: everything two processes must agree on to share a slot."""

    height: int = 270
    """Frame height in pixels."""
    width: int = 480
    """Frame width in pixels."""
    pixel_format: PixelFormat = "yuv420"
    """``rgb``, or ``yuv420`` (I420) at half the memory."""
    controls: tuple[str, ...] = DRIVING_CONTROLS
    """Names of the game's controls; ``A`` is their number."""
    history_length: int = 60
    """How many past instants a sample remembers; 0 for none."""
    num_frames: int = 1
    """Pictures in a sample, ``F``: the present one and those before it, oldest first."""
    frame_stride: int = 1
    """Instants between two of them."""

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            require(value > 0, f"frame.{name}", "be positive", value)
            even = self.pixel_format == "rgb" or value % 2 == 0
            require(even, f"frame.{name}", "be even for yuv420", value, "Or take pixel_format=rgb.")
        formats = ("rgb", "yuv420")
        rule = f"be one of {formats}"
        require(self.pixel_format in formats, "frame.pixel_format", rule, self.pixel_format)
        require(len(self.controls) > 0, "controls", "name at least one control", self.controls)
        require(self.history_length >= 0, "history_length", "be 0 or more", self.history_length)
        require(self.num_frames > 0, "frame.num_frames", "be positive", self.num_frames)
        require(self.frame_stride > 0, "frame.frame_stride", "be positive", self.frame_stride)

    @property
    def pixels_shape(self) -> tuple[int, ...]:
        """Shape of the stored uint8 pixels: :attr:`frame_shape`, with ``F`` in front if above 1."""
        frame = self.frame_shape
        return frame if self.num_frames == 1 else (self.num_frames, *frame)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one stored picture: ``[H, W, 3]`` or, for yuv420, ``[H * 3 // 2, W]``."""
        if self.pixel_format == "rgb":
            return (self.height, self.width, 3)
        return (self.height * 3 // 2, self.width)

    @property
    def pixels_bytes(self) -> int:
        """Bytes of one sample's pixels."""
        return int(np.prod(self.pixels_shape))

    @property
    def history_features(self) -> int:
        """Width of one history row: the controls, then speed, then purpose (2)."""
        return len(self.controls) + 3

    @property
    def header_dtype(self) -> np.dtype:
        """The header as an aligned structured dtype.

        ``begin`` and ``end`` carry the same sequence number once the sample is complete; every
        other field lies between them. ``history`` is oldest first and ends *before* this instant,
        so it never contains the action that is to be predicted.
        """
        num = len(self.controls)
        fields = [
            ("begin", np.uint64),
            ("captured_ns", np.int64),
            ("applied_ns", np.int64),
            ("episode", np.uint64),
            ("frame_index", np.uint64),
            ("collector", np.uint32),
            ("flags", np.uint32),
            ("picked_for", np.uint32),
            ("weather", np.uint32),
            ("time_of_day_h", np.float32),
            ("speed_mps", np.float32),
            ("controls", np.float32, (num,)),
            ("label", np.float32, (num,)),
            ("purpose", np.float32, (2,)),
            ("history", np.float32, (self.history_length, self.history_features)),
            ("end", np.uint64),
        ]
        return np.dtype(fields, align=True)
