"""From stored pixels to the network's image, inside the jitted step.

Sky and bonnet are cut off; the rest is averaged over areas (never sampled, so thin things stay
visible) and only then converted to RGB: on pictures a ninth of the size the conversion costs next
to nothing. Averaging is two sums: over rows, a few weighted rows each; over columns, one small
matrix that repeats along the row and makes RGB in the same multiplication.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from charles.config import NetworkConfig
from charles.errors import require
from charles.sample import SampleSpec

Array = jax.Array

_LEAST_BLOCK = 8
"""Fewest output pixels of a column block; smaller ones waste the vector unit, larger ones work."""

# ITU-R BT.601, limited range: luma 16..235, chroma 16..240 around 128.
_LUMA_GAIN = 255 / 219
_YUV_TO_RGB = {
    "y": np.array([_LUMA_GAIN, _LUMA_GAIN, _LUMA_GAIN]),
    "u": np.array([0.0, -0.391762, 2.017232]),
    "v": np.array([1.596027, -0.812968, 0.0]),
}
_RGB_OFFSET = -16 * _YUV_TO_RGB["y"] - 128 * (_YUV_TO_RGB["u"] + _YUV_TO_RGB["v"])


def image_shape(config: NetworkConfig, num_frames: int = 1) -> tuple[int, int, int]:
    """``(h, w, 3 F)`` of the network's image: the input size less the rows cut off."""
    return (len(_kept_rows(config)), config.input_width, 3 * num_frames)


def check_size(config: NetworkConfig, sample: SampleSpec) -> None:
    """Refuse an input size that the frame cannot be averaged down to.

    Raises:
        ConfigError: The input is larger than the frame.
    """
    for name in ("height", "width"):
        wanted, given = getattr(config, f"input_{name}"), getattr(sample, name)
        rule = f"lie in 1..{given}, the frame's {name}"
        require(0 < wanted <= given, f"network.input_{name}", rule, wanted)


def make_image(pixels: Array, config: NetworkConfig, sample: SampleSpec) -> Array:
    """The network's image from stored pixels: cut, averaged down, RGB.

    Args:
        pixels: uint8 ``[B, H, W, 3]`` for ``rgb``, ``[B, H * 3 / 2, W]`` (I420) for ``yuv420``;
            with ``F`` behind ``B`` for samples of several pictures.
        config: Gives input size and cut.
        sample: Gives frame size and pixel format.

    Returns:
        float32 ``[B, h, w, 3 F]`` in [-1, 1]; the oldest picture's channels come first.
    """
    if sample.num_frames > 1:
        each = make_image(
            pixels.reshape(-1, *pixels.shape[2:]), config, replace(sample, num_frames=1)
        )
        stacked = each.reshape(pixels.shape[0], sample.num_frames, *each.shape[1:])
        return jnp.moveaxis(stacked, 1, 3).reshape(
            pixels.shape[0], *image_shape(config, sample.num_frames)
        )
    batch, height, width = pixels.shape[0], sample.height, sample.width
    if sample.pixel_format == "rgb":
        rows = pixels.reshape(batch, height, width * 3)
        image = _planes_to_rgb([(rows, np.eye(3))], config)
    else:
        luma = pixels[:, :height]
        chroma = pixels[:, height:].reshape(batch, 2, height // 2, width // 2)
        planes = [(luma, _YUV_TO_RGB["y"][None])]
        planes += [(chroma[:, 0], _YUV_TO_RGB["u"][None]), (chroma[:, 1], _YUV_TO_RGB["v"][None])]
        image = _planes_to_rgb(planes, config) + jnp.tile(_RGB_OFFSET, config.input_width)
    image = jnp.clip(image.astype(jnp.float32), 0, 255) / 127.5 - 1
    return image.reshape(batch, *image_shape(config))


def area_weights(source: int, target: int) -> np.ndarray:
    """How much of each source pixel lies in each target pixel: float64 ``[target, source]``.

    Rows sum to 1; this is exact averaging over areas for any ratio of the two sizes.
    """
    edges = np.arange(target + 1) * (source / target)
    left, right, pixel = edges[:-1, None], edges[1:, None], np.arange(source)
    overlap = np.minimum(right, pixel + 1) - np.maximum(left, pixel)
    return np.clip(overlap, 0, None) * (target / source)


def _kept_rows(config: NetworkConfig) -> range:
    height = config.input_height
    first = min(round(config.crop_top * height), height - 1)
    return range(first, max(first + 1, height - round(config.crop_bottom * height)))


def _planes_to_rgb(planes: Sequence[tuple[Array, np.ndarray]], config: NetworkConfig) -> Array:
    """Sum of the planes' shares in RGB, ``[B, h, w * 3]``.

    Each plane is uint8 ``[B, H, W * channels]`` with a colour matrix ``[channels, 3]``.
    """
    height, width = config.input_height, config.input_width
    parts = []
    for plane, colours in planes:
        weights = area_weights(plane.shape[1], height)[_kept_rows(config)]
        parts.append(_average_columns(_average_rows(plane, weights), colours, width))
    return reduce(operator.add, parts)


def _average_rows(plane: Array, weights: np.ndarray) -> Array:
    """Weighted sums of rows, float32 ``[B, h, W]``, from uint8 ``[B, H, W]``, ``weights [h, H]``.

    Only the few rows that count are read for each sum; a dense product is many times slower.
    """
    first = np.argmax(weights > 0, axis=1)
    num_taps = int((weights > 0).sum(axis=1).max())
    taps = np.minimum(first[:, None] + np.arange(num_taps), weights.shape[1] - 1)
    shares = np.take_along_axis(weights, taps, axis=1)
    shares[:, 1:][np.diff(taps, axis=1) == 0] = 0.0  # a tap clamped to the last row counts once
    shares = shares.astype(np.float32)
    total = jnp.zeros((plane.shape[0], len(taps), plane.shape[2]), jnp.float32)
    for k in range(num_taps):
        total += plane[:, _as_slice(taps[:, k])].astype(jnp.float32) * shares[:, k, None]
    return total


def _as_slice(rows: np.ndarray) -> slice | np.ndarray:
    """A strided slice where the rows are evenly spaced: a plain read instead of a gather."""
    steps = np.unique(np.diff(rows))
    if len(steps) == 1 and steps[0] > 0:
        return slice(int(rows[0]), int(rows[-1]) + 1, int(steps[0]))
    return rows


def _average_columns(rows: Array, colours: np.ndarray, width: int) -> Array:
    """Average along a row and convert to RGB: ``[B, h, W * channels]`` to ``[B, h, width * 3]``.

    The averaging pattern repeats with the greatest common divisor of the two widths, so one small
    matrix serves every block of the row.
    """
    channels = colours.shape[0]
    source = rows.shape[-1] // channels
    blocks = _num_blocks(source, width)
    weights = area_weights(source // blocks, width // blocks)
    matrix = np.kron(weights.T, colours).astype(np.float32)
    out = rows.reshape(*rows.shape[:-1], blocks, -1) @ matrix
    return out.reshape(*rows.shape[:-1], width * 3)


def _num_blocks(source: int, target: int) -> int:
    """Most blocks that both widths divide into with at least ``_LEAST_BLOCK`` target pixels."""
    common = int(np.gcd(source, target))
    counts = [n for n in range(1, common + 1) if common % n == 0 and target // n >= _LEAST_BLOCK]
    return max(counts, default=1)
