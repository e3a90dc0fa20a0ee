"""The state of training: everything that a step reads and writes, as one pytree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from charles.nets.functional import Network, Variables

Array = jax.Array


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

    @property
    def variables(self) -> Variables:
        """Parameters and statistics as :meth:`charles.nets.functional.Network.apply` takes them."""
        return {"params": self.params, "stats": self.stats}


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
) -> TrainState:
    """A fresh state, placed as the training step returns it, so that the step compiles once.

    Args:
        network: Gives parameters and statistics.
        optimizer: Gives its state.
        seed: Seed of the parameters and of everything random in the steps.
        mesh: The step's; over all devices by default.
    """
    init_key, step_key = jax.random.split(jax.random.key(seed))

    def make(init_key: Array, step_key: Array) -> TrainState:
        variables = network.init(init_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            stats=variables["stats"],
            opt_state=optimizer.init(variables["params"]),
            key=jax.random.key_data(step_key),
        )

    everywhere = state_sharding(make_mesh() if mesh is None else mesh)
    return jax.jit(make, out_shardings=everywhere)(init_key, step_key)
