"""Weight files of Keras and timm find their places, whatever Keras numbered its layers from."""

import json
import zipfile
import zlib
from io import BytesIO

import h5py
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from charles.errors import CheckpointError, ConfigError
from charles.models import find_model
from charles.nets.backbones import backbone_of
from charles.nets.functional import abstract_module
from charles.nets.pretrained import load_backbone, save_backbone
from charles.nets.xception import Xception


def variables_of_xception():
    """Arrays of every variable by our path, each with numbers of its own."""
    module = abstract_module(lambda rngs: Xception(3, rngs=rngs))
    from flax import nnx

    _, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    arrays = {}
    for tree in (params, stats):
        leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(tree))
        for path, leaf in leaves:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            # A block of equal numbers is enough to be told apart, and quick to make.
            arrays[name] = np.full(leaf.shape, rng.normal(), np.float32)
            arrays[name].flat[0] = rng.normal()
    return arrays


ARRAYS = variables_of_xception()
BACKBONE = backbone_of(find_model("model_0003_xception_v1"))
KERAS, TORCH = BACKBONE.keras_names(), BACKBONE.torch_names()


def keras_layers(first=0):
    """Layers as Keras keeps them, numbered from ``first`` on: weights in its own order."""
    layers = {}
    for ours, (layer, index) in KERAS.items():
        for kind in ("conv2d", "batch_normalization"):
            if layer == kind or layer.startswith(kind + "_"):
                number = int(layer.removeprefix(kind).lstrip("_") or 0) + first
                layer = f"{kind}_{number}" if number else kind
                break
        layers.setdefault(layer, {})[index] = ARRAYS[ours]
    return {name: [found[i] for i in sorted(found)] for name, found in layers.items()}


def assert_same(found):
    assert found.keys() == ARRAYS.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, ARRAYS[name], err_msg=name)


@pytest.mark.parametrize("first", [0, 1, 7, 96])
def test_a_weight_file_of_keras_is_found_by_names_and_by_order(first, tmp_path):
    path = tmp_path / "xception.h5"
    layers = keras_layers(first)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in sorted(layers)]
        for layer, weights in layers.items():
            group = file.create_group(layer)
            names = [f"{layer}/weight_{i}:0" for i in range(len(weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, weights, strict=True):
                group[name] = value
    assert_same(load_backbone(path, KERAS, TORCH))


def test_a_keras_archive_is_found_by_what_its_configuration_says(tmp_path):
    path = tmp_path / "xception.keras"
    layers = keras_layers(5)
    kinds = {}
    content, config = BytesIO(), []
    with h5py.File(content, "w") as file:
        for layer, weights in layers.items():
            kind = "BatchNormalization" if len(weights) == 4 else "Conv2D"
            if len(weights) == 2:
                kind = "SeparableConv2D"
            snake = {"BatchNormalization": "batch_normalization", "Conv2D": "conv2d",
                     "SeparableConv2D": "separable_conv2d"}[kind]  # fmt: skip
            number = kinds.get(snake, 0)
            kinds[snake] = number + 1
            place = f"layers/{snake}_{number}/vars" if number else f"layers/{snake}/vars"
            for i, value in enumerate(weights):
                file[f"{place}/{i}"] = value
            config.append({"class_name": kind, "config": {"name": layer}})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": config}}))
        archive.writestr("model.weights.h5", content.getvalue())
    assert_same(load_backbone(path, KERAS, TORCH))


def test_what_is_written_for_timm_comes_back_and_lies_as_pytorch_has_it(tmp_path):
    path = tmp_path / "xception.safetensors"
    save_backbone(path, ARRAYS, TORCH)
    assert not list(tmp_path.glob("*.partial"))
    assert_same(load_backbone(path, KERAS, TORCH))
    tensors = load_file(path)
    assert tensors["conv1.weight"].shape == (32, 3, 3, 3)
    assert tensors["block1.rep.0.conv1.weight"].shape == (64, 1, 3, 3)
    np.testing.assert_array_equal(
        tensors["conv1.weight"], ARRAYS["layers/block1_conv1/kernel"].transpose(3, 2, 0, 1)
    )


def test_a_file_of_another_architecture_gives_what_it_has_and_no_more(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"fc.weight": np.zeros((3, 3), np.float32)}, path)
    assert load_backbone(path, KERAS, TORCH) == {}


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".safetensors"])
def test_a_damaged_file_is_named(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match=f"weights{suffix} must be a whole"):
        load_backbone(path, KERAS, TORCH)


def test_a_file_that_names_no_layers_says_how_to_save_it(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 32), np.float32)
    with pytest.raises(CheckpointError, match=r"save the model as \.keras"):
        load_backbone(path, KERAS, TORCH)


def test_a_pickle_is_not_even_opened(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in .*got 'weights.pth'"):
        load_backbone(tmp_path / "weights.pth", KERAS, TORCH)
