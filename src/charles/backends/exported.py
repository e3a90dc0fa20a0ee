"""Predictions by another runtime, which is given the network as an ONNX model.

The network is traced and exported once, with its parameters as inputs. For each new set these
inputs become constants, so that the runtime may fold and pack them, and a new session is started
in the background while the one before drives on; no Python of length runs for it. Turning stored
pixels into the network's image and decoding its outputs stay with JAX, compiled once.
"""

# pyright: reportMissingImports=false

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charles.backends.backend import Placed
from charles.errors import ExtraMissingError
from charles.nets.functional import Batch, Network, Variables
from charles.nets.lowerings import exporting
from charles.observer import Inputs, blank_inputs
from charles.outputs import Output
from charles.sample import SampleSpec
from charles.train_step import decode_outputs

Call = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]
"""Runs a model: arrays by the names of its inputs to its outputs in order."""

Start = Callable[[bytes], Call]
"""Makes a runtime ready to run a serialised ONNX model; knows which of the inputs it reads."""


class ExportedBackend:
    """See :class:`charles.backends.backend.Backend`.

    Args:
        network: What predicts, in float32.
        outputs: What it predicts.
        sample: What it is shown.
        start: The runtime.

    Raises:
        ExtraMissingError: What exports is not installed.
    """

    def __init__(
        self, network: Network, outputs: tuple[Output, ...], sample: SampleSpec, start: Start
    ) -> None:
        def decode(predictions: list[Any], history: Any) -> dict[str, jax.Array]:
            named = dict(zip(self._outputs, predictions, strict=True))
            return decode_outputs(named, history, outputs, sample.controls)

        self._outputs = sorted(output.config.name for output in outputs)
        self._start = start
        self._fold = jax.jit(network.fold)
        self._prepare = jax.jit(network.prepare)
        self._decode = jax.jit(decode)
        self._template = export(network, self._outputs, blank_inputs(sample))

    def place(self, variables: Variables) -> Placed:
        """Start the runtime on the network with these parameters: up to seconds."""
        return self._start(self.model(variables))

    def model(self, variables: Variables) -> bytes:
        """The network with these parameters, as a serialised ONNX model."""
        folded = jax.device_get(self._fold(variables))
        return with_constants(self._template, named_leaves(folded))

    def prepare(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """The model's inputs, of what is stored."""
        return jax.device_get(self._prepare(inputs))

    def predict(self, placed: Placed, inputs: Inputs) -> dict[str, float]:
        """See :class:`charles.backends.backend.Backend`."""
        prepared = self.prepare(inputs)
        decoded = jax.device_get(self._decode(list(placed(prepared)), inputs["history"]))
        return {name: float(values[0]) for name, values in decoded.items()}

    def num_compilations(self) -> int:
        """See :class:`charles.backends.backend.Backend`."""
        compiled = (self._prepare, self._decode)
        return sum(each._cache_size() for each in compiled)  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]

    def note(self) -> str:
        """Nothing: they are as they were trained."""
        return ""


def export(network: Network, outputs: Sequence[str], inputs: Batch) -> Any:
    """The network as an ONNX ``ModelProto`` whose inputs are its folded parameters and a batch.

    Args:
        network: What to export.
        outputs: Names of the raw predictions, in the order wanted.
        inputs: A batch as stored, for its shapes.

    Raises:
        ExtraMissingError: jax2onnx is not installed.
    """
    # It loads a plugin for each library it knows, and logs the whole traceback of those that do not
    # fit this JAX; none of them is of use here.
    logging.getLogger("jax2onnx").setLevel(logging.CRITICAL)
    try:
        from jax2onnx import to_onnx
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            "Other backends than jax need jax2onnx. Install it: pip install 'charles[onnx]'."
        ) from error
    folded = jax.eval_shape(network.fold, network.shapes)
    prepared = jax.eval_shape(network.prepare, inputs)
    parameters, batch = named_leaves(folded), named_leaves(prepared)
    structure = jax.tree.structure(folded)

    def run(*arrays: Any) -> tuple[jax.Array, ...]:
        variables = jax.tree.unflatten(structure, arrays[: len(parameters)])
        given = dict(zip(prepared, arrays[len(parameters) :], strict=True))
        predictions = network.infer(variables, given)
        return tuple(predictions[name].astype(jnp.float32) for name in outputs)

    shapes = [*parameters.values(), *batch.values()]
    with exporting(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # jax2onnx reads Flax the old way
        return to_onnx(run, shapes, input_names=[*parameters, *prepared], model_name="charles")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves by their paths, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def with_constants(template: Any, values: dict[str, np.ndarray]) -> bytes:
    """A serialised ONNX model in which some of the inputs have become constants."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(template)
    graph = model.graph
    left = [each for each in graph.input if each.name not in values]
    del graph.input[:]
    graph.input.extend(left)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()
    )
    return model.SerializeToString()


def onnx_runtime() -> Start:
    """ONNX Runtime on the CPU.

    Raises:
        ExtraMissingError: It is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            "The backend onnx needs ONNX Runtime. Install it: pip install 'charles[onnx]'."
        ) from error

    def start(model: bytes) -> Call:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: it warns of each constant that it folds
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def call(batch: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
            results = session.run(None, {name: batch[name] for name in names})
            return [np.asarray(each) for each in results]

        return call

    return start


def openvino_runtime(precision: str) -> Start:
    """OpenVINO on the CPU.

    Args:
        precision: ``f32`` or ``bf16``; a processor that cannot compute in bfloat16 does not.

    Raises:
        ExtraMissingError: It is not installed.
    """
    openvino = import_openvino()

    def start(model: bytes) -> Call:
        return compiled_call(openvino.Core().read_model(model), precision)

    return start


def import_openvino() -> Any:
    """The package.

    Raises:
        ExtraMissingError: It is not installed.
    """
    # Importing OpenVINO reports the use of it to its makers, from a forked process, unless this
    # package of theirs cannot be imported; then they have a stub.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            "The backend openvino needs OpenVINO. Install it: pip install 'charles[openvino]'."
        ) from error
    return openvino


def compiled_call(model: Any, precision: str) -> Call:
    """Compile an ``openvino.Model`` for this processor; see :func:`openvino_runtime`."""
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = import_openvino().compile_model(model, "CPU", hints)
    request = compiled.create_infer_request()
    names = [each.any_name for each in compiled.inputs]

    def call(batch: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        results = request.infer({name: batch[name] for name in names})
        return [results[each] for each in compiled.outputs]

    return call
