"""Xception as Keras Applications has it, without its top: feature maps before pooling.

References:
    Chollet, "Xception: deep learning with depthwise separable convolutions", 2017,
    https://arxiv.org/abs/1610.02357.
"""

import jax
from flax import nnx

from charles.nets.layers import ConvSpec, Norm, Plan, make_layers, narrow, require_size
from charles.nets.lowerings import max_pool, settle
from charles.nets.naming import KerasNames, TorchNames, name_in_keras, name_in_torch

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

    def __init__(self, channels: int, *, width: float = 1.0, rngs: nnx.Rngs) -> None:
        plan = narrow(make_plan(channels), width)
        self.num_features = plan["block14_sepconv2"].features
        self.layers = make_layers(plan, rngs=rngs)

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
            x = settle(x + y)
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


def timm_names() -> TorchNames:
    """Names of every variable in timm's ``legacy_xception``.

    Its weights are meant for an epsilon of 1e-5 and for centred windows in the four poolings.
    """
    names: TorchNames = {}
    for layer, spec in make_plan(3).items():
        block, _, part = layer.removeprefix("block").partition("_")
        number = int(part[-1]) if part[-1].isdigit() else 0
        if part == "shortcut":
            # timm counts from our second block, as the first has no shortcut.
            at = f"block{12 if block == '13' else int(block) - 1}"
            names |= name_in_torch(layer, spec, (f"{at}.skip",), f"{at}.skipbn")
        elif block == "1":
            names |= name_in_torch(layer, spec, (f"conv{number}",), f"bn{number}")
        elif block == "14":
            module = f"conv{number + 2}"
            kernels = (f"{module}.conv1", f"{module}.pointwise")
            names |= name_in_torch(layer, spec, kernels, f"bn{number + 2}")
        else:
            # Each separable convolution is followed by a norm and, but for the last, led by a ReLU;
            # that of the second block is rectified before the block.
            at = f"block{int(block) - 1}.rep"
            place = 3 * (number - 1) + (block != "2")
            kernels = (f"{at}.{place}.conv1", f"{at}.{place}.pointwise")
            names |= name_in_torch(layer, spec, kernels, f"{at}.{place + 1}")
    return names
