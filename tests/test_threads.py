"""Work in several threads: the same numbers, in the same order, and the limits given back."""

import threading

import numpy as np
import pytest
from closeness import assert_close
from threadpoolctl import threadpool_info

import minilstm as ml
from minilstm import optim
from minilstm.nn import loss
from minilstm.threads import in_threads, thread_limit, threads_now
from minilstm.workspace import empty

T, V, H = 6, 11, 8


@pytest.fixture
def two_threads():
    """Of the matrix products, however many cores there are."""
    with thread_limit(2):
        yield


def test_results_come_in_the_order_of_the_pieces_from_two_threads(two_threads):
    both = threading.Barrier(2, timeout=10)  # passed only if two are there at once
    names = in_threads(lambda n: (both.wait(), threading.current_thread().name)[1], range(2))
    assert len(set(names)) == 2
    assert in_threads(lambda n: n * n, range(7)) == [0, 1, 4, 9, 16, 25, 36]


def test_an_error_in_a_thread_is_the_callers(two_threads):
    def fail(n):
        raise ml.InputError(f"piece {n}")

    with pytest.raises(ml.InputError, match="piece 0"):
        in_threads(fail, range(2))


def test_the_limit_is_that_of_numpys_library_and_ends_with_the_block():
    def now():
        return [library["num_threads"] for library in threadpool_info()
                if library["user_api"] == "blas"]  # fmt: skip

    before = now()
    with thread_limit(1):
        assert set(now()) == {1}
        with thread_limit(None):
            assert threads_now() == 1
    assert now() == before


# --- long arrays, a piece in each


def test_adam_in_threads_takes_the_very_same_step(monkeypatch, two_threads):
    rng = np.random.default_rng(0)
    shapes = {"W": (40, 30), "b": (30,)}
    start = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    grads = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found = []
    for block in (1 << 30, 64):  # in one piece, and in many of which several at a time
        monkeypatch.setattr(optim, "BLOCK", block)
        params, optimizer = {name: p.copy() for name, p in start.items()}, ml.Adam()
        for _ in range(3):
            optimizer.step(params, grads)
        found.append(params)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in shapes)


def test_the_loss_of_rows_in_threads_is_that_of_all_at_once(monkeypatch, two_threads):
    rng = np.random.default_rng(0)
    hs, W, b = rng.normal(size=(T, 5, H)), rng.normal(size=(H, V)), rng.normal(size=V)
    targets = rng.integers(V, size=(T, 5))
    whole = loss.linear_cross_entropy(hs, W, b, targets)
    monkeypatch.setattr(loss, "CACHED", 2 * V)
    names = ("loss", "dhs", "dW", "db")
    pieces = dict(zip(names, loss.linear_cross_entropy(hs, W, b, targets), strict=True))
    assert_close(pieces, dict(zip(names, whole, strict=True)), tolerance=1e-14)


@pytest.mark.parametrize("shape", [(3,), (5, 7), (2, 3, 4), ()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_an_array_for_arithmetic_in_place_begins_a_line_of_the_cache(shape, dtype):
    array = empty(np, shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable
