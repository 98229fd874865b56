"""The stand-in refuses what it says it refuses, and counts right: else what runs through it
proves nothing."""

import math
import sys

import numpy as np
import pytest
from strict_array import (
    StrictArray,
    SynchronisationError,
    counted,
    no_synchronisation,
    standing_in_for_cupy,
    xp,
)

from minilstm import backend


def on_device(values, dtype=np.float32):
    return xp.asarray(np.array(values, dtype))


@pytest.fixture
def x():
    return on_device([[1, 2, 3], [4, 5, 6]])


@pytest.fixture
def ids():
    return on_device([0, 1, 1], np.int64)


# --- refusals


HOST = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "mistake",
    [
        # implicit conversion
        lambda x: np.asarray(x),
        lambda x: np.array([x, x]),
        lambda x: np.empty((2, 3)).__setitem__(..., x),
        lambda x: np.random.default_rng().choice(3, p=x[0]),
        # NumPy operands, on either side, 0-d ones and numbers too
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: x * np.array(2.0),
        lambda x: np.array(2.0) * x,
        lambda x: x * np.float64(2),
        lambda x: np.float64(2) * x,
        lambda x: np.float32(2) * x,
        lambda x: x @ HOST.T,
        lambda x: HOST.T @ x,
        lambda x: x == HOST,
        lambda x: HOST.copy().__iadd__(x),
        lambda x: x.__iadd__(HOST),
        lambda x: x.__setitem__(0, HOST[0]),
        lambda x: xp.add(x, HOST),
        lambda x: xp.maximum([1.0, 2.0, 3.0], x),
        lambda x: xp.matmul(x, HOST.T),
        lambda x: xp.where(x > 0, x, HOST),
        lambda x: xp.concatenate([x, HOST]),
        lambda x: xp.stack([1.0, 2.0]),
        lambda x: xp.zeros_like(HOST),
        lambda x: xp.sum(HOST),
        lambda x: xp.add.at(x, on_device([0], np.int64), HOST),
        # functions of NumPy
        lambda x: np.tanh(x),
        lambda x: np.add(x, x),
        lambda x: np.add.at(HOST.copy(), [0], x),
        lambda x: np.sum(x),
        lambda x: np.concatenate([x, x]),
        lambda x: np.zeros_like(x),
        lambda x: np.where(x, x, x),
        # no __index__, no hash
        lambda x: range(x[0, 0].astype(np.int64)),
        lambda x: [10, 20, 30][x[0, 0].astype(np.int64)],
        lambda x: x[: x[0, 0].astype(np.int64)],
        lambda x: {x},
        # indices that would be uploaded
        lambda x: x[[0, 1]],
        lambda x: x[np.array([0, 1])],
        lambda x: x[np.array(0)],
        lambda x: x[True],
        lambda x: x[0, [True, False, True]],
        # what CuPy's functions do not take
        lambda x: xp.take(x, on_device([0], np.int64), axis=0, mode="clip"),
        lambda x: xp.subtract.at(x, on_device([0], np.int64), x[:1]),
        lambda x: xp.concatenate(x),
        lambda x: x + None,
        lambda x: xp.tanh(x, x),
    ],
)
def test_raises_type_error(mistake, x):
    with pytest.raises(TypeError):
        mistake(x)


def test_numpy_on_the_left_gives_way_and_gets_cupys_answer(x):
    with pytest.raises(TypeError, match=r"^Unsupported type <class 'numpy.ndarray'>$"):
        HOST + x


def test_a_refused_operation_leaves_its_operands_alone(x):
    before = x.get()
    with pytest.raises(TypeError):
        x += HOST
    np.testing.assert_array_equal(x.get(), before)


@pytest.mark.parametrize("name", ["random", "linalg", "testing", "add_at", "float128", "nditer"])
def test_a_name_it_does_not_list_is_an_attribute_error_that_says_where_to_add_it(name):
    with pytest.raises(AttributeError, match=f"offers no '{name}'"):
        getattr(xp, name)


def test_multiply_at_is_not_implemented(x, ids):
    with pytest.raises(NotImplementedError):
        xp.multiply.at(x, ids[:2], x)


def test_a_result_of_another_dtype_goes_into_no_array_in_place(x, ids):
    for wider in (x.astype(np.float64), ids):  # float32 with int64 is float64
        with pytest.raises(TypeError, match="float64 does not go into an array of float32"):
            x += wider
    with pytest.raises(TypeError, match="float64 does not go into an array of int64"):
        ids *= 0.5
    with pytest.raises(TypeError, match="float64 does not go into an array of float32"):
        x.sum(dtype=xp.float64, out=xp.empty((), xp.float32))
    x *= 2.0  # a number of Python has no width
    assert x.dtype == np.float32


def test_an_out_of_another_shape_is_refused(x):
    with pytest.raises(ValueError, match="shape"):
        xp.concatenate([x, x], out=xp.empty((4, 4), xp.float32))
    row = xp.zeros(3, xp.float32)
    with pytest.raises(ValueError, match="shape"):
        row += x
    with pytest.raises(ValueError, match="shape"):
        xp.add(row, row, out=x)  # NumPy would repeat the row


def test_a_product_goes_into_contiguous_memory_only(x):
    with pytest.raises(ValueError, match="contiguous"):
        xp.matmul(x, x.T, out=xp.empty((2, 4), xp.float32)[:, :2])


def test_a_zero_dimensional_array_promotes_as_any_other(x):
    assert (x * on_device(2.0, np.float64)).dtype == np.float64
    assert (x * 2.0).dtype == np.float32


@pytest.mark.parametrize("f", [xp.sum, xp.max, xp.argmax, lambda x: x[0, 0], lambda x: x[0] @ x[0]])
def test_one_number_stays_an_array_on_the_device(f, x):
    number = f(x)
    assert type(number) is StrictArray
    assert number.shape == ()
    twice = 2 * float(number)
    number *= 2  # an array can be written to
    assert float(number) == twice


def test_memory_from_empty_is_not_a_number():
    assert np.isnan(xp.empty((2, 3), xp.float32).get()).all()
    assert np.isnan(xp.empty_like(on_device([1, 2])).get()).all()


# --- waiting for the device


SYNCHRONISATIONS = {
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "bool": lambda x: bool(x[0, 0]),
    "if": lambda x: 1 if x[0, 0] > 0 else 0,
    "math": lambda x: math.sqrt(x[0, 0]),
    "item": lambda x: x[0, 0].item(),
    "tolist": lambda x: x.tolist(),
    "get": lambda x: x.get(),
    "asnumpy": lambda x: xp.asnumpy(x),
    "repr": lambda x: repr(x),
    "str": lambda x: str(x),
    "format": lambda x: f"{x[0, 0]:.3f}",
    "iterate": lambda x: list(x),
    "unpack": lambda x: (lambda a, b: None)(*x),
    "read through a mask": lambda x: x[x > 2],
    "write through a mask": lambda x: x.__setitem__(x > 2, 0.0),
    "where": lambda x: xp.where(x > 2),
    "nonzero": lambda x: xp.nonzero(x),
}
UPLOADS = {
    "asarray": lambda x: xp.asarray(HOST),
    "array": lambda x: xp.array([1.0]),
    "a number": lambda x: xp.asarray(1.0),
}
ON_THE_DEVICE = {
    "arithmetic": lambda x: (x + x) * 2 - 1,
    "asarray": lambda x: xp.asarray(x),
    "indices": lambda x: x[xp.arange(2)],
    "where": lambda x: xp.where(x > 2, x, 0.0),
    "shape": lambda x: (x.shape, x.dtype, x.ndim, x.size, x.nbytes, len(x)),
    "product": lambda x: x @ x.T,
    "full": lambda x: xp.full((2, 2), 3.0),
}


@pytest.mark.parametrize("f", SYNCHRONISATIONS.values(), ids=SYNCHRONISATIONS)
def test_a_synchronisation_counts_one_and_is_refused_where_none_may_be(f, x):
    with counted() as counts:
        f(x)
    assert (counts.synchronisations, counts.uploads) == (1, 0)
    with no_synchronisation(), pytest.raises(SynchronisationError, match="wait"):
        f(x)


@pytest.mark.parametrize("f", UPLOADS.values(), ids=UPLOADS)
def test_an_upload_counts_one_and_is_refused_where_none_may_be(f, x):
    with counted() as counts:
        f(x)
    assert (counts.synchronisations, counts.uploads, counts.allocations) == (0, 1, 1)
    with no_synchronisation(), pytest.raises(SynchronisationError, match="sends data"):
        f(x)


@pytest.mark.parametrize("f", ON_THE_DEVICE.values(), ids=ON_THE_DEVICE)
def test_what_stays_on_the_device_is_neither(f, x):
    with counted() as counts, no_synchronisation():
        f(x)
    assert (counts.synchronisations, counts.uploads) == (0, 0)


def test_after_the_block_waiting_is_allowed_again(x):
    with pytest.raises(SynchronisationError), no_synchronisation():
        float(x[0, 0])
    assert float(x[0, 0]) == 1.0


# --- kernels and allocations


def add_in_place(x):
    x += 1


def add_to_a_row(x):
    x[0] += 1


def subtract_at_indices(x):
    x[xp.asarray([0, 1]), xp.asarray([1, 2])] -= 1


@pytest.mark.parametrize(
    "f, kernels, allocations",
    [
        (lambda x: x + x, 1, 1),
        (lambda x: -x, 1, 1),
        (lambda x: xp.tanh(0.5 * x) * 2, 3, 3),
        (add_in_place, 1, 0),
        (add_to_a_row, 1, 0),  # and no copy of the row onto itself
        (lambda x: xp.exp(x, out=x), 1, 0),
        (lambda x: x.sum(axis=1, keepdims=True), 1, 1),
        (lambda x: x.astype(np.float64), 1, 1),
        (lambda x: x.astype(np.float32, copy=False), 0, 0),
        (lambda x: (x[0], x[:, 1:], x[..., None], x.T, x.real, x.reshape(-1), x.ravel()), 0, 0),
        (lambda x: x.T.reshape(-1), 1, 1),  # not a view
        (lambda x: x.__setitem__(0, x[1]), 1, 0),
        (lambda x: x.fill(0), 1, 0),
        (lambda x: x[xp.asarray([0, 0])], 1, 2),  # the indices' upload allocates too
        (lambda x: x.take(xp.asarray([0, 0]), axis=0), 1, 2),
        (lambda x: x[xp.asarray([0, 1]), xp.asarray([1, 2])], 4, 4),
        (subtract_at_indices, 9, 5),
        (lambda x: xp.add.at(x, xp.asarray([0, 0]), x), 1, 1),
        (lambda x: x @ x.T, 1, 1),
        (lambda x: x[:, 1:] @ x[:, 1:].T, 3, 3),  # both operands are copied first
        (lambda x: xp.matmul(x, x.T, out=xp.empty((2, 2), xp.float32)), 1, 1),
        (lambda x: xp.concatenate([x] * 4, axis=1, out=xp.empty((2, 12), xp.float32)), 4, 1),
        (lambda x: xp.stack([x] * 9), 1, 1),
        (lambda x: xp.empty(3), 0, 1),
        (lambda x: xp.zeros_like(x), 1, 1),
    ],
)
def test_counts_kernels_and_allocations(f, kernels, allocations, x):
    with counted() as counts:
        f(x)
    assert (counts.kernels, counts.allocations) == (kernels, allocations)


def test_only_what_happens_inside_the_block_is_counted(x):
    with counted() as outer:
        x + x
        with counted() as inner:
            x + x
    x + x
    assert (outer.kernels, inner.kernels) == (2, 1)


def test_a_fused_function_is_one_kernel_and_allocates_its_results(x):
    @xp.fuse
    def f(a, b):
        c = xp.tanh(a) * b
        return c, 1 - c * c

    with counted() as counts:
        f(x, x)
    assert (counts.kernels, counts.allocations) == (1, 2)


@pytest.mark.parametrize(
    "inside",
    [
        lambda x: x @ x,
        lambda x: x.sum(),
        lambda x: x.reshape(-1),
        lambda x: x[0],
        lambda x: x.T,
        lambda x: xp.concatenate([x, x]),
        lambda x: xp.zeros(3),
        lambda x: xp.asarray(1.0),
        lambda x: x * float(x[0, 0]),
        lambda x: 1.0,
    ],
)
def test_a_fused_function_holds_nothing_but_elementwise_arithmetic(inside, x):
    with pytest.raises(TypeError):
        xp.fuse(inside)(x)
    x.sum()  # and outside of it everything is allowed again


def test_a_fused_function_takes_arrays_by_position_only(x):
    f = xp.fuse(lambda a, b: a + b)
    with pytest.raises(TypeError):
        f(x, b=x)
    with pytest.raises(TypeError):
        f(x, HOST)


# --- the numbers are NumPy's


def test_computes_what_numpy_computes(x, ids):
    a = x.get()
    for got, expected in [
        (2 - x / 3, 2 - a / 3),
        (x**2 // 2, a**2 // 2),
        (x[:, ids] <= 4, a[:, [0, 1, 1]] <= 4),
        (x[ids[:2], ids[1:]], a[[0, 1], [1, 1]]),
        (xp.vdot(x[0], x[1]), np.vdot(a[0], a[1])),
        (xp.where(x > 2, x, 0.0), np.where(a > 2, a, np.float32(0))),
        (xp.stack([x, x], axis=1).mean(axis=2), np.stack([a, a], axis=1).mean(axis=2)),
        (xp.broadcast_to(x[0], (2, 3)).argmax(axis=1), np.array([2, 2])),
    ]:
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got.get(), expected)
    xp.add.at(x, ids, xp.ones((3, 3), xp.float32))
    np.testing.assert_array_equal(x.get(), a + np.array([[1], [2]]))
    x[0, 1:] = x[1, :2]
    np.testing.assert_array_equal(x.get()[0], [2, 6, 7])


def test_asarray_copies_what_it_uploads():
    host = np.zeros(2)
    there = xp.asarray(host)
    host[0] = 1
    assert there.tolist() == [0, 0]


# --- how minilstm meets it


def test_minilstm_knows_it_inside_the_block_alone(x):
    table, cupy = dict(backend._array_modules), sys.modules.get("cupy")
    with standing_in_for_cupy():
        assert backend.get_array_module(x) is xp
        assert backend.get_array_module(HOST) is np
        assert type(backend.to_device(HOST, "cuda")) is StrictArray
    assert backend._array_modules == table
    assert sys.modules.get("cupy") is cupy
    with pytest.raises(backend.InputError):
        backend.get_array_module(x)


@pytest.mark.cupy
def test_offers_nothing_that_cupy_has_not():
    import cupy

    names = {name for name in vars(xp) if not name.startswith("_")}
    assert len(names) > 80
    assert sorted(name for name in names if not hasattr(cupy, name)) == []
    methods = {name for name in vars(StrictArray) if not name.startswith("_") or name[:2] == "__"}
    methods -= {"__slots__", "__module__", "__array_ufunc__", "__doc__", "__firstlineno__"}
    methods -= {"__static_attributes__", "__array__"}
    assert sorted(name for name in methods if not hasattr(cupy.ndarray, name)) == []
    assert not hasattr(StrictArray, "__index__")
    assert not hasattr(cupy.ndarray, "__index__")
