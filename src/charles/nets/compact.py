"""The compact convolutional driver: image, speed and purpose in, one head per output out.

Sized so that two CPU cores can collect, train and drive at once. Where something stands in the
picture decides how to steer, so the last feature maps are flattened, never pooled away.

What purpose and speed do is in :mod:`charles.nets.conditioned`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from charles.nets.blocks import (
    Modulation,
    PlainConv,
    Residual,
    StandardConv,
    adapt_to_light,
    fold_patches,
    rectify,
)
from charles.nets.conditioned import ConditionedDriver
from charles.nets.functional import Batch
from charles.network_config import CompactConfig

Array = jax.Array


class Backbone(nnx.Module):
    """From the image to feature maps: folded patches, stages, residual blocks, neck."""

    def __init__(self, config: CompactConfig, channels: int, *, rngs: nnx.Rngs) -> None:
        self.patch = config.patch
        channels *= self.patch**2
        stages: dict[str, nnx.Module] = {}
        for index, features in enumerate(config.widths):
            size, stride = (config.stem, 1) if index == 0 else (3, 2)
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

    def __call__(self, image: Array, condition: Array | None) -> Array:
        """Maps ``[B, h, w, neck]`` from ``[B, H, W, channels]`` and ``[B, D]``."""
        x = fold_patches(image, self.patch)
        for stage in self.stages.values():
            x = rectify(stage(x))
        for residual in self.residuals.values():
            x = residual(x)
        if self.modulation is not None and condition is not None:
            x = self.modulation(x, condition)
        return rectify(self.neck(x))


def _num_features(config: CompactConfig, height: int, width: int) -> int:
    """How many values the maps of an image of this size have."""
    stride = config.patch * 2 ** (len(config.widths) - 1)
    return -(-height // stride) * -(-width // stride) * config.neck


class CompactDriver(ConditionedDriver):
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
        height, width, channels = shape
        backbone = Backbone(config, channels, rngs=rngs)
        super().__init__(
            _num_features(config, height, width),
            heads,
            dense=config.dense,
            condition=config.condition,
            with_speed=config.with_speed,
            with_purpose=config.with_purpose,
            rngs=rngs,
        )
        self.backbone = backbone
        self.dtype = dtype

    def __call__(
        self, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> dict[str, Array]:
        """See :class:`charles.nets.functional.NetworkModule`."""
        purpose = self.encode_purpose(batch)
        image = adapt_to_light(batch["image"]).astype(self.dtype)
        maps = self.backbone(image, purpose).astype(jnp.float32)
        x = maps.reshape(len(maps), -1)
        return self.decide(x, purpose, batch)
