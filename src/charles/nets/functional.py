"""The one place where Flax NNX modules become pure functions. Beyond it a network is plain data.

Variables are nested dicts of arrays: ``{"params": ..., "stats": ...}``. Parameters are trained;
statistics are what a module gathers while it trains (running means) and are empty for most.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import jax
from flax import nnx

from charles.nets.initial import Draws
from charles.nets.layers import fold_module

Array = jax.Array
Batch = dict[str, Any]
Variables = dict[str, Any]

AUXILIARY = "auxiliary_"
"""What the names of predictions begin with that only help a network to learn."""


class NetworkModule(Protocol):
    """What :func:`functionalize` asks of an NNX module."""

    def __call__(self, batch: Batch, *, is_training: bool, key: Array | None) -> dict[str, Array]:
        """Raw head outputs float32 ``[B, units]`` per output, from a prepared batch."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions; all but ``init`` can be jitted, differentiated and mapped."""

    init: Callable[[int], Variables]
    """``init(seed) -> variables`` before training. On the host: nothing is compiled for it."""
    shapes: Variables
    """The variables' shapes and types, as :class:`jax.ShapeDtypeStruct`."""
    prepare: Callable[[Batch], Batch]
    """``prepare(batch) -> batch`` with the stored ``pixels`` replaced by ``image``."""
    forward: Callable[..., tuple[dict[str, Array], Variables]]
    """As :meth:`apply`, for a batch that is prepared already (and perhaps augmented)."""
    fold: Callable[[Variables], Variables]
    """``fold(variables) -> variables`` for :attr:`infer`: what normalises becomes part of the
    kernels. Once for new parameters, not for each prediction."""
    infer: Callable[[Variables, Batch], dict[str, Array]]
    """``infer(folded variables, prepared batch) -> predictions``, the same as :attr:`forward`'s
    without training, faster."""
    is_heavy: bool = False
    """Whether products and convolutions are nearly all of its time, see
    :func:`charles.nets.lowerings.heavy_options`."""
    auxiliary_weight: float = 0.0
    """Weight of the losses of predictions whose names begin with :data:`AUXILIARY`."""

    def apply(
        self, variables: Variables, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> tuple[dict[str, Array], Variables]:
        """Predict from stored pixels.

        Args:
            variables: As :attr:`init` made them.
            batch: ``pixels`` uint8 ``[B, ...]`` in the sample's format, ``speed`` float32 ``[B]``
                in m/s, ``purpose`` float32 ``[B, 2]`` (radians, metres), ``history`` float32
                ``[B, T, D]``; other entries are ignored.
            is_training: Whether statistics are gathered and noise is drawn.
            key: A PRNG key, for networks that draw noise while training.

        Returns:
            Raw head outputs, float32 ``[B, units]`` per output's name, and the new statistics.
        """
        return self.forward(variables, self.prepare(batch), is_training=is_training, key=key)


def functionalize(
    make_module: Callable[[nnx.Rngs], nnx.Module],
    prepare: Callable[[Batch], Batch],
    *,
    is_heavy: bool = False,
    auxiliary_weight: float = 0.0,
) -> Network:
    """Turn an NNX module into a :class:`Network`.

    Args:
        make_module: Builds a :class:`NetworkModule` from its random streams. All its state must be
            ``nnx.Param`` or ``nnx.BatchStat``, under names (no lists).
        prepare: What turns stored pixels into ``image``.
        is_heavy: See :attr:`Network.is_heavy`.
        auxiliary_weight: See :attr:`Network.auxiliary_weight`.
    """
    plain = _Skeleton.of(make_module)

    @cache  # only who drives needs it
    def folded() -> _Skeleton:
        return _Skeleton.of(lambda rngs: fold_module(make_module(rngs)))

    def init(seed: int) -> Variables:
        return _variables_of(make_module(_as_rngs(jax.random.key(seed))))

    def forward(
        variables: Variables, batch: Batch, *, is_training: bool, key: Array | None = None
    ) -> tuple[dict[str, Array], Variables]:
        module = plain.fill(variables)
        predictions = module(batch, is_training=is_training, key=key)
        return predictions, _variables_of(module)["stats"]

    def fold(variables: Variables) -> Variables:
        return _variables_of(fold_module(plain.fill(variables)))

    def infer(variables: Variables, batch: Batch) -> dict[str, Array]:
        return folded().fill(variables)(batch, is_training=False, key=None)

    return Network(
        init=init,
        shapes=_pure(plain.params, plain.stats),
        prepare=prepare,
        forward=forward,
        fold=fold,
        infer=infer,
        is_heavy=is_heavy,
        auxiliary_weight=auxiliary_weight,
    )


def abstract_module(make_module: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """The module with shapes and types in place of arrays; nothing is allocated."""
    return nnx.eval_shape(lambda: make_module(_as_rngs(jax.random.key(0))))


def _as_rngs(key: Array) -> nnx.Rngs:
    return cast(nnx.Rngs, Draws(key))


@dataclass(frozen=True)
class _Skeleton:
    """A module without its arrays: what puts variables and a call together."""

    structure: Any
    params: nnx.State
    stats: nnx.State

    @classmethod
    def of(cls, make_module: Callable[[nnx.Rngs], nnx.Module]) -> "_Skeleton":
        """The skeleton of what ``make_module`` makes."""
        return cls(*nnx.split(abstract_module(make_module), nnx.Param, nnx.BatchStat))

    def fill(self, variables: Variables) -> Any:
        """The module with these variables."""
        params = _fill(self.params, variables["params"])
        stats = _fill(self.stats, variables["stats"])
        return nnx.merge(self.structure, params, stats)


def _variables_of(module: nnx.Module) -> Variables:
    _, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    return _pure(params, stats)


def _pure(params: nnx.State, stats: nnx.State) -> Variables:
    return {"params": nnx.to_pure_dict(params), "stats": nnx.to_pure_dict(stats)}


def _fill(like: nnx.State, values: Variables) -> nnx.State:
    """An NNX state of the structure of ``like`` that holds ``values``; ``like`` stays as it is."""
    state = jax.tree.map(lambda leaf: leaf, like)
    nnx.replace_by_pure_dict(state, values)
    return state
