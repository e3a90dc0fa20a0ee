"""What is rewritten for a CPU computes what XLA's own does: values and gradients."""

from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from charles.nets import lowerings
from charles.nets.lowerings import (
    average_pool,
    convolve,
    convolve_by_shifts,
    convolve_by_xla,
    convolve_densely,
    convolve_depthwise,
    convolve_in_parts,
    find_pads,
    max_pool,
    max_pool_by_axis,
    max_pool_by_xla,
    settle,
    sum_pool_by_axis,
    sum_pool_by_xla,
)


def random(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def assert_same(ours, xlas, *inputs):
    """Values, and gradients by every input, agree."""

    @jax.jit
    def run(*inputs):
        (value, pull), (expected, pull_expected) = jax.vjp(ours, *inputs), jax.vjp(xlas, *inputs)
        gradient = random(*value.shape)
        return (value, *pull(gradient)), (expected, *pull_expected(gradient))

    for mine, other in zip(*run(*inputs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CENTRED"])
@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    [
        (3, (3, 3), 2),
        (9, (3, 3), 1),
        (16, (3, 3), 2),
        (4, (1, 7), 1),
        (4, (7, 1), 1),
        (5, (1, 1), 2),
    ],
)
def test_dense_convolution(channels, size, stride, padding):
    x, kernel = random(2, 9, 12, channels), random(*size, channels, 6)
    pads = find_pads((9, 12), size, stride, padding)
    assert_same(
        lambda x, kernel: convolve_densely(x, kernel, stride, pads),
        lambda x, kernel: convolve_by_xla(x, kernel, stride, pads),
        x,
        kernel,
    )


@pytest.mark.parametrize(("width", "groups"), [(8, 10), (8, 13), (16, 3), (64, 2), (2, 24)])
@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_convolution_in_parts(width, groups, stride):
    channels = width * groups
    x, kernel = random(2, 6, 7, channels), random(3, 3, width, channels)
    pads = find_pads((6, 7), (3, 3), stride, "CENTRED")
    assert_same(
        lambda x, kernel: convolve_in_parts(x, kernel, stride, pads, groups),
        lambda x, kernel: convolve_by_xla(x, kernel, stride, pads, groups),
        x,
        kernel,
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [(3, 3), (5, 5), (2, 4)])
def test_depthwise_convolution_by_shifts(size, padding):
    x, kernel = random(2, 7, 8, 5), random(*size, 5, 1)
    pads = find_pads((7, 8), size, 1, padding)
    assert_same(
        lambda x, kernel: convolve_by_shifts(x, kernel, pads),
        lambda x, kernel: convolve_by_xla(x, kernel.transpose(0, 1, 3, 2), 1, pads, 5),
        x,
        kernel,
    )


@pytest.mark.parametrize("shape", [(7, 8), (10, 9)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pooling_by_axis(shape, padding):
    x = random(2, *shape, 3) - 5  # padding with zeros would win
    pads = find_pads(shape, (3, 3), 2, padding)
    assert_same(
        lambda x: max_pool_by_axis(x, 3, 2, pads), lambda x: max_pool_by_xla(x, 3, 2, pads), x
    )
    pads = find_pads(shape, (3, 3), 1, padding)
    assert_same(lambda x: sum_pool_by_axis(x, 3, pads), lambda x: sum_pool_by_xla(x, 3, pads), x)


def test_average_leaves_padding_out():
    np.testing.assert_allclose(average_pool(jnp.ones((1, 4, 5, 2))), 1, rtol=1e-6)
    x = random(1, 5, 4, 1)
    np.testing.assert_allclose(average_pool(x)[0, 0, 0], np.mean(x[0, :2, :2]), rtol=1e-5)
    np.testing.assert_allclose(average_pool(x)[0, 2, 3], np.mean(x[0, 1:4, 2:]), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(7, 40), size=st.integers(1, 7), stride=st.integers(1, 3))
def test_same_padding_gives_the_output_its_size_and_the_end_the_odd_one(n, size, stride):
    (before, after), _ = find_pads((n, n), (size, size), stride, "SAME")
    assert (n + before + after - size) // stride + 1 >= -(-n // stride)
    assert before <= after <= before + 1
    assert [(before, after)] * 2 == list(
        jax.lax.padtype_to_pads((n, n), (size, size), (stride,) * 2, "SAME")
    )


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_both_platforms_take_the_same_arithmetic(backend, monkeypatch):
    calls = {
        "dense": partial(convolve, kernel=random(3, 3, 4, 6), stride=2, padding="SAME"),
        "pointwise": partial(convolve, kernel=random(1, 1, 4, 6), stride=2, padding="SAME"),
        "grouped": partial(
            convolve, kernel=random(3, 3, 2, 6), stride=1, padding="CENTRED", groups=2
        ),
        "depthwise": partial(convolve_depthwise, kernel=random(3, 3, 4, 1), padding="SAME"),
        "max": partial(max_pool, padding="SAME"),
        "average": average_pool,
    }
    x = random(2, 9, 10, 4)
    expected = {name: call(x) for name, call in calls.items()}
    monkeypatch.setattr(lowerings.jax, "default_backend", lambda: backend)
    for name, call in calls.items():
        np.testing.assert_allclose(call(x), expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_dtype_is_kept():
    x = random(1, 8, 9, 4).astype(jnp.bfloat16)
    kernel = random(3, 3, 4, 4).astype(jnp.bfloat16)
    results = [
        convolve(x, kernel, stride=2, padding="SAME"),
        convolve(x, kernel[:, :, :2], stride=1, padding="SAME", groups=2),
        convolve_depthwise(x, kernel[..., :1], padding="SAME"),
        max_pool(x, padding="SAME"),
        average_pool(x),
    ]
    assert {each.dtype for each in results} == {jnp.dtype(jnp.bfloat16)}


def test_a_settled_array_is_the_same_with_the_same_gradient():
    x = random(2, 3, 4).at[0, 0, 0].set(jnp.inf)
    np.testing.assert_array_equal(jax.jit(settle)(x), x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(settle(x) * jnp.arange(4))))(x)
    np.testing.assert_array_equal(gradient, jnp.broadcast_to(jnp.arange(4.0), x.shape))


@pytest.mark.usefixtures("optimised")
def test_settling_copies_nothing():
    run = jax.jit(lambda x, kernel: settle(jax.nn.relu(x @ kernel)) @ kernel)
    text = run.lower(random(64, 32), random(32, 32)).compile().as_text()
    assert " while(" in text
    assert " copy(" not in text


@pytest.mark.usefixtures("optimised")
def test_a_chain_of_settled_sums_is_not_computed_again_from_its_start():
    """No fused sum reads more arrays the longer the chain is."""

    def most_inputs(length):
        def chain(x, kernel):
            for _ in range(length):
                x = settle(jax.nn.relu(x + x @ kernel))
            return x

        text = jax.jit(chain).lower(random(64, 32), random(32, 32)).compile().as_text()
        fusions = [line for line in text.splitlines() if " fusion(" in line]
        return max(
            (line.split(" fusion(")[1].split(")")[0].count("%") for line in fusions), default=0
        )

    assert most_inputs(8) == most_inputs(3)


def test_heavy_networks_compile_otherwise_and_compute_the_same():
    x, kernel = random(1, 9, 10, 16), random(3, 3, 16, 24)
    run = partial(lowerings.convolve, stride=1, padding="SAME")
    usual = jax.jit(run)(x, kernel)
    heavy = jax.jit(run, compiler_options=lowerings.heavy_options())(x, kernel)
    np.testing.assert_allclose(heavy, usual, rtol=1e-4, atol=1e-4)
