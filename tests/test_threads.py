"""Work in several threads: the same numbers, in the same order, and the limits given back."""

import threading

import numpy as np
import pytest
from closeness import assert_close
from threadpoolctl import threadpool_info

import minilstm as ml
from minilstm import model, optim
from minilstm.evaluation import evaluate
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


def test_work_inside_a_thread_of_one_product_thread_begins_no_further_ones(two_threads):
    """Else it would wait for the threads that wait for it."""
    outer = in_threads(lambda n: in_threads(lambda m: threads_now(), range(3)), "ab", products=1)
    assert outer == [[1, 1, 1]] * 2
    assert threads_now() == 2


def test_an_error_in_a_thread_is_the_callers_and_the_limit_is_given_back(two_threads):
    def fail(n):
        raise ml.InputError(f"piece {n}")

    with pytest.raises(ml.InputError, match="piece 0"):
        in_threads(fail, range(2), products=1)
    assert threads_now() == 2


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


# --- a batch whose sequences are shared out

CONFIGS = {
    "one-hot": ml.ModelConfig(V, H, 2),
    "every kind of dropout": ml.ModelConfig(
        V, H, 2, embedding_size=H, dropout=0.3, embedding_dropout=0.2, output_dropout=0.4,
        weight_drop=0.3),
    "locked": ml.ModelConfig(
        V, H, 2, embedding_size=5, dropout=0.3, output_dropout=0.4, locked_dropout=True),
    "tied": ml.ModelConfig(V, H, 1, embedding_size=H, tie_weights=True),
}  # fmt: skip


def parts(monkeypatch, n):
    monkeypatch.setattr(model, "_parts", lambda config, B, reference: min(n, B))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("B", [2, 7])
def test_a_batch_in_parts_has_the_loss_and_gradients_of_the_whole(
    config, B, monkeypatch, two_threads
):
    """With the same masks, and a state carried."""
    params = ml.init_params(config, np.random.default_rng(0), np.float64)
    inputs, targets = np.random.default_rng(1).integers(V, size=(2, T, B))
    found = {}
    for n in (1, 2, 3):
        parts(monkeypatch, n)
        workspace, state = ml.Workspace(), None
        for step in range(2):
            loss_value, grads, state = ml.loss_and_grads(
                params, config, inputs, targets, state, rng=np.random.default_rng(step),
                workspace=workspace)  # fmt: skip
        grads = {name: g.copy() for name, g in grads.items()}
        found[n] = {"loss": loss_value, "h": state[0], "c": state[1], **grads}
    assert_close(found[2], found[1], tolerance=1e-13)
    assert_close(found[3], found[1], tolerance=1e-13)


def test_the_same_parts_give_the_same_bits(monkeypatch, two_threads):
    config = CONFIGS["one-hot"]
    params = ml.init_params(config, np.random.default_rng(0))
    inputs, targets = np.random.default_rng(1).integers(V, size=(2, T, 8))
    parts(monkeypatch, 2)
    first, again = (
        ml.loss_and_grads(params, config, inputs, targets, workspace=ml.Workspace())
        for _ in range(2)
    )
    assert first[0] == again[0]
    assert all(np.array_equal(g, again[1][name]) for name, g in first[1].items())


@pytest.mark.parametrize("window", [None, 4])
def test_an_evaluation_in_parts_scores_what_one_in_one_does(window, monkeypatch, two_threads):
    config = CONFIGS["one-hot"]
    params = ml.init_params(config, np.random.default_rng(0), np.float64)
    ids = np.random.default_rng(1).integers(V, size=103)
    results = []
    for n in (1, 2, 3):
        parts(monkeypatch, n)
        results.append(evaluate(params, config, ids, streams=5, window=window))
    assert [r.tokens for r in results] == [102] * 3
    assert [r.accuracy for r in results] == [results[0].accuracy] * 3
    assert [r.loss for r in results] == pytest.approx([results[0].loss] * 3, rel=1e-14)


def test_a_large_batch_is_shared_out_and_a_small_or_a_wide_one_is_not(two_threads):
    reference = np.zeros(1)
    sizes = [(128, 512), (64, 256), (32, 128), (20, 400), (64, 1024), (1, 512)]
    found = {(B, H): len(model.shares_of_a_batch(ml.ModelConfig(65, H), B, reference))
             for B, H in sizes}  # fmt: skip
    assert found == {(128, 512): 2, (64, 256): 2, (32, 128): 1, (20, 400): 1, (64, 1024): 1,
                     (1, 512): 1}  # fmt: skip
    with thread_limit(1):
        shares = model.shares_of_a_batch(ml.ModelConfig(65, 512), 128, reference)
        assert shares == [slice(0, 128)]


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
