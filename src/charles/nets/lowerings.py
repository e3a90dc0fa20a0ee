"""How convolutions and pooling are computed."""

from typing import Literal

import jax
import jax.numpy as jnp

Array = jax.Array
Padding = Literal["SAME", "VALID", "CENTRED"]
Pads = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def find_pads(shape: tuple[int, ...], size: tuple[int, ...], stride: int, padding: Padding) -> Pads:
    """Rows and columns of padding before and after.

    Args:
        shape: Height and width of the input.
        size: Of the window.
        stride: Of the window.
        padding: ``VALID``: none. ``SAME``: as much as makes the output ``ceil(input / stride)``,
            the odd one at the bottom and the right. ``CENTRED``: half a window all round.
    """
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "CENTRED":
        return (size[0] // 2, size[0] // 2), (size[1] // 2, size[1] // 2)
    rows, columns = (
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(shape, size, strict=True)
    )
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def convolve(x: Array, kernel: Array, *, stride: int, padding: Padding, groups: int = 1) -> Array:
    pads = find_pads(x.shape[1:3], kernel.shape[:2], stride, padding)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


def convolve_depthwise(x: Array, kernel: Array, *, padding: Padding = "SAME") -> Array:
    kernel = kernel.transpose(0, 1, 3, 2)
    return convolve(x, kernel, stride=1, padding=padding, groups=x.shape[-1])


def max_pool(x: Array, *, size: int = 3, stride: int = 2, padding: Padding) -> Array:
    pads = find_pads(x.shape[1:3], (size, size), stride, padding)
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        (1, size, size, 1),
        (1, stride, stride, 1),
        ((0, 0), *pads, (0, 0)),
    )


def average_pool(x: Array, *, size: int = 3) -> Array:
    pads = find_pads(x.shape[1:3], (size, size), 1, "SAME")
    total = jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, size, size, 1), (1, 1, 1, 1), ((0, 0), *pads, (0, 0))
    )
    count = jax.lax.reduce_window(
        jnp.ones(x.shape[1:3]), 0.0, jax.lax.add, (size, size), (1, 1), pads
    )
    return total / count[..., None]
