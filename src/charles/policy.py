"""The policy: a network in inference mode that turns what a game shows into controls.

The player and the evaluation share it, and it sees exactly what the collector stored: the same
pixel format, speed, purpose, and a history that ends before the present instant.

A policy's parameters are one immutable tree on the device, replaced by one assignment; a call in
progress keeps the tree it started with. Every tree is placed the same way, so that replacing it
never compiles anything again.
"""

from pathlib import Path

import jax
import numpy as np

from charles.backends.backend import Placed, make_backend
from charles.checkpoint import Checkpoints
from charles.config import TrainConfig
from charles.controls import check_controls
from charles.errors import CheckpointError
from charles.intake import sample_spec
from charles.nets.driver import make_network
from charles.nets.functional import Variables
from charles.nets.precision import compute_dtype
from charles.observer import Inputs, blank_inputs
from charles.options import BackendName
from charles.outputs import make_output


class Policy:
    """A run's network with its current parameters, at first all zero.

    ``variables`` holds what predictions use: set it to a tree from :meth:`place`, which makes
    sure that nothing is compiled again. Setting is atomic; predicting is safe from any thread.

    Args:
        config: The run's settings.
        backend: What computes the predictions.

    Raises:
        ConfigError: A control of the game follows from no output.
        ExtraMissingError: The backend is not installed.
    """

    def __init__(self, config: TrainConfig, *, backend: BackendName = "jax") -> None:
        self.spec = sample_spec(config)
        self.config = config
        outputs = tuple(make_output(output) for output in config.outputs)
        check_controls(tuple(output.config.name for output in outputs), self.spec.controls)
        dtype = compute_dtype(config.precision if backend == "jax" else "float32")
        self._network = make_network(config.network, self.spec, outputs, dtype=dtype)
        self._backend = make_backend(
            backend, self._network, outputs, self.spec, samples_dir=config.run_dir / "samples"
        )
        self.abstract_variables: Variables = self._network.shapes
        """Shapes and types of the parameters, as :class:`jax.ShapeDtypeStruct`."""
        blank = jax.tree.map(lambda like: np.zeros(like.shape, like.dtype), self.abstract_variables)
        self.variables: Placed = self.place(blank)

    def initial(self, seed: int) -> Variables:
        """Parameters as training starts from, on the host."""
        return self._network.init(seed)

    def untrained(self, seed: int) -> Placed:
        """Parameters as training starts from, placed."""
        return self.place(self.initial(seed))

    def place(self, variables: Variables) -> Placed:
        """A tree of host arrays as the backend predicts with it. Blocks, with another backend than
        JAX for seconds; may be called from any thread."""
        return self._backend.place(variables)

    def warm_up(self) -> None:
        """Compile everything that driving will call. Takes seconds, once."""
        self.predict(blank_inputs(self.spec))

    def predict(self, inputs: Inputs, variables: Placed | None = None) -> dict[str, float]:
        """Decoded value of every output for one instant; blocks until it is there.

        Args:
            inputs: See :data:`Inputs`.
            variables: Other parameters than the current ones, already placed.
        """
        chosen = self.variables if variables is None else variables
        return self._backend.predict(chosen, inputs)

    def num_compilations(self) -> int:
        """How many times the prediction was compiled."""
        return self._backend.num_compilations()

    def note(self) -> str:
        """What the backend has to say of the parameters that were placed last; may be empty."""
        return self._backend.note()

    def admit(self, variables: Variables, recent: tuple[Inputs, ...] = ()) -> Placed:
        """Host ``variables`` as predictions use them, if they may drive.

        Checks structure, shapes, types, finite values, and predictions on ``recent`` inputs.
        May be called from any thread; takes one prediction's time for each of ``recent``.

        Raises:
            CheckpointError: They must not drive; the text says why.
        """
        problem = mismatch(self.abstract_variables, variables)
        if problem:
            raise CheckpointError(problem)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            if np.issubdtype(leaf.dtype, np.floating) and not np.all(np.isfinite(leaf)):
                name = jax.tree_util.keystr(path)
                raise CheckpointError(f"{name} holds values that are not finite")
        placed = self.place(variables)
        for inputs in recent:
            for name, value in self.predict(inputs, placed).items():
                if not np.isfinite(value):
                    raise CheckpointError(f"the shadow prediction of {name} is {value}")
        return placed


def mismatch(expected: Variables, variables: Variables) -> str:
    """Say where a tree is not of the ``expected`` structure, shapes and types; empty if it is."""
    wanted = dict(jax.tree_util.tree_leaves_with_path(expected))
    got = dict(jax.tree_util.tree_leaves_with_path(variables))
    for path in sorted(wanted.keys() ^ got.keys(), key=str):
        state = "missing" if path in wanted else "unknown to this network"
        return f"{jax.tree_util.keystr(path)} is {state}"
    for path, leaf in wanted.items():
        other = got[path]
        if leaf.shape != other.shape or leaf.dtype != other.dtype:
            name = jax.tree_util.keystr(path)
            return (
                f"expected {name} as {leaf.dtype} {list(leaf.shape)}, "
                f"got {other.dtype} {list(other.shape)}"
            )
    return ""


def load_variables(policy: Policy, checkpoint_dir: Path, step: int | None = None) -> Placed:
    """Parameters of a checkpoint, the newest by default, placed for ``policy``.

    Raises:
        CheckpointError: There is none, or it is of another network or not finite.
    """
    variables = Checkpoints(checkpoint_dir).restore_variables(policy.abstract_variables, step)
    try:
        return policy.admit(variables)
    except CheckpointError as error:
        raise CheckpointError(
            f"The checkpoint in {checkpoint_dir} cannot drive: {error}."
        ) from None
