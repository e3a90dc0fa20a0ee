"""The resizer: means of areas as NumPy computes them, colours in order, bad arrays refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import CaptureError
from charles.io.screen.resize import Resizer


def coverage(small, large):
    """Share of each of ``large`` pixels in each of ``small``, float64 ``[small, large]``."""
    edges = np.arange(small + 1)[:, None] * large / small
    pixels = np.arange(large)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.clip(covered, 0, None) * small / large


def area_mean(pixels, height, width):
    """The exact mean of each area, float64 ``[height, width, 3]``, RGB."""
    rgb = pixels[..., 2::-1].astype(np.float64)
    rows, columns = coverage(height, rgb.shape[0]), coverage(width, rgb.shape[1])
    return np.einsum("ih,hwc,jw->ijc", rows, rgb, columns, optimize=True)


def resized(pixels, height, width):
    out = np.zeros((height, width, 3), np.uint8)
    Resizer(height, width).into(out, pixels)
    return out


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 90), st.integers(0, 90),
    st.sampled_from([3, 4]), st.integers(0, 1000),
)  # fmt: skip
def test_smaller_frames_are_means_of_areas(height, width, more_rows, more_columns, channels, seed):
    shape = (height + more_rows, width + more_columns, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    wanted = area_mean(pixels, height, width)
    assert np.abs(resized(pixels, height, width) - wanted).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [(720, 1280), (540, 960), (1080, 1920), (900, 1600), (600, 800)])
def test_usual_windows_are_resized_exactly(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    wanted = area_mean(pixels, 270, 480)
    assert np.abs(resized(pixels, 270, 480) - wanted).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [(720, 1280), (900, 1600), (540, 960)])
def test_a_fourth_channel_changes_nothing(size):
    pixels = np.random.default_rng(3).integers(0, 256, (*size, 4), np.uint8)
    three = np.ascontiguousarray(pixels[..., :3])
    np.testing.assert_array_equal(resized(pixels, 270, 480), resized(three, 270, 480))


def test_sums_do_not_overflow():
    white = np.full((1440, 2560, 4), 255, np.uint8)
    assert (resized(white, 270, 480) == 255).all()


def test_a_picture_of_the_same_size_only_changes_its_order_of_colours():
    pixels = np.random.default_rng(1).integers(0, 256, (27, 48, 4), np.uint8)
    np.testing.assert_array_equal(resized(pixels, 27, 48), pixels[..., 2::-1])


def test_a_crop_with_strides_is_resized_like_a_copy_of_it():
    pixels = np.random.default_rng(2).integers(0, 256, (100, 200, 4), np.uint8)
    crop = pixels[11:71, 7:127]
    np.testing.assert_array_equal(resized(crop, 30, 40), resized(crop.copy(), 30, 40))


def test_a_smaller_picture_is_interpolated():
    even = np.full((9, 16, 3), (10, 20, 30), np.uint8)
    assert (resized(even, 27, 48) == (30, 20, 10)).all()


@pytest.mark.parametrize(
    ("out", "pixels", "text"),
    [
        (np.zeros((4, 5, 4), np.uint8), np.zeros((9, 9, 4), np.uint8), r"uint8 \[4, 5, 3\], got"),
        (np.zeros((4, 5, 3)), np.zeros((9, 9, 4), np.uint8), "got C-contiguous float64"),
        (np.zeros((4, 10, 3), np.uint8)[:, ::2], np.zeros((9, 9, 4), np.uint8), "got uint8"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((9, 9), np.uint8), r"3 or 4\], got uint8 \[9, 9"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((9, 9, 4)), "got float64"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((0, 9, 4), np.uint8), r"\[0, 9, 4\]"),
    ],
)
def test_other_arrays_are_refused(out, pixels, text):
    with pytest.raises(CaptureError, match=text):
        Resizer(4, 5).into(out, pixels)
