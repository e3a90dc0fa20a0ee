"""The compact convolutional driver: image, speed and purpose in, one head per output out.

Sized so that two CPU cores can collect, train and drive at once. Where something stands in the
picture decides how to steer, so the last feature maps are flattened, never pooled away.

The purpose joins at every dense layer: it says where in a wide junction the way lies, which the
picture often does not show.

The speed comes last: it scales and shifts what the picture and the purpose say. An expert drives at
the right speed nearly always, so a network that may mix speed and picture freely learns "at this
speed, do nothing" and, at rest, "stay at rest"; here what it learns of a picture at one speed holds
at all.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from charles.nets.blocks import (
    Modulation,
    PlainConv,
    Residual,
    StandardConv,
    adapt_to_light,
    encode_purpose,
    encode_speed,
    fold_patches,
    rectify,
)
from charles.nets.functional import Batch
from charles.network_config import CompactConfig

Array = jax.Array

_SPEED_FEATURES, _PURPOSE_FEATURES = 3, 5


class Backbone(nnx.Module):
    """From the image to feature maps: folded patches, stages, residual blocks, neck."""

    def __init__(
        self, config: CompactConfig, shape: tuple[int, int, int], *, rngs: nnx.Rngs
    ) -> None:
        self.patch = config.patch
        height, width, channels = shape
        height, width = -(-height // self.patch), -(-width // self.patch)
        channels *= self.patch**2
        stages: dict[str, nnx.Module] = {}
        for index, features in enumerate(config.widths):
            size, stride = (config.stem, 1) if index == 0 else (3, 2)
            height, width = -(-height // stride), -(-width // stride)
            make = PlainConv if index == 0 else StandardConv
            stages[f"conv_{index}"] = make(channels, features, size, stride=stride, rngs=rngs)
            channels = features
        self.stages = nnx.Dict(stages)
        residuals = [Residual(channels, rngs=rngs) for _ in range(config.residuals)]
        self.residuals = nnx.Dict({f"residual_{i}": each for i, each in enumerate(residuals)})
        is_modulated = config.is_modulated and config.with_purpose
        width_of = config.condition
        self.modulation = Modulation(width_of, channels, rngs=rngs) if is_modulated else None
        self.neck = StandardConv(channels, config.neck, 1, rngs=rngs)
        self.num_features = height * width * config.neck

    def __call__(self, image: Array, condition: Array | None) -> Array:
        """Flat features ``[B, num_features]`` from ``[B, h, w, 3]`` and ``[B, D]``."""
        x = fold_patches(image, self.patch)
        for stage in self.stages.values():
            x = rectify(stage(x))
        for residual in self.residuals.values():
            x = residual(x)
        if self.modulation is not None and condition is not None:
            x = self.modulation(x, condition)
        return rectify(self.neck(x)).reshape(x.shape[0], -1)


class CompactDriver(nnx.Module):
    """See the module's docstring.

    Args:
        config: Widths and the like.
        shape: Of an image, ``(h, w, C)``.
        heads: Units of the head of every output.
        dtype: What the backbone computes in; everything behind it is float32.
        rngs: Random streams.
    """

    def __init__(
        self,
        config: CompactConfig,
        shape: tuple[int, int, int],
        heads: dict[str, int],
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.config = config
        self.dtype = dtype
        width = config.condition
        self.purpose = (
            nnx.Linear(_PURPOSE_FEATURES, width, rngs=rngs) if config.with_purpose else None
        )
        self.speed = nnx.Linear(_SPEED_FEATURES, width, rngs=rngs) if config.with_speed else None
        self.backbone = Backbone(config, shape, rngs=rngs)
        more = width * config.with_purpose
        features = self.backbone.num_features + more
        dense: dict[str, nnx.Module] = {}
        for index, size in enumerate(config.dense):
            dense[f"dense_{index}"] = nnx.Linear(features, size, kernel_init=_he, rngs=rngs)
            features = size + more
        self.dense = nnx.Dict(dense)
        layers = {
            name: nnx.Linear(features, units, kernel_init=_small, rngs=rngs)
            for name, units in heads.items()
        }
        self.heads = nnx.Dict(layers)
        gears = heads if config.with_speed else {}
        self.gears = nnx.Dict(
            {name: Modulation(width, units, rngs=rngs) for name, units in gears.items()}
        )

    def __call__(
        self, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> dict[str, Array]:
        """See :class:`charles.nets.functional.NetworkModule`."""
        purpose = self._encode_purpose(batch)
        image = adapt_to_light(batch["image"]).astype(self.dtype)
        x = self.backbone(image, purpose).astype(jnp.float32)
        x = _join(x, purpose)
        for dense in self.dense.values():
            x = _join(jax.nn.relu(dense(x)), purpose)
        predictions = {name: head(x) for name, head in self.heads.items()}
        if self.speed is None:
            return predictions
        speed = jax.nn.relu(self.speed(encode_speed(batch["speed"])))
        return {name: self.gears[name](value, speed) for name, value in predictions.items()}

    def _encode_purpose(self, batch: Batch) -> Array | None:
        """The purpose as features ``[B, config.condition]``; ``None`` where it is not given."""
        if self.purpose is None:
            return None
        return jax.nn.relu(self.purpose(encode_purpose(batch["purpose"])))


def _join(x: Array, purpose: Array | None) -> Array:
    """``x [B, N]`` and ``purpose [B, D]`` side by side, each with the same weight at the start.

    Two thousand features of a picture would drown out the few of the purpose.
    """
    if purpose is None:
        return x
    return jnp.concatenate([x, purpose * math.sqrt(x.shape[-1] / purpose.shape[-1])], axis=-1)


_he = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
_small = nnx.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
