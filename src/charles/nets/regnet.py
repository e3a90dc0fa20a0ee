"""RegNetX and RegNetY by their design rule, without head: feature maps before pooling.

Arithmetic is that of the published PyTorch weights: windows are centred, and normalisation has
their momentum and epsilon.

References:
    Radosavovic, Kosaraju, Girshick, He, Dollár, "Designing network design spaces", 2020,
    https://arxiv.org/abs/2003.13678.
"""

from dataclasses import dataclass, replace

import jax
import numpy as np
from flax import nnx

from charles.errors import require
from charles.nets.layers import ConvSpec, Norm, Plan, make_layers, require_size, squeeze_excite
from charles.nets.lowerings import settle
from charles.nets.naming import TorchNames, name_in_torch

Array = jax.Array

MIN_SIZE = 32
"""Least height and width of an image: what one position of the last maps covers."""

_NORM = Norm(momentum=0.9, epsilon=1e-5)
_STEM_WIDTH = 32
_QUANTUM = 8
"""Widths are multiples of it."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a RegNet's depths and widths follow from, in the paper's terms."""

    depth: int
    """Number of blocks."""
    width: int
    """Of the first block, ``w_0``."""
    slope: float
    """By how much the width grows per block, ``w_a``."""
    multiplier: float
    """By how much quantised widths differ from stage to stage, ``w_m``."""
    group_width: int
    """Channels of a group of the 3 x 3 convolutions."""
    gate: float = 0.0
    """Width of squeeze and excitation over the block's input width, 0 for none (RegNetX)."""

    def __post_init__(self) -> None:
        is_multiple = self.width > 0 and self.width % _QUANTUM == 0
        require(is_multiple, "width", f"be a positive multiple of {_QUANTUM}", self.width)
        require(self.slope >= 0, "slope", "not be negative", self.slope)
        require(self.multiplier > 1, "multiplier", "be above 1", self.multiplier)
        require(self.depth > 0, "depth", "be positive", self.depth)
        require(self.group_width > 0, "group_width", "be positive", self.group_width)
        require(self.gate >= 0, "gate", "not be negative", self.gate)


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first halves the maps."""

    depth: int
    width: int
    group_width: int


def _x(depth: int, width: int, slope: float, multiplier: float, group_width: int) -> Design:
    return Design(
        depth=depth, width=width, slope=slope, multiplier=multiplier, group_width=group_width
    )


def _y(depth: int, width: int, slope: float, multiplier: float, group_width: int) -> Design:
    return replace(_x(depth, width, slope, multiplier, group_width), gate=0.25)


DESIGNS = {
    "regnetx_002": _x(13, 24, 36.44, 2.49, 8),
    "regnetx_004": _x(22, 24, 24.48, 2.54, 16),
    "regnetx_006": _x(16, 48, 36.97, 2.24, 24),
    "regnetx_008": _x(16, 56, 35.73, 2.28, 16),
    "regnetx_016": _x(18, 80, 34.01, 2.25, 24),
    "regnetx_032": _x(25, 88, 26.31, 2.25, 48),
    "regnetx_040": _x(23, 96, 38.65, 2.43, 40),
    "regnetx_064": _x(17, 184, 60.83, 2.07, 56),
    "regnetx_080": _x(23, 80, 49.56, 2.88, 120),
    "regnetx_120": _x(19, 168, 73.36, 2.37, 112),
    "regnetx_160": _x(22, 216, 55.59, 2.1, 128),
    "regnetx_320": _x(23, 320, 69.86, 2.0, 168),
    "regnety_002": _y(13, 24, 36.44, 2.49, 8),
    "regnety_004": _y(16, 48, 27.89, 2.09, 8),
    "regnety_006": _y(15, 48, 32.54, 2.32, 16),
    "regnety_008": _y(14, 56, 38.84, 2.4, 16),
    "regnety_016": _y(27, 48, 20.71, 2.65, 24),
    "regnety_032": _y(21, 80, 42.63, 2.66, 24),
    "regnety_040": _y(22, 96, 31.41, 2.24, 64),
    "regnety_064": _y(25, 112, 33.22, 2.27, 72),
    "regnety_080": _y(17, 192, 76.82, 2.19, 56),
    "regnety_120": _y(19, 168, 73.36, 2.37, 112),
    "regnety_160": _y(18, 200, 106.23, 2.48, 112),
    "regnety_320": _y(20, 232, 115.89, 2.53, 232),
}
"""The published ones; the number counts 100 million multiply-adds at 224 x 224: 004 is 400MF."""


class RegNet(nnx.Module):
    """From images to ``[B, ceil(H / 32), ceil(W / 32), num_features]``."""

    def __init__(
        self, channels: int, design: Design, *, width: float = 1.0, rngs: nnx.Rngs
    ) -> None:
        design = narrow(design, width)
        self.stages = tuple(find_stages(design))
        self.num_features = self.stages[-1].width
        self.is_gated = design.gate > 0
        self.layers = make_layers(make_plan(channels, design), rngs=rngs)

    def __call__(self, image: Array, *, is_training: bool) -> Array:
        """Feature maps ``[B, h, w, num_features]`` from ``[B, H, W, channels]``, dtype kept.

        Raises:
            ConfigError: The image is smaller than ``MIN_SIZE``.
        """
        require_size(image, MIN_SIZE)
        x = jax.nn.relu(self.layers["stem"](image, is_training=is_training))
        for stage, blocks in enumerate(self.stages, start=1):
            for block in range(1, blocks.depth + 1):
                x = self._run_block(f"s{stage}_b{block}", x, is_training=is_training)
        return x

    def _run_block(self, name: str, x: Array, *, is_training: bool) -> Array:
        def run(part: str, x: Array) -> Array:
            return self.layers[f"{name}_{part}"](x, is_training=is_training)

        y = jax.nn.relu(run("conv1", x))
        y = jax.nn.relu(run("conv2", y))
        if self.is_gated:
            y = squeeze_excite(y, self.layers[f"{name}_se_fc1"], self.layers[f"{name}_se_fc2"])
        y = run("conv3", y)
        has_shortcut = f"{name}_downsample" in self.layers
        return settle(jax.nn.relu(y + (run("downsample", x) if has_shortcut else x)))


def find_stages(design: Design) -> list[Stage]:
    """Stages by the paper's rule: a line of widths, quantised to powers, made fit for groups.

    Each block's width on the line is moved to the nearest ``width * multiplier ** n``, which is
    rounded to a multiple of 8; blocks of one width are a stage; at last each width is rounded to a
    multiple of the group's width, or is one group if it is narrower.
    """
    line = design.width + design.slope * np.arange(design.depth)
    powers = np.round(np.log(line / design.width) / np.log(design.multiplier))
    widths = design.width * design.multiplier**powers
    widths = np.round(widths / _QUANTUM).astype(int) * _QUANTUM
    stages = []
    for width, depth in zip(*np.unique(widths, return_counts=True), strict=True):
        group_width = min(design.group_width, int(width))
        fitting = round(int(width) / group_width) * group_width
        stages.append(Stage(int(depth), fitting, group_width))
    return stages


def narrow(design: Design, width: float) -> Design:
    """The design with all its blocks narrower, but of the same groups."""
    if width == 1:
        return design
    first = max(_QUANTUM, round(design.width * width / _QUANTUM) * _QUANTUM)
    return replace(design, width=first, slope=design.slope * width)


def make_plan(channels: int, design: Design) -> Plan:
    """Every layer with weights."""
    plan = {"stem": _conv(channels, _STEM_WIDTH, size=3, stride=2)}
    width = _STEM_WIDTH
    for number, stage in enumerate(find_stages(design), start=1):
        for block in range(1, stage.depth + 1):
            gate = round(width * design.gate)
            stride = 2 if block == 1 else 1
            plan |= _plan_block(f"s{number}_b{block}", width, stage, stride=stride, gate=gate)
            width = stage.width
    return plan


def _plan_block(name: str, channels: int, stage: Stage, *, stride: int, gate: int) -> Plan:
    width = stage.width
    groups = width // stage.group_width
    plan = {
        f"{name}_conv1": _conv(channels, width),
        f"{name}_conv2": _conv(width, width, size=3, stride=stride, groups=groups),
    }
    if gate:
        plan[f"{name}_se_fc1"] = ConvSpec(channels=width, features=gate)
        plan[f"{name}_se_fc2"] = ConvSpec(channels=gate, features=width)
    plan[f"{name}_conv3"] = _conv(width, width)
    if channels != width or stride > 1:
        plan[f"{name}_downsample"] = _conv(channels, width, stride=stride)
    return plan


def _conv(
    channels: int, features: int, *, size: int = 1, stride: int = 1, groups: int = 1
) -> ConvSpec:
    return ConvSpec(
        channels=channels,
        features=features,
        size=(size, size),
        stride=stride,
        padding="CENTRED",
        groups=groups,
        norm=_NORM,
    )


def timm_names(design: Design) -> TorchNames:
    """timm's name of every variable (``regnetx_*``, ``regnety_*``)."""
    names: TorchNames = {}
    for layer, spec in make_plan(3, design).items():
        module = layer.replace("_", ".", 2) if layer != "stem" else layer
        module = module.replace("se_", "se.")
        is_plain = spec.norm is None
        conv, norm = (module, module) if is_plain else (f"{module}.conv", f"{module}.bn")
        names |= name_in_torch(layer, spec, (conv,), norm)
    return names
