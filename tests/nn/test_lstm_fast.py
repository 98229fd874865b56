"""The faster form: what the page computes, in arrays that are used again."""

import numpy as np
import pytest
from closeness import assert_close, assert_gradients

import minilstm as ml
from minilstm.nn import lstm, lstm_fast, lstm_steps
from minilstm.nn.embedding import embedding_backward, one_hot
from minilstm.workspace import Workspace

T, B, D, H, V = 6, 5, 3, 4, 7
KINDS = ["one-hot", "rows of a table", "any x"]


def arrays(kind, seed=0, dtype=np.float64, T=T, B=B):
    """The table (or x itself), W_x, W_h, b, h0, c0; and ids."""
    rng = np.random.default_rng(seed)
    columns = V if kind == "one-hot" else D
    shapes = {"W_x": (columns, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,), "h0": (B, H), "c0": (B, H)}
    if kind != "one-hot":
        shapes["x"] = (V, D) if kind == "rows of a table" else (T, B, D)
    made = {name: rng.normal(scale=0.7, size=shape).astype(dtype) for name, shape in shapes.items()}
    return made, rng.integers(V, size=(T, B))


def through_the_page(kind, a, ids, dhs, dstate):
    if kind == "one-hot":
        x = one_hot(ids, V, a["W_x"].dtype)
    else:
        x = a["x"][ids] if kind == "rows of a table" else a["x"]
    hs, last, cache = lstm.lstm_forward(x, (a["h0"], a["c0"]), a["W_x"], a["W_h"], a["b"])
    dx, (dh, dc), grads = lstm.lstm_backward(dhs, dstate, cache)
    if kind == "rows of a table":
        dx = embedding_backward(dx, ids, V)
    values = {"hs": hs, "h_T": last[0], "c_T": last[1]}
    grads = {"h0": dh, "c0": dc, **grads._asdict()} | ({} if kind == "one-hot" else {"x": dx})
    return values, grads


def through_the_fast_form(kind, a, ids, dhs, dstate, workspace):
    x = a["x"] if kind == "any x" else lstm_fast.Lookup(ids, a.get("x"))
    hs, last, cache = lstm_fast.lstm_forward(
        x, (a["h0"], a["c0"]), a["W_x"], a["W_h"], a["b"], workspace, "layer"
    )
    values = {"hs": hs.copy(), "h_T": last[0].copy(), "c_T": last[1].copy()}
    dx, (dh, dc), grads = lstm_fast.lstm_backward(dhs, dstate, cache)
    grads = {"h0": dh, "c0": dc, **grads._asdict()} | ({} if dx is None else {"x": dx})
    return values, {name: gradient.copy() for name, gradient in grads.items()}


def gradients_from_above(seed=1, dtype=np.float64, T=T, B=B):
    rng = np.random.default_rng(seed)
    dhs, dh, dc = (rng.normal(size=s).astype(dtype) for s in ((T, B, H), (B, H), (B, H)))
    return dhs, (dh, dc)


@pytest.fixture(
    params=[(None, 1e6), (4, 1e6), (2, 1e6), (4, 0)],
    ids=["whole products", "by gate", "by half gates", "by gate, the input's whole"],
)
def columns(request, monkeypatch):
    """How many columns of W_h a product has at a time, whatever would be the fastest here; and up
    to how many multiplications the input's product is by blocks too."""
    width, small = request.param
    monkeypatch.setattr(lstm_steps, "columns_at_once", lambda xp, B, H: width if B > 1 else None)
    monkeypatch.setattr(lstm_fast, "SMALL", small)
    # Steps in chunks that do not divide T: 3 of the input's product, 2 of the slopes.
    monkeypatch.setattr(lstm_steps, "NUMBERS", 3 * B * 4 * H)
    monkeypatch.setattr(lstm_steps, "SLOPES", 2 * B * H)


def test_products_are_by_blocks_where_each_is_small():
    widths = {(B, H): lstm_steps.columns_at_once(np, B, H) for B, H in
              [(32, 128), (32, 256), (64, 256), (20, 400), (1, 128)]}  # fmt: skip
    assert widths == {(32, 128): 128, (32, 256): 64, (64, 256): None, (20, 400): None,
                      (1, 128): None}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-14), (np.float32, 5e-6)])
def test_equals_the_page(kind, dtype, tolerance, columns):
    """One workspace for all: what a call finds in its arrays does not matter."""
    workspace = Workspace()
    # One sequence is read with the weights as they are, or with copies of them for H steps or more.
    shapes = [(T, B), (T, B), (1, B), (H - 1, 1), (T, 1), (20, B), (T, B)]
    for seed, (steps, sequences) in enumerate(shapes):
        a, ids = arrays(kind, seed, dtype, steps, sequences)
        above = gradients_from_above(seed, dtype, steps, sequences)
        values, grads = through_the_fast_form(kind, a, ids, *above, workspace)
        assert {found.dtype for found in (*values.values(), *grads.values())} == {np.dtype(dtype)}
        expected_values, expected_grads = through_the_page(kind, a, ids, *above)
        assert_close(values, expected_values, tolerance)
        assert_close(grads, expected_grads, 10 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_backward_is_the_derivative_of_forward(kind, columns):
    a, ids = arrays(kind)
    dhs, (dh_T, dc_T) = gradients_from_above()

    def f(moved):
        x = moved["x"] if kind == "any x" else lstm_fast.Lookup(ids, moved.get("x"))
        state = moved["h0"], moved["c0"]
        hs, (h, c), _ = lstm_fast.lstm_forward(
            x, state, moved["W_x"], moved["W_h"], moved["b"], Workspace(), "layer"
        )
        return (dhs * hs).sum() + (dh_T * h).sum() + (dc_T * c).sum()

    _, grads = through_the_fast_form(kind, a, ids, dhs, (dh_T, dc_T), Workspace())
    assert_gradients(f, a, grads)


def test_the_weights_and_what_came_in_stay_as_they_were():
    a, ids = arrays("any x")
    dhs, dstate = gradients_from_above()
    all_of_them = {**a, "dhs": dhs, "dh": dstate[0], "dc": dstate[1]}
    before = {name: array.copy() for name, array in all_of_them.items()}
    through_the_fast_form("any x", a, ids, dhs, dstate, Workspace())
    for name, array in all_of_them.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


# --- in the model

CONFIGS = {
    "one-hot": ml.ModelConfig(V, H, 2),
    "embedding": ml.ModelConfig(V, H, 2, embedding_size=D),
    "embedding of more rows than tokens": ml.ModelConfig(100, H, 1, embedding_size=D),
    "tied": ml.ModelConfig(V, H, 3, embedding_size=H, tie_weights=True),
    "dropout": ml.ModelConfig(V, H, 2, embedding_size=D, dropout=0.3, embedding_dropout=0.2,
                              output_dropout=0.4, weight_drop=0.3, locked_dropout=True),
    "dropout above the first layer": ml.ModelConfig(V, H, 2, embedding_size=D, dropout=0.3),
}  # fmt: skip


def step_of(config, workspace, seed, state=None):
    rng = np.random.default_rng(seed)
    params = ml.init_params(config, rng, np.float64)
    inputs, targets = rng.integers(config.vocab_size, size=(2, T, B))
    return ml.loss_and_grads(params, config, inputs, targets, state, rng=rng, workspace=workspace)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_loss_and_grads_with_a_workspace_are_those_without(config):
    workspace, state, expected_state = Workspace(), None, None
    for seed in range(3):  # with the state carried
        loss, grads, state = step_of(config, workspace, seed, state)
        expected, expected_grads, expected_state = step_of(config, None, seed, expected_state)
        assert_close(
            {"loss": loss, "h": state[0], "c": state[1], **grads},
            {"loss": expected, "h": expected_state[0], "c": expected_state[1], **expected_grads},
            tolerance=1e-13,
        )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_with_a_workspace_is_that_without(config):
    params = ml.init_params(config, np.random.default_rng(0), np.float64)
    inputs = np.random.default_rng(1).integers(config.vocab_size, size=(T, B))
    logits, (h, c) = ml.forward(params, config, inputs, workspace=Workspace())
    expected, (h_page, c_page) = ml.forward(params, config, inputs)
    found = {"logits": logits, "h": h, "c": c}
    assert_close(found, {"logits": expected, "h": h_page, "c": c_page}, tolerance=1e-14)


def test_a_state_is_not_changed_by_the_step_that_begins_with_it():
    workspace = Workspace()
    _, _, state = step_of(CONFIGS["one-hot"], workspace, seed=0)
    before = [part.copy() for part in state]
    step_of(CONFIGS["one-hot"], workspace, seed=1, state=state)
    assert all(np.array_equal(part, kept) for part, kept in zip(state, before, strict=True))


def test_the_same_arrays_serve_step_after_step():
    workspace = Workspace()
    taken = [workspace._kept["lstm0"][1] for n in range(3)
             if step_of(CONFIGS["one-hot"], workspace, n)]  # fmt: skip
    assert taken[0] is taken[1] is taken[2]
