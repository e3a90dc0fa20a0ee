"""Pixels to image."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charles.config import NetworkConfig
from charles.errors import ConfigError
from charles.nets.preprocess import area_weights, check_size, image_shape, make_image
from charles.sample import SampleSpec

HEIGHT, WIDTH = 54, 96


def picture(seed: int = 0, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth colour picture without saturated colours, uint8 ``[H, W, 3]``."""
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 190, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def reference(rgb: np.ndarray, config: NetworkConfig) -> np.ndarray:
    """What OpenCV makes of a frame: average down at full size, then cut."""
    size = (config.input_width, config.input_height)
    averaged = cv2.resize(rgb.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    bottom = config.input_height - round(config.crop_bottom * config.input_height)
    return averaged[round(config.crop_top * config.input_height) : bottom]


def as_levels(image: jax.Array) -> np.ndarray:
    return (np.asarray(image) + 1) * 127.5


SIZES = [(18, 32), (27, 48), (20, 31), (54, 96), (17, 40)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_rgb_matches_opencv_area_averaging(height, width):
    config = NetworkConfig(input_height=height, input_width=width)
    sample = SampleSpec(height=HEIGHT, width=WIDTH, pixel_format="rgb")
    frames = np.stack([picture(seed) for seed in range(3)])
    image = jax.jit(lambda pixels: make_image(pixels, config, sample))(frames)
    assert image.shape == (3, *image_shape(config))
    for frame, made in zip(frames, as_levels(image), strict=True):
        np.testing.assert_allclose(made, reference(frame, config), atol=0.02)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_yuv420_matches_opencv_conversion_within_rounding(height, width):
    config = NetworkConfig(input_height=height, input_width=width, crop_bottom=0.15)
    sample = SampleSpec(height=HEIGHT, width=WIDTH, pixel_format="yuv420")
    frames = np.stack([cv2.cvtColor(picture(seed), cv2.COLOR_RGB2YUV_I420) for seed in range(3)])
    image = jax.jit(lambda pixels: make_image(pixels, config, sample))(frames)
    for frame, made in zip(frames, as_levels(image), strict=True):
        expected = reference(cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420), config)
        # OpenCV rounds every full-size pixel; here nothing is rounded.
        np.testing.assert_allclose(made, expected, atol=0.75)


def test_every_pixel_counts_when_averaging():
    config = NetworkConfig(input_height=18, input_width=32, crop_top=0)
    sample = SampleSpec(height=HEIGHT, width=WIDTH, pixel_format="rgb")
    frame = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    frame[0, :, 40] = 90  # a post one pixel wide
    made = as_levels(make_image(jnp.asarray(frame), config, sample))
    np.testing.assert_allclose(made[0, :, 13], 30, atol=1e-3)
    assert np.count_nonzero(made > 0.5) == 18 * 3


def test_area_weights_cover_every_source_pixel_alike():
    weights = area_weights(270, 97)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights.sum(axis=0), 97 / 270)


def test_input_larger_than_the_frame_is_refused():
    with pytest.raises(ConfigError, match=r"network.input_width must lie in 1..96"):
        check_size(NetworkConfig(input_width=97, input_height=10), SampleSpec(height=54, width=96))
