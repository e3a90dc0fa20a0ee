"""A RegNet without normalisation: its design rule for widths and depths, standardised kernels.

Batches that come live are small and drift, and on a CPU every pass over wide maps costs; so kernels
are standardised instead of activations, and the first layer folds squares of 4 x 4 pixels into
channels. Every block begins as its shortcut.

References:
    Radosavovic, Kosaraju, Girshick, He, Dollár, "Designing network design spaces", 2020,
    https://arxiv.org/abs/2003.13678.
    Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
    unnormalized ResNets", 2021, https://arxiv.org/abs/2101.08692.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from charles.nets.blocks import PlainConv, StandardConv, fold_patches, rectify
from charles.nets.regnet import Design, Stage, find_stages, narrow

Array = jax.Array

MIN_SIZE = 16
"""Least height and width of an image."""

_PATCH = 4

DESIGN = Design(depth=6, width=48, slope=16.0, multiplier=2.0, group_width=48)
"""That of line 0012."""


class NFRegNet(nnx.Module):
    """From images to ``[B, ceil(H / s), ceil(W / s), num_features]``.

    ``s`` is 4 for the patches, twice that with each stage.
    """

    def __init__(
        self, channels: int, design: Design = DESIGN, *, width: float = 1.0, rngs: nnx.Rngs
    ) -> None:
        stages = find_stages(narrow(design, width))
        features = stages[0].width
        self.stem = PlainConv(channels * _PATCH**2, features, 1, rngs=rngs)
        blocks: dict[str, nnx.Module] = {}
        for number, stage in enumerate(stages, start=1):
            for index in range(1, stage.depth + 1):
                stride = 2 if index == 1 else 1
                name = f"s{number}_b{index}"
                blocks[name] = Bottleneck(features, stage, stride=stride, rngs=rngs)
                features = stage.width
        self.blocks = nnx.Dict(blocks)
        self.num_features = features

    def __call__(self, image: Array, *, is_training: bool) -> Array:
        """Feature maps ``[B, h, w, num_features]`` from ``[B, H, W, channels]``, dtype kept."""
        x = self.stem(fold_patches(image, _PATCH))
        for block in self.blocks.values():
            x = block(x)
        return rectify(x)


class Bottleneck(nnx.Module):
    """A RegNet's block: 1 x 1, grouped 3 x 3 and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, channels: int, stage: Stage, *, stride: int, rngs: nnx.Rngs) -> None:
        width = stage.width
        groups = width // stage.group_width
        self.conv1 = StandardConv(channels, width, 1, rngs=rngs)
        self.conv2 = StandardConv(width, width, 3, stride=stride, groups=groups, rngs=rngs)
        self.conv3 = StandardConv(width, width, 1, rngs=rngs)
        self.scale = nnx.Param(jnp.zeros(()))
        is_same = channels == width and stride == 1
        self.shortcut = (
            None if is_same else StandardConv(channels, width, 1, stride=stride, rngs=rngs)
        )

    def __call__(self, x: Array) -> Array:
        """``[B, H, W, channels]`` to ``[B, H / stride, W / stride, width]``."""
        y = rectify(x)
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = rectify(self.conv2(rectify(self.conv1(y))))
        return shortcut + self.scale[...].astype(x.dtype) * self.conv3(y)
