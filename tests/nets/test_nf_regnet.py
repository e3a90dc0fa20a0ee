"""The RegNet without normalisation: its shape, its blocks, its groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from charles.nets.blocks import StandardConv
from charles.nets.nf_regnet import Bottleneck, NFRegNet
from charles.nets.regnet import Design, Stage, find_stages

DESIGN = Design(depth=3, width=16, slope=16.0, multiplier=2.0, group_width=16)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (45, 83)])
def test_each_stage_halves_the_maps(height, width):
    net = NFRegNet(3, DESIGN, rngs=nnx.Rngs(0))
    stages = find_stages(DESIGN)
    maps = net(jnp.zeros((2, height, width, 3)), is_training=False)
    stride = 4 * 2 ** len(stages)
    assert maps.shape == (2, -(-height // stride), -(-width // stride), stages[-1].width)


def test_a_block_begins_as_its_shortcut():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    block = Bottleneck(16, Stage(1, 16, 8), stride=1, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(block(x), x)


def test_groups_do_not_see_each_other_and_are_those_of_xla():
    x = jax.random.normal(jax.random.key(0), (2, 8, 10, 12))
    conv = StandardConv(12, 18, 3, stride=2, groups=3, rngs=nnx.Rngs(1))
    kernel = conv.kernel[...]
    centred = kernel - jnp.mean(kernel, axis=(0, 1, 2))
    standard = centred / jnp.std(kernel, axis=(0, 1, 2)) / np.sqrt(np.prod(kernel.shape[:3]))
    expected = lax.conv_general_dilated(
        x, standard, (2, 2), [(1, 1), (1, 1)], feature_group_count=3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    np.testing.assert_allclose(conv(x), expected, atol=1e-5)


def test_activations_keep_about_unit_variance_with_depth():
    deep = Design(depth=8, width=32, slope=8.0, multiplier=2.0, group_width=16)
    net = NFRegNet(3, deep, rngs=nnx.Rngs(0))
    image = 0.5 * jax.random.normal(jax.random.key(1), (4, 64, 64, 3))
    assert 0.3 < float(jnp.std(net(image, is_training=False))) < 3
