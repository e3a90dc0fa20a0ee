"""Layers with the arithmetic of Keras, and the plans that networks are made from.

A plan is a dict of :class:`ConvSpec` by layer name, in the order of creation; a network holds its
layers in a flat ``nnx.Dict`` of the same names, so that a variable's path is ``layer/variable`` and
the weights of other frameworks find their place by name (``charles.nets.naming``).

Kernels are float32 parameters and cast to the input's dtype as they are used. Statistics of batch
normalisation are float32, gathered in float32 whatever the input's dtype.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import nnx

from charles.errors import require
from charles.nets.initial import glorot_uniform
from charles.nets.lowerings import Padding, convolve, convolve_depthwise

Array = jax.Array


@dataclass(frozen=True, kw_only=True)
class Norm:
    """How a network normalises over the batch; the defaults are those of Keras."""

    momentum: float = 0.99
    """Share of the old moving statistics that an update keeps."""
    epsilon: float = 1e-3
    """Added to the variance."""
    has_scale: bool = True
    """Whether features are scaled after they are normalised, not only shifted."""

    def __post_init__(self) -> None:
        require(0 <= self.momentum <= 1, "momentum", "lie in 0..1", self.momentum)
        require(self.epsilon > 0, "epsilon", "be positive", self.epsilon)


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """A convolution and what follows it: its norm, or a bias where it has none."""

    channels: int
    """Of the input."""
    features: int
    """Channels of the output."""
    size: tuple[int, int] = (1, 1)
    """Height and width of the kernel."""
    stride: int = 1
    """Of the kernel, along both axes."""
    padding: Padding = "SAME"
    """See :func:`charles.nets.lowerings.find_pads`."""
    groups: int = 1
    """Equal groups of channels that do not see each other."""
    is_separable: bool = False
    """Whether each channel is filtered for itself first, and the kernel mixes channels only."""
    norm: Norm | None = None
    """How the output is normalised; ``None`` for a bias only."""

    def __post_init__(self) -> None:
        for name in ("channels", "features"):
            value = getattr(self, name)
            is_split = value > 0 and value % self.groups == 0
            require(is_split, name, f"be a positive multiple of {self.groups} groups", value)


Plan = dict[str, ConvSpec]


class Shift(nnx.Module):
    """Adds a bias to each feature; what is left of a normalisation once it is folded."""

    def __init__(self, features: int) -> None:
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: Array, *, is_training: bool) -> Array:
        """``[B, ..., features]``, shape and dtype kept."""
        return x + self.bias[...].astype(x.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last.

    In training the batch's own mean and biased variance normalise, and the same two enter the
    moving statistics, as Keras 3 has it (others update with the unbiased variance).

    References:
        Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing
        internal covariate shift", 2015, https://arxiv.org/abs/1502.03167.
    """

    def __init__(self, features: int, norm: Norm) -> None:
        self.config = norm
        self.scale = nnx.Param(jnp.ones(features)) if norm.has_scale else None
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.variance = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: Array, *, is_training: bool) -> Array:
        """``[B, ..., features]``, shape and dtype kept; in training the statistics move."""
        if is_training:
            wide = x.astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            mean, variance = jnp.mean(wide, axes), jnp.var(wide, axes)
            self._gather(mean, variance)
        else:
            mean, variance = self.mean[...], self.variance[...]
        gain = self._find_gain(variance)
        shift = self.bias[...] - mean * gain
        return x * gain.astype(x.dtype) + shift.astype(x.dtype)

    def find_affine(self) -> tuple[Array, Array]:
        """Gain and shift ``[features]`` that inference amounts to."""
        gain = self._find_gain(self.variance[...])
        return gain, self.bias[...] - self.mean[...] * gain

    def _gather(self, mean: Array, variance: Array) -> None:
        keep = self.config.momentum
        for moving, new in ((self.mean, mean), (self.variance, variance)):
            moving[...] = keep * moving[...] + (1 - keep) * jax.lax.stop_gradient(new)

    def _find_gain(self, variance: Array) -> Array:
        gain = jax.lax.rsqrt(variance + self.config.epsilon)
        return gain if self.scale is None else gain * self.scale[...]


class Conv(nnx.Module):
    """A convolution, in groups if asked for, and its normalisation or bias."""

    def __init__(self, spec: ConvSpec, *, rngs: nnx.Rngs) -> None:
        self.spec = spec
        shape = (*spec.size, spec.channels // spec.groups, spec.features)
        self.kernel = nnx.Param(glorot_uniform(rngs.params(), shape))
        self.norm = _make_norm(spec)

    def __call__(self, x: Array, *, is_training: bool) -> Array:
        """``[B, H, W, channels]`` to ``[B, h, w, features]``."""
        spec, kernel = self.spec, self.kernel[...].astype(x.dtype)
        y = convolve(x, kernel, stride=spec.stride, padding=spec.padding, groups=spec.groups)
        return self.norm(y, is_training=is_training)

    def fold(self) -> None:
        """Make the normalisation part of the kernel and of a bias; for inference."""
        self.kernel[...], self.norm = _fold(self.kernel[...], self.norm)


class SeparableConv(nnx.Module):
    """A filter for each channel, then a product that mixes channels, then normalisation.

    References:
        Chollet, "Xception: deep learning with depthwise separable convolutions", 2017,
        https://arxiv.org/abs/1610.02357.
    """

    def __init__(self, spec: ConvSpec, *, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.depthwise = nnx.Param(glorot_uniform(rngs.params(), (*spec.size, spec.channels, 1)))
        self.pointwise = nnx.Param(
            glorot_uniform(rngs.params(), (1, 1, spec.channels, spec.features))
        )
        self.norm = _make_norm(spec)

    def __call__(self, x: Array, *, is_training: bool) -> Array:
        """``[B, H, W, channels]`` to ``[B, H, W, features]``."""
        depthwise, pointwise = (
            each[...].astype(x.dtype) for each in (self.depthwise, self.pointwise)
        )
        y = convolve_depthwise(x, depthwise, padding=self.spec.padding)
        y = convolve(y, pointwise, stride=1, padding="VALID")
        return self.norm(y, is_training=is_training)

    def fold(self) -> None:
        """Make the normalisation part of the kernel and of a bias; for inference."""
        self.pointwise[...], self.norm = _fold(self.pointwise[...], self.norm)


def squeeze_excite(x: Array, squeeze: Conv, excite: Conv) -> Array:
    """Scale each feature of ``[B, H, W, C]`` by what all features say on average; shape kept.

    References:
        Hu, Shen, Sun, "Squeeze-and-excitation networks", 2018, https://arxiv.org/abs/1709.01507.
    """
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    hidden = jax.nn.relu(squeeze(mean, is_training=False))
    return x * jax.nn.sigmoid(excite(hidden, is_training=False))


def make_layers(plan: Plan, *, rngs: nnx.Rngs) -> nnx.Dict:
    """The layers of a plan under its names."""
    makers = {name: SeparableConv if spec.is_separable else Conv for name, spec in plan.items()}
    return nnx.Dict({name: makers[name](spec, rngs=rngs) for name, spec in plan.items()})


def narrow(plan: Plan, width: float) -> Plan:
    """A plan with the same wiring and all its layers but the input of the first narrower.

    Raises:
        ConfigError: A width would not be whole; shares in eighths are, for every backbone here.
    """
    narrowed: Plan = {}
    for name, spec in plan.items():
        channels = spec.channels * width if narrowed else spec.channels
        features = spec.features * width
        is_whole = channels == int(channels) and features == int(features)
        require(is_whole, "network.width", f"keep the widths of {name} whole", width)
        narrowed[name] = replace(spec, channels=int(channels), features=int(features))
    return narrowed


def fold_module(module: nnx.Module) -> nnx.Module:
    """Fold every normalisation in a module, in place, and return the module.

    What comes of it is for inference only: it computes the same but reads no statistics.
    """
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, Conv | SeparableConv):
            layer.fold()
    return module


def require_size(image: Array | jax.ShapeDtypeStruct, least: int) -> None:
    """Refuse images ``[B, H, W, C]`` smaller than ``least`` along one side.

    Raises:
        ConfigError: One side is too small.
    """
    height, width = image.shape[1:3]
    require(
        min(height, width) >= least,
        "the image's size",
        f"be at least {least} x {least} pixels for this backbone",
        f"{height} x {width}",
        "Enlarge network.input_height and network.input_width or choose another backbone.",
    )


def _make_norm(spec: ConvSpec) -> BatchNorm | Shift:
    return Shift(spec.features) if spec.norm is None else BatchNorm(spec.features, spec.norm)


def _fold(kernel: Array, norm: BatchNorm | Shift) -> tuple[Array, Shift]:
    """A kernel ``[..., features]`` and the bias that do what kernel and norm did."""
    if isinstance(norm, Shift):
        return kernel, norm
    gain, shift = norm.find_affine()
    folded = Shift(len(shift))
    folded.bias[...] = shift
    return kernel * gain, folded
