"""The state of training: everything that a step reads and writes, as one pytree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from charles.nets.functional import Network, Variables

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What can be turned while training runs, without compiling anything again."""

    learning_rate: Any
    """The schedule's peak, float32 ``[]``."""
    loss_weights: dict[str, Any]
    """Weight of each output's loss in the total, float32 ``[]``, by the output's name."""

    @classmethod
    def of(cls, learning_rate: float, loss_weights: Mapping[str, float]) -> "Knobs":
        """Knobs that stand at these values, on the host."""
        weights = {name: np.asarray(each, np.float32) for name, each in loss_weights.items()}
        return cls(learning_rate=np.asarray(learning_rate, np.float32), loss_weights=weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a training step takes and returns. Arrays of a state given to a step are consumed."""

    step: Array
    """Steps done, int32 ``[]``."""
    params: Any
    """The network's parameters, nested dicts of float32."""
    stats: Any
    """The network's statistics, nested dicts; empty for most networks."""
    opt_state: Any
    """The optimiser's state."""
    key: Array
    """Raw PRNG key, uint32 ``[2]``; never changes, each step folds its number into it."""
    average: Variables = field(default_factory=dict)
    """Running mean of parameters and statistics over the steps; empty where none is kept."""
    knobs: Knobs | None = None
    """What was turned; ``None``: everything is as configured. No checkpoint holds it."""

    @property
    def variables(self) -> Variables:
        """Parameters and statistics as :meth:`charles.nets.functional.Network.apply` takes them."""
        return {"params": self.params, "stats": self.stats}

    @property
    def driving(self) -> Variables:
        """The variables to drive with: the average, where there is one."""
        return self.average or self.variables


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh ``batch`` over JAX devices; over all there are by default."""
    return jax.make_mesh(
        (len(devices or jax.devices()),),
        ("batch",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=devices,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a batch lies on the mesh: split along its first axis."""
    return NamedSharding(mesh, PartitionSpec("batch"))


def state_sharding(mesh: Mesh) -> NamedSharding:
    """How a state lies on the mesh: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def make_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    mesh: Mesh | None = None,
    is_averaged: bool = False,
    knobs: Knobs | None = None,
) -> TrainState:
    """A fresh state, placed as the training step returns it, so that the step compiles once.

    Args:
        network: Gives parameters and statistics.
        optimizer: Gives its state.
        seed: Seed of the parameters and of everything random in the steps.
        mesh: The step's; over all devices by default.
        is_averaged: Whether an average of the variables is kept.
        knobs: What stands otherwise than configured.
    """

    def make(variables: Variables, key: Array, knobs: Knobs | None) -> TrainState:
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            stats=variables["stats"],
            opt_state=optimizer.init(variables["params"]),
            key=jax.random.key_data(key),
            average=jax.tree.map(jnp.copy, variables) if is_averaged else {},
            knobs=knobs,
        )

    everywhere = state_sharding(make_mesh() if mesh is None else mesh)
    compiled = jax.jit(make, out_shardings=everywhere, donate_argnums=0)
    return compiled(network.init(seed), jax.random.key(seed), knobs)
