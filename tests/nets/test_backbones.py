"""What holds for every backbone: sizes, counts, folding, names."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from charles.errors import ConfigError
from charles.nets import inception_resnet_v2, regnet, xception
from charles.nets.functional import functionalize
from charles.nets.inception_resnet_v2 import InceptionResNetV2
from charles.nets.layers import BatchNorm, ConvSpec, Norm, SeparableConv
from charles.nets.regnet import DESIGNS, Design, RegNet, find_stages
from charles.nets.xception import Xception

TINY = Design(depth=4, width=8, slope=8.0, multiplier=2.0, group_width=8, gate=0.25)

TIMM_COUNTS = {
    "regnetx_002": (2_315_792, 20_848, 368), "regnetx_004": (4_772_512, 36_672, 384),
    "regnetx_006": (5_667_040, 33_280, 528), "regnetx_008": (6_586_656, 37_312, 672),
    "regnetx_016": (8_277_136, 43_504, 912), "regnetx_032": (14_287_552, 62_560, 1008),
    "regnetx_040": (20_757_248, 76_064, 1360), "regnetx_064": (24_584_256, 74_208, 1624),
    "regnetx_080": (37_651_648, 90_464, 1920), "regnetx_120": (43_865_056, 96_384, 2240),
    "regnetx_160": (52_229_536, 111_168, 2048), "regnetx_320": (105_290_560, 162_016, 2520),
    "regnety_002": (2_793_996, 20_848, 368), "regnety_004": (3_903_144, 27_152, 440),
    "regnety_006": (5_446_160, 29_760, 608), "regnety_008": (5_494_168, 29_888, 768),
    "regnety_016": (10_313_430, 52_672, 888), "regnety_032": (17_923_338, 66_160, 1512),
    "regnety_040": (19_557_656, 62_272, 1088), "regnety_064": (29_286_252, 82_432, 1296),
    "regnety_080": (37_163_068, 85_744, 2016), "regnety_120": (49_581_544, 96_384, 2240),
    "regnety_160": (80_565_140, 122_816, 3024), "regnety_320": (141_333_770, 158_288, 3712),
}  # fmt: skip
"""Parameters, statistics and features of timm 1.0.31's networks without their heads."""

BACKBONES = {
    "xception": (Xception, xception),
    "inception_resnet_v2": (InceptionResNetV2, inception_resnet_v2),
    "regnet": (lambda channels, *, rngs: RegNet(channels, TINY, rngs=rngs), regnet),
}


def count(plan):
    """Parameters and statistics that a plan asks for."""
    params = stats = 0
    for spec in plan.values():
        area = spec.size[0] * spec.size[1]
        if spec.is_separable:
            params += area * spec.channels + spec.channels * spec.features
        else:
            params += area * spec.channels // spec.groups * spec.features
        has_scale = spec.norm is not None and spec.norm.has_scale
        params += spec.features * (1 + has_scale)
        stats += 2 * spec.features * (spec.norm is not None)
    return params, stats


def sizes(module):
    states = nnx.state(module, nnx.Param), nnx.state(module, nnx.BatchStat)
    return tuple(sum(leaf.size for leaf in jax.tree.leaves(state)) for state in states)


@pytest.mark.parametrize(
    ("name", "total", "statistics", "shape"),
    [
        ("xception", 20_861_480, 54_528, (1, 9, 15, 2048)),
        ("inception_resnet_v2", 54_336_736, 60_544, (1, 7, 13, 1536)),
    ],
)
def test_counts_and_maps_are_those_of_keras(name, total, statistics, shape):
    make, module = BACKBONES[name]
    backbone = nnx.eval_shape(lambda: make(3, rngs=nnx.Rngs(0)))
    assert sizes(backbone) == (total - statistics, statistics)
    assert sum(count(module.make_plan(4))) == total + 288
    image = jax.ShapeDtypeStruct((1, 270, 480, 3), jnp.float32)
    run = partial(backbone.__class__.__call__, is_training=False)
    maps = jax.eval_shape(run, backbone, image)
    assert maps.shape == shape
    assert backbone.num_features == shape[-1]


@pytest.mark.parametrize("name", DESIGNS)
def test_regnet_counts_are_those_of_timm(name):
    params, stats, features = TIMM_COUNTS[name]
    assert count(regnet.make_plan(3, DESIGNS[name])) == (params, stats)
    assert find_stages(DESIGNS[name])[-1].width == features


@pytest.mark.parametrize("name", BACKBONES)
def test_an_image_too_small_is_refused(name):
    make, module = BACKBONES[name]
    backbone = nnx.eval_shape(lambda: make(3, rngs=nnx.Rngs(0)))
    least = module.MIN_SIZE
    for shape in ((1, least - 1, 200, 3), (1, 200, least - 1, 3)):
        with pytest.raises(ConfigError, match=rf"{least} x {least}.*Enlarge"):
            jax.eval_shape(partial(backbone, is_training=False), jnp.zeros(shape))


def test_names_of_keras_and_timm_are_one_to_one_and_complete():
    for name in ("xception", "inception_resnet_v2"):
        make, module = BACKBONES[name]
        state = nnx.state(nnx.eval_shape(lambda make=make: make(3, rngs=nnx.Rngs(0))))
        paths = {"/".join(path) for path, _ in nnx.to_flat_state(state)}
        for names in (module.keras_names(), module.timm_names()):
            assert set(names) == paths
            places = [entry if isinstance(entry[1], int) else entry[0] for entry in names.values()]
            assert len(set(places)) == len(paths)
    assert xception.timm_names()["layers/block13_sepconv2/depthwise"] == (
        "block12.rep.4.conv1.weight", (2, 3, 0, 1),
    )  # fmt: skip
    names = inception_resnet_v2.timm_names()
    assert names["layers/block17_20_2_3/kernel"][0] == "repeat_1.19.branch1.2.conv.weight"
    assert names["layers/block8_10_conv/norm/bias"] == ("block8.conv2d.bias", None)
    assert names["layers/mixed_5b_4_1/norm/mean"][0] == "mixed_5b.branch3.1.bn.running_mean"
    names = regnet.timm_names(DESIGNS["regnety_004"])
    assert names["layers/s2_b1_se_fc1/norm/bias"] == ("s2.b1.se.fc1.bias", None)
    assert names["layers/s4_b6_conv2/kernel"] == ("s4.b6.conv2.conv.weight", (2, 3, 1, 0))


def moved(variables):
    """Every variable away from its initial value."""
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    shares = [jax.random.uniform(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(
        structure, [leaf + 0.3 * share for leaf, share in zip(leaves, shares, strict=True)]
    )


class Maps(nnx.Module):
    """A network whose prediction is a backbone's maps; separable and plain layers."""

    def __init__(self, *, rngs):
        self.backbone = RegNet(3, TINY, rngs=rngs)
        spec = ConvSpec(channels=32, features=4, size=(3, 3), is_separable=True, norm=Norm())
        self.last = SeparableConv(spec, rngs=rngs)

    def __call__(self, batch, *, is_training, key=None):
        maps = self.backbone(batch["image"], is_training=is_training)
        return {"maps": self.last(maps, is_training=is_training)}


def test_folded_variables_predict_the_same_and_have_no_statistics():
    network = functionalize(lambda rngs: Maps(rngs=rngs), lambda batch: batch)
    variables = moved(network.init(0))
    folded = jax.jit(network.fold)(variables)
    assert folded["stats"] == {}
    batch = {"image": jax.random.normal(jax.random.key(2), (2, 40, 50, 3))}
    expected, _ = jax.jit(partial(network.apply, is_training=False))(variables, batch)
    got = jax.jit(network.infer)(folded, batch)
    scale = np.abs(expected["maps"]).max()
    assert scale > 0.1
    np.testing.assert_allclose(got["maps"], expected["maps"], rtol=1e-4, atol=1e-5 * scale)


def test_statistics_stay_float32_when_computing_in_bfloat16():
    norm = BatchNorm(3, Norm(momentum=0.5))
    x = (100 + jax.random.normal(jax.random.key(0), (8, 9, 10, 3))).astype(jnp.bfloat16)
    y = norm(x, is_training=True)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.variance[...].dtype == jnp.float32
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(norm.mean[...], 0.5 * wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.variance[...], 0.5 + 0.5 * wide.var((0, 1, 2)), rtol=1e-3)


def test_training_moves_every_statistic_and_has_gradients_for_every_parameter():
    network = functionalize(lambda rngs: Maps(rngs=rngs), lambda batch: batch)
    variables = moved(network.init(0))
    batch = {"image": jax.random.normal(jax.random.key(2), (2, 40, 50, 3))}

    def loss(params):
        both = variables | {"params": params}
        predictions, stats = network.apply(both, batch, is_training=True)
        maps = predictions["maps"]
        return jnp.sum(maps * jnp.sin(jnp.arange(maps.size)).reshape(maps.shape)), stats

    gradient, stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.any(leaf != 0), path
    for (path, old), new in zip(
        jax.tree.leaves_with_path(variables["stats"]), jax.tree.leaves(stats), strict=True
    ):
        assert not np.allclose(old, new, rtol=1e-4), path
