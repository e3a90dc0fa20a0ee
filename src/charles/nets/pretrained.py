"""Weights of other frameworks: Keras' ``.h5`` and ``.keras``, and safetensors with timm's names.

Files are the user's own; nothing is downloaded, and nothing in them is run. A backbone's variables
are found by the names that its module tells (``keras_names``, ``timm_names``); Keras numbers some
layers as it creates them, across all models of a process, so those are found by their order.
"""

import importlib
import json
import re
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from charles.errors import CheckpointError, ConfigError, ExtraMissingError
from charles.nets.naming import KerasNames, TorchNames

Arrays = dict[str, np.ndarray]
"""Arrays by name."""

KerasLayers = dict[str, list[np.ndarray]]
"""The weights of every layer by its name, in the layer's own order."""

SUFFIXES = (".h5", ".keras", ".safetensors")

_NUMBERED = re.compile(r"(?P<kind>conv2d|batch_normalization)(_(?P<number>\d+))?")


def load_backbone(path: Path, keras: KerasNames, torch: TorchNames) -> Arrays:
    """A backbone's variables by our path, for example ``layers/block1_conv1/kernel``.

    What the file does not have is not in the result; the caller compares.

    Args:
        path: A file of one of :data:`SUFFIXES`.
        keras: The backbone's names in Keras.
        torch: Its names in PyTorch.

    Raises:
        CheckpointError: The file cannot be read.
        ConfigError: It is of another kind.
        ExtraMissingError: The package that reads it is not installed.
    """
    if path.suffix == ".safetensors":
        return from_torch(_read_safetensors(path), torch)
    if path.suffix in (".h5", ".keras"):
        return from_keras(_read_keras(path), keras)
    raise ConfigError(f"transfer: a weight file must end in one of {SUFFIXES}, got {path.name!r}.")


def save_backbone(path: Path, variables: Mapping[str, np.ndarray], torch: TorchNames) -> None:
    """Write a backbone as safetensors with timm's names.

    Args:
        path: The file; replaced if it is there.
        variables: By our path, as :func:`load_backbone` gives them.
        torch: Its names in PyTorch.
    """
    safetensors = _import("safetensors.numpy")
    tensors: Arrays = {}
    for ours, (name, axes) in torch.items():
        value = np.asarray(variables[ours])
        back = value if axes is None else value.transpose(np.argsort(axes))
        tensors[name] = np.ascontiguousarray(back)
    partial = path.with_name(path.name + ".partial")
    safetensors.save_file(tensors, str(partial), metadata={"format": "pt"})
    partial.replace(path)


def from_torch(tensors: Mapping[str, np.ndarray], names: TorchNames) -> Arrays:
    """Our variables out of PyTorch's tensors.

    Raises:
        CheckpointError: A norm scales its features where ours does not.
    """
    known = {name for name, _ in names.values()}
    norms = [name.removesuffix("running_var") for name in known if name.endswith("running_var")]
    for scale in {f"{norm}weight" for norm in norms} - known:
        if not np.all(tensors.get(scale, 1) == 1):
            raise CheckpointError(
                f"{scale} must be all 1, because this backbone's norms do not scale, got others."
            )
    found = {ours: (tensors[name], axes) for ours, (name, axes) in names.items() if name in tensors}
    return {
        ours: value if axes is None or value.ndim != len(axes) else value.transpose(axes)
        for ours, (value, axes) in found.items()
    }


def from_keras(layers: KerasLayers, names: KerasNames) -> Arrays:
    """Our variables out of Keras' layers; numbered ones are taken in the order of their numbers."""
    found = dict(layers)
    wanted = _numbered(layer for layer, _ in names.values())
    for kind, there in _numbered(layers).items():
        found |= {
            name: layers[other] for name, other in zip(wanted.get(kind, ()), there, strict=False)
        }
    return {
        ours: found[layer][index]
        for ours, (layer, index) in names.items()
        if layer in found and index < len(found[layer])
    }


def _numbered(layers: Any) -> dict[str, list[str]]:
    """Layers that Keras numbered, by kind, in rising order."""
    kinds: dict[str, dict[int, str]] = {}
    for layer in layers:
        match = _NUMBERED.fullmatch(layer)
        if match:
            kinds.setdefault(match["kind"], {})[int(match["number"] or 0)] = layer
    return {kind: [layer for _, layer in sorted(found.items())] for kind, found in kinds.items()}


def _read_safetensors(path: Path) -> Arrays:
    safetensors = _import("safetensors.numpy")
    try:
        return safetensors.load_file(str(path))
    except Exception as err:
        raise CheckpointError(f"{path} must be a whole safetensors file, got: {err}.") from err


def _read_keras(path: Path) -> KerasLayers:
    h5py = _import("h5py")
    try:
        if path.suffix == ".h5":
            with h5py.File(path, "r") as file:
                return _layers_of_h5(file)
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with h5py.File(BytesIO(archive.read("model.weights.h5")), "r") as file:
                return _layers_of_archive(file, config)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as err:
        raise CheckpointError(f"{path} must be a whole file of weights, got: {err}.") from err


def _layers_of_h5(file: Any) -> KerasLayers:
    """Of a weight file, or of a whole model that was saved in one file."""
    root = file.get("model_weights", file)
    if "layer_names" not in root.attrs:
        raise ValueError("it names no layers (as .weights.h5 of Keras 3); save the model as .keras")
    layers: KerasLayers = {}
    for layer in _texts(root.attrs["layer_names"]):
        weights = _texts(root[layer].attrs["weight_names"])
        layers[layer] = [np.asarray(root[layer][name]) for name in weights]
    return layers


def _layers_of_archive(file: Any, config: Mapping[str, Any]) -> KerasLayers:
    """Of a ``.keras`` archive, which counts layers by class instead of naming them."""
    layers: KerasLayers = {}
    counts: dict[str, int] = {}
    for layer in config["config"]["layers"]:
        kind = _snake_case(layer["class_name"])
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        group = f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars"
        if group in file:
            weights = file[group]
            layers[layer["config"]["name"]] = [
                np.asarray(weights[name]) for name in sorted(weights, key=int)
            ]
    return layers


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _snake_case(name: str) -> str:
    """As Keras: ``SeparableConv2D`` is ``separable_conv2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _import(module: str) -> Any:
    """A package that only this room needs.

    Raises:
        ExtraMissingError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        package = module.split(".")[0]
        raise ExtraMissingError(
            f"Weight files of this kind need {package}, which is not installed. "
            "Install it by: pip install 'charles[pretrained]'"
        ) from err
