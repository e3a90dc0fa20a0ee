"""What every backend is to a policy, and which there are.

A backend takes parameters in once (:meth:`Backend.place`: seconds, in any thread) and predicts with
them many times. What it makes of them is its own; the policy only hands it back.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from charles.observer import Inputs
from charles.options import BackendName
from charles.outputs import Output
from charles.sample import SampleSpec

if TYPE_CHECKING:  # needs JAX, which a player whose network is elsewhere does without
    from charles.nets.functional import Network, Variables

Placed = Any
"""Parameters as a backend predicts with them; immutable."""


class Backend(Protocol):
    """Predicts for one instant at a time. Safe from any thread."""

    def place(self, variables: "Variables") -> Placed:
        """Take parameters in, a tree of host arrays of the network's shapes. Blocks."""
        ...

    def predict(self, placed: Placed, inputs: Inputs) -> dict[str, float]:
        """Decoded value of every output for one instant; blocks until it is there."""
        ...

    def num_compilations(self) -> int:
        """How many times something was compiled that :meth:`predict` calls."""
        ...

    def note(self) -> str:
        """What a person should know of the parameters that were placed last; may be empty."""
        ...


def make_backend(
    name: BackendName,
    network: "Network",
    outputs: tuple[Output, ...],
    sample: SampleSpec,
    *,
    samples_dir: Path,
) -> Backend:
    """The backend of that name.

    Args:
        name: Which.
        network: What predicts.
        outputs: What it predicts.
        sample: What it is shown.
        samples_dir: Where the run keeps samples, to quantise by.

    Raises:
        ExtraMissingError: The runtime is not installed.
    """
    if name == "jax":
        from charles.backends.xla import XlaBackend

        return XlaBackend(network, outputs, sample.controls)
    if name == "openvino_int8":
        from charles.backends.quantised import QuantisedBackend

        return QuantisedBackend(network, outputs, sample, samples_dir)
    from charles.backends.exported import ExportedBackend, onnx_runtime, openvino_runtime

    if name == "onnx":
        start = onnx_runtime()
    else:
        start = openvino_runtime("bf16" if name == "openvino_bfloat16" else "f32")
    return ExportedBackend(network, outputs, sample, start)
