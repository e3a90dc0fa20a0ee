"""Outputs: what the network predicts, and everything that follows from that declaration.

An output is a name, a range and a type. Its target, loss, metric, bins for balancing and decoding
follow from it, so changing an output's type needs no other edit. Losses and metrics are written
against the array API, so the same code runs on NumPy arrays and inside a jitted JAX step; nothing
here imports JAX.

``declaration`` is what is declared, ``kinds`` what follows for the training, ``bins`` what follows
for the balancing, ``signals`` how values are picked out of labels and histories.
"""

from charles.outputs.bins import Bins
from charles.outputs.declaration import (
    ACCELERATION_BRAKING,
    DELTAS,
    STEERING,
    OutputConfig,
    OutputType,
    check_deltas,
)
from charles.outputs.kinds import Output, make_output
from charles.outputs.signals import control_of, current_of

__all__ = [
    "ACCELERATION_BRAKING",
    "DELTAS",
    "STEERING",
    "Bins",
    "Output",
    "OutputConfig",
    "OutputType",
    "check_deltas",
    "control_of",
    "current_of",
    "make_output",
]
