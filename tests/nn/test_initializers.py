"""Initial weights: how large, how spread, how orthogonal."""

import math

import numpy as np
import pytest

from minilstm.nn.initializers import orthogonal, xavier_uniform


def generator(seed=0):
    return np.random.default_rng(seed)


def assert_uniform(values, bound):
    """U(-bound, bound): inside, up to the edges, centred, and as wide as uniform is."""
    n = values.size
    spread = bound / math.sqrt(3)  # standard deviation
    assert np.abs(values).max() <= bound
    assert min(values.max(), -values.min()) > bound * (1 - 20 / n)
    assert abs(values.mean()) < 5 * spread / math.sqrt(n)
    assert values.std() == pytest.approx(spread, rel=5 / math.sqrt(n))


@pytest.mark.parametrize("shape", [(60, 240), (300, 80)], ids=str)
def test_xavier_bound_comes_from_both_sizes(shape):
    values = xavier_uniform(generator(), shape)
    assert values.shape == shape
    assert_uniform(values, math.sqrt(6 / (shape[0] + shape[1])))


@pytest.mark.parametrize("shape", [(20, 80), (80, 20), (30, 30), (1, 4), (5, 1)], ids=str)
def test_orthogonal_has_orthonormal_rows_or_columns_whichever_are_fewer(shape):
    Q = orthogonal(generator(), shape)
    assert Q.shape == shape
    product = Q @ Q.T if shape[0] <= shape[1] else Q.T @ Q
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)], ids=str)
def test_orthogonal_favours_no_sign(shape):
    # A plain QR has a first entry of one sign only.
    draws = np.array([orthogonal(generator(seed), shape) for seed in range(400)])
    positive = (draws > 0).mean(axis=0)
    assert np.all(np.abs(positive - 0.5) < 0.125)  # 5 standard deviations


@pytest.mark.parametrize(
    "draw",
    [lambda rng: xavier_uniform(rng, (6, 8)), lambda rng: orthogonal(rng, (6, 8))],
    ids=["xavier", "orthogonal"],
)
def test_a_seed_means_the_same_draw_in_float64_and_another_seed_another(draw):
    first, again, other = draw(generator(1)), draw(generator(1)), draw(generator(2))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)
    assert first.dtype == np.float64
