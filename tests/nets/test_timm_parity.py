"""Weight files of timm load, and compute what timm's own networks do.

``make_timm_reference.py`` says what the reference is. timm's ``legacy_xception`` has norms with
another epsilon, and pools in centred windows: neither is in a weight file, so the reference was
made with our epsilon and with images whose maps are of odd size.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from tests.nets.reference_weights import TIMM_IMAGES, make_images, make_tensor, project

from charles.nets import zoo
from charles.nets.pretrained import load_backbone

REFERENCE = np.load(Path(__file__).with_name("timm_reference.npz"), allow_pickle=False)
MODELS = {
    "legacy_xception": zoo.BACKBONES["xception"],
    "inception_resnet_v2": zoo.BACKBONES["inceptionresnetv2"],
}


def write_weights(name, path):
    """The file that timm would write: every tensor that it has, in its names and shapes."""
    lines = [line.split(" ", 1) for line in REFERENCE[f"{name}/tensors"].tolist()]
    names = {tensor for tensor, _ in lines}
    save_file(
        {tensor: make_tensor(tensor, tuple(json.loads(shape)), names) for tensor, shape in lines},
        path,
    )


def loaded(backbone, path):
    """The backbone with a file's weights, every variable of them."""
    arrays = load_backbone(path, backbone.keras_names(), backbone.torch_names())
    module = nnx.eval_shape(lambda: backbone.make(3, rngs=nnx.Rngs(0)))
    structure, state = nnx.split(module)
    flat = nnx.to_flat_state(state)
    assert {"/".join(path) for path, _ in flat} == set(arrays)
    filled = [(path, leaf.replace(jnp.asarray(arrays["/".join(path)]))) for path, leaf in flat]
    assert all(new.shape == old.shape for (_, new), (_, old) in zip(filled, flat, strict=True))
    return structure, nnx.from_flat_state(filled)


@pytest.mark.timeout(300)  # where cores are shared, the larger one takes two minutes
@pytest.mark.parametrize(
    "name", ["legacy_xception", pytest.param("inception_resnet_v2", marks=pytest.mark.slow)]
)
def test_a_file_of_timm_loads_whole_and_computes_what_timm_does(name, tmp_path):
    path = tmp_path / f"{name}.safetensors"
    write_weights(name, path)
    structure, state = loaded(MODELS[name], path)
    path.unlink()  # a hundred megabytes
    run = jax.jit(lambda state, image: nnx.merge(structure, state)(image, is_training=False))
    ours = project(np.asarray(run(state, make_images(TIMM_IMAGES[name]))), 16)
    reference = REFERENCE[f"{name}/features"]
    assert ours.shape == reference.shape
    error = np.linalg.norm(ours - reference) / np.linalg.norm(reference)
    print(name, error)
    assert error <= 1e-4
