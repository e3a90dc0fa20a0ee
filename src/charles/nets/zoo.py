"""The documented models, built by name: :data:`charles.models.MODELS` as networks.

Parameters have top-level names by which parts are frozen and transferred: ``backbone``,
``history`` (dense layers on the past), ``lstm``, ``thought`` (dense layers behind it), ``common``,
``heads``, ``auxiliary``.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from charles.errors import require
from charles.models import MODELS, Auxiliary, ModelSpec, Past, find_model
from charles.nets.backbones import BACKBONES
from charles.nets.functional import AUXILIARY, Batch, abstract_module
from charles.nets.initial import glorot_uniform
from charles.nets.recall import TRUNK, RecallDriver
from charles.nets.recurrent import LSTM, past_features, read_past
from charles.outputs import DELTAS
from charles.sample import DRIVING_CONTROLS

Array = jax.Array


class ParameterCount(NamedTuple):
    """How many numbers a model has; statistics of batch norms are among the non-trainable ones."""

    total: int
    trainable: int
    non_trainable: int


def names() -> tuple[str, ...]:
    """Names of all documented models."""
    return tuple(MODELS)


def make_model(
    spec: ModelSpec,
    heads: dict[str, int] | None = None,
    *,
    controls: Sequence[str] = DRIVING_CONTROLS,
    frozen: tuple[str, ...] | None = None,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """The network that a specification describes.

    Args:
        spec: What is built.
        heads: Units of the head of every output; by default as documented.
        controls: Names of the game's controls, as columns of the history.
        frozen: Parts that are not trained; by default the specification's.
        dtype: What the backbone computes in.
        rngs: Random streams.

    Raises:
        ConfigError: A frozen part does not exist.
    """
    frozen = spec.frozen if frozen is None else frozen
    parts = parts_of(spec)
    for part in frozen:
        require(part in parts, "network.frozen", f"be of {', '.join(parts)}", part)
    heads = heads or documented_heads(spec)
    if spec.neck:
        return RecallDriver(spec, heads, frozen, dtype, rngs)
    return Model(spec, heads, controls, frozen, dtype, rngs)


def documented_heads(spec: ModelSpec) -> dict[str, int]:
    """Units of the head of every output: 1, or the classes of the discrete deltas."""
    units = 1 if spec.output_type == "regression" else len(DELTAS)
    return dict.fromkeys(spec.outputs, units)


@cache
def count_parameters(name: str) -> ParameterCount:
    """Count a model's numbers from abstract shapes; nothing is allocated.

    Raises:
        ConfigError: There is no model of that name.
    """
    spec = find_model(name)
    abstract = abstract_module(lambda rngs: make_model(spec, rngs=rngs))
    _, params, stats = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    tree = nnx.to_pure_dict(params)
    total = _count(tree) + _count(nnx.to_pure_dict(stats))
    trainable = sum(_count(part) for name, part in tree.items() if name not in spec.frozen)
    return ParameterCount(total, trainable, total - trainable)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


class Model(nnx.Module):
    """A documented model; see :func:`make_model` for the arguments."""

    def __init__(
        self,
        spec: ModelSpec,
        heads: dict[str, int],
        controls: Sequence[str],
        frozen: tuple[str, ...],
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.spec, self.frozen, self.dtype = spec, frozen, dtype
        self.controls = tuple(controls)
        features = remembered = 0
        if spec.backbone != "none":
            self.backbone, features = _make_backbones(spec, tuple(heads), rngs)
        if spec.past is not None:
            remembered = self._make_past(spec.past, rngs)
        self.common, width = _dense(features + remembered, spec.common, rngs)
        self.heads = _make_heads(width, spec.heads, heads, rngs)
        if spec.auxiliary is not None:
            assert spec.past is not None  # an LSTM is what it helps
            self.auxiliary = _make_auxiliary(spec.auxiliary, spec.past.lstm[-1], heads, rngs)

    def _make_past(self, past: Past, rngs: nnx.Rngs) -> int:
        """The layers on the past, and the width of what they give."""
        width = past_features(past.signals, is_sequence=past.is_sequence)
        self.history, width = _dense(width, past.dense, rngs)
        lstm: dict[str, nnx.Module] = {}
        for number, units in enumerate(past.lstm):
            lstm[f"lstm_{number}"] = LSTM(width, units, rngs=rngs)
            width = units
        self.lstm = nnx.Dict(lstm)
        self.thought, width = _dense(width, past.after, rngs)
        return width

    def __call__(
        self, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> dict[str, Array]:
        """See :class:`charles.nets.functional.NetworkModule`."""
        past = self.spec.past
        joined: list[Array] = []
        auxiliary: dict[str, Array] = {}
        if past is not None:
            remembered = self._remember(past, batch["history"])
            if self.spec.auxiliary is not None:
                auxiliary = self._assist(remembered)
            joined.append(self._keep("thought", _run(self.thought, remembered)))
        if self.spec.is_split:
            return self._split(batch["image"], is_training=is_training)
        if self.spec.backbone != "none":
            joined.insert(0, self._see(self.backbone, batch["image"], is_training=is_training))
        x = self._keep("common", _run(self.common, jnp.concatenate(joined, axis=-1)))
        return {name: _predict(head, x) for name, head in self.heads.items()} | auxiliary

    def _split(self, image: Array, *, is_training: bool) -> dict[str, Array]:
        """Every output from a backbone of its own."""
        seen = {
            name: self._see(backbone, image, is_training=is_training)
            for name, backbone in self.backbone.items()
        }
        return {name: _predict(head, seen[name]) for name, head in self.heads.items()}

    def _see(self, backbone: nnx.Module, image: Array, *, is_training: bool) -> Array:
        """Pooled features, float32 ``[B, F]``. A frozen backbone gathers no statistics."""
        is_training &= "backbone" not in self.frozen
        maps = backbone(image.astype(self.dtype), is_training=is_training)
        return self._keep("backbone", jnp.mean(maps.astype(jnp.float32), axis=(1, 2)))

    def _remember(self, past: Past, history: Array) -> Array:
        """The past as features ``[B, N]``, before the layers behind the LSTM."""
        x = read_past(history, past.signals, self.controls, is_sequence=past.is_sequence)
        x = self._keep("history", _run(self.history, x))
        for layer in self.lstm.values():
            x = layer(x)
        return self._keep("lstm", x[:, -1]) if past.lstm else x

    def _assist(self, remembered: Array) -> dict[str, Array]:
        x = _run(self.auxiliary["common"], remembered)
        heads = self.auxiliary["heads"]
        return {AUXILIARY + name: _predict(head, x) for name, head in heads.items()}

    def _keep(self, part: str, x: Array) -> Array:
        """``x``, through which nothing of a frozen part is trained."""
        return jax.lax.stop_gradient(x) if part in self.frozen else x


def parts_of(spec: ModelSpec) -> tuple[str, ...]:
    """Top-level names of a model's parameters."""
    if spec.neck:
        return ("backbone", "neck", *(["memory"] if spec.memory else []), *TRUNK)
    past = spec.past
    has = {
        "backbone": spec.backbone != "none",
        "history": past is not None and bool(past.dense),
        "lstm": past is not None and bool(past.lstm),
        "thought": past is not None and bool(past.after),
        "common": bool(spec.common),
        "heads": True,
        "auxiliary": spec.auxiliary is not None,
    }
    return tuple(name for name, is_there in has.items() if is_there)


def _make_backbones(spec: ModelSpec, outputs: tuple[str, ...], rngs: nnx.Rngs) -> tuple[Any, int]:
    """The backbone, or one for each output, and the width of what it gives."""
    make = BACKBONES[spec.backbone].make
    if not spec.is_split:
        backbone = make(3 * spec.frames, width=spec.width, rngs=rngs)
        return backbone, backbone.num_features
    backbones = {name: make(3 * spec.frames, width=spec.width, rngs=rngs) for name in outputs}
    return nnx.Dict(backbones), backbones[outputs[0]].num_features


def _make_heads(
    features: int, widths: Sequence[int], units: dict[str, int], rngs: nnx.Rngs
) -> nnx.Dict:
    """For every output dense layers and a linear one, ``output``."""
    heads: dict[str, nnx.Dict] = {}
    for name, count in units.items():
        layers, width = _dense(features, widths, rngs)
        layers["output"] = _linear(width, count, rngs)
        heads[name] = layers
    return nnx.Dict(heads)


def _make_auxiliary(
    auxiliary: Auxiliary, features: int, units: dict[str, int], rngs: nnx.Rngs
) -> nnx.Dict:
    common, width = _dense(features, auxiliary.common, rngs)
    heads = _make_heads(width, auxiliary.heads, units, rngs)
    return nnx.Dict({"common": common, "heads": heads})


def _dense(features: int, widths: Sequence[int], rngs: nnx.Rngs) -> tuple[nnx.Dict, int]:
    """Dense layers one after the other, and the width of what they give."""
    layers: dict[str, nnx.Module] = {}
    for number, width in enumerate(widths):
        layers[f"dense_{number}"] = _linear(features, width, rngs)
        features = width
    return nnx.Dict(layers), features


def _linear(features: int, units: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(features, units, kernel_init=glorot_uniform, rngs=rngs)


def _run(layers: nnx.Dict, x: Array) -> Array:
    """Dense layers, each rectified."""
    for layer in layers.values():
        x = jax.nn.relu(layer(x))
    return x


def _predict(head: nnx.Dict, x: Array) -> Array:
    """A head's raw output: hidden layers are rectified, the last one is linear."""
    for name, layer in head.items():
        x = layer(x) if name == "output" else jax.nn.relu(layer(x))
    return x
