"""From what a picture holds to the controls, given purpose and speed.

The purpose joins at every dense layer: it says where in a wide junction the way lies, which the
picture often does not show.

The speed comes last: it scales and shifts what the picture and the purpose say. An expert drives at
the right speed nearly always, so a network that may mix speed and picture freely learns "at this
speed, do nothing" and, at rest, "stay at rest"; here what it learns of a picture at one speed holds
at all.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from charles.nets.blocks import Modulation, encode_purpose, encode_speed
from charles.nets.functional import Batch
from charles.nets.initial import Initializer, scaled

Array = jax.Array

_SPEED_FEATURES, _PURPOSE_FEATURES = 3, 5


class ConditionedDriver(nnx.Module):
    """What drivers with a view of their own share, see the module's docstring.

    Args:
        features: Of the picture, as :meth:`decide` is given them.
        heads: Units of the head of every output.
        dense: Hidden widths behind the picture.
        condition: Features that the purpose, and the speed, are encoded to.
        with_speed: Whether the speed is given.
        with_purpose: Whether the purpose is given.
        rngs: Random streams.
    """

    def __init__(
        self,
        features: int,
        heads: dict[str, int],
        *,
        dense: Sequence[int],
        condition: int,
        with_speed: bool = True,
        with_purpose: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.purpose = _linear(_PURPOSE_FEATURES, condition, _plain, rngs) if with_purpose else None
        self.speed = _linear(_SPEED_FEATURES, condition, _plain, rngs) if with_speed else None
        more = condition * with_purpose
        features += more
        layers: dict[str, nnx.Module] = {}
        for index, size in enumerate(dense):
            layers[f"dense_{index}"] = _linear(features, size, _he, rngs)
            features = size + more
        self.dense = nnx.Dict(layers)
        outputs = {name: _linear(features, units, _small, rngs) for name, units in heads.items()}
        self.heads = nnx.Dict(outputs)
        gears = heads if with_speed else {}
        self.gears = nnx.Dict(
            {name: Modulation(condition, units, rngs=rngs) for name, units in gears.items()}
        )

    def encode_purpose(self, batch: Batch) -> Array | None:
        """The purpose as features ``[B, condition]``; ``None`` where it is not given."""
        if self.purpose is None:
            return None
        return jax.nn.relu(self.purpose(encode_purpose(batch["purpose"])))

    def decide(self, x: Array, purpose: Array | None, batch: Batch) -> dict[str, Array]:
        """Raw head outputs from a picture's features, float32 ``[B, features]``."""
        x = join(x, purpose)
        for dense in self.dense.values():
            x = join(jax.nn.relu(dense(x)), purpose)
        predictions = {name: head(x) for name, head in self.heads.items()}
        if self.speed is None:
            return predictions
        speed = jax.nn.relu(self.speed(encode_speed(batch["speed"])))
        return {name: self.gears[name](value, speed) for name, value in predictions.items()}


def _linear(features: int, units: int, kernel: Initializer, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(features, units, kernel_init=kernel, rngs=rngs)


def join(x: Array, more: Array | None) -> Array:
    """``x [B, N]`` and ``more [B, D]`` side by side, each with the same weight at the start.

    Two thousand features of a picture would drown out the few of the purpose.
    """
    if more is None:
        return x
    return jnp.concatenate([x, more * math.sqrt(x.shape[-1] / more.shape[-1])], axis=-1)


_plain, _he, _small = scaled(1.0), scaled(2.0), scaled(0.01)
