"""What parameters are before training: drawn on the host, so that nothing is compiled for it.

Compiled, the draws of a large network take a minute and more. From a concrete key the same numbers
come on every platform; a traced key gives JAX's own draws, of the same distributions.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array
Initializer = Callable[..., Array]
"""``initializer(key, shape, dtype=float32)``, as Flax's layers call it."""


class Draws:
    """A key for each parameter; stands in for ``nnx.Rngs``, which counts in an array.

    Args:
        key: What all of them follow from.
    """

    def __init__(self, key: Array) -> None:
        self._key, self._count = key, 0

    def params(self) -> Array:
        """The next parameter's."""
        self._count += 1
        return jax.random.fold_in(self._key, self._count)


def normal(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Normal numbers of mean 0 and deviation 1."""
    if isinstance(key, Tracer):
        return jax.random.normal(key, shape, dtype)
    return jnp.asarray(_generator(key).standard_normal(shape, np.float32), dtype)


def scaled(variance: float) -> Initializer:
    """For kernels ``[..., I, O]``: normal, of ``variance`` over the number of inputs."""

    def draw(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        deviation = math.sqrt(variance / math.prod(shape[:-1]))
        return normal(key, shape, dtype) * np.float32(deviation)

    return draw


def glorot_uniform(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """For kernels ``[..., I, O]``: uniform, keeps the variance forwards and backwards.

    References:
        Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
        2010.
    """
    limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    if isinstance(key, Tracer):
        return jax.random.uniform(key, shape, dtype, -limit, limit)
    numbers = _generator(key).random(shape, np.float32)
    return jnp.asarray((2 * numbers - 1) * np.float32(limit), dtype)


def orthogonal(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """A matrix ``[I, O]`` whose rows, or columns if they are fewer, are orthonormal."""
    if isinstance(key, Tracer):
        return jax.nn.initializers.orthogonal()(key, shape, dtype)
    basis, upper = np.linalg.qr(_generator(key).standard_normal((max(shape), min(shape))))
    basis = basis * np.sign(np.diag(upper))  # all directions are as likely
    return jnp.asarray(basis if shape[0] >= shape[1] else basis.T, dtype)


def _generator(key: Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))
