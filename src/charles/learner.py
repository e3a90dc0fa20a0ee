"""What learns: network, optimiser, state, the jitted step and its checkpoints, put together."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charles.checkpoint import Checkpoints
from charles.config import TrainConfig
from charles.contract import ACCEPT, CaptureContract, as_data
from charles.data.device import put
from charles.errors import CharlesError, ContractError, require
from charles.hot import HotValues
from charles.intake import sample_spec
from charles.nets.driver import make_network
from charles.nets.precision import compute_dtype
from charles.optim import make_optimizer
from charles.outputs import make_output
from charles.run import contract_differences, contract_of
from charles.state import (
    Knobs,
    TrainState,
    batch_sharding,
    make_mesh,
    make_state,
    state_sharding,
)
from charles.train_step import make_evaluate, make_train_step
from charles.transfer import transfer


class NotFiniteError(CharlesError):
    """A training step produced a loss that is not finite."""


@dataclass(frozen=True)
class Restored:
    """What a checkpoint gave back besides the parameters."""

    step: int
    data_state: dict[str, np.ndarray]


def _require_even(config: TrainConfig, num_devices: int) -> None:
    """Refuse a batch that cannot be dealt to all devices."""
    rule = f"be a multiple of the devices ({num_devices})"
    if config.accumulate > 1:
        rule += f" times accumulate ({config.accumulate})"
    is_even = config.batch_size % (config.accumulate * num_devices) == 0
    fix = "Or hide devices from JAX, for example by CUDA_VISIBLE_DEVICES=0."
    require(is_even, "batch_size", rule, config.batch_size, fix)


class Learner:
    """Holds the training state and steps it. Use from one thread, :meth:`put` apart.

    Args:
        config: The run's settings.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        spec = sample_spec(config)
        outputs = tuple(make_output(output) for output in config.outputs)
        dtype = compute_dtype(config.precision)
        self.network = make_network(config.network, spec, outputs, dtype=dtype)
        optimizer = make_optimizer(config.optimizer, frozen=config.network.frozen)
        mesh = make_mesh()
        _require_even(config, mesh.size)
        self._sharding, self._everywhere = batch_sharding(mesh), state_sharding(mesh)
        self.state: TrainState = make_state(
            self.network,
            optimizer,
            seed=config.seed,
            is_averaged=config.optimizer.ema_decay > 0,
        )
        self.turn(HotValues.of(config))
        is_per_output = config.data.balancing.version == "v2"
        self._step = make_train_step(
            self.network,
            outputs,
            optimizer,
            config.augment,
            control_names=spec.controls,
            mesh=mesh,
            accumulate=config.accumulate,
            is_per_output=is_per_output,
            ema_decay=config.optimizer.ema_decay,
        )
        self._evaluate = make_evaluate(
            self.network,
            outputs,
            control_names=spec.controls,
            mesh=mesh,
            is_per_output=is_per_output,
        )
        self.checkpoints = Checkpoints(config.run_dir / "checkpoints", keep=config.checkpoint.keep)
        self._contract = contract_of(config)
        self.capture: CaptureContract | None = None
        """How the pictures were captured that it learns from, once that is known."""
        self.step_number = 0

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Move a host batch to the devices; safe from the loader's thread."""
        return put(batch, self._sharding)

    def step(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """One training step; blocks until it is done. Returns device scalars.

        Raises:
            NotFiniteError: The loss is not finite; the state is the one before.
        """
        self.state, metrics = self._step(self.state, batch)
        if not bool(jax.device_get(metrics["is_finite"])):
            raise NotFiniteError(
                f"The loss must be finite, got a value that is not at step {self.step_number + 1}. "
                "The parameters are those of the step before, and the batch is not drawn again. If "
                "it comes back after --resume: lower optimizer.learning_rate, or look at what the "
                "game tells."
            )
        self.step_number += 1
        return metrics

    def turn(self, values: HotValues) -> None:
        """Go on with another learning rate and other weights; compiles nothing."""
        knobs = Knobs.of(values.learning_rate, values.loss_weights)
        self.state = replace(self.state, knobs=jax.device_put(knobs, self._everywhere))

    def validate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """Mean loss and error of each output over host batches, with what one would drive with.

        Blocks; nothing is trained. Compiles when it is first called.

        Args:
            batches: Each of the training batch's size; its arrays may be used again once the next
                is asked for.

        Returns:
            ``<output>_loss`` and ``<output>_mae`` by name; empty if there is no batch.
        """
        found = [self._evaluate(self.state.driving, self.put(batch)) for batch in batches]
        rows = [self.host_scalars(metrics) for metrics in found]
        return {name: float(np.mean([row[name] for row in rows])) for name in (rows or [{}])[0]}

    def save(self, data_state: dict[str, np.ndarray]) -> None:
        """Write a checkpoint in the background."""
        contract = {**self._contract, "capture": as_data(self.capture)}
        self.checkpoints.save(self.step_number, self.state, data_state, contract=contract)

    def restore(self, *, resume: bool, accepts_contract: bool = False) -> Restored | None:
        """Take the newest checkpoint, if that is wanted and there is one.

        A run that has none yet begins with what it is to take over (``transfer``).

        Args:
            resume: Whether it is wanted.
            accepts_contract: Go on also with other settings than the parameters have learned with.

        Raises:
            ConfigError: There is one, and it is not wanted; or what is to be taken over is not
                there.
            CheckpointError: It is damaged or of another network; what is to be taken over does not
                fit.
            ContractError: It has learned with other settings, and that is not accepted.
        """
        step = self.checkpoints.latest()
        if step is None:
            self._transfer()
            return None
        require(resume, "run_dir", "hold no checkpoint yet", str(self.checkpoints.directory.parent),
                f"Go on from step {step} with --resume, or name another --run-dir.")  # fmt: skip
        self._require_same_settings(step, is_accepted=accepts_contract)
        self.state, data_state = self.checkpoints.restore(self.state, step)
        self.step_number = step
        return Restored(step, data_state)

    def _require_same_settings(self, step: int, *, is_accepted: bool) -> None:
        """Refuse settings whose change no shape tells, and every parameter depends on."""
        learned = self.checkpoints.contract(step)
        changed = contract_differences(learned, self._contract)
        if not changed:
            return
        text = (
            f"A run that goes on must keep the settings that checkpoint {step} has learned with, "
            f"got {'; '.join(changed)}."
        )
        if not is_accepted:
            raise ContractError(
                f"{text} Leave them, start a new run that takes the parameters over "
                f"(--transfer all=RUN), {ACCEPT}."
            )
        print(f"warning: {text} Accepted.", file=sys.stderr, flush=True)

    def _transfer(self) -> None:
        """Begin with what the configuration names of earlier runs and weight files."""
        config, state = self._config, self.state
        if not config.transfer:
            return
        variables = transfer(state.variables, config.transfer, config.network.spec)
        placed = jax.device_put(variables, self._everywhere)
        # A copy: the step takes over the memory of parameters and average, each for itself.
        average = jax.tree.map(jnp.copy, placed) if state.average else state.average
        self.state = replace(state, params=placed["params"], stats=placed["stats"], average=average)

    def wait_saved(self) -> None:
        """Wait until the checkpoint that is being written is on disk."""
        self.checkpoints.wait()

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        self.checkpoints.close()

    def host_scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Fetch metrics."""
        return {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
