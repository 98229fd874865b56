"""Softmax cross-entropy: its value, its gradient, extreme logits, and the form in row chunks."""

import math

import numpy as np
import pytest
from closeness import assert_close, assert_gradients

from minilstm.nn.linear import linear_backward, linear_forward
from minilstm.nn.loss import linear_cross_entropy, softmax_cross_entropy

T, B, H, V = 4, 3, 5, 7


def random_targets(seed=0):
    return np.random.default_rng(seed).integers(V, size=(T, B))


def random_logits(seed=1):
    return np.random.default_rng(seed).normal(scale=3, size=(T, B, V))


def random_layer(seed=2, dtype=np.float64):
    """What the output layer reads: hs, W, b."""
    rng = np.random.default_rng(seed)
    shapes = {"hs": (T, B, H), "W": (H, V), "b": (V,)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


# --- the value


@pytest.mark.parametrize("level", [0.0, -3.5, 1e4])
def test_equal_logits_cost_the_logarithm_of_their_number(level):
    loss, _ = softmax_cross_entropy(np.full((T, B, V), level), random_targets())
    assert float(loss) == pytest.approx(math.log(V), rel=1e-15)


def test_loss_is_the_mean_over_all_steps_and_sequences():
    logits, targets = random_logits(), random_targets()
    nats = []
    for t in range(T):
        for n in range(B):
            total = sum(math.exp(value) for value in logits[t, n])
            nats.append(-math.log(math.exp(logits[t, n, targets[t, n]]) / total))
    loss, _ = softmax_cross_entropy(logits, targets)
    assert float(loss) == pytest.approx(sum(nats) / (T * B), rel=1e-14)


def test_adding_a_constant_to_a_row_changes_nothing():
    logits, targets = random_logits(), random_targets()
    loss, dlogits = softmax_cross_entropy(logits, targets)
    levels = np.random.default_rng(3).normal(scale=100, size=(T, B, 1))
    shifted_loss, shifted_dlogits = softmax_cross_entropy(logits + levels, targets)
    actual = {"loss": shifted_loss, "dlogits": shifted_dlogits}
    assert_close(actual, {"loss": loss, "dlogits": dlogits}, tolerance=1e-12)


# --- the gradient


def test_dlogits_is_the_derivative_of_the_loss():
    logits, targets = random_logits(), random_targets()
    _, dlogits = softmax_cross_entropy(logits, targets)
    f = lambda a: softmax_cross_entropy(a["logits"], targets)[0]  # noqa: E731
    assert_gradients(f, {"logits": logits}, {"logits": dlogits})


def test_gradient_of_each_row_sums_to_zero():
    _, dlogits = softmax_cross_entropy(random_logits(), random_targets())
    np.testing.assert_allclose(dlogits.sum(axis=-1), np.zeros((T, B)), atol=1e-16)


@pytest.mark.parametrize("chunk_rows", [None, 5])
def test_gradients_with_the_output_layer_are_the_derivatives_of_the_loss(chunk_rows):
    layer, targets = random_layer(), random_targets()
    _, *gradients = linear_cross_entropy(**layer, targets=targets, chunk_rows=chunk_rows)

    def loss(a):
        return softmax_cross_entropy(linear_forward(a["hs"], a["W"], a["b"]), targets)[0]

    assert_gradients(loss, layer, dict(zip(layer, gradients, strict=True)))


# --- row chunks


@pytest.mark.parametrize("chunk_rows", [1, 2, 5, T * B - 1, T * B, T * B + 3, None])
def test_row_chunks_equal_the_whole(chunk_rows):
    layer, targets = random_layer(), random_targets()
    hs, W, b = layer.values()
    loss, dlogits = softmax_cross_entropy(linear_forward(hs, W, b), targets)
    whole = (loss, *linear_backward(dlogits, hs, W))
    chunked = linear_cross_entropy(hs, W, b, targets, chunk_rows)
    names = ("loss", "hs", "W", "b")
    assert_close(
        dict(zip(names, chunked, strict=True)),
        dict(zip(names, whole, strict=True)),
        tolerance=1e-14,
    )


def test_arguments_stay_as_they_were():
    layer, targets, logits = random_layer(), random_targets(), random_logits()
    arrays = {**layer, "targets": targets, "logits": logits}
    before = {name: array.copy() for name, array in arrays.items()}
    softmax_cross_entropy(logits, targets)
    linear_cross_entropy(**layer, targets=targets, chunk_rows=5)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


# --- numbers that do not fit, and numbers that nearly do


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("target", "nats", "gradient"),
    [(0, 0.0, [0, 0, 0]), (1, 1e4, [1, -1, 0]), (2, 2e4, [1, 0, -1])],
)
def test_logits_of_ten_thousand_are_scored_right(dtype, target, nats, gradient):
    logits = np.array([[[1e4, 0, -1e4]]], dtype=dtype)
    with np.errstate(all="ignore"):  # the claim is about the values
        loss, dlogits = softmax_cross_entropy(logits, np.array([[target]]))
    assert float(loss) == nats
    np.testing.assert_array_equal(dlogits, np.array([[gradient]], dtype))


@pytest.mark.parametrize("chunk_rows", [None, 1000])
def test_float32_nats_are_summed_in_float64(chunk_rows):
    N = 100_003  # a float32 sum of so many equal numbers is off in its last digits
    row = np.array([0.3, -1.7, 2.2], np.float32)
    one, _ = softmax_cross_entropy(row.reshape(1, 1, 3), np.array([[1]]))
    targets = np.ones((N, 1), np.int64)
    many, _ = softmax_cross_entropy(np.tile(row, (N, 1, 1)), targets)
    zeros = np.zeros((N, 1, 2), np.float32), np.zeros((2, 3), np.float32)
    by_chunks, *_ = linear_cross_entropy(*zeros, row, targets, chunk_rows)
    assert float(many) == float(by_chunks) == float(one)


@pytest.mark.parametrize(
    ("dtype", "loss_dtype"),
    [(np.float32, np.float64), (np.float64, np.float64), (np.complex128, np.complex128)],
)
def test_loss_is_at_least_double_and_gradients_follow_the_arrays(dtype, loss_dtype):
    layer, targets = random_layer(dtype=dtype), random_targets()
    loss, dlogits = softmax_cross_entropy(random_logits().astype(dtype), targets)
    chunked_loss, *gradients = linear_cross_entropy(**layer, targets=targets, chunk_rows=5)
    assert (loss.shape, loss.dtype) == (chunked_loss.shape, chunked_loss.dtype) == ((), loss_dtype)
    assert {array.dtype for array in (dlogits, *gradients)} == {np.dtype(dtype)}
