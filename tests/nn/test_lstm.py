"""The LSTM against three references: complex step, central differences, and a naive loop.

All sizes differ, T > 1, biases and initial states are random and not zero, and gradient flows in
through hs, h_T and c_T: with T = 1, zero states or a gradient into hs alone, a backward pass that
forgets what comes from the future would pass.
"""

import math

import numpy as np
import pytest
from closeness import assert_close, assert_gradients

from minilstm.nn.lstm import cell_backward, cell_forward, lstm_backward, lstm_forward, sigmoid

T, B, D, H = 4, 3, 2, 5


def random_arrays(seed=0, steps=T, dtype=np.float64):
    """What a forward pass reads, by name."""
    shapes = {
        "x": (steps, B, D),
        "h0": (B, H),
        "c0": (B, H),
        "W_x": (D, 4 * H),
        "W_h": (H, 4 * H),
        "b": (4 * H,),
    }
    return random(shapes, seed, dtype)


def random_upstream(seed=1, steps=T, dtype=np.float64):
    """The gradient of the loss with respect to what a forward pass returns, by name."""
    return random({"hs": (steps, B, H), "h_T": (B, H), "c_T": (B, H)}, seed, dtype)


def random(shapes, seed, dtype):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def forward(arrays):
    """lstm_forward with what it returns by name: outputs, cache."""
    x, h0, c0, W_x, W_h, b = arrays.values()
    hs, (h_T, c_T), cache = lstm_forward(x, (h0, c0), W_x, W_h, b)
    return {"hs": hs, "h_T": h_T, "c_T": c_T}, cache


def backward(upstream, cache):
    """lstm_backward with the gradients under the names of `random_arrays`."""
    dstate = upstream["h_T"], upstream["c_T"]
    dx, (dh0, dc0), weights = lstm_backward(upstream["hs"], dstate, cache)
    return {"x": dx, "h0": dh0, "c0": dc0, **weights._asdict()}


def copies(arrays):
    return {name: array.copy() for name, array in arrays.items()}


def assert_identical(actual, expected):
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


# --- numeric derivatives


def test_cell_backward_is_the_derivative_of_cell_forward():
    names = ("z_i", "z_f", "z_g", "z_o", "c_prev")
    arrays = random(dict.fromkeys(names, (B, H)), 2, np.float64)
    upstream = random({"h_t": (B, H), "c_t": (B, H)}, 3, np.float64)

    def loss(a):
        h_t, c_t, *_ = cell_forward(*(a[name] for name in names))
        return (upstream["h_t"] * h_t).sum() + (upstream["c_t"] * c_t).sum()

    _, _, i, f, g, o, tanh_c = cell_forward(*arrays.values())
    grads = cell_backward(*upstream.values(), i, f, g, o, arrays["c_prev"], tanh_c)
    assert_gradients(loss, arrays, dict(zip(names, grads, strict=True)))


@pytest.mark.parametrize("into", ["hs h_T c_T", "hs", "h_T", "c_T"])
def test_sequence_backward_is_the_derivative_of_sequence_forward(into):
    arrays, upstream = random_arrays(), random_upstream()
    for name in upstream.keys() - set(into.split()):
        upstream[name] *= 0

    def loss(a):
        outputs, _ = forward(a)
        return sum((upstream[name] * outputs[name]).sum() for name in upstream)

    _, cache = forward(arrays)
    assert_gradients(loss, arrays, backward(upstream, cache))


# --- a loop over sequences, steps and units, from the equations


def sigma(z):
    return 1 / (1 + math.exp(-z))


def sigma_prime(z):
    return math.exp(-z) / (1 + math.exp(-z)) ** 2


def tanh_prime(z):
    return 1 / math.cosh(z) ** 2


def naive_lstm(x, h0, c0, W_x, W_h, b, dhs, dh_T, dc_T):
    """Outputs and gradients with one number at a time, nothing shared, everything added up."""
    outputs = {"hs": np.zeros((T, B, H)), "h_T": np.zeros((B, H)), "c_T": np.zeros((B, H))}
    dx, dh0, dc0 = np.zeros((T, B, D)), np.zeros((B, H)), np.zeros((B, H))
    dW_x, dW_h, db = np.zeros((D, 4 * H)), np.zeros((H, 4 * H)), np.zeros(4 * H)

    for n in range(B):
        h, c = {-1: h0[n]}, {-1: c0[n]}  # h[t][k]: unit k after step t
        z = {}  # z[t, "f"][k]: pre-activation of unit k's forget gate at step t
        for t in range(T):
            for block, gate in enumerate("ifgo"):
                z[t, gate] = [0.0] * H
                for k in range(H):
                    column = block * H + k
                    z[t, gate][k] = b[column]
                    for d in range(D):
                        z[t, gate][k] += x[t, n, d] * W_x[d, column]
                    for j in range(H):
                        z[t, gate][k] += h[t - 1][j] * W_h[j, column]
            h[t], c[t] = [0.0] * H, [0.0] * H
            for k in range(H):
                i, f, o = (sigma(z[t, gate][k]) for gate in "ifo")
                c[t][k] = f * c[t - 1][k] + i * math.tanh(z[t, "g"][k])
                h[t][k] = o * math.tanh(c[t][k])
            outputs["hs"][t, n] = h[t]
        outputs["h_T"][n], outputs["c_T"][n] = h[T - 1], c[T - 1]

        dh = {t: list(dhs[t, n]) for t in range(T)} | {-1: [0.0] * H}
        dc = {t: [0.0] * H for t in range(-1, T)}
        for k in range(H):
            dh[T - 1][k] += dh_T[n, k]
            dc[T - 1][k] += dc_T[n, k]
        for t in reversed(range(T)):
            for k in range(H):
                z_i, z_f, z_g, z_o = (z[t, gate][k] for gate in "ifgo")
                dc[t][k] += dh[t][k] * sigma(z_o) * tanh_prime(c[t][k])
                dc[t - 1][k] += dc[t][k] * sigma(z_f)
                dz = {
                    "i": dc[t][k] * math.tanh(z_g) * sigma_prime(z_i),
                    "f": dc[t][k] * c[t - 1][k] * sigma_prime(z_f),
                    "g": dc[t][k] * sigma(z_i) * tanh_prime(z_g),
                    "o": dh[t][k] * math.tanh(c[t][k]) * sigma_prime(z_o),
                }
                for block, gate in enumerate("ifgo"):
                    column = block * H + k
                    db[column] += dz[gate]
                    for d in range(D):
                        dW_x[d, column] += x[t, n, d] * dz[gate]
                        dx[t, n, d] += W_x[d, column] * dz[gate]
                    for j in range(H):
                        dW_h[j, column] += h[t - 1][j] * dz[gate]
                        dh[t - 1][j] += W_h[j, column] * dz[gate]
        dh0[n], dc0[n] = dh[-1], dc[-1]

    return outputs, {"x": dx, "h0": dh0, "c0": dc0, "W_x": dW_x, "W_h": dW_h, "b": db}


def test_forward_equals_a_naive_loop_over_gates_and_units():
    arrays, upstream = random_arrays(), random_upstream()
    expected, _ = naive_lstm(*arrays.values(), *upstream.values())
    assert_close(forward(arrays)[0], expected, tolerance=1e-12)


def test_backward_equals_a_naive_loop_over_gates_and_units():
    arrays, upstream = random_arrays(), random_upstream()
    _, expected = naive_lstm(*arrays.values(), *upstream.values())
    assert_close(backward(upstream, forward(arrays)[1]), expected, tolerance=1e-12)


# --- one pass and several


CUTS = [[6, 12], [4, 8, 12], [1, 3, 7, 12], list(range(1, 13))]  # where each chunk of 12 steps ends


def forward_in_chunks(arrays, cuts):
    """Forward with the state carried from chunk to chunk: the outputs, and each chunk's cache."""
    state, hs, caches, start = {"h0": arrays["h0"], "c0": arrays["c0"]}, [], [], 0
    for end in cuts:
        outputs, cache = forward(arrays | state | {"x": arrays["x"][start:end]})
        state = {"h0": outputs["h_T"], "c0": outputs["c_T"]}
        hs.append(outputs["hs"])
        caches.append((slice(start, end), cache))
        start = end
    return {**outputs, "hs": np.concatenate(hs)}, caches


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_split_sequence_with_carried_state_equals_one_pass(cuts):
    arrays = random_arrays(steps=12)
    whole, _ = forward(arrays)
    chunked, _ = forward_in_chunks(arrays, cuts)
    assert_close(chunked, whole, tolerance=1e-13)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_split_backward_with_the_gradient_of_the_state_handed_back_equals_one_pass(cuts):
    arrays, upstream = random_arrays(steps=12), random_upstream(steps=12)
    whole = backward(upstream, forward(arrays)[1])

    _, caches = forward_in_chunks(arrays, cuts)
    dx, dstate = [], {"h_T": upstream["h_T"], "c_T": upstream["c_T"]}
    weights = dict.fromkeys(("W_x", "W_h", "b"), 0)
    for steps, cache in reversed(caches):
        grads = backward({"hs": upstream["hs"][steps], **dstate}, cache)
        dstate = {"h_T": grads["h0"], "c_T": grads["c0"]}
        dx.insert(0, grads["x"])
        weights = {name: weights[name] + grads[name] for name in weights}
    chunked = {"x": np.concatenate(dx), "h0": grads["h0"], "c0": grads["c0"], **weights}
    assert_close(chunked, whole, tolerance=1e-13)


def test_the_last_output_is_the_last_hidden_state():
    outputs, _ = forward(random_arrays())
    np.testing.assert_array_equal(outputs["hs"][-1], outputs["h_T"])


# --- nothing is hidden, nothing is touched


def test_forward_and_backward_leave_their_arguments_as_they_were():
    arrays, upstream = random_arrays(), random_upstream()
    arrays_before, upstream_before = copies(arrays), copies(upstream)
    outputs, cache = forward(arrays)
    outputs_before = copies(outputs)
    backward(upstream, cache)
    assert_identical(arrays, arrays_before)
    assert_identical(upstream, upstream_before)
    assert_identical(outputs, outputs_before)


def test_a_chunk_leaves_no_gradient_behind_for_the_next():
    zeros = np.zeros((B, H)), np.zeros((B, H))  # truncated BPTT hands the same zeros to each chunk
    dhs = random_upstream()["hs"]
    first, second = forward(random_arrays(seed=4))[1], forward(random_arrays(seed=5))[1]
    alone = lstm_backward(dhs, (np.zeros((B, H)), np.zeros((B, H))), second)[0]
    lstm_backward(dhs, zeros, first)
    np.testing.assert_array_equal(lstm_backward(dhs, zeros, second)[0], alone)


def test_backward_after_another_forward_is_that_of_its_own_cache():
    arrays, upstream = random_arrays(), random_upstream()
    expected = copies(backward(upstream, forward(arrays)[1]))
    _, cache = forward(arrays)
    forward(random_arrays(seed=6))
    assert_identical(backward(upstream, cache), expected)


def test_backward_twice_gives_the_same_twice():
    upstream = random_upstream()
    _, cache = forward(random_arrays())
    first = copies(backward(upstream, cache))
    assert_identical(backward(upstream, cache), first)


# --- numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_of_everything_follows_the_arrays(dtype):
    outputs, cache = forward(random_arrays(dtype=dtype))
    grads = backward(random_upstream(dtype=dtype), cache)
    cached = {name: np.stack(value) for name, value in cache._asdict().items()}
    for name, array in {**outputs, **cached, **grads}.items():
        assert array.dtype == dtype, name


def test_float32_is_float64_rounded():
    arrays, upstream = random_arrays(), random_upstream()
    outputs, cache = forward(arrays)
    expected = {**outputs, **backward(upstream, cache)}
    outputs, cache = forward({name: a.astype(np.float32) for name, a in arrays.items()})
    grads = backward({name: d.astype(np.float32) for name, d in upstream.items()}, cache)
    assert_close({**outputs, **grads}, expected, tolerance=2e-6)


def test_sigmoid_is_the_logistic_function():
    z = np.linspace(-30, 30, 601)
    np.testing.assert_allclose(sigmoid(z), [sigma(value) for value in z], rtol=0, atol=4e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_does_not_overflow(dtype):
    z = np.array([-1e30, -1e4, 0, 1e4, 1e30], dtype=dtype)
    np.testing.assert_array_equal(sigmoid(z), np.array([0, 0, 0.5, 1, 1], dtype=dtype))


def test_sequences_of_one_step_one_row_one_input_and_one_unit():
    rng = np.random.default_rng(7)
    x, h0, c0 = rng.normal(size=(1, 1, 1)), rng.normal(size=(1, 1)), rng.normal(size=(1, 1))
    W_x, W_h, b = rng.normal(size=(1, 4)), rng.normal(size=(1, 4)), rng.normal(size=4)
    hs, (h, c), _ = lstm_forward(x, (h0, c0), W_x, W_h, b)
    z_i, z_f, z_g, z_o = (x[0] * W_x + h0 * W_h + b)[0]
    c_1 = sigma(z_f) * c0.item() + sigma(z_i) * math.tanh(z_g)
    assert (hs.shape, h.shape, c.shape) == ((1, 1, 1), (1, 1), (1, 1))
    assert c.item() == pytest.approx(c_1, rel=1e-14)
    assert h.item() == pytest.approx(sigma(z_o) * math.tanh(c_1), rel=1e-14)
