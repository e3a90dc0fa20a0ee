"""Parameters before training: drawn on the host, the same everywhere."""

import math

import jax
import numpy as np
import pytest

from charles.nets.initial import Draws, glorot_uniform, normal, orthogonal, scaled

SHAPE = (3, 3, 64, 96)


def draw(seed=0):
    return Draws(jax.random.key(seed)).params()


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (normal, 1.0),
        (scaled(2.0), 2 / (9 * 64)),
        (glorot_uniform, 2 / (9 * (64 + 96))),
    ],
)
def test_numbers_have_the_wanted_variance_and_no_mean(initializer, variance):
    values = np.asarray(initializer(draw(), SHAPE))
    deviation = math.sqrt(variance)
    assert values.dtype == np.float32
    assert values.std() == pytest.approx(deviation, rel=0.02)
    assert abs(values.mean()) < 0.02 * deviation


def test_uniform_numbers_fill_their_range_and_stay_in_it():
    values = np.asarray(glorot_uniform(draw(), (100, 200)))
    limit = math.sqrt(6 / 300)
    assert np.abs(values).max() <= limit
    assert np.histogram(values, 10, (-limit, limit))[0].min() > 1800


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_an_orthogonal_matrix_keeps_lengths(shape):
    matrix = np.asarray(orthogonal(draw(), shape), np.float64)
    small = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-6)


def test_each_parameter_has_numbers_of_its_own_and_a_seed_always_the_same():
    first, second = (Draws(jax.random.key(3)) for _ in range(2))
    one, two, again = (normal(each.params(), (50,)) for each in (first, first, second))
    assert np.all(one != two)
    np.testing.assert_array_equal(one, again)
    assert np.all(normal(Draws(jax.random.key(4)).params(), (50,)) != one)


@pytest.mark.parametrize("initializer", [normal, scaled(2.0), glorot_uniform, orthogonal])
def test_under_a_trace_there_are_draws_of_the_same_kind(initializer):
    shape = (32, 64)
    traced = np.asarray(jax.jit(lambda key: initializer(key, shape))(jax.random.key(0)))
    host = np.asarray(initializer(jax.random.key(0), shape))
    assert traced.std() == pytest.approx(host.std(), rel=0.1)
    assert traced.dtype == host.dtype


def test_shapes_alone_cost_nothing():
    huge = (1 << 20, 1 << 20)
    shape = jax.eval_shape(lambda: glorot_uniform(Draws(jax.random.key(0)).params(), huge))
    assert shape.shape == huge
