"""Makes ``timm_reference.npz``: names and shapes of timm's tensors, and what its networks compute.

Run by hand, in an environment of its own, whenever the cases change::

    python -m venv timm && timm/bin/pip install timm
    timm/bin/python tests/nets/make_timm_reference.py

Weights and images follow from their names (``reference_weights.py``), so only results are kept:
``<network>/tensors`` has a line of name and shape for each tensor of a weight file, and
``<network>/features`` the maps ``[B, h, w, 16]``, projected on random directions.
"""

from pathlib import Path

import numpy as np
import timm
import torch
from reference_weights import TIMM_IMAGES, make_images, make_tensor, project

EPSILON = 1e-3
"""Of our norms, as Keras has it; in timm's ``legacy_xception`` it is 1e-5."""


def fill(model):
    """Weights by their names, except those that only count batches."""
    state = model.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(make_tensor(name, tuple(tensor.shape), state)))


def run_case(name, shape):
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    fill(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = EPSILON
    images = torch.from_numpy(make_images(shape).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        maps = torch.relu(model.forward_features(images)).permute(0, 2, 3, 1).numpy()
    print(name, maps.shape, maps.std())
    state = {key: value for key, value in model.state_dict().items() if value.ndim}
    return {
        f"{name}/tensors": np.array([f"{key} {list(value.shape)}" for key, value in state.items()]),
        f"{name}/features": project(maps, 16).astype(np.float32),
    }


def main():
    results = {}
    for name, shape in TIMM_IMAGES.items():
        results |= run_case(name, shape)
    path = Path(__file__).with_name("timm_reference.npz")
    np.savez_compressed(path, **results)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
