"""A run small enough for tests: tiny frames, a tiny network, and checkpoints written for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charles.checkpoint import Checkpoints
from charles.config import DataConfig, FrameConfig, GameConfig, NetworkConfig, TrainConfig
from charles.contract import CaptureContract, as_data
from charles.intake import sample_spec
from charles.nets.driver import make_network
from charles.network_config import CompactConfig
from charles.optim import make_optimizer
from charles.outputs import make_output
from charles.play_config import PlayConfig, UnstuckConfig
from charles.run import contract_of, write_run
from charles.state import TrainState, make_state

NETWORK = NetworkConfig(
    input_height=16, input_width=32,
    compact=CompactConfig(widths=(8,), residuals=0, neck=4, dense=(8,), condition=8),
)  # fmt: skip


def make_config(run_dir: Path, **changes: Any) -> TrainConfig:
    """Settings of a tiny run."""
    config = TrainConfig(
        run_dir=run_dir,
        game=GameConfig(vehicles=2, pedestrians=2),
        frame=FrameConfig(height=36, width=64),
        data=DataConfig(history_length=3, buffer_capacity=64),
        network=NETWORK,
        play=PlayConfig(unstuck=UnstuckConfig(window_s=60.0, distance_m=0.01)),
    )
    return replace(config, **changes)


class TinyRun:
    """A run's directory that a test writes checkpoints into, as a trainer would."""

    def __init__(self, run_dir: Path, **changes: Any) -> None:
        self.config = make_config(run_dir, **changes)
        write_run(run_dir, self.config)
        self.directory = run_dir
        self.checkpoint_dir = run_dir / "checkpoints"
        outputs = tuple(make_output(output) for output in self.config.outputs)
        network = make_network(self.config.network, sample_spec(self.config), outputs)
        optimizer = make_optimizer(self.config.optimizer)
        self.state: TrainState = make_state(network, optimizer, seed=1)
        self._checkpoints = Checkpoints(self.checkpoint_dir, keep=5)

    def save(
        self,
        step: int,
        change: Callable[[np.ndarray], Any] | None = None,
        capture: CaptureContract | None = None,
    ) -> None:
        """Write a checkpoint whose parameters went through ``change``; blocks."""
        params = jax.tree.map(lambda leaf: np.asarray(leaf), self.state.params)
        if change is not None:
            params = jax.tree.map(change, params)
        contract = {**contract_of(self.config), "capture": as_data(capture)}
        self._checkpoints.save(step, replace(self.state, params=params), {}, contract=contract)
        self._checkpoints.wait()

    def close(self) -> None:
        """End the writer's thread."""
        self._checkpoints.close()
