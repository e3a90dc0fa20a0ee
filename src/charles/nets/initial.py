"""What parameters are before training: drawn on the host, so that nothing is compiled for it.

Compiled, the draws of a large network take a minute and more. The same seed gives the same numbers
on every platform.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Source = np.random.Generator | Array | None
"""Where a parameter's numbers come from: a generator, a PRNG key (which must not be traced), or
``None`` where only its shape is wanted."""
Initializer = Callable[..., Array]
"""``initializer(source, shape, dtype=float32)``, as Flax's layers call it."""


class Draws:
    """An independent source of numbers for each parameter; takes the place of ``nnx.Rngs``.

    Args:
        seed: Of all of them; ``None`` for shapes alone.
    """

    def __init__(self, seed: Sequence[int] | None) -> None:
        self._seed, self._count = seed, 0

    def params(self) -> Source:
        """The next parameter's."""
        self._count += 1
        return None if self._seed is None else np.random.default_rng([*self._seed, self._count])


def normal(source: Source, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Normal numbers of mean 0 and deviation 1."""
    if source is None:
        return jnp.zeros(shape, dtype)
    return jnp.asarray(_generator(source).standard_normal(shape, np.float32), dtype)


def scaled(variance: float) -> Initializer:
    """For kernels ``[..., I, O]``: normal, of ``variance`` over the number of inputs."""

    def draw(source: Source, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        return normal(source, shape, dtype) * np.float32(
            math.sqrt(variance / math.prod(shape[:-1]))
        )

    return draw


def glorot_uniform(source: Source, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """For kernels ``[..., I, O]``: uniform, keeps the variance forwards and backwards.

    References:
        Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
        2010.
    """
    if source is None:
        return jnp.zeros(shape, dtype)
    limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    numbers = _generator(source).random(shape, np.float32)
    return jnp.asarray((2 * numbers - 1) * np.float32(limit), dtype)


def orthogonal(source: Source, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """A matrix ``[I, O]`` whose rows, or columns if they are fewer, are orthonormal."""
    if source is None:
        return jnp.zeros(shape, dtype)
    numbers = _generator(source).standard_normal((max(shape), min(shape)))
    basis, upper = np.linalg.qr(numbers)
    basis = basis * np.sign(np.diag(upper))  # all directions are as likely
    return jnp.asarray(basis if shape[0] >= shape[1] else basis.T, dtype)


def _generator(source: np.random.Generator | Array) -> np.random.Generator:
    if isinstance(source, np.random.Generator):
        return source
    return np.random.default_rng(np.asarray(jax.random.key_data(source)))
