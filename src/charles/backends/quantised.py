"""Predictions by OpenVINO in int8: less to compute and to move, at a little less precision.

What a convolution is given becomes 8-bit, on a scale that the run's own samples show to be needed;
its kernel becomes 7-bit, a scale for each output channel. Everything else, the last layers too,
stays float32. Scales are found once and kept for later parameters, whose kernels alone are rounded
anew. Each set of parameters is tried on samples that set no scale: if its predictions are too far
from those in float32, scales are found anew, and if that does not help, it drives in float32.

Kernels have 7 bits because processors without VNNI add two products of 8 bits in 16, which
overflows for larger ones.

References:
    Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877
"""

# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charles.backends.backend import Placed
from charles.backends.exported import (
    Call,
    ExportedBackend,
    compiled_call,
    import_openvino,
    openvino_runtime,
)
from charles.data.storage import StoredSample, read_some
from charles.nets.functional import Network, Variables
from charles.observer import Inputs
from charles.outputs import Output
from charles.sample import SampleSpec

MOST_DIFFERENCE = 0.02
"""Largest mean difference to float32 in any output that may drive; outputs span 2."""

NUM_SAMPLES = 48
"""Samples read; every third tests, the others set the scales."""

FEWEST_SAMPLES = 12

KERNEL_LEVELS = 255
"""Of int8. The range is twice that of the kernel, so that 7 bits of it are used."""

INPUT_LEVELS = 256

Ranges = dict[str, tuple[float, float]]
"""Least and greatest value of what convolutions are given, by the name of where it comes from."""


class QuantisedBackend:
    """See :class:`charles.backends.backend.Backend`.

    Args:
        network: What predicts, in float32.
        outputs: What it predicts.
        sample: What it is shown.
        samples_dir: Where the run keeps its samples; read when parameters are placed.

    Raises:
        ExtraMissingError: OpenVINO, or what exports, is not installed.
    """

    def __init__(
        self, network: Network, outputs: tuple[Output, ...], sample: SampleSpec, samples_dir: Path
    ) -> None:
        import_openvino()
        self._exact = ExportedBackend(network, outputs, sample, openvino_runtime("f32"))
        self._spec = sample
        self._samples_dir = samples_dir
        self._setting: list[dict[str, np.ndarray]] = []
        self._testing: list[Inputs] = []
        self._ranges: Ranges = {}
        self._note = ""

    def place(self, variables: Variables) -> Placed:
        """Quantise, try and compile: seconds, and the first time a few more."""
        model = read_folded(self._exact.model(variables))
        exact = compiled_call(model, "f32")
        if not any(np.any(leaf) for leaf in jax.tree.leaves(variables)):
            return exact  # a policy begins with zeros, which tell nothing of scales
        if not convolutions(model):
            self._note = "float32: there are no convolutions to compute in int8"
            return exact
        if not self._read_samples():
            self._note = (
                f"float32: int8 needs {FEWEST_SAMPLES} samples in {self._samples_dir} "
                "(data.is_stored)"
            )
            return exact
        difference = float("inf")
        for is_last_try in (not self._ranges, True):
            if is_last_try:
                self._ranges = find_ranges(model, self._setting)
            call = compiled_call(quantise(model, self._ranges), "f32")
            difference = self._difference(exact, call)
            if difference <= MOST_DIFFERENCE:
                self._note = (
                    f"int8: predictions differ from float32 by {difference:.4f} in the mean"
                )
                return call
            if is_last_try:
                break
        self._note = (
            f"float32: in int8 predictions would differ by {difference:.4f} in the mean, "
            f"{MOST_DIFFERENCE} is allowed"
        )
        return exact

    def predict(self, placed: Placed, inputs: Inputs) -> dict[str, float]:
        """See :class:`charles.backends.backend.Backend`."""
        return self._exact.predict(placed, inputs)

    def num_compilations(self) -> int:
        """See :class:`charles.backends.backend.Backend`."""
        return self._exact.num_compilations()

    def note(self) -> str:
        """Whether the newest parameters drive in int8, and how far from float32."""
        return self._note

    def _read_samples(self) -> bool:
        """Have samples to set scales by and to test with; ``False`` if there are too few."""
        if not self._testing:
            samples = read_some(self._samples_dir, self._spec, NUM_SAMPLES)
            if len(samples) < FEWEST_SAMPLES:
                return False
            inputs = [inputs_of(each) for each in samples]
            self._testing = inputs[::3]
            setting = [each for number, each in enumerate(inputs) if number % 3]
            self._setting = [self._exact.prepare(each) for each in setting]
        return True

    def _difference(self, exact: Call, call: Call) -> float:
        """Mean difference of the worst output, decoded."""
        rows = []
        for inputs in self._testing:
            before = self._exact.predict(exact, inputs)
            after = self._exact.predict(call, inputs)
            rows.append([abs(after[name] - before[name]) for name in before])
        worst = float(np.mean(rows, axis=0).max())
        return worst if np.isfinite(worst) else float("inf")


def inputs_of(sample: StoredSample) -> Inputs:
    """A stored sample as a network is shown it."""
    header = sample.header
    return {
        "pixels": sample.pixels[None],
        "speed": np.asarray(header["speed_mps"], np.float32)[None],
        "purpose": np.asarray(header["purpose"], np.float32)[None],
        "history": np.asarray(header["history"], np.float32)[None],
    }


def read_folded(model: bytes) -> Any:
    """An ``openvino.Model`` whose kernels are constants, not computed from such."""
    from openvino import Core
    from openvino.passes import ConstantFolding, Manager

    read = Core().read_model(model)
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(read)
    return read


def convolutions(model: Any) -> list[Any]:
    """The convolutions of a model whose kernels are constants."""
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution"
        and node.input_value(1).get_node().get_type_name() == "Constant"
    ]


def name_of(source: Any) -> str:
    """A name of where a value comes from, the same for all parameters of a network."""
    return f"{source.get_node().get_friendly_name()}:{source.get_index()}"


def find_ranges(model: Any, batches: Sequence[dict[str, np.ndarray]]) -> Ranges:
    """What range of values each convolution is given; takes one prediction for each batch."""
    from openvino import Model
    from openvino import opset13 as ops

    copy = model.clone()
    sources = {name_of(node.input_value(0)): node.input_value(0) for node in convolutions(copy)}
    results = []
    for source in sources.values():
        axes = ops.constant(np.arange(len(source.get_partial_shape())), dtype=np.int64)
        results += [ops.result(ops.reduce_min(source, axes)),
                    ops.result(ops.reduce_max(source, axes))]  # fmt: skip
    call = compiled_call(Model(results, copy.get_parameters(), "ranges"), "f32")
    seen = np.array([[float(value) for value in call(batch)] for batch in batches])
    lows, highs = seen[:, ::2].min(0), seen[:, 1::2].max(0)
    return {name: (float(lows[i]), float(highs[i])) for i, name in enumerate(sources)}


def quantise(model: Any, ranges: Ranges) -> Any:
    """A copy of a model that computes its convolutions in int8."""
    from openvino import opset13 as ops

    copy = model.clone()
    rounded: dict[str, Any] = {}
    for node in convolutions(copy):
        source = node.input_value(0)
        name = name_of(source)
        if name not in rounded:  # several may read the same
            low, high = _even_range(*ranges[name])
            rank = len(source.get_partial_shape())
            rounded[name] = _round(ops, source, low, high, INPUT_LEVELS, (1,) * rank)
        kernel = node.input_value(1)
        values = kernel.get_node().data
        most = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
        most = 2 * np.maximum(most, np.finfo(np.float32).tiny * 1e6)
        node.input(0).replace_source_output(rounded[name].output(0))
        weights = _round(ops, kernel, -most, most, KERNEL_LEVELS, most.shape)
        node.input(1).replace_source_output(weights.output(0))
    return copy


def _even_range(low: float, high: float) -> tuple[float, float]:
    """A range in which 0 is exactly one of the levels."""
    if low >= 0:
        return 0.0, max(high, 1e-6)
    most = max(-low, high, 1e-6)
    return -most, most * (INPUT_LEVELS // 2 - 1) / (INPUT_LEVELS // 2)


def _round(ops: Any, source: Any, low: Any, high: Any, levels: int, shape: tuple[int, ...]) -> Any:
    """A node that rounds to ``levels`` even steps between ``low`` and ``high``."""
    ends = [ops.constant(np.broadcast_to(np.float32(end), shape).copy()) for end in (low, high)]
    return ops.fake_quantize(source, *ends, *ends, levels)
