"""What the variables of a backbone are called where its weights come from.

A variable's path is ``layers/<layer>/<variable>`` (a norm's: ``layers/<layer>/norm/<variable>``),
relative to the backbone.
"""

from collections.abc import Callable, Iterator

from charles.nets.layers import ConvSpec, Plan

KerasNames = dict[str, tuple[str, int]]
"""Path to Keras' layer and the index among the weights of that layer."""

TorchNames = dict[str, tuple[str, tuple[int, ...] | None]]
"""Path to a tensor's name and the axes by which it is to be transposed, ``None`` for none."""

FROM_TORCH = (2, 3, 1, 0)
"""``[O, I, h, w]`` to ``[h, w, I, O]``."""
DEPTHWISE_FROM_TORCH = (2, 3, 0, 1)
"""``[C, 1, h, w]`` to ``[h, w, C, 1]``."""

_TORCH_NORM = {
    "scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var",
}  # fmt: skip


def name_in_keras(plan: Plan, is_named: Callable[[str], bool]) -> KerasNames:
    """Names that Keras gives to the variables of a plan.

    Args:
        plan: In the order in which Keras creates the layers.
        is_named: Whether Keras gives a layer the plan's name, and its norm the same with ``_bn``.
            All others are numbered as they are created: ``conv2d``, ``conv2d_1`` and so on. Keras
            counts through all models of a process, and older files count from 1: what holds is the
            order of the numbers.
    """
    names: KerasNames = {}
    counts = {"conv2d": 0, "batch_normalization": 0}

    def number(kind: str) -> str:
        counts[kind] += 1
        return kind if counts[kind] == 1 else f"{kind}_{counts[kind] - 1}"

    for layer, spec in plan.items():
        conv = layer if is_named(layer) else number("conv2d")
        kernels = kernels_of(spec)
        names |= {f"layers/{layer}/{kernel}": (conv, i) for i, kernel in enumerate(kernels)}
        if spec.norm is None:
            names[f"layers/{layer}/norm/bias"] = (conv, len(kernels))
            continue
        norm = f"{layer}_bn" if is_named(layer) else number("batch_normalization")
        variables = variables_of_norm(spec)
        names |= {f"layers/{layer}/norm/{each}": (norm, i) for i, each in enumerate(variables)}
    return names


def name_in_torch(layer: str, spec: ConvSpec, kernels: tuple[str, ...], norm: str) -> TorchNames:
    """Names of one layer's variables in a PyTorch state dict.

    Args:
        layer: Its name in the plan.
        spec: The layer.
        kernels: Modules in PyTorch that hold its kernels, in our order.
        norm: The module that holds its norm, or its bias where it has no norm.
    """
    names: TorchNames = {}
    for kernel, module in zip(kernels_of(spec), kernels, strict=True):
        axes = DEPTHWISE_FROM_TORCH if kernel == "depthwise" else FROM_TORCH
        names[f"layers/{layer}/{kernel}"] = (f"{module}.weight", axes)
    for variable in variables_of_norm(spec):
        tensor = _TORCH_NORM[variable]
        names[f"layers/{layer}/norm/{variable}"] = (f"{norm}.{tensor}", None)
    return names


def kernels_of(spec: ConvSpec) -> tuple[str, ...]:
    """Names of a layer's kernels, in Keras' order."""
    return ("depthwise", "pointwise") if spec.is_separable else ("kernel",)


def variables_of_norm(spec: ConvSpec) -> tuple[str, ...]:
    """Names of the variables of a layer's norm, or its bias, in Keras' order."""
    return tuple(_variables_of_norm(spec))


def _variables_of_norm(spec: ConvSpec) -> Iterator[str]:
    if spec.norm is not None and spec.norm.has_scale:
        yield "scale"
    yield "bias"
    if spec.norm is not None:
        yield "mean"
        yield "variance"
