"""Weights and images that a name determines, alike here and where the reference was made.

Needs NumPy only: the environment with Keras has nothing of ours.
"""

import zlib

import numpy as np

_GAINS = {"depthwise_kernel": 1, "pointwise_kernel": 1}
"""Square gains of kernels that are not plain ones; what is rectified is alike all round a pixel."""


LSTM_SHAPE = (3, 13, 5)
"""Of the sequences that the LSTM of the reference reads: ``[B, T, D]``."""

LSTM_UNITS = (7, 6)
"""Widths of its layers."""


TIMM_IMAGES = {"legacy_xception": (2, 71, 103, 3), "inception_resnet_v2": (2, 112, 141, 3)}
"""Shapes of the images. Where timm pads a pooling on both sides and Keras only where it must, the
two agree on maps of odd size: every map that Xception pools is one."""


def make_generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def make_weight(layer, variable, shape):
    """A weight float32 by Keras' name of its layer and Keras' name of the variable.

    Kernels keep rectified activations of unit order; nothing is 0 or 1.
    """
    random = make_generator(f"{layer}/{variable}")
    if variable in ("gamma", "moving_variance"):
        return random.uniform(0.8, 1.25, shape).astype(np.float32)
    values = random.standard_normal(shape)
    if variable in ("beta", "moving_mean", "bias"):
        return (0.1 * values).astype(np.float32)
    fan_in = np.prod(shape[:2]) if variable == "depthwise_kernel" else np.prod(shape[:-1])
    return (values * np.sqrt(_GAINS.get(variable, 2) / fan_in)).astype(np.float32)


def make_tensor(name, shape, names):
    """A tensor float32 by timm's name; ``names`` are those of its whole file.

    InceptionResNetV2 has scales of 1, as the published weights do.
    """
    module, _, kind = name.rpartition(".")
    random = make_generator(name)
    is_norm = f"{module}.running_var" in names
    if is_norm and kind == "weight" and module.endswith(".bn"):
        return np.ones(shape, np.float32)
    if kind == "running_var" or (is_norm and kind == "weight"):
        return random.uniform(0.8, 1.25, shape).astype(np.float32)
    values = random.standard_normal(shape)
    if kind in ("running_mean", "bias"):
        return (0.1 * values).astype(np.float32)
    gain = 1 if shape[1] == 1 else 2
    return (values * np.sqrt(gain / np.prod(shape[1:]))).astype(np.float32)


def make_images(shape):
    return make_generator(f"images {shape}").uniform(-1, 1, shape).astype(np.float32)


def project(values, columns):
    """Values ``[..., F]`` in float64 on ``columns`` random directions, ``[..., columns]``."""
    features = values.shape[-1]
    directions = make_generator(f"directions {features}").standard_normal((features, columns))
    return values.astype(np.float64) @ (directions / np.sqrt(features))
