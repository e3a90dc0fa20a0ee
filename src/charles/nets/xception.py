"""Xception as Keras Applications has it, without its top: feature maps before pooling.

References:
    Chollet, "Xception: deep learning with depthwise separable convolutions", 2017,
    https://arxiv.org/abs/1610.02357.
"""

import jax
from flax import nnx

from charles.nets.layers import ConvSpec, Norm, Plan, make_layers, require_size
from charles.nets.lowerings import max_pool
from charles.nets.naming import KerasNames, name_in_keras

Array = jax.Array

MIN_SIZE = 71
"""Least height and width of an image, as in Keras."""

_NORM = Norm()
_ENTRY = {2: 128, 3: 256, 4: 728}
"""Features of the blocks that halve the maps on the way in."""
_MIDDLE = range(5, 13)
_EXIT = 13
"""The last block that halves the maps."""


class Xception(nnx.Module):
    """From images to ``[B, h, w, 2048]``; 20,861,480 parameters for three channels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.num_features = 2048
        self.layers = make_layers(make_plan(channels), rngs=rngs)

    def __call__(self, image: Array, *, is_training: bool) -> Array:
        """Feature maps ``[B, h, w, 2048]`` from ``[B, H, W, channels]``, dtype kept.

        Raises:
            ConfigError: The image is smaller than ``MIN_SIZE``.
        """
        require_size(image, MIN_SIZE)

        def run(name: str, x: Array) -> Array:
            return self.layers[name](x, is_training=is_training)

        def halve(block: int, x: Array) -> Array:
            # Keras rectifies the input of every block but the first, which is rectified already.
            y = run(f"block{block}_sepconv1", x if block == 2 else jax.nn.relu(x))
            y = run(f"block{block}_sepconv2", jax.nn.relu(y))
            return max_pool(y, padding="SAME") + run(f"block{block}_shortcut", x)

        x = jax.nn.relu(run("block1_conv1", image))
        x = jax.nn.relu(run("block1_conv2", x))
        for block in _ENTRY:
            x = halve(block, x)
        for block in _MIDDLE:
            y = x
            for index in (1, 2, 3):
                y = run(f"block{block}_sepconv{index}", jax.nn.relu(y))
            x = x + y
        x = halve(_EXIT, x)
        for index in (1, 2):
            x = jax.nn.relu(run(f"block14_sepconv{index}", x))
        return x


def make_plan(channels: int) -> Plan:
    """Every layer with weights, in the order in which Keras makes them."""
    plan = {
        "block1_conv1": ConvSpec(
            channels=channels, features=32, size=(3, 3), stride=2, padding="VALID", norm=_NORM
        ),
        "block1_conv2": ConvSpec(
            channels=32, features=64, size=(3, 3), padding="VALID", norm=_NORM
        ),
    }
    channels = 64
    for block, features in _ENTRY.items():
        plan |= _plan_halving(block, channels, (features, features))
        channels = features
    for block in _MIDDLE:
        for index in (1, 2, 3):
            plan[f"block{block}_sepconv{index}"] = _separable(channels, channels)
    plan |= _plan_halving(_EXIT, channels, (728, 1024))
    plan["block14_sepconv1"] = _separable(1024, 1536)
    plan["block14_sepconv2"] = _separable(1536, 2048)
    return plan


def _plan_halving(block: int, channels: int, features: tuple[int, int]) -> Plan:
    middle, last = features
    return {
        f"block{block}_shortcut": ConvSpec(channels=channels, features=last, stride=2, norm=_NORM),
        f"block{block}_sepconv1": _separable(channels, middle),
        f"block{block}_sepconv2": _separable(middle, last),
    }


def _separable(channels: int, features: int) -> ConvSpec:
    return ConvSpec(
        channels=channels, features=features, size=(3, 3), is_separable=True, norm=_NORM
    )


def keras_names() -> KerasNames:
    """Keras' name of every variable; the shortcuts are what Keras numbers."""
    return name_in_keras(make_plan(3), lambda layer: not layer.endswith("_shortcut"))
