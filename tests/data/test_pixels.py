"""The collector's and the player's pixels come from one function that refuses wrong shapes."""

import cv2
import numpy as np
import pytest

from charles.data.pixels import to_pixels
from charles.errors import ConfigError
from charles.sample import SampleSpec


def make_frame(spec, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def test_rgb_is_copied_as_it_is():
    spec = SampleSpec(height=6, width=8, pixel_format="rgb")
    frame = make_frame(spec)
    out = np.zeros(spec.pixels_shape, np.uint8)
    to_pixels(frame, spec, out)
    np.testing.assert_array_equal(out, frame)


def test_yuv420_comes_back_as_nearly_the_same_picture():
    spec = SampleSpec(height=90, width=160)
    frame = make_frame(spec)
    out = np.zeros(spec.pixels_shape, np.uint8)
    to_pixels(frame, spec, out)
    back = cv2.cvtColor(out, cv2.COLOR_YUV2RGB_I420)
    assert np.abs(back.astype(int) - frame).mean() < 4


def test_pixels_land_in_the_slot_itself():
    spec = SampleSpec(height=4, width=6)
    slots = np.full((3, *spec.pixels_shape), 7, np.uint8)
    to_pixels(np.zeros((4, 6, 3), np.uint8), spec, slots[1])
    assert (slots[[0, 2]] == 7).all()
    assert (slots[1, :4] == 16).all()  # black in I420


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 8, 3), np.uint8), ((4, 6, 3), np.float32), ((3, 4, 6), np.uint8)]
)
def test_a_frame_of_another_shape_is_refused_with_both_sides(shape, dtype):
    spec = SampleSpec(height=4, width=6)
    out = np.zeros(spec.pixels_shape, np.uint8)
    with pytest.raises(ConfigError, match=r"Expected frame as contiguous uint8 \[4, 6, 3\], got"):
        to_pixels(np.zeros(shape, dtype), spec, out)
