"""Convolutions and pooling, computed in the way that is fast on the platform.

On accelerators everything is XLA's own. On a CPU, XLA's grouped and depthwise convolutions and
their gradients are many times slower than the arithmetic takes, so there they are rewritten as
matrix products, sums of shifted arrays and plain convolutions. Each rewriting computes the same
function, values and gradients, as its counterpart ``*_by_xla``, up to rounding; figures are in
``benchmarks/bench_backbones.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
Padding = Literal["SAME", "VALID", "CENTRED"]
Pads = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

_PART_WIDTH = 32
"""About as many channels has a part that narrow groups are joined to; wider ones stay alone."""

_XLA_STRIDES = range(1, 129)
"""Channels for which XLA's own strided convolution is faster than gathering windows."""


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
    """Convolution ``[B, H, W, C]`` to ``[B, h, w, O]``.

    Args:
        x: float ``[B, H, W, C]``.
        kernel: float ``[kh, kw, C / groups, O]``, of the dtype of ``x``.
        stride: Along both axes.
        padding: See :func:`find_pads`.
        groups: Equal groups of channels that do not see each other.
    """
    pads = find_pads(x.shape[1:3], kernel.shape[:2], stride, padding)
    if not _is_on_cpu():
        return convolve_by_xla(x, kernel, stride, pads, groups)
    if groups > 1:
        y = convolve_in_parts(x, kernel, stride, pads, groups)
    elif kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        y = x[:, ::stride, ::stride] @ kernel[0, 0]
    else:
        y = convolve_densely(x, kernel, stride, pads)
    return _settle_gradient(y)


def convolve_depthwise(x: Array, kernel: Array, *, padding: Padding) -> Array:
    """Each channel filtered for itself, with stride 1: ``[B, H, W, C]`` to ``[B, h, w, C]``.

    Args:
        x: float ``[B, H, W, C]``.
        kernel: float ``[kh, kw, C, 1]``, of the dtype of ``x``.
        padding: See :func:`find_pads`.
    """
    pads = find_pads(x.shape[1:3], kernel.shape[:2], 1, padding)
    if not _is_on_cpu():
        return convolve_by_xla(x, kernel.transpose(0, 1, 3, 2), 1, pads, x.shape[-1])
    return _settle_gradient(convolve_by_shifts(x, kernel, pads))


def max_pool(x: Array, *, padding: Padding, size: int = 3, stride: int = 2) -> Array:
    """Maxima of windows ``[B, H, W, C]``; padding never wins."""
    pads = find_pads(x.shape[1:3], (size, size), stride, padding)
    pool = max_pool_by_xla if _has_pools() else max_pool_by_axis
    return pool(x, size, stride, pads)


def average_pool(x: Array, *, size: int = 3) -> Array:
    """Means of the windows around each position ``[B, H, W, C]``; padding does not count."""
    pads = find_pads(x.shape[1:3], (size, size), 1, "SAME")
    total = (sum_pool_by_xla if _has_pools() else sum_pool_by_axis)(x, size, pads)
    counts = [
        np.convolve(np.ones(n), np.ones(size))[size - 1 - pad[0] :][:n]
        for n, pad in zip(x.shape[1:3], pads, strict=True)
    ]
    shares = 1 / np.multiply.outer(*counts)
    return total * jnp.asarray(shares[..., None], x.dtype)


def settle(x: Array) -> Array:
    """``x`` as it is, but computed once, on a CPU.

    What several places of a window or several later sums read, XLA's fusion there computes again
    for each: a chain of residual sums from its start. It removes ``lax.optimization_barrier``
    before it fuses, and does not look into a loop; this one never runs, and works in place.
    """
    return _settle(x) if _is_on_cpu() else x


@jax.custom_vjp
def _settle(x: Array) -> Array:
    return lax.while_loop(lambda x: x[(0,) * x.ndim] < -jnp.inf, jnp.negative, x)


_settle.defvjp(lambda x: (_settle(x), None), lambda _, gradient: (gradient,))


@jax.custom_vjp
def _settle_gradient(x: Array) -> Array:
    """``x`` as it is; its gradient, which several products read, is computed once."""
    return x


_settle_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (_settle(gradient),))


def convolve_by_xla(x: Array, kernel: Array, stride: int, pads: Pads, groups: int = 1) -> Array:
    """Any convolution as XLA computes it."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


def convolve_in_parts(x: Array, kernel: Array, stride: int, pads: Pads, groups: int) -> Array:
    """A grouped convolution as one plain convolution for each few groups.

    Groups that are narrow are joined: a part's kernel then has zeros between its groups.
    """
    width = x.shape[-1] // groups
    num_parts = min(groups, max(1, round(x.shape[-1] / _PART_WIDTH)))
    ends = [groups * (part + 1) // num_parts for part in range(num_parts)]
    sizes = np.diff(ends, prepend=0).tolist()
    inputs = jnp.split(x, [end * width for end in ends[:-1]], axis=-1)
    kernels = jnp.split(kernel, [end * (kernel.shape[-1] // groups) for end in ends[:-1]], axis=-1)
    parts = [
        convolve_densely(x, _join_groups(kernel, joined), stride, pads)
        for x, kernel, joined in zip(inputs, kernels, sizes, strict=True)
    ]
    return jnp.concatenate(parts, axis=-1)


def _join_groups(kernel: Array, joined: int) -> Array:
    """One kernel ``[kh, kw, joined * width, O]`` for all groups, zero between them."""
    height, width, channels, features = kernel.shape
    split = kernel.reshape(height, width, channels, joined, features // joined)
    same = jnp.eye(joined, dtype=kernel.dtype)
    # h w: place, c: channel in its group, j: group of the output, i: of the input.
    return jnp.einsum("hwcjf,ij->hwicjf", split, same).reshape(
        height, width, joined * channels, features
    )


def _forward_densely(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    if stride == 1 or x.shape[-1] in _XLA_STRIDES:
        return convolve_by_xla(x, kernel, stride, pads)
    columns = jnp.concatenate(list(_windows(x, kernel.shape[:2], stride, pads)), axis=-1)
    return columns @ kernel.reshape(-1, kernel.shape[-1])


def _keep_densely(
    x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return _forward_densely(x, kernel, stride, pads), (x, kernel)


def _pull_densely(
    stride: int, pads: Pads, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    _, pull = jax.vjp(lambda x: convolve_by_xla(x, kernel, stride, pads), x)
    features = gradient.reshape(-1, gradient.shape[-1])
    products = [
        window.reshape(-1, window.shape[-1]).T @ features
        for window in _windows(x, kernel.shape[:2], stride, pads)
    ]
    return pull(gradient)[0], jnp.stack(products).reshape(kernel.shape)


convolve_densely: Any = jax.custom_vjp(_forward_densely, nondiff_argnums=(2, 3))
"""A convolution of one group; its gradient by the kernel is a product for each place in it."""
convolve_densely.defvjp(_keep_densely, _pull_densely)


def _forward_by_shifts(x: Array, kernel: Array, pads: Pads) -> Array:
    places = kernel[..., 0].reshape(-1, x.shape[-1])
    windows = _windows(x, kernel.shape[:2], 1, pads)
    return reduce(jnp.add, (window * place for window, place in zip(windows, places, strict=True)))


def _keep_by_shifts(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _forward_by_shifts(x, kernel, pads), (x, kernel)


def _pull_by_shifts(pads: Pads, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    height, width = kernel.shape[:2]
    (top, bottom), (left, right) = pads
    back = (height - 1 - top, height - 1 - bottom), (width - 1 - left, width - 1 - right)
    places = [
        jnp.sum(window * gradient, axis=(0, 1, 2))
        for window in _windows(x, (height, width), 1, pads)
    ]
    return _forward_by_shifts(gradient, kernel[::-1, ::-1], back), jnp.stack(places).reshape(
        kernel.shape
    )


convolve_by_shifts: Any = jax.custom_vjp(_forward_by_shifts, nondiff_argnums=(2,))
"""A depthwise convolution of stride 1 as a sum over places in the kernel."""
convolve_by_shifts.defvjp(_keep_by_shifts, _pull_by_shifts)


def max_pool_by_xla(x: Array, size: int, stride: int, pads: Pads) -> Array:
    """Maxima as XLA computes them."""
    shape, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, ((0, 0), *pads, (0, 0)))


def max_pool_by_axis(x: Array, size: int, stride: int, pads: Pads) -> Array:
    """Maxima over rows, then over columns."""
    return _pool_by_axis(x, size, stride, pads, jnp.maximum, -jnp.inf)


def sum_pool_by_xla(x: Array, size: int, pads: Pads) -> Array:
    """Sums of windows, with stride 1, as XLA computes them."""
    shape = (1, size, size, 1)
    return lax.reduce_window(x, 0.0, lax.add, shape, (1, 1, 1, 1), ((0, 0), *pads, (0, 0)))


def sum_pool_by_axis(x: Array, size: int, pads: Pads) -> Array:
    """Sums over rows, then over columns."""
    return _pool_by_axis(x, size, 1, pads, jnp.add, 0.0)


def _pool_by_axis(
    x: Array,
    size: int,
    stride: int,
    pads: Pads,
    combine: Callable[[Array, Array], Array],
    filler: float,
) -> Array:
    rows = reduce(combine, _windows(x, (size, 1), stride, (pads[0], (0, 0)), filler, columns=1))
    return reduce(combine, _windows(rows, (1, size), stride, ((0, 0), pads[1]), filler, rows=1))


def _windows(
    x: Array,
    size: tuple[int, ...],
    stride: int,
    pads: Pads,
    filler: float = 0.0,
    *,
    rows: int | None = None,
    columns: int | None = None,
) -> Iterator[Array]:
    """What each place of a window sees, ``[B, h, w, C]``, row by row.

    Args:
        x: ``[B, H, W, C]``.
        size: Of the window.
        stride: Of the window.
        pads: Around ``x``.
        filler: What is padded.
        rows: Stride along rows, if another.
        columns: Stride along columns, if another.
    """
    if any(map(any, pads)):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=filler)
    x = settle(x)
    strides = rows or stride, columns or stride
    height, width = (
        (n - k) // step * step + 1 for n, k, step in zip(x.shape[1:3], size, strides, strict=True)
    )
    for top in range(size[0]):
        for left in range(size[1]):
            yield x[:, top : top + height : strides[0], left : left + width : strides[1]]


def _is_on_cpu() -> bool:
    return jax.default_backend() == "cpu" and not _IS_EXPORTING.get()


def _has_pools() -> bool:
    return jax.default_backend() != "cpu" and not _IS_EXPORTING.get()


_IS_EXPORTING: ContextVar[bool] = ContextVar("is_exporting", default=False)


@contextmanager
def exporting() -> Iterator[None]:
    """Trace for a runtime other than XLA: plain convolutions, of which it has fast ones of its own,
    and no windows that are reduced, which exporters do not know for channels last."""
    token = _IS_EXPORTING.set(True)
    try:
        yield
    finally:
        _IS_EXPORTING.reset(token)


@cache
def heavy_options() -> dict[str, str | bool]:
    """How XLA is to compile the inference of a large backbone; empty for as usual.

    On a CPU, XLA hands products and convolutions to a library of its own for small kernels, by
    which InceptionResNetV2 takes a quarter more time, and a small network less. A version of XLA
    that does not know the option, or needs none, gets none.
    """
    options: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}
    if not _is_on_cpu():
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=options)(0.0)
    except Exception:  # what an unknown option raises differs between versions
        return {}
    return options
