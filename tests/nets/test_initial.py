"""Parameters before training: drawn on the host, the same everywhere."""

import math

import jax
import numpy as np
import pytest

from charles.nets.initial import Draws, glorot_uniform, normal, orthogonal, scaled

SHAPE = (3, 3, 64, 96)


def draw(seed=0):
    return Draws([seed]).params()


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
    first, second = Draws([3]), Draws([3])
    one, two, again = (normal(each.params(), (50,)) for each in (first, first, second))
    assert np.all(one != two)
    np.testing.assert_array_equal(one, again)
    assert np.all(normal(Draws([4]).params(), (50,)) != one)


def test_without_a_seed_there_are_shapes_alone():
    shape = jax.eval_shape(lambda: glorot_uniform(Draws(None).params(), SHAPE))
    assert shape.shape == SHAPE


def test_a_key_of_flax_streams_will_do_unless_it_is_traced():
    one, two = (normal(jax.random.key(seed), (50,)) for seed in (0, 1))
    assert np.all(one != two)
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda key: normal(key, (50,)))(jax.random.key(0))
