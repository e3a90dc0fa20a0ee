"""Balancing: which samples are kept, so that rare actions are learned as well as common ones.

A collector asks its :class:`Balancer` about every instant, from the label alone, before the pixels
are captured. Samples are gathered into *sets*; a set that is complete is published as a whole.
Bins follow from the output's range and type (:class:`charles.outputs.Bins`), so an output that is
declared otherwise is balanced otherwise.

* ``none``: every sample counts.
* ``v1``: a set has one sample for each combination of the bins of all outputs (``joint``).
* ``v2``, ``v3``: for each output on its own, a set has one sample for each of the output's bins
  (``separate``). The two differ in what is trained: by v2 the output that a sample was picked for,
  by v3 all of them.
* ``v4``: as v3, and of two samples of the same bin a set keeps the one that leaves the other
  outputs more even (``flattening``).

Bins that are hardly ever met must not hold a set up for ever:

* After ``patience`` candidates without a new bin for it, a set goes out incomplete; the bins it
  lacks are reported as *short*.
* A bin not met among the last :data:`ABSENCE` x ``patience`` candidates counts as absent. A set
  that lacks absent bins only goes out at once.
"""

import numpy as np

from charles.config import BalancingConfig
from charles.data.balancing.every import EverySample
from charles.data.balancing.flattening import Flattening
from charles.data.balancing.joint import OnePerCombination
from charles.data.balancing.roles import Balancer, BalanceReport
from charles.data.balancing.separate import OnePerBin
from charles.data.balancing.sets import ABSENCE, WINDOW
from charles.errors import require
from charles.outputs import OutputConfig, control_of

__all__ = ["ABSENCE", "WINDOW", "BalanceReport", "Balancer", "make_balancer"]


def make_balancer(
    config: BalancingConfig,
    outputs: tuple[OutputConfig, ...],
    control_names: tuple[str, ...],
    *,
    seed: int,
    slots_per_collector: int | None = None,
) -> Balancer:
    """The balancer that ``config`` declares.

    Args:
        config: Version and patience.
        outputs: What the network predicts.
        control_names: The game's controls, in the order of every label.
        seed: Seed of random choices.
        slots_per_collector: Slots that the collector may hold; checked against the sets.

    Raises:
        ConfigError: An output is no control of the game, or the sets need more slots.
    """
    for output in outputs:
        control_of(np.zeros(len(control_names), np.float32), control_names, output.name)
    kinds = {"v1": OnePerCombination, "v2": OnePerBin, "v3": OnePerBin, "v4": Flattening}
    version, versions = config.version, ("none", *kinds)
    require(version in versions, "balancing.version", f"be one of {versions}", version)
    if version == "none":
        balancer: Balancer = EverySample(outputs, control_names)
    else:
        balancer = kinds[version](outputs, control_names, patience=config.patience, seed=seed)
    if slots_per_collector is not None:
        fits = slots_per_collector > balancer.max_slots
        require(fits, "data.slots_per_collector",
                f"exceed the {balancer.max_slots} slots that balanced sets hold",
                slots_per_collector, "Raise it, or use wider bins.")  # fmt: skip
    return balancer
