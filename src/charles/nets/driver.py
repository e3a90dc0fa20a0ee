"""The compact convolutional driver: image, speed and purpose in, one head per output out.

Sized so that two CPU cores can collect, train and drive at once. Where something stands in the
picture decides how to steer, so the last feature maps are flattened, never pooled away.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from charles.config import NetworkConfig
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
from charles.nets.functional import Batch, Network, functionalize
from charles.nets.preprocess import check_size, image_shape, make_image
from charles.outputs import Output
from charles.sample import SampleSpec

Array = jax.Array

_SPEED_FEATURES, _PURPOSE_FEATURES = 3, 5


def make_network(config: NetworkConfig, sample: SampleSpec, outputs: tuple[Output, ...]) -> Network:
    """The driver that ``config`` describes, for frames of ``sample``, with a head per output.

    Computes in bfloat16 on accelerators and in float32 on a CPU; parameters and heads are float32.

    Raises:
        ConfigError: The input is larger than the frame.
    """
    check_size(config, sample)
    heads = {output.config.name: output.num_units for output in outputs}
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16

    def prepare(batch: Batch) -> Batch:
        rest = {name: value for name, value in batch.items() if name != "pixels"}
        image = make_image(batch["pixels"], config, sample)
        return {"speed_known": jnp.ones_like(batch["speed"])} | rest | {"image": image}

    return functionalize(lambda rngs: Driver(config, heads, dtype=dtype, rngs=rngs), prepare)


class Backbone(nnx.Module):
    """From the image to feature maps: folded patches, stages, residual blocks, neck."""

    def __init__(self, config: NetworkConfig, *, rngs: nnx.Rngs) -> None:
        self.patch = config.patch
        height, width, channels = image_shape(config)
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
        has_condition = config.with_speed or config.with_purpose
        is_modulated = config.is_modulated and has_condition
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


class Driver(nnx.Module):
    """See the module's docstring."""

    def __init__(
        self, config: NetworkConfig, heads: dict[str, int], *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        self.dtype = dtype
        given = _SPEED_FEATURES * config.with_speed + _PURPOSE_FEATURES * config.with_purpose
        self.condition = nnx.Linear(given, config.condition, rngs=rngs) if given else None
        self.backbone = Backbone(config, rngs=rngs)
        features = self.backbone.num_features + (config.condition if given else 0)
        dense: dict[str, nnx.Module] = {}
        for index, size in enumerate(config.dense):
            dense[f"dense_{index}"] = nnx.Linear(features, size, kernel_init=_he, rngs=rngs)
            features = size
        self.dense = nnx.Dict(dense)
        layers = {
            name: nnx.Linear(features, units, kernel_init=_small, rngs=rngs)
            for name, units in heads.items()
        }
        self.heads = nnx.Dict(layers)

    def __call__(
        self, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> dict[str, Array]:
        """See :class:`charles.nets.functional.NetworkModule`."""
        condition = self._condition(batch)
        image = adapt_to_light(batch["image"]).astype(self.dtype)
        x = self.backbone(image, condition).astype(jnp.float32)
        if condition is not None:
            x = jnp.concatenate([x, condition], axis=-1)
        for dense in self.dense.values():
            x = jax.nn.relu(dense(x))
        return {name: head(x) for name, head in self.heads.items()}

    def _condition(self, batch: Batch) -> Array | None:
        """Speed and purpose as features ``[B, config.condition]``; ``None`` without either."""
        if self.condition is None:
            return None
        parts = []
        if self.config.with_speed:
            parts.append(encode_speed(batch["speed"], batch["speed_known"]))
        if self.config.with_purpose:
            parts.append(encode_purpose(batch["purpose"]))
        return jax.nn.relu(self.condition(jnp.concatenate(parts, axis=-1)))


_he = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
_small = nnx.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
