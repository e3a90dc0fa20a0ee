"""From a configuration to a network: the compact driver, or a documented model."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from charles.nets import zoo
from charles.nets.backbones import BACKBONES
from charles.nets.compact import CompactDriver
from charles.nets.functional import Batch, Network, functionalize
from charles.nets.layers import require_size
from charles.nets.precision import compute_dtype
from charles.nets.preprocess import check_size, image_shape, make_image
from charles.network_config import NetworkConfig
from charles.outputs import Output
from charles.sample import SampleSpec


def make_network(
    config: NetworkConfig,
    sample: SampleSpec,
    outputs: tuple[Output, ...],
    *,
    dtype: Any = None,
) -> Network:
    """The network that ``config`` describes, for frames of ``sample``, with a head per output.

    Computes in ``dtype``, by default bfloat16 on accelerators and float32 on a CPU; parameters,
    heads and what reads the past are float32.

    Raises:
        ConfigError: The input is larger than the frame, or too small for the backbone; a frozen
            part does not exist.
    """
    check_size(config, sample)
    heads = {output.config.name: output.num_units for output in outputs}
    dtype = compute_dtype() if dtype is None else dtype
    shape = image_shape(config, sample.num_frames)
    spec = config.spec

    def make(rngs: nnx.Rngs) -> nnx.Module:
        if spec is None:
            return CompactDriver(config.compact, shape, heads, dtype=dtype, rngs=rngs)
        return zoo.make_model(
            spec, heads, controls=sample.controls, frozen=config.frozen, dtype=dtype, rngs=rngs
        )

    def prepare(batch: Batch) -> Batch:
        rest = {name: value for name, value in batch.items() if name != "pixels"}
        return rest | {"image": make_image(batch["pixels"], config, sample)}

    if spec is not None and spec.backbone != "none":
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        require_size(image, BACKBONES[spec.backbone].min_size)
    auxiliary = spec.auxiliary_weight if spec else 0.0
    is_heavy = spec is not None and spec.backbone != "none"
    return functionalize(make, prepare, is_heavy=is_heavy, auxiliary_weight=auxiliary)
