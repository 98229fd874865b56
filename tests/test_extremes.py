"""Where numbers, lengths or batches are as large or as small as they get: finite, and right."""

import numpy as np
import pytest

import minilstm as ml
from minilstm.gradcheck import complex_step

V, H = 5, 4
CONFIG = ml.ModelConfig(V, hidden_size=H, num_layers=2, embedding_size=3)


def params_of(scale=1.0, dtype=np.float64, config=CONFIG):
    params = ml.init_params(config, np.random.default_rng(0), dtype)
    return {name: p * dtype(scale) for name, p in params.items()}


def ids_of(T, B, seed=1):
    return np.random.default_rng(seed).integers(0, V, (T + 1, B))


@pytest.mark.parametrize("workspace", [None, ml.Workspace()], ids=["page", "fast"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("T, B", [(10_000, 1), (1, 1), (1, 3), (7, 1)])
def test_loss_and_gradients_of_any_length_are_finite_and_those_of_pieces(T, B, dtype, workspace):
    params, ids = params_of(dtype=dtype), ids_of(T, B)
    loss, grads, state = ml.loss_and_grads(params, CONFIG, ids[:-1], ids[1:], workspace=workspace)
    grads, state = {k: g.copy() for k, g in grads.items()}, tuple(s.copy() for s in state)
    assert all(np.isfinite(g).all() for g in grads.values())
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    caches, carried, mean = [], None, 0.0
    for part in (slice(0, T // 2), slice(T // 2, T)):
        if part.stop > part.start:
            share = (part.stop - part.start) / T
            logits, carried, cache = ml.forward_with_cache(params, CONFIG, ids[:-1][part], carried)
            of_part, dlogits = ml.softmax_cross_entropy(logits, ids[1:][part])
            caches.append((dlogits * dtype(share), cache))
            mean += share * float(of_part)
    assert float(loss) == pytest.approx(mean, rel=tolerance)
    for one, other in zip(state, carried, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
    summed, dstate = {name: 0 * g for name, g in grads.items()}, None
    for dlogits, cache in reversed(caches):
        of_piece, dstate = ml.backward(dlogits, cache, dstate)
        summed = {name: summed[name] + g for name, g in of_piece.items()}
    for name, g in grads.items():
        largest = abs(g).max()
        np.testing.assert_allclose(summed[name], g, rtol=0, atol=10 * tolerance * largest)


@pytest.mark.parametrize("workspace", [None, ml.Workspace()], ids=["page", "fast"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_that_are_shut_or_open_to_the_last_bit_have_finite_gradients(dtype, workspace):
    params, ids = params_of(1e4, dtype), ids_of(6, 2)
    _, _, cache = ml.forward_with_cache(params, CONFIG, ids[:-1])
    gates = np.concatenate([*cache.layers[1].i, *cache.layers[1].f, *cache.layers[1].o])
    assert ((gates == 0) | (gates == 1)).mean() > 0.9
    loss, grads, _ = ml.loss_and_grads(params, CONFIG, ids[:-1], ids[1:], workspace=workspace)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in grads.values())


def test_gradients_of_nearly_saturated_gates_are_right():
    params, ids = params_of(8.0), ids_of(6, 2)
    _, grads, _ = ml.loss_and_grads(params, CONFIG, ids[:-1], ids[1:])

    def f(arrays):
        logits, _ = ml.forward(arrays, CONFIG, ids[:-1])
        return ml.softmax_cross_entropy(logits, ids[1:])[0]

    assert complex_step(f, params, grads).passed
