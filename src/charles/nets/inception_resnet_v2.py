"""InceptionResNetV2 as Keras Applications has it, without its top: feature maps before pooling.

References:
    Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the impact of residual
    connections on learning", 2017, https://arxiv.org/abs/1602.07261.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from charles.nets.layers import ConvSpec, Norm, Plan, make_layers, narrow, require_size
from charles.nets.lowerings import Padding, average_pool, max_pool, settle
from charles.nets.naming import KerasNames, TorchNames, name_in_keras, name_in_torch

Array = jax.Array

MIN_SIZE = 75
"""Least height and width of an image, as in Keras."""

_NORM = Norm(has_scale=False)


@dataclass(frozen=True, kw_only=True)
class _Conv:
    """One convolution of a chain, without what it is given."""

    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = "SAME"


_Chain = tuple[_Conv, ...]


def _conv(features: int, height: int = 1, width: int | None = None) -> _Conv:
    return _Conv(features=features, size=(height, height if width is None else width))


def _shrink(features: int) -> _Conv:
    return _Conv(features=features, size=(3, 3), stride=2, padding="VALID")


def _valid(features: int, size: int) -> _Conv:
    return _Conv(features=features, size=(size, size), padding="VALID")


_STEM = (_shrink(32), _valid(32, 3), _conv(64, 3), _valid(80, 1), _valid(192, 3))
_POOLED_AFTER = ("stem_3", "stem_5")

_MIXED: dict[str, tuple[_Chain, ...]] = {
    "mixed_5b": (
        (_conv(96),),
        (_conv(48), _conv(64, 5)),
        (_conv(64), _conv(96, 3), _conv(96, 3)),
        (_conv(64),),
    ),
    "mixed_6a": ((_shrink(384),), (_conv(256), _conv(256, 3), _shrink(384))),
    "mixed_7a": (
        (_conv(256), _shrink(384)),
        (_conv(256), _shrink(288)),
        (_conv(256), _conv(288, 3), _shrink(320)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """Residual blocks of one kind, one after another."""

    count: int
    scale: float
    """Of what a block adds."""
    chains: tuple[_Chain, ...]


_BLOCKS = {
    "block35": _Blocks(
        count=10,
        scale=0.17,
        chains=((_conv(32),), (_conv(32), _conv(32, 3)), (_conv(32), _conv(48, 3), _conv(64, 3))),
    ),
    "block17": _Blocks(
        count=20,
        scale=0.1,
        chains=((_conv(192),), (_conv(128), _conv(160, 1, 7), _conv(192, 7, 1))),
    ),
    "block8": _Blocks(
        count=10,
        scale=0.2,
        chains=((_conv(192),), (_conv(192), _conv(224, 1, 3), _conv(256, 3, 1))),
    ),
}
_WIDTHS = {"block35": 320, "block17": 1088, "block8": 2080}
"""Features that a block is given and gives."""


class InceptionResNetV2(nnx.Module):
    """From images to ``[B, h, w, 1536]``; 54,336,736 parameters for three channels."""

    def __init__(self, channels: int, *, width: float = 1.0, rngs: nnx.Rngs) -> None:
        plan = narrow(make_plan(channels), width)
        self.num_features = plan["conv_7b"].features
        self.layers = make_layers(plan, rngs=rngs)

    def __call__(self, image: Array, *, is_training: bool) -> Array:
        """Feature maps ``[B, h, w, 1536]`` from ``[B, H, W, channels]``, dtype kept.

        Raises:
            ConfigError: The image is smaller than ``MIN_SIZE``.
        """
        require_size(image, MIN_SIZE)
        x = image
        for index in range(1, len(_STEM) + 1):
            x = self._run(f"stem_{index}", x, is_training=is_training)
            if f"stem_{index}" in _POOLED_AFTER:
                x = max_pool(x, padding="VALID")
        parts = self._branch("mixed_5b", _MIXED["mixed_5b"][:3], x, is_training=is_training)
        pooled = self._run("mixed_5b_4_1", average_pool(x), is_training=is_training)
        x = jnp.concatenate([*parts, pooled], axis=-1)
        x = self._add_blocks("block35", x, is_training=is_training)
        x = self._reduce("mixed_6a", x, is_training=is_training)
        x = self._add_blocks("block17", x, is_training=is_training)
        x = self._reduce("mixed_7a", x, is_training=is_training)
        x = self._add_blocks("block8", x, is_training=is_training)
        return self._run("conv_7b", x, is_training=is_training)

    def _run(self, name: str, x: Array, *, is_training: bool) -> Array:
        return jax.nn.relu(self.layers[name](x, is_training=is_training))

    def _branch(
        self, prefix: str, chains: tuple[_Chain, ...], x: Array, *, is_training: bool
    ) -> list[Array]:
        """What each of several chains makes of ``x``."""
        parts = []
        for branch, chain in enumerate(chains, start=1):
            y = x
            for index in range(1, len(chain) + 1):
                y = self._run(f"{prefix}_{branch}_{index}", y, is_training=is_training)
            parts.append(y)
        return parts

    def _add_blocks(self, kind: str, x: Array, *, is_training: bool) -> Array:
        """All residual blocks of a kind."""
        blocks = _BLOCKS[kind]
        for number in range(1, blocks.count + 1):
            name = f"{kind}_{number}"
            parts = self._branch(name, blocks.chains, x, is_training=is_training)
            mixed = jnp.concatenate(parts, axis=-1)
            up = self.layers[f"{name}_conv"](mixed, is_training=is_training)
            if kind == "block8" and number == blocks.count:
                x = x + up  # the very last is neither scaled down nor rectified
            else:
                x = settle(jax.nn.relu(x + up * blocks.scale))
        return x

    def _reduce(self, name: str, x: Array, *, is_training: bool) -> Array:
        parts = self._branch(name, _MIXED[name], x, is_training=is_training)
        return jnp.concatenate([*parts, max_pool(x, padding="VALID")], axis=-1)


def make_plan(channels: int) -> Plan:
    """Every layer with weights, in the order in which Keras makes them."""
    plan = _plan_chain("stem", channels, _STEM)
    plan |= _plan_chains("mixed_5b", 192, _MIXED["mixed_5b"])
    plan |= _plan_blocks("block35")
    plan |= _plan_chains("mixed_6a", 320, _MIXED["mixed_6a"])
    plan |= _plan_blocks("block17")
    plan |= _plan_chains("mixed_7a", 1088, _MIXED["mixed_7a"])
    plan |= _plan_blocks("block8")
    plan["conv_7b"] = ConvSpec(channels=2080, features=1536, norm=_NORM)
    return plan


def _plan_blocks(kind: str) -> Plan:
    blocks, width = _BLOCKS[kind], _WIDTHS[kind]
    mixed = sum(chain[-1].features for chain in blocks.chains)
    plan: Plan = {}
    for number in range(1, blocks.count + 1):
        plan |= _plan_chains(f"{kind}_{number}", width, blocks.chains)
        plan[f"{kind}_{number}_conv"] = ConvSpec(channels=mixed, features=width)
    return plan


def _plan_chains(prefix: str, channels: int, chains: tuple[_Chain, ...]) -> Plan:
    plan: Plan = {}
    for branch, chain in enumerate(chains, start=1):
        plan |= _plan_chain(f"{prefix}_{branch}", channels, chain)
    return plan


def _plan_chain(prefix: str, channels: int, chain: _Chain) -> Plan:
    plan: Plan = {}
    for index, conv in enumerate(chain, start=1):
        plan[f"{prefix}_{index}"] = ConvSpec(
            channels=channels,
            features=conv.features,
            size=conv.size,
            stride=conv.stride,
            padding=conv.padding,
            norm=_NORM,
        )
        channels = conv.features
    return plan


def keras_names() -> KerasNames:
    """Keras' name of every variable; it numbers all but the last layer and those with a bias."""
    plan = make_plan(3)
    return name_in_keras(plan, lambda layer: layer == "conv_7b" or plan[layer].norm is None)


def timm_names() -> TorchNames:
    """Names of every variable in timm's ``inception_resnet_v2``.

    Its norms have scales, which are 1 in the published weights; here they have none.
    """
    names: TorchNames = {}
    for layer, spec in make_plan(3).items():
        module = _name_in_timm(layer)
        is_plain = spec.norm is None
        conv, norm = (module, module) if is_plain else (f"{module}.conv", f"{module}.bn")
        names |= name_in_torch(layer, spec, (conv,), norm)
    return names


_TIMM_STEM = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a")
_TIMM_BLOCKS = {"block35": "repeat", "block17": "repeat_1", "block8": "repeat_2"}


def _name_in_timm(layer: str) -> str:
    """The module that timm's network has in a layer's place."""
    if layer == "conv_7b":
        return "conv2d_7b"
    kind, number, *place = layer.split("_")
    if kind == "stem":
        return _TIMM_STEM[int(number) - 1]
    if kind == "mixed":
        module, chains = f"mixed_{number}", _MIXED[f"mixed_{number}"]
    else:
        chains = _BLOCKS[kind].chains
        module = f"{_TIMM_BLOCKS[kind]}.{int(number) - 1}"
        if kind == "block8" and int(number) == _BLOCKS[kind].count:
            module = "block8"
    if place == ["conv"]:
        return f"{module}.conv2d"
    branch, index = (int(each) - 1 for each in place)
    if number == "5b" and branch == 3:
        return f"{module}.branch3.1"  # place 0 is the pooling
    is_alone = len(chains[branch]) == 1
    return f"{module}.branch{branch}" + ("" if is_alone else f".{index}")
