"""The long short-term memory, with Keras' arithmetic, and how the past becomes its input."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from charles.models import Signal
from charles.nets.initial import glorot_uniform, orthogonal
from charles.outputs import control_of

Array = jax.Array

_SPEED_UNIT_MPS = 10.0
_DISTANCE_UNIT_M = 50.0


class LSTM(nnx.Module):
    """A long short-term memory over a sequence; its gates: input, forget, cell, output.

    The forget gate starts open (its bias at 1).

    Args:
        features: Width of a row, ``D``.
        units: Width of the state, ``U``.
        rngs: Random streams.

    References:
        Hochreiter, Schmidhuber, "Long short-term memory", 1997,
        https://doi.org/10.1162/neco.1997.9.8.1735.
    """

    def __init__(self, features: int, units: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(glorot_uniform(rngs.params(), (features, 4 * units)))
        self.recurrent_kernel = nnx.Param(orthogonal(rngs.params(), (units, 4 * units)))
        self.bias = nnx.Param(jnp.zeros(4 * units).at[units : 2 * units].set(1.0))
        self.units = units

    def __call__(self, rows: Array) -> Array:
        """The state after each row: ``[B, T, D]`` to ``[B, T, U]``, float32."""
        recurrent = self.recurrent_kernel[...]
        driven = rows @ self.kernel[...] + self.bias[...]
        zero = jnp.zeros((rows.shape[0], self.units), driven.dtype)

        def step(state: tuple[Array, Array], drive: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, cell = state
            gates = drive + hidden @ recurrent
            enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
            return (hidden, cell), hidden

        _, states = jax.lax.scan(step, (zero, zero), driven.swapaxes(0, 1))
        return states.swapaxes(0, 1)


def read_past(
    history: Array, signals: Sequence[Signal], controls: Sequence[str], *, is_sequence: bool
) -> Array:
    """What a network reads of the past, in numbers of about unit size.

    Args:
        history: float32 ``[B, T, A + 3]``, oldest first: controls, speed (m/s), purpose (radians,
            metres).
        signals: What is read, in order; each may be shorter than ``T`` and takes the newest rows.
        controls: Names of the ``A`` controls.
        is_sequence: Whether rows stay rows; all signals are then of one length.

    Returns:
        ``[B, T, D]`` for a sequence, else ``[B, D]``, where a signal's rows follow each other.
    """
    parts = [_signal(history, each.name, controls)[:, -each.length :] for each in signals]
    if is_sequence:
        return jnp.concatenate(parts, axis=-1)
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=-1)


def past_features(signals: Sequence[Signal], *, is_sequence: bool) -> int:
    """The last axis, ``D``, of what :func:`read_past` returns."""
    widths = [(2 if each.name == "purpose" else 1, each.length) for each in signals]
    return sum(width if is_sequence else width * length for width, length in widths)


def _signal(history: Array, name: str, controls: Sequence[str]) -> Array:
    """One signal, ``[B, T, 1]``, or ``[B, T, 2]`` for the purpose."""
    num = len(controls)
    if name == "speed":
        return history[..., num : num + 1] / _SPEED_UNIT_MPS
    if name == "purpose":
        return history[..., num + 1 :] / jnp.array([1.0, _DISTANCE_UNIT_M])
    return control_of(history[..., :num], controls, name)[..., None]
