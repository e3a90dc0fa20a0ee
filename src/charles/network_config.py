"""Settings of the network: which one, what it is shown, and the compact driver's own."""

from dataclasses import dataclass, field

from charles.errors import require
from charles.models import EIGHTHS, ModelSpec, find_model

COMPACT = "compact"
"""Name of the network that is no documented model."""


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """The compact convolutional driver; for ``network.model compact`` only."""

    patch: int = 4
    """Side of the squares of pixels that are folded into channels before the first convolution."""
    stem: int = 1
    """Side of the first convolution's kernel, in patches; 3 sees more and costs twice the time."""
    widths: tuple[int, ...] = (48, 64, 96)
    """Channels of the convolutional stages; each but the first halves the resolution."""
    residuals: int = 0
    """Residual blocks after the last stage."""
    neck: int = 48
    """Channels that the feature maps are reduced to before they are flattened."""
    dense: tuple[int, ...] = (256, 128)
    """Hidden widths after image, speed and purpose are joined."""
    condition: int = 64
    """Features that the purpose, and the speed, are encoded to."""
    is_modulated: bool = True
    """Let the purpose scale and shift the feature maps, not only join them at the end."""
    with_speed: bool = True
    """Give the network the speed; it scales and shifts each output."""
    with_purpose: bool = True
    """Give the network direction and distance of the target."""

    def __post_init__(self) -> None:
        where = "network.compact"
        require(len(self.widths) > 0, f"{where}.widths", "have at least one stage", self.widths)
        is_odd = self.stem > 0 and self.stem % 2 == 1
        require(is_odd, f"{where}.stem", "be odd and positive", self.stem)
        for name in ("patch", "neck", "condition"):
            value = getattr(self, name)
            require(value > 0, f"{where}.{name}", "be positive", value)
        require(self.residuals >= 0, f"{where}.residuals", "be 0 or more", self.residuals)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network, and the picture that it is shown."""

    model: str = COMPACT
    """``compact``, or a documented model, for example ``model_0004_inceptionresnetv2_v3``."""
    width: float = 1.0
    """Share of a documented model's width in all its layers, in eighths: 0.25 is a sixteenth of the
    work, for small machines and experiments, and no longer the documented model."""
    input_height: int = 90
    """Height the frame is averaged down to inside the step."""
    input_width: int = 160
    """Width the frame is averaged down to inside the step."""
    crop_top: float = 0.3
    """Share of the frame cut off at the top (sky)."""
    crop_bottom: float = 0.0
    """Share of the frame cut off at the bottom (bonnet)."""
    frozen: tuple[str, ...] = ()
    """Parts of the network that are not trained: ``backbone``, ``lstm`` and so on."""
    compact: CompactConfig = field(default_factory=CompactConfig)

    def __post_init__(self) -> None:
        require(0 <= self.crop_top < 1, "network.crop_top", "lie in [0, 1)", self.crop_top)
        rule = f"lie in [0, 1 - crop_top), crop_top is {self.crop_top}"
        is_left = 0 <= self.crop_bottom < 1 - self.crop_top
        require(is_left, "network.crop_bottom", rule, self.crop_bottom)
        require(self.width in EIGHTHS, "network.width", "be one of 0.125, 0.25 ... 1", self.width)
        if self.model == COMPACT:
            require(self.width == 1, "network.width", "be 1 for the compact driver", self.width,
                    "Set network.compact.widths and network.compact.dense.")  # fmt: skip
        else:
            find_model(self.model)

    @property
    def spec(self) -> ModelSpec | None:
        """The documented model; ``None`` for the compact driver."""
        return None if self.model == COMPACT else find_model(self.model).at_width(self.width)

    @property
    def history_length(self) -> int:
        """Past instants that the network reads."""
        return self.spec.history_length if self.spec else 0

    @property
    def controls_read(self) -> tuple[str, ...]:
        """Signals whose values at the instant before the network is given."""
        past = self.spec.past if self.spec else None
        return tuple(signal.name for signal in past.signals) if past else ()
