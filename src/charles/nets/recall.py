"""Line 0012: a RegNet that sees the present, and a memory that speaks only of change.

The present picture alone goes through the backbone, so it is never mistaken for an earlier one. All
pictures, the present one too, pass a small network of their own; the memory is given by how much
the features of each earlier picture differ from the present ones. Each age has weights of its own,
so the order cannot be confused, and where nothing has moved the memory says nothing.

What a car sees move tells how it was steered a moment ago, and an expert's actions hardly change
from one instant to the next; so a network that may learn what it likes from the past learns to
repeat itself. A memory that learns apart never learns the action: it learns by how much the action
has *changed* since its oldest picture, where the past action is of no use. What drives reads it,
and no gradient goes back.

References:
    Chuang, Yang, Wen, Gao, "Resolving copycat problems in visual imitation learning via residual
    action prediction", 2022, https://arxiv.org/abs/2207.09705. There the memory reads the whole
    past; here it reads differences.
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
from charles.nets.functional import AUXILIARY, Batch
from charles.nets.initial import scaled
from charles.nets.preprocess import area_weights
from charles.network_config import CompactConfig
from charles.outputs import control_of

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
        controls: Names of the game's controls, as columns of the history.
        frozen: Parts that are not trained.
        dtype: What backbone and memory compute in; everything behind them is float32.
        rngs: Random streams.
    """

    def __init__(
        self,
        spec: ModelSpec,
        heads: dict[str, int],
        controls: Sequence[str],
        frozen: tuple[str, ...],
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        cells, memory = _GRID[0] * _GRID[1], spec.memory
        features = cells * spec.neck + (memory.units if memory else 0)
        super().__init__(features, heads, dense=spec.common, condition=_CONDITION, rngs=rngs)
        self.backbone = BACKBONES[spec.backbone].make(3, width=spec.width, rngs=rngs)
        self.neck = StandardConv(self.backbone.num_features, spec.neck, 1, rngs=rngs)
        self.memory = Recall(memory, spec.frames - 1, heads, rngs=rngs) if memory else None
        self.oldest = (spec.frames - 1) * spec.frame_stride
        self.controls = tuple(controls)
        self.frozen, self.dtype = frozen, dtype

    def __call__(
        self, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> dict[str, Array]:
        """See :class:`charles.nets.functional.NetworkModule`."""
        pictures = [adapt_to_light(each).astype(self.dtype) for each in _apart(batch["image"])]
        x = self._see(pictures[-1], is_training=is_training)
        auxiliary: dict[str, Array] = {}
        if self.memory is not None:
            recalled = self.memory(pictures)
            if is_training:
                auxiliary = self._explain(self.memory, recalled, batch["history"])
            x = join(x, self.memory.tell(recalled, key if is_training else None))
        return self.decide(x, self.encode_purpose(batch), batch) | auxiliary

    def _see(self, picture: Array, *, is_training: bool) -> Array:
        """Features ``[B, N]`` of the present. A frozen backbone gathers no statistics."""
        is_frozen = "backbone" in self.frozen
        maps = self.backbone(picture, is_training=is_training and not is_frozen)
        maps = jax.lax.stop_gradient(maps) if is_frozen else maps
        return _sum_up(rectify(self.neck(maps)))

    def _explain(self, memory: "Recall", recalled: Array, history: Array) -> dict[str, Array]:
        """What the action must be if the oldest picture's changed as the memory says."""
        if not memory.config.is_apart:
            return {}
        then = history[:, -self.oldest, : len(self.controls)]
        predictions = {name: head(recalled) for name, head in memory.changes.items()}
        return {
            AUXILIARY + name: value + control_of(then, self.controls, name)[:, None]
            if value.shape[-1] == 1
            else value
            for name, value in predictions.items()
        }


class Recall(nnx.Module):
    """What has changed since earlier pictures, as features ``[B, units]``.

    Args:
        config: Widths and how it learns.
        num_earlier: Pictures before the present one.
        heads: Units of the head of every output.
        rngs: Random streams.
    """

    def __init__(
        self, config: Memory, num_earlier: int, heads: dict[str, int], *, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        small = CompactConfig(widths=config.widths, neck=config.neck, is_modulated=False)
        self.glance = compact.Backbone(small, 3, rngs=rngs)
        features = _GRID[0] * _GRID[1] * config.neck * num_earlier
        # Without a bias, so that no change is no news.
        self.compare = nnx.Linear(
            features, config.units, use_bias=False, kernel_init=scaled(2.0), rngs=rngs
        )
        changes = {
            name: nnx.Linear(config.units, units, kernel_init=scaled(0.01), rngs=rngs)
            for name, units in heads.items()
        }
        self.changes = nnx.Dict(changes if config.is_apart else {})

    def __call__(self, pictures: Sequence[Array]) -> Array:
        """Features ``[B, units]`` from pictures ``[B, h, w, 3]``, oldest first."""
        seen = _sum_up(self.glance(jnp.concatenate(pictures), None))
        *earlier, present = jnp.split(seen, len(pictures))
        differences = [present - each for each in earlier]
        return jax.nn.relu(self.compare(jnp.concatenate(differences, axis=-1)))

    def tell(self, recalled: Array, key: Array | None) -> Array:
        """What the driver is given of it, ``[B, units]``; with a key some samples get nothing."""
        if self.config.is_apart:
            recalled = jax.lax.stop_gradient(recalled)
        if key is None or self.config.hidden_share == 0:
            return recalled
        shown = jax.random.bernoulli(key, 1 - self.config.hidden_share, (len(recalled), 1))
        return recalled * shown


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
