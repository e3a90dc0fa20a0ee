"""Line 0012: a RegNet that sees the present, and a memory that speaks only of change.

The present picture alone goes through the backbone, so it is never mistaken for an earlier one. All
pictures, the present one too, pass a small network of their own; the memory is given by how much
the features of each earlier picture differ from the present ones. Each age has weights of its own,
so the order cannot be confused, and where nothing has moved the memory says nothing.

What is not in it matters as much. An expert's actions hardly change from one instant to the next,
so a network that is given its past actions learns to repeat them; this one is given pictures alone,
and where they do not differ it is a network of one picture.

References:
    Wen, Lin, Darrell, Jayaraman, Gao, "Fighting copycat agents in behavioral cloning from
    observation histories", 2020, https://arxiv.org/abs/2010.14876. What goes wrong with a past.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from charles.models import Memory, ModelSpec
from charles.nets import compact
from charles.nets.backbones import BACKBONES
from charles.nets.blocks import StandardConv, adapt_to_light, rectify
from charles.nets.conditioned import ConditionedDriver, join
from charles.nets.functional import Batch
from charles.nets.initial import scaled
from charles.nets.preprocess import area_weights
from charles.network_config import CompactConfig

Array = jax.Array

TRUNK = ("purpose", "speed", "dense", "heads", "gears")
"""Parts that every version has behind what it sees and remembers."""

_GRID = (4, 8)
"""Cells, rows and columns, in which maps are summed up: where something is, at any resolution."""

_CONDITION = 64


class RecallDriver(ConditionedDriver):
    """See the module's docstring.

    Args:
        spec: Backbone, neck, memory, and widths of the dense layers (``common``).
        heads: Units of the head of every output.
        frozen: Parts that are not trained.
        dtype: What backbone and memory compute in; everything behind them is float32.
        rngs: Random streams.
    """

    def __init__(
        self,
        spec: ModelSpec,
        heads: dict[str, int],
        frozen: tuple[str, ...],
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        cells, memory = _GRID[0] * _GRID[1], spec.memory
        features = cells * spec.neck + (memory.units if memory else 0)
        super().__init__(features, heads, dense=spec.common, condition=_CONDITION, rngs=rngs)
        self.backbone = BACKBONES[spec.backbone].make(3, width=spec.width, rngs=rngs)
        self.neck = StandardConv(self.backbone.num_features, spec.neck, 1, rngs=rngs)
        self.memory = Recall(memory, spec.frames - 1, rngs=rngs) if memory else None
        self.frozen, self.dtype = frozen, dtype

    def __call__(
        self, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> dict[str, Array]:
        """See :class:`charles.nets.functional.NetworkModule`."""
        pictures = [adapt_to_light(each).astype(self.dtype) for each in _apart(batch["image"])]
        x = self._see(pictures[-1], is_training=is_training)
        if self.memory is not None:
            x = join(x, self.memory(pictures))
        return self.decide(x, self.encode_purpose(batch), batch)

    def _see(self, picture: Array, *, is_training: bool) -> Array:
        """Features ``[B, N]`` of the present. A frozen backbone gathers no statistics."""
        is_frozen = "backbone" in self.frozen
        maps = self.backbone(picture, is_training=is_training and not is_frozen)
        maps = jax.lax.stop_gradient(maps) if is_frozen else maps
        return _sum_up(rectify(self.neck(maps)))


class Recall(nnx.Module):
    """What has changed since earlier pictures, as features ``[B, units]``.

    Args:
        config: Its widths.
        num_earlier: Pictures before the present one.
        rngs: Random streams.
    """

    def __init__(self, config: Memory, num_earlier: int, *, rngs: nnx.Rngs) -> None:
        small = CompactConfig(widths=config.widths, neck=config.neck, is_modulated=False)
        self.glance = compact.Backbone(small, 3, rngs=rngs)
        features = _GRID[0] * _GRID[1] * config.neck * num_earlier
        # Without a bias, so that no change is no news.
        self.compare = nnx.Linear(
            features, config.units, use_bias=False, kernel_init=scaled(2.0), rngs=rngs
        )

    def __call__(self, pictures: Sequence[Array]) -> Array:
        """Features ``[B, units]`` from pictures ``[B, h, w, 3]``, oldest first."""
        seen = _sum_up(self.glance(jnp.concatenate(pictures), None))
        *earlier, present = jnp.split(seen, len(pictures))
        differences = [present - each for each in earlier]
        return jax.nn.relu(self.compare(jnp.concatenate(differences, axis=-1)))


def _apart(image: Array) -> list[Array]:
    """The pictures ``[B, h, w, 3]`` of an image ``[B, h, w, 3 F]``, oldest first."""
    return jnp.split(image, image.shape[-1] // 3, axis=-1)


def _sum_up(maps: Array) -> Array:
    """Maps ``[B, h, w, C]`` as means over the cells of a grid, float32 ``[B, cells * C]``."""
    rows, columns = (
        jnp.asarray(area_weights(size, cells), jnp.float32)
        for size, cells in zip(maps.shape[1:3], _GRID, strict=True)
    )
    cells = jnp.einsum("bhwc,gh,kw->bgkc", maps.astype(jnp.float32), rows, columns)
    return cells.reshape(len(maps), -1)
