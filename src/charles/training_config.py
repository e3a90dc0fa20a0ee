"""Settings of what happens to a batch: augmentation, optimiser, validation, checkpoints.

Part of :mod:`charles.config`, which everybody imports them from.
"""

from dataclasses import dataclass
from typing import Literal

from charles.errors import require

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation inside the training step."""

    shift: int = 3
    """Most pixels of the network's image that it is moved by, along both axes."""
    shift_steering: float = 0.0
    """Steering that a picture moved to the right by its whole width would need more, the label of a
    moved picture changing in proportion. 0 leaves labels as they are."""
    brightness: float = 0.0
    """Largest change of brightness, as a share of the range. The compact driver adapts to light by
    itself, so that this and ``contrast`` are for other networks."""
    contrast: float = 0.0
    """Largest relative change of contrast."""
    saturation: float = 0.0
    """Largest relative change of saturation."""
    colour: float = 0.0
    """Largest relative change of each colour channel: the light's colour."""
    noise: float = 0.0
    """Deviation of the noise on every pixel, as a share of the range."""
    flip: float = 0.0
    """Probability of mirroring the frame, with steering and purpose mirrored too.

    Only for games without a side to drive on: where traffic keeps to one, mirrored samples call
    the oncoming lane the right one.
    """

    def __post_init__(self) -> None:
        require(self.shift >= 0, "augment.shift", "be 0 or more", self.shift)
        require(0 <= self.shift_steering < float("inf"), "augment.shift_steering",
                "be finite and 0 or more", self.shift_steering)  # fmt: skip
        for name in ("brightness", "contrast", "saturation", "colour", "noise", "flip"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name}", "lie in [0, 1]", value)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser, with warm-up and a schedule."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    """``adamw``: Adam, weights decay by themselves; ``adam`` and ``sgd`` (with momentum): their
    decay is a part of the gradient."""
    learning_rate: float = 1e-3
    """Peak learning rate. ``hot.json`` in the run's directory changes it while training runs."""
    warmup_steps: int = 200
    """Steps over which the rate rises linearly from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """How the rate falls from its peak until ``decay_steps``; ``constant``: it does not."""
    decay_steps: int = 0
    """Steps after which the rate has fallen to ``final_share``; 0 keeps it constant."""
    final_share: float = 0.1
    """What is left of the peak rate from ``decay_steps`` on."""
    momentum: float = 0.9
    """Share of its last step that ``sgd`` repeats."""
    weight_decay: float = 1e-4
    """Weight decay, on kernels only: biases, gains, scales and offsets stay as they are."""
    clip_norm: float = 1.0
    """Largest global gradient norm."""
    ema_decay: float = 0.0
    """Share that the average of the parameters keeps of itself at a step, for example 0.999; less
    in the first steps. Players, pupils and evaluation then drive with the average. 0: no average.
    """

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimizer.learning_rate", "be positive",
                self.learning_rate)  # fmt: skip
        for name in ("warmup_steps", "decay_steps", "weight_decay"):
            value = getattr(self, name)
            require(value >= 0, f"optimizer.{name}", "be 0 or more", value)
        require(0 <= self.final_share <= 1, "optimizer.final_share", "lie in [0, 1]",
                self.final_share)  # fmt: skip
        require(self.clip_norm > 0, "optimizer.clip_norm", "be positive", self.clip_norm)
        for name in ("momentum", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", "lie in [0, 1)", value)


@dataclass(frozen=True, kw_only=True)
class RateGuardConfig:
    """Slowing training down while a player of this run falls behind."""

    is_enabled: bool = True
    """Let a player that is connected and drives go first on the processor, from then on, and slow
    down while it falls behind."""
    target: float = 0.97
    """Share of ``play.rate_hz`` that the player, and the game it sees, must keep."""
    least: float = 0.1
    """Share of its time that the trainer always takes."""

    def __post_init__(self) -> None:
        require(0 < self.target <= 1, "guard.target", "lie in (0, 1]", self.target)
        require(0 < self.least <= 1, "guard.least", "lie in (0, 1]", self.least)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """When what was learned is measured on held-out samples, see ``data.validation_share``."""

    every_steps: int = 250
    """Steps between two measurements."""

    def __post_init__(self) -> None:
        require(self.every_steps > 0, "validation.every_steps", "be positive", self.every_steps)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When parameters are saved, and how many are kept."""

    every_steps: int = 250
    """Steps between two checkpoints."""
    keep: int = 3
    """Newest checkpoints kept."""

    def __post_init__(self) -> None:
        require(self.every_steps > 0, "checkpoint.every_steps", "be positive", self.every_steps)
        require(self.keep > 0, "checkpoint.keep", "be positive", self.keep)
