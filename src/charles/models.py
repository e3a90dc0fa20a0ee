"""The models as data: 32 documented versions of the lines 0001 to 0011, and line 0012, ours.

A specification says how a network is wired and how it was trained; :mod:`charles.nets.zoo` builds
it, :mod:`charles.presets` makes a run of it. All hidden layers are rectified and have a bias;
backbones end in a global average; what joins is concatenated, the picture first.

Two rules of ours differ from the documented runs, whose models learned to repeat themselves: the
past never contains the present action, and its rows go from oldest to newest in every version.
"""

from dataclasses import dataclass, replace
from typing import Literal

from charles.errors import did_you_mean, require

EIGHTHS = tuple(part / 8 for part in range(1, 9))
"""Shares of its width that a model can have: all layers' widths stay whole."""

HISTORY_LENGTH = 60
"""Past instants that the documented models remember."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One signal of the past that a network reads."""

    name: str
    """A control (or half of one), ``speed`` or ``purpose`` (2 numbers)."""
    length: int = HISTORY_LENGTH
    """How many of the newest rows."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """How a network reads the past."""

    signals: tuple[Signal, ...]
    """What it reads, in the order in which it is joined."""
    is_sequence: bool = False
    """Rows of all signals one after the other ``[T, D]``, or all in one vector ``[D]``."""
    dense: tuple[int, ...] = ()
    """Widths of dense layers, applied to each row of a sequence."""
    lstm: tuple[int, ...] = ()
    """Widths of LSTM layers that follow; the last one gives only its last step."""
    after: tuple[int, ...] = ()
    """Widths of dense layers behind the LSTM."""


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A second set of outputs, straight from the LSTM, that only helps it to learn."""

    common: tuple[int, ...]
    """Widths of its dense layers."""
    heads: tuple[int, ...]
    """Widths of the dense layers of each of its outputs."""
    loss_weight: float
    """Weight of its losses."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a network remembers of the pictures before the present one: how they differ from it."""

    widths: tuple[int, ...] = (24, 32, 48)
    """Channels of the small network that all pictures pass."""
    neck: int = 12
    """Channels that it ends in."""
    units: int = 64
    """Features that all differences together become."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Where a part of the parameters came from before training."""

    part: str
    """Top-level name of the parameters."""
    source: str
    """``imagenet``, or a model."""
    step: int | None = None
    """The model's training step."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model: wiring, and what its training was."""

    backbone: str = "none"
    """What turns the picture into features, by its name in :mod:`charles.nets.backbones`."""
    width: float = 1.0
    """Share of the backbone's width, one of :data:`EIGHTHS`, see :meth:`at_width`."""
    frames: int = 1
    """Pictures joined along the channels: the present one and those before."""
    frame_stride: int = 1
    """Instants between two of them."""
    memory: Memory | None = None
    """What becomes of the pictures before the present one if they are not joined to it."""
    neck: int = 0
    """Channels that the backbone's maps are reduced to, for a network that knows where something
    stands in the picture, and is told speed and purpose; 0 for the global average."""
    past: Past | None = None
    """How it reads the past; ``None`` if it does not."""
    common: tuple[int, ...] = ()
    """Widths of the dense layers that all outputs share."""
    heads: tuple[int, ...] = ()
    """Widths of the dense layers of each output."""
    is_split: bool = False
    """A backbone of its own for every output."""
    auxiliary: Auxiliary | None = None
    outputs: tuple[str, ...] = ("acceleration_braking", "steering")
    output_type: Literal["regression", "discrete_delta"] = "regression"
    balancing: Literal["v1", "v2", "v3"] = "v3"
    transfer: tuple[Transfer, ...] = ()
    frozen: tuple[str, ...] = ()
    """Top-level names of parameters that are not trained."""
    warmup_steps: int = 0

    @property
    def auxiliary_weight(self) -> float:
        """Weight of the losses of outputs that only help it to learn."""
        return self.auxiliary.loss_weight if self.auxiliary is not None else 0.0

    @property
    def history_length(self) -> int:
        """Past instants of controls, speed and purpose that it reads."""
        return max((each.length for each in self.past.signals), default=0) if self.past else 0

    def at_width(self, width: float) -> "ModelSpec":
        """The same wiring with all layers narrower; below 1 no longer the documented model."""
        if width == 1:
            return self
        past, auxiliary = self.past, self.auxiliary
        if past is not None:
            past = replace(past, dense=_narrow(past.dense, width), lstm=_narrow(past.lstm, width),
                           after=_narrow(past.after, width))  # fmt: skip
        if auxiliary is not None:
            auxiliary = replace(auxiliary, common=_narrow(auxiliary.common, width),
                                heads=_narrow(auxiliary.heads, width))  # fmt: skip
        return replace(
            self,
            width=width,
            past=past,
            auxiliary=auxiliary,
            common=_narrow(self.common, width),
            heads=_narrow(self.heads, width),
        )


_LEAST_WIDTH = 4
"""Of a narrow model's dense layers: fewer rectified units are soon all at rest."""


def _narrow(widths: tuple[int, ...], width: float) -> tuple[int, ...]:
    return tuple(max(min(each, _LEAST_WIDTH), round(each * width)) for each in widths)


_THREE = ("acceleration", "braking", "steering")
_TWO = ("acceleration_braking", "steering")
_NARROWING = (256, 64, 16)


def _signals(*names: str) -> tuple[Signal, ...]:
    return tuple(Signal(name=name) for name in names)


_VECTOR = Past(signals=_signals(*_THREE, "speed"), dense=(512, 256, 256, 128, 128))
_ROWS = Past(signals=_signals(*_TWO, "speed", "purpose"), is_sequence=True, lstm=(128,) * 5)
_ROWS_DENSE = replace(_ROWS, after=(128, 128, 128))

_0001_V1 = ModelSpec(
    backbone="xception", past=_VECTOR, common=(1024,) * 3, outputs=_THREE, balancing="v1"
)
_0001_V3 = replace(_0001_V1, past=None, common=(1024,))
_0001_V6 = replace(_0001_V3, heads=_NARROWING)
_0003 = ModelSpec(backbone="xception", common=(1024,), heads=_NARROWING)
_0004 = replace(_0003, backbone="inceptionresnetv2")
_0008_V2 = replace(_0004, past=_ROWS, common=(1536, 1024, 512))
_0008_V3 = replace(_0008_V2, past=_ROWS_DENSE)
_0008_V5 = ModelSpec(past=_ROWS, common=(64, 32, 16), heads=(8, 4))
_DEEP = (1024,) * 8 + (512, 256)


def _from_0004(step: int) -> Transfer:
    return Transfer(part="backbone", source="model_0004_inceptionresnetv2_v3", step=step)


def _from_0008(step: int) -> Transfer:
    return Transfer(part="lstm", source="model_0008_irv2_data_td_v5", step=step)


_0009_V2 = replace(_0008_V2, common=_DEEP, transfer=(_from_0004(27_500), _from_0008(18_500)))
_0009_V5 = replace(_0004, transfer=(_from_0004(211_250),), frozen=("backbone",))

_0012 = ModelSpec(backbone="nf_regnet", neck=32, common=(256, 128))

MODELS: dict[str, ModelSpec] = {
    "model_0001_xception_v1": _0001_V1,
    "model_0001_xception_v2": _0001_V1,
    "model_0001_xception_v3": _0001_V3,
    "model_0001_xception_v4": replace(_0001_V3, output_type="discrete_delta"),
    "model_0001_xception_v5": replace(
        _0001_V3,
        past=Past(
            signals=(
                Signal(name="acceleration", length=1),
                Signal(name="braking", length=1),
                Signal(name="steering"),
            )
        ),
        output_type="discrete_delta",
    ),
    "model_0001_xception_v6": _0001_V6,
    "model_0002_xception_v1": replace(_0001_V6, balancing="v2"),
    "model_0003_xception_v1": _0003,
    "model_0003_xception_v2": _0003,
    "model_0003_xception_v3": _0003,
    "model_0003_xception_v4": _0003,
    "model_0004_inceptionresnetv2_v1": _0004,
    "model_0004_inceptionresnetv2_v2": _0004,
    "model_0004_inceptionresnetv2_v3": replace(_0004, warmup_steps=1000),
    "model_0005_inceptionresnetv2_v1": replace(
        _0004, transfer=(Transfer(part="backbone", source="imagenet"),)
    ),
    "model_0006_inceptionresnetv2_v1": replace(_0004, frames=7),
    "model_0006_inceptionresnetv2_v2": replace(_0004, frames=3),
    "model_0007_inceptionresnetv2_v1": replace(
        _0004,
        past=Past(
            signals=(*_signals(*_TWO, "speed"), Signal(name="purpose", length=1)),
            dense=(512,) * 5,
        ),
        common=(1536, 1024, 512),
    ),
    "model_0008_irv2_data_td_v1": replace(
        _0008_V2,
        past=replace(_ROWS, dense=(512, 512, 256, 256, 128), lstm=(128,)),
    ),
    "model_0008_irv2_data_td_v2": _0008_V2,
    "model_0008_irv2_data_td_v3": _0008_V3,
    "model_0008_irv2_data_td_v4": replace(
        _0008_V3, auxiliary=Auxiliary(common=(64, 32, 16), heads=(8, 4), loss_weight=0.25)
    ),
    "model_0008_irv2_data_td_v5": _0008_V5,
    "model_0008_irv2_data_td_v6": _0008_V5,  # its "thought vector" is the last output: the same
    "model_0008_irv2_data_td_v7": replace(_0008_V2, common=(1536,)),
    "model_0009_irv2_cr_tl_v1": replace(
        _0008_V3, transfer=(_from_0004(27_500), _from_0008(18_500))
    ),
    "model_0009_irv2_cr_tl_v2": _0009_V2,
    "model_0009_irv2_cr_tl_v3": replace(
        _0009_V2,
        transfer=(_from_0004(211_250), _from_0008(37_250)),
        frozen=("backbone", "lstm"),
    ),
    "model_0009_irv2_cr_tl_v4": replace(_0009_V5, common=_DEEP),
    "model_0009_irv2_cr_tl_v5": _0009_V5,
    "model_0010_irv2_tcb": replace(_0004, common=(), heads=(1024, *_NARROWING), is_split=True),
    "model_0011_x_tcb": replace(_0003, common=(), heads=(1024, *_NARROWING), is_split=True),
    "model_0012_regnet_v1": _0012,
    "model_0012_regnet_v2": replace(_0012, frames=4, frame_stride=10, memory=Memory()),
}
"""All of them by name."""


def find_model(name: str) -> ModelSpec:
    """The specification of a documented model.

    Raises:
        ConfigError: There is no model of that name; the text names the nearest.
    """
    rule = f"be compact or a documented model, see charles.models ({len(MODELS)} of them)"
    require(name in MODELS, "network.model", rule, name, did_you_mean(name, MODELS))
    return MODELS[name]
