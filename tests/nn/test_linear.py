"""The linear layer: right gradients, over any leading axes, of the arrays' own dtype."""

import numpy as np
import pytest
from closeness import assert_close, assert_gradients

from minilstm.nn.linear import linear_backward, linear_forward

T, B, D, V = 4, 3, 5, 7


def random_arrays(dtype=np.float64, leading=(T, B)):
    rng = np.random.default_rng(0)
    shapes = {"x": (*leading, D), "W": (D, V), "b": (V,)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def random_upstream(dtype=np.float64, leading=(T, B)):
    return np.random.default_rng(1).normal(size=(*leading, V)).astype(dtype)


def backward(dy, arrays):
    gradients = linear_backward(dy, arrays["x"], arrays["W"])
    return dict(zip(("x", "W", "b"), gradients, strict=True))


def test_backward_is_the_derivative_of_forward():
    arrays, dy = random_arrays(), random_upstream()

    def loss(a):
        return (dy * linear_forward(a["x"], a["W"], a["b"])).sum()

    assert_gradients(loss, arrays, backward(dy, arrays))


@pytest.mark.parametrize("leading", [(), (B,), (T, B), (2, T, B)], ids=str)
def test_leading_axes_are_rows_each_on_its_own(leading):
    arrays, dy = random_arrays(leading=leading), random_upstream(leading=leading)
    y, grads = linear_forward(**arrays), backward(dy, arrays)
    x, W, b = arrays.values()
    x_rows, dy_rows = x.reshape(-1, D), dy.reshape(-1, V)
    expected = {
        "y": np.reshape([row @ W + b for row in x_rows], dy.shape),
        "x": np.reshape([W @ row for row in dy_rows], x.shape),
        "W": sum(np.outer(x_row, dy_row) for x_row, dy_row in zip(x_rows, dy_rows, strict=True)),
        "b": sum(dy_rows),
    }
    assert_close({"y": y, **grads}, expected, tolerance=1e-14)


def test_arguments_stay_as_they_were():
    arrays, dy = random_arrays(), random_upstream()
    before = {name: array.copy() for name, array in {**arrays, "dy": dy}.items()}
    linear_forward(**arrays)
    backward(dy, arrays)
    for name, array in {**arrays, "dy": dy}.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_of_everything_follows_the_arrays(dtype):
    arrays = random_arrays(dtype)
    grads = backward(random_upstream(dtype), arrays)
    for name, array in {"y": linear_forward(**arrays), **grads}.items():
        assert array.dtype == dtype, name
