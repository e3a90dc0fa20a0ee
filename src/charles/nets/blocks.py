"""What networks are built of: convolutions without normalisation, modulation, encodings.

Batches are small, come live and drift, and a CPU pays for every pass over the activations; so
nothing here normalises activations. Instead each kernel is standardised as it is used, which costs
nothing that grows with the picture and keeps activations at unit variance through the network.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from charles.nets import lowerings
from charles.nets.initial import normal

Array = jax.Array

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""What brings the variance of a rectified unit normal back to 1."""

_PICTURE_DEVIATION = 0.5
"""Standard deviation of pictures, as :func:`adapt_to_light` leaves them."""

_DARKNESS = 0.02
"""Added to a picture's deviation, so that a black one stays black."""

_CHUNK_SIZE = 5 << 12
"""Most values that a factor of a product in :func:`chunked_kernel_gradient` has: 80 KiB."""

_LEAST_POSITIONS = 100
"""Output positions of a sample from which :func:`chunked_kernel_gradient` is the faster one."""


def convolve(x: Array, kernel: Array, stride: int, groups: int = 1) -> Array:
    """Convolution with zero padding: ``[B, H, W, C]`` to ``[B, ceil(H / stride), ..., O]``.

    The gradient by the kernel is :func:`kernel_gradient`'s, or that of the lowerings for groups.

    Args:
        x: float ``[B, H, W, C]``.
        kernel: float ``[k, k, C / groups, O]``, ``k`` odd.
        stride: 1 or more.
        groups: Equal groups of channels that do not see each other.
    """
    if groups > 1:
        return lowerings.convolve(x, kernel, stride=stride, padding="CENTRED", groups=groups)
    return _convolve(x, kernel, stride)


def convolve_by_xla(x: Array, kernel: Array, stride: int) -> Array:
    """:func:`convolve` with XLA's own gradients."""
    pads = lowerings.find_pads(x.shape[1:3], kernel.shape[:2], stride, "CENTRED")
    return lowerings.convolve_by_xla(x, kernel, stride, pads)


def _convolve_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve_by_xla(x, kernel, stride), (x, kernel)


def _convolve_backward(
    stride: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    _, pull_x = jax.vjp(lambda x: convolve_by_xla(x, kernel, stride), x)
    return pull_x(gradient)[0], kernel_gradient(x, gradient, kernel.shape[0], stride)


_convolve: Any = jax.custom_vjp(convolve_by_xla, nondiff_argnums=(2,))
_convolve.defvjp(_convolve_forward, _convolve_backward)


def kernel_gradient(x: Array, gradient: Array, size: int, stride: int) -> Array:
    """Gradient ``[k, k, C, O]`` of :func:`convolve` by its kernel.

    On one CPU device it is summed over small chunks of the batch that stay in the cache, a matrix
    product for each place in the kernel: twice as fast there as XLA's own, see
    ``benchmarks/bench_train_step.py``. Elsewhere, and where there is little to sum over, XLA's.

    Args:
        x: The convolution's input ``[B, H, W, C]``.
        gradient: By its output, ``[B, H', W', O]``.
        size: Of the kernel, ``k``.
        stride: Of the convolution.
    """
    is_alone_on_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    rows, columns = gradient.shape[1:3]
    if is_alone_on_cpu and rows * columns >= _LEAST_POSITIONS:
        return chunked_kernel_gradient(x, gradient, size, stride)
    kernel = jnp.zeros((size, size, x.shape[-1], gradient.shape[-1]), x.dtype)
    _, pull = jax.vjp(lambda kernel: convolve_by_xla(x, kernel, stride), kernel)
    return pull(gradient)[0]


def chunked_kernel_gradient(x: Array, gradient: Array, size: int, stride: int) -> Array:
    """:func:`kernel_gradient` as matrix products over chunks of the batch."""
    batch, _, _, channels = x.shape
    _, rows, columns, features = gradient.shape
    pad = size // 2
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    num_chunks = _num_chunks(batch, rows * columns * channels)
    chunks = x.reshape(num_chunks, -1, *x.shape[1:])
    gradients = gradient.reshape(num_chunks, -1, features)
    last_row, last_column = (rows - 1) * stride + 1, (columns - 1) * stride + 1

    def add_chunk(index: Array, total: Array) -> Array:
        chunk, chunk_gradient = chunks[index], gradients[index]
        parts = [
            chunk[:, top : top + last_row : stride, left : left + last_column : stride]
            .reshape(-1, channels).T @ chunk_gradient
            for top in range(size)
            for left in range(size)
        ]  # fmt: skip
        return total + jnp.stack(parts)

    total = jnp.zeros((size * size, channels, features), x.dtype)
    total = jax.lax.fori_loop(0, num_chunks, add_chunk, total)
    return total.reshape(size, size, channels, features)


def _num_chunks(batch: int, sample_size: int) -> int:
    """Fewest equal chunks of a batch that are small enough."""
    counts = [count for count in range(1, batch + 1) if batch % count == 0]
    fits = (count for count in counts if batch // count * sample_size <= _CHUNK_SIZE)
    return next(fits, batch)


def adapt_to_light(image: Array) -> Array:
    """Each picture ``[B, h, w, C]`` at mean 0 and a deviation of 0.5, be it noon, night or fog.

    As eyes do: what is dark and what is bright is left, how much light there is goes.
    """
    mean = jnp.mean(image, axis=(1, 2, 3), keepdims=True)
    deviation = jnp.std(image, axis=(1, 2, 3), keepdims=True)
    return (image - mean) * (_PICTURE_DEVIATION / (deviation + _DARKNESS))


def fold_patches(image: Array, size: int) -> Array:
    """Fold squares of pixels into channels: ``[B, H, W, C]`` to ``[B, H/size, W/size, size²C]``.

    Height and width are first padded with zeros to multiples of ``size``, at the top and right.
    A first convolution over three channels would leave most of a vector unit idle.
    """
    batch, height, width, channels = image.shape
    rows, columns = -(-height // size), -(-width // size)
    padding = ((0, 0), (rows * size - height, 0), (0, columns * size - width), (0, 0))
    blocks = jnp.pad(image, padding).reshape(batch, rows, size, columns, size * channels)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(batch, rows, columns, size**2 * channels)


class PlainConv(nnx.Module):
    """A convolution for the picture itself, whose values lie around 0.

    A standardised kernel sums to 0 and would be blind to how bright an even patch is.
    """

    def __init__(
        self, channels: int, features: int, size: int, *, stride: int = 1, rngs: nnx.Rngs
    ) -> None:
        fan_in = size * size * channels
        kernel = normal(rngs.params(), (size, size, channels, features))
        self.kernel = nnx.Param(kernel * (1 / _PICTURE_DEVIATION / math.sqrt(fan_in)))
        self.bias = nnx.Param(jnp.zeros(features))
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        """``[B, H, W, channels]`` to ``[B, H / stride, W / stride, features]``."""
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        return convolve(x, kernel, self.stride) + bias


class StandardConv(nnx.Module):
    """A convolution whose kernel is standardised per output channel as it is used.

    References:
        Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
        unnormalized ResNets", 2021, https://arxiv.org/abs/2101.08692.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (size, size, channels // groups, features)
        self.kernel = nnx.Param(normal(rngs.params(), shape))
        self.gain = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.stride, self.groups = stride, groups

    def __call__(self, x: Array) -> Array:
        """``[B, H, W, channels]`` to ``[B, H / stride, W / stride, features]``."""
        kernel = self.kernel[...]
        fan_in = np.prod(kernel.shape[:-1])
        variance = jnp.var(kernel, axis=(0, 1, 2))
        scale = self.gain[...] * jax.lax.rsqrt(jnp.maximum(variance * fan_in, 1e-4))
        kernel = ((kernel - jnp.mean(kernel, axis=(0, 1, 2))) * scale).astype(x.dtype)
        return convolve(x, kernel, self.stride, self.groups) + self.bias[...].astype(x.dtype)


class Residual(nnx.Module):
    """Two convolutions beside a shortcut; starts as the identity."""

    def __init__(self, features: int, *, rngs: nnx.Rngs) -> None:
        self.first = StandardConv(features, features, 3, rngs=rngs)
        self.second = StandardConv(features, features, 3, rngs=rngs)
        self.scale = nnx.Param(jnp.zeros(()))

    def __call__(self, x: Array) -> Array:
        """``[B, H, W, features]``, shape kept."""
        y = self.second(rectify(self.first(rectify(x))))
        return x + self.scale[...].astype(x.dtype) * y


class Modulation(nnx.Module):
    """Scale and shift of features that follow from a condition; starts as the identity.

    References:
        Perez, Strub, de Vries, Dumoulin, Courville, "FiLM: visual reasoning with a general
        conditioning layer", 2018, https://arxiv.org/abs/1709.07871.
    """

    def __init__(self, condition: int, features: int, *, rngs: nnx.Rngs) -> None:
        zeros = nnx.initializers.zeros
        self.dense = nnx.Linear(condition, 2 * features, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Array, condition: Array) -> Array:
        """``x [B, ..., features]`` modulated by ``condition [B, D]``."""
        both = self.dense(condition)
        both = both.reshape(len(both), *[1] * (x.ndim - 2), -1)
        scale, shift = jnp.split(both, 2, axis=-1)
        return x * (1 + scale.astype(x.dtype)) + shift.astype(x.dtype)


def rectify(x: Array) -> Array:
    """ReLU at unit variance."""
    return jax.nn.relu(x) * RELU_GAIN


def encode_speed(speed_mps: Array) -> Array:
    """Speed ``[B]`` as features of about unit size, ``[B, 3]``.

    The second feature resolves creeping from standing, which the first hardly tells apart.
    """
    return jnp.stack([speed_mps / 10, jnp.tanh(speed_mps), jnp.ones_like(speed_mps)], axis=-1)


def encode_purpose(purpose: Array) -> Array:
    """Direction (radians) and distance (metres) ``[B, 2]`` as smooth features, ``[B, 5]``."""
    direction, distance = purpose[:, 0], purpose[:, 1]
    sine, cosine = jnp.sin(direction), jnp.cos(direction)
    near = jnp.exp(-distance / 30)
    return jnp.stack([sine, cosine, near, near * sine, near * cosine], axis=-1)
