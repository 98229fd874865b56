"""One-hot input and embedding lookup: that the two readings of one product are one."""

import numpy as np
import pytest
from closeness import assert_gradients

from minilstm.nn.embedding import embedding_backward, embedding_forward, one_hot

T, B, E = 4, 5, 3
SMALL, LARGE = 7, 2000  # vocabularies: backward is a product for one, a scatter for the other


def random_ids(V, seed=0):
    return np.random.default_rng(seed).integers(V, size=(T, B))


def whole_numbers(shape, seed=1):
    """Random floats whose sums are exact, so that the order of adding makes no difference."""
    return np.random.default_rng(seed).integers(-99, 100, size=shape).astype(float)


def test_one_hot_has_a_single_one_in_the_column_of_the_id():
    ids = random_ids(SMALL)
    rows = one_hot(ids, SMALL, np.float64)
    assert rows.shape == (T, B, SMALL)
    np.testing.assert_array_equal(rows.sum(axis=-1), np.ones((T, B)))
    np.testing.assert_array_equal(rows.argmax(axis=-1), ids)


@pytest.mark.parametrize("V", [SMALL, LARGE])
def test_lookup_equals_the_product_with_a_one_hot_matrix(V):
    ids, W = random_ids(V), np.random.default_rng(2).normal(size=(V, E))
    np.testing.assert_array_equal(embedding_forward(ids, W), one_hot(ids, V, W.dtype) @ W)


@pytest.mark.parametrize("V", [SMALL, LARGE])
def test_backward_of_the_lookup_equals_backward_of_the_product(V):
    ids, dx = random_ids(V), whole_numbers((T, B, E))
    rows = one_hot(ids, V, dx.dtype).reshape(T * B, V)
    expected = rows.T @ dx.reshape(T * B, E)
    np.testing.assert_array_equal(embedding_backward(dx, ids, V), expected)


def test_product_and_scatter_give_the_same_gradient():
    ids, dx = random_ids(SMALL), whole_numbers((T, B, E))
    by_scatter = embedding_backward(dx, ids, LARGE)
    np.testing.assert_array_equal(by_scatter[:SMALL], embedding_backward(dx, ids, SMALL))
    assert not by_scatter[SMALL:].any()


@pytest.mark.parametrize("V", [SMALL, LARGE])
def test_gradients_of_repeated_ids_add(V):
    ids = np.array([[2, 4], [2, 2]])
    dx = np.array([[[1.0, 10.0], [5.0, 50.0]], [[2.0, 20.0], [4.0, 40.0]]])
    dW = embedding_backward(dx, ids, V)
    assert dW[2].tolist() == [1 + 2 + 4, 10 + 20 + 40]
    assert dW[4].tolist() == [5, 50]
    assert np.count_nonzero(dW.any(axis=1)) == 2


def test_backward_is_the_derivative_of_forward():
    ids, rng = random_ids(SMALL), np.random.default_rng(3)
    W, dx = rng.normal(size=(SMALL, E)), rng.normal(size=(T, B, E))

    def loss(a):
        return (dx * embedding_forward(ids, a["W"])).sum()

    assert_gradients(loss, {"W": W}, {"W": embedding_backward(dx, ids, SMALL)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("V", [SMALL, LARGE])
def test_dtype_follows_the_floating_point_argument(V, dtype):
    ids = random_ids(V)
    x = embedding_forward(ids, np.ones((V, E), dtype))
    assert one_hot(ids, V, dtype).dtype == x.dtype == dtype
    assert embedding_backward(x, ids, V).dtype == dtype


@pytest.mark.parametrize("id_dtype", [np.uint8, np.int32, np.int64])
def test_ids_of_any_integer_dtype_select_the_same_rows(id_dtype):
    ids, W = random_ids(SMALL), whole_numbers((SMALL, E))
    x = embedding_forward(ids.astype(id_dtype), W)
    np.testing.assert_array_equal(x, embedding_forward(ids, W))
    dW = embedding_backward(x, ids.astype(id_dtype), SMALL)
    np.testing.assert_array_equal(dW, embedding_backward(x, ids, SMALL))
