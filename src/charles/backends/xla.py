"""Predictions by JAX itself, compiled once for all parameters."""

from collections.abc import Sequence

import jax

from charles.backends.backend import Placed
from charles.nets.functional import Network, Variables
from charles.observer import Inputs
from charles.outputs import Output
from charles.train_step import make_predict


class XlaBackend:
    """See :class:`charles.backends.backend.Backend`.

    Every tree is placed the same way, so that replacing one never compiles anything again.

    Args:
        network: What predicts.
        outputs: What it predicts.
        control_names: The game's controls, in the order of a history's row.
    """

    def __init__(
        self, network: Network, outputs: tuple[Output, ...], control_names: Sequence[str]
    ) -> None:
        self._predict = make_predict(network, outputs, control_names=control_names)
        self._fold = jax.jit(network.fold)
        self._device = jax.local_devices()[0]

    def place(self, variables: Variables) -> Placed:
        """The tree on the device, normalisations folded into the kernels."""
        return jax.block_until_ready(self._fold(jax.device_put(variables, self._device)))

    def predict(self, placed: Placed, inputs: Inputs) -> dict[str, float]:
        """See :class:`charles.backends.backend.Backend`."""
        decoded = jax.device_get(self._predict(placed, inputs))
        return {name: float(values[0]) for name, values in decoded.items()}

    def num_compilations(self) -> int:
        """See :class:`charles.backends.backend.Backend`."""
        return self._predict._cache_size()  # pyright: ignore[reportFunctionMemberAccess]

    def note(self) -> str:
        """Nothing: they are as they were trained."""
        return ""
