"""Who drives a route to be scored: the checkpoint, its teacher, and two floors."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from charles.config import TrainConfig
from charles.controls import ControlFilter
from charles.io.game import Telemetry
from charles.observer import Observer
from charles.routes import Driver, Npc, Straight, telemetry_of
from charles.town.world import World

if TYPE_CHECKING:  # both are heavy, and the NPC and the floor need neither
    from charles.policy import Policy
    from charles.town.render import Renderer

UNTRAINED_SEED = 12345
"""Of the parameters of the untrained floor; not a seed that a run is started with."""


@dataclass(frozen=True, kw_only=True)
class DriverSpec:
    """A driver by description, so that a worker can make it."""

    name: str
    """Its name in the report."""
    kind: Literal["policy", "npc", "straight"]
    checkpoint_dir: Path | None = None
    """Where a policy's parameters are; ``None`` leaves it untrained."""
    step: int | None = None
    """Which checkpoint; ``None`` for the newest."""


class Clone:
    """A network's way from what it sees to controls, as the player's: observer, policy and filter.

    Args:
        policy: The network; may be shared between clones, so that it is compiled once.
        variables: This one's parameters, as :meth:`charles.policy.Policy.place` returns them.
    """

    def __init__(self, policy: "Policy", variables: Any) -> None:
        self._policy = policy
        self._variables = variables
        self._observer = Observer(policy.spec)
        config = policy.config
        self._filter = ControlFilter(config.outputs, policy.spec.controls, config.play.smoothing)

    @property
    def frame(self) -> np.ndarray:
        """What it is shown, RGB uint8 ``[H, W, 3]``; to be written before :meth:`decide`."""
        return self._observer.frame

    def start(self) -> None:
        """A new drive begins; nothing of the one before is remembered."""
        self._observer.restart()
        self._filter.restart()

    def decide(self, telemetry: Telemetry) -> np.ndarray:
        """Controls, float32 ``[A]``, for the instant whose picture is in :attr:`frame`."""
        inputs = self._observer.observe(telemetry)
        predictions = self._policy.predict(inputs, self._variables)
        self._observer.remember(telemetry)
        return self._filter.apply(predictions)


class PolicyDriver:
    """A network at the wheel in a town: sees the hood camera's picture, as the player does.

    Args:
        policy: The network; may be shared between drivers, so that it is compiled once.
        variables: This driver's parameters, as :meth:`charles.policy.Policy.place` returns them.
        renderer: Draws the frames; may be shared too.
    """

    def __init__(self, policy: "Policy", variables: Any, renderer: "Renderer") -> None:
        self._clone = Clone(policy, variables)
        self._renderer = renderer

    @property
    def frame(self) -> np.ndarray:
        """What it saw last, RGB uint8 ``[H, W, 3]``; overwritten by the next call."""
        return self._clone.frame

    def start(self) -> None:
        """See :class:`charles.routes.Driver`."""
        self._clone.start()

    def drive(self, world: World) -> np.ndarray:
        """See :class:`charles.routes.Driver`."""
        self._renderer.render(world.view(), self._clone.frame)
        return self._clone.decide(telemetry_of(world))


def make_driver(spec: DriverSpec, config: TrainConfig) -> Driver:
    """The driver of a town that ``spec`` describes. A policy takes seconds to load and to compile.

    Raises:
        CheckpointError: The checkpoint is missing or of another network.
    """
    if spec.kind == "npc":
        return Npc()
    if spec.kind == "straight":
        return Straight()
    policy, variables = load_policy(spec, config)
    return PolicyDriver(policy, variables, _eyes(config))


def load_policy(spec: DriverSpec, config: TrainConfig) -> tuple["Policy", Any]:
    """The network that ``spec`` describes, and its parameters. Compiles once in a process.

    Raises:
        CheckpointError: The checkpoint is missing or of another network.
    """
    from charles.policy import load_variables

    policy = _policy(config)
    if spec.checkpoint_dir is None:
        return policy, policy.untrained(UNTRAINED_SEED)
    return policy, load_variables(policy, spec.checkpoint_dir, spec.step)


@cache
def _policy(config: TrainConfig) -> "Policy":
    """The network that the drivers of this process share."""
    from charles.policy import Policy

    return Policy(config)


@cache
def _eyes(config: TrainConfig) -> "Renderer":
    """The camera that the drivers of this process share in a town."""
    from charles.town.render import Renderer

    return Renderer(config.frame.height, config.frame.width)
