"""What networks are built of: convolutions without normalisation, modulation, encodings.

Batches are small, come live and drift, and a CPU pays for every pass over the activations; so
nothing here normalises activations. Instead each kernel is standardised as it is used, which costs
nothing that grows with the picture and keeps activations at unit variance through the network.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Array = jax.Array

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""What brings the variance of a rectified unit normal back to 1."""

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """Convolution with zero padding: ``[B, H, W, C]`` to ``[B, ceil(H / stride), ..., O]``.

    Args:
        x: float ``[B, H, W, C]``.
        kernel: float ``[k, k, C, O]``, ``k`` odd.
        stride: 1 or more.
    """
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad), (pad, pad)], dimension_numbers=_DIMENSIONS
    )


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


class StandardConv(nnx.Module):
    """A convolution whose kernel is standardised per output channel as it is used.

    References:
        Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
        unnormalized ResNets", 2021, https://arxiv.org/abs/2101.08692.
    """

    def __init__(
        self, channels: int, features: int, size: int, *, stride: int = 1, rngs: nnx.Rngs
    ) -> None:
        shape = (size, size, channels, features)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.gain = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        """``[B, H, W, channels]`` to ``[B, H / stride, W / stride, features]``."""
        kernel = self.kernel[...]
        fan_in = np.prod(kernel.shape[:-1])
        variance = jnp.var(kernel, axis=(0, 1, 2))
        scale = self.gain[...] * jax.lax.rsqrt(jnp.maximum(variance * fan_in, 1e-4))
        kernel = (kernel - jnp.mean(kernel, axis=(0, 1, 2))) * scale
        return convolve(x, kernel.astype(x.dtype), self.stride) + self.bias[...].astype(x.dtype)


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
    """Scale and shift of feature maps that follow from a condition; starts as the identity.

    References:
        Perez, Strub, de Vries, Dumoulin, Courville, "FiLM: visual reasoning with a general
        conditioning layer", 2018, https://arxiv.org/abs/1709.07871.
    """

    def __init__(self, condition: int, features: int, *, rngs: nnx.Rngs) -> None:
        zeros = nnx.initializers.zeros
        self.dense = nnx.Linear(condition, 2 * features, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Array, condition: Array) -> Array:
        """``x [B, H, W, features]`` modulated by ``condition [B, D]``."""
        scale, shift = jnp.split(self.dense(condition)[:, None, None, :], 2, axis=-1)
        return x * (1 + scale.astype(x.dtype)) + shift.astype(x.dtype)


def rectify(x: Array) -> Array:
    """ReLU at unit variance."""
    return jax.nn.relu(x) * RELU_GAIN


def encode_speed(speed_mps: Array, is_known: Array) -> Array:
    """Speed ``[B]`` as features of about unit size, ``[B, 3]``; zeros where it is not known.

    The second feature resolves creeping from standing, which the first hardly tells apart.
    """
    features = jnp.stack([speed_mps / 10, jnp.tanh(speed_mps), jnp.ones_like(speed_mps)], axis=-1)
    return features * is_known[:, None]


def encode_purpose(purpose: Array) -> Array:
    """Direction (radians) and distance (metres) ``[B, 2]`` as smooth features, ``[B, 5]``."""
    direction, distance = purpose[:, 0], purpose[:, 1]
    sine, cosine = jnp.sin(direction), jnp.cos(direction)
    near = jnp.exp(-distance / 30)
    return jnp.stack([sine, cosine, near, near * sine, near * cosine], axis=-1)
