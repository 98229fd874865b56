"""The model: every gradient of every kind and depth, and what it does with states and bad input."""

import dataclasses
import math

import numpy as np
import pytest
from closeness import assert_close, assert_gradients

import minilstm as ml

T, B, V, H, E = 6, 5, 7, 4, 8  # all different, and none a number of layers
every_kind = pytest.mark.parametrize("kind", ["one-hot", "embedding", "tied"])
every_depth = pytest.mark.parametrize("L", [1, 2, 3])
every_init = pytest.mark.parametrize(
    "init", ["pytorch", "xavier", "orthogonal", "xavier_orthogonal"]
)


def config_of(kind="one-hot", L=2, V=V, H=H, E=E, **settings):
    kinds = {
        "one-hot": {},
        "embedding": {"embedding_size": E},
        "tied": {"embedding_size": H, "tie_weights": True},
    }
    return ml.ModelConfig(vocab_size=V, hidden_size=H, num_layers=L, **kinds[kind], **settings)


def random_params(config, seed=0, dtype=np.float64):
    """Every parameter random, the biases too."""
    rng = np.random.default_rng(seed)
    shapes = config.parameter_shapes()
    return {name: rng.normal(scale=0.7, size=s).astype(dtype) for name, s in shapes.items()}


def random_state(config, seed=1, dtype=np.float64):
    """A state, or the gradient of one."""
    rng = np.random.default_rng(seed)
    h, c = rng.normal(size=(2, config.num_layers, B, H)).astype(dtype)
    return h, c


def random_ids(seed=2, steps=T):
    return np.random.default_rng(seed).integers(V, size=(steps, B))


def through_the_seams(params, config, inputs, targets, state, dstate=None):
    """loss, grads, state and the gradient of the initial state, one visible step at a time."""
    logits, state, cache = ml.forward_with_cache(params, config, inputs, state)
    loss, dlogits = ml.softmax_cross_entropy(logits, targets)
    grads, dstate_0 = ml.backward(dlogits, cache, dstate)
    return loss, grads, state, dstate_0


# --- gradients


@every_kind
@every_depth
def test_backward_is_the_derivative_of_forward(kind, L):
    """Every parameter, h0 and c0, with gradient into the logits, h_T and c_T."""
    config = config_of(kind, L)
    params, (h0, c0) = random_params(config), random_state(config)
    inputs, targets = random_ids(seed=3), random_ids(seed=4)
    dh_T, dc_T = random_state(config, seed=5)

    def loss(a):
        logits, (h_T, c_T) = ml.forward(a, config, inputs, (a["h0"], a["c0"]))
        nats, _ = ml.softmax_cross_entropy(logits, targets)
        return nats + (dh_T * h_T).sum() + (dc_T * c_T).sum()

    _, grads, _, (dh_0, dc_0) = through_the_seams(
        params, config, inputs, targets, (h0, c0), (dh_T, dc_T)
    )
    assert_gradients(loss, {**params, "h0": h0, "c0": c0}, {**grads, "h0": dh_0, "c0": dc_0})


@every_kind
def test_loss_and_grads_are_the_loss_and_its_derivative(kind):
    config = config_of(kind)
    params, state = random_params(config), random_state(config)
    inputs, targets = random_ids(seed=3), random_ids(seed=4)

    def loss(a):
        logits, _ = ml.forward(a, config, inputs, state)
        return ml.softmax_cross_entropy(logits, targets)[0]

    value, grads, _ = ml.loss_and_grads(params, config, inputs, targets, state)
    assert float(value) == pytest.approx(float(loss(params)), rel=1e-14)
    assert_gradients(loss, params, grads)


@every_kind
@every_depth
def test_loss_and_grads_equals_its_three_steps(kind, L):
    config = config_of(kind, L)
    params, state = random_params(config), random_state(config)
    inputs, targets = random_ids(seed=3), random_ids(seed=4)
    loss, grads, (h, c) = ml.loss_and_grads(params, config, inputs, targets, state)
    expected = through_the_seams(params, config, inputs, targets, state)
    assert grads.keys() == params.keys()
    assert_close(
        {"loss": loss, "h": h, "c": c, **grads},
        {"loss": expected[0], "h": expected[2][0], "c": expected[2][1], **expected[1]},
        tolerance=1e-14,
    )


@pytest.mark.parametrize("locked", [False, True], ids=["fresh each step", "locked"])
def test_backward_through_dropout_is_the_derivative_with_the_same_masks(locked):
    rates = {"dropout": 0.5, "embedding_dropout": 0.3, "output_dropout": 0.4, "weight_drop": 0.2}
    config = config_of("embedding", L=2, locked_dropout=locked, **rates)
    params, state = random_params(config), random_state(config)
    inputs, targets = random_ids(seed=3), random_ids(seed=4)

    def loss(a):
        rng = np.random.default_rng(9)
        logits, _, _ = ml.forward_with_cache(a, config, inputs, state, rng=rng)
        return ml.softmax_cross_entropy(logits, targets)[0]

    rng = np.random.default_rng(9)
    value, grads, _ = ml.loss_and_grads(params, config, inputs, targets, state, rng=rng)
    assert float(value) == pytest.approx(float(loss(params)), rel=1e-14)
    assert_gradients(loss, params, grads)


@every_depth
def test_a_tied_matrix_gets_the_gradients_of_both_its_places(L):
    tied, params = config_of("tied", L), random_params(config_of("tied", L))
    untied = ml.ModelConfig(vocab_size=V, hidden_size=H, num_layers=L, embedding_size=H)
    same = {**params, "fc.W": params["embedding.W"].T}
    inputs, targets = random_ids(seed=3), random_ids(seed=4)
    _, grads, _ = ml.loss_and_grads(params, tied, inputs, targets, random_state(tied))
    _, apart, _ = ml.loss_and_grads(same, untied, inputs, targets, random_state(tied))
    both = apart["embedding.W"] + apart["fc.W"].T
    assert_close({"W": grads["embedding.W"]}, {"W": both}, tolerance=1e-14)
    assert np.all(apart["embedding.W"].any(axis=1))
    assert np.all(apart["fc.W"] != 0)


# --- forward, and the state


@every_kind
def test_forward_equals_forward_with_cache(kind):
    config = config_of(kind)
    params, state, inputs = random_params(config), random_state(config), random_ids()
    logits, (h, c) = ml.forward(params, config, inputs, state)
    expected, (h_T, c_T), _ = ml.forward_with_cache(params, config, inputs, state)
    for actual, wanted in ((logits, expected), (h, h_T), (c, c_T)):
        np.testing.assert_array_equal(actual, wanted)


def test_no_state_is_the_state_of_zeros():
    config, inputs = config_of(), random_ids()
    params = random_params(config)
    zeros = ml.init_state(config, B, dtype=np.float64)
    assert [part.shape for part in zeros] == [(2, B, H)] * 2
    assert [part.dtype for part in zeros] == [np.float64] * 2
    assert [part.dtype for part in ml.init_state(config, B)] == [np.float32] * 2
    assert not any(part.any() for part in zeros)
    logits, _ = ml.forward(params, config, inputs)
    np.testing.assert_array_equal(logits, ml.forward(params, config, inputs, zeros)[0])
    assert np.abs(logits - ml.forward(params, config, inputs, random_state(config))[0]).max() > 0.1


@every_kind
@every_depth
def test_chunks_with_carried_state_equal_one_pass(kind, L):
    config = config_of(kind, L)
    params, state, inputs = random_params(config), random_state(config), random_ids(steps=12)
    expected, (h_T, c_T) = ml.forward(params, config, inputs, state)
    pieces = []
    for chunk in (inputs[:5], inputs[5:6], inputs[6:]):
        logits, state = ml.forward(params, config, chunk, state)
        pieces.append(logits)
    assert_close(
        {"logits": np.concatenate(pieces), "h": state[0], "c": state[1]},
        {"logits": expected, "h": h_T, "c": c_T},
        tolerance=1e-13,
    )


@every_kind
@every_depth
def test_chunks_that_hand_the_gradient_back_equal_backward_through_the_whole(kind, L):
    config = config_of(kind, L)
    params, state, inputs = random_params(config), random_state(config), random_ids(steps=12)
    dlogits = np.random.default_rng(6).normal(size=(12, B, V))
    _, _, cache = ml.forward_with_cache(params, config, inputs, state)
    expected, (dh_0, dc_0) = ml.backward(dlogits, cache, random_state(config, seed=7))

    chunks, caches = (slice(0, 5), slice(5, 6), slice(6, 12)), []
    for chunk in chunks:
        _, state, cache = ml.forward_with_cache(params, config, inputs[chunk], state)
        caches.append(cache)
    dstate, total = random_state(config, seed=7), dict.fromkeys(params, 0)
    for chunk, cache in zip(reversed(chunks), reversed(caches), strict=True):
        grads, dstate = ml.backward(dlogits[chunk], cache, dstate)
        total = {name: total[name] + grads[name] for name in params}
    assert_close(
        {**total, "h0": dstate[0], "c0": dstate[1]},
        {**expected, "h0": dh_0, "c0": dc_0},
        tolerance=1e-13,
    )


def test_no_gradient_into_the_state_truncates_at_the_end_of_the_chunk():
    config = config_of()
    _, _, cache = ml.forward_with_cache(random_params(config), config, random_ids())
    dlogits = np.random.default_rng(6).normal(size=(T, B, V))
    grads, (dh_0, dc_0) = ml.backward(dlogits, cache)
    expected, (dh, dc) = ml.backward(dlogits, cache, ml.init_state(config, B, dtype=np.float64))
    for name in expected:
        np.testing.assert_array_equal(grads[name], expected[name], err_msg=name)
    np.testing.assert_array_equal((dh_0, dc_0), (dh, dc))


@every_kind
def test_nothing_that_was_passed_in_is_changed(kind):
    config = config_of(kind)
    params, (h0, c0) = random_params(config), random_state(config)
    inputs, targets = random_ids(seed=3), random_ids(seed=4)
    arrays = {**params, "h0": h0, "c0": c0, "inputs": inputs, "targets": targets}
    before = {name: array.copy() for name, array in arrays.items()}
    ml.forward(params, config, inputs, (h0, c0))
    ml.loss_and_grads(params, config, inputs, targets, (h0, c0))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_gradients_of_an_earlier_call_are_not_overwritten_by_a_later():
    config = config_of("embedding")
    params, targets = random_params(config), random_ids(seed=4)
    _, grads, state = ml.loss_and_grads(params, config, random_ids(seed=3), targets)
    kept = {name: gradient.copy() for name, gradient in grads.items()}
    kept_h, kept_c = state[0].copy(), state[1].copy()
    ml.loss_and_grads(params, config, random_ids(seed=8), targets, state)
    for name in grads:
        np.testing.assert_array_equal(grads[name], kept[name], err_msg=name)
    np.testing.assert_array_equal(state, (kept_h, kept_c))


@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_parameters(kind, dtype):
    config = config_of(kind)
    params = ml.init_params(config, np.random.default_rng(0), dtype=dtype)
    inputs, targets = random_ids(seed=3), random_ids(seed=4)
    logits, _ = ml.forward(params, config, inputs)
    loss, grads, state = ml.loss_and_grads(params, config, inputs, targets)
    assert {array.dtype for array in (logits, *state, *grads.values())} == {np.dtype(dtype)}
    assert loss.dtype == np.float64


@pytest.mark.parametrize("id_dtype", [np.uint8, np.int16, np.uint64])
def test_ids_of_any_integer_dtype_mean_the_same(id_dtype):
    config, inputs, targets = config_of("embedding"), random_ids(seed=3), random_ids(seed=4)
    params = random_params(config)
    expected, _, _ = ml.loss_and_grads(params, config, inputs, targets)
    ids = inputs.astype(id_dtype), targets.astype(id_dtype)
    assert ml.loss_and_grads(params, config, *ids)[0] == expected


# --- dropout


PLACES = {  # where a rate acts, among what a forward pass keeps
    "embedding_dropout": lambda cache: cache.layers[0].x,
    "dropout": lambda cache: cache.layers[1].x,
    "output_dropout": lambda cache: cache.hs,
    "weight_drop": lambda cache: cache.layers[1].W_h,
}


@pytest.mark.parametrize("rate", PLACES)
def test_each_dropout_acts_in_its_own_place_and_keeps_the_mean(rate):
    """There, a quarter is zero and the rest is 4/3 of what it was; elsewhere nothing is zero."""
    config = config_of("embedding", L=2, H=32, E=24, **{rate: 0.25})
    params, inputs = random_params(config), random_ids(steps=20)
    _, _, without = ml.forward_with_cache(params, config, inputs)
    rng = np.random.default_rng(9)
    _, _, cache = ml.forward_with_cache(params, config, inputs, rng=rng)
    for name, place in PLACES.items():
        dropped = place(cache) == 0
        if name == rate:
            assert dropped.mean() == pytest.approx(0.25, abs=0.05)
            kept = place(without)[~dropped] / 0.75
            np.testing.assert_allclose(place(cache)[~dropped], kept, rtol=1e-6)
        else:
            assert not dropped.any()


@pytest.mark.parametrize("rate", ["embedding_dropout", "dropout", "output_dropout"])
def test_locked_dropout_drops_the_same_at_every_step(rate):
    for locked in (False, True):
        config = config_of("embedding", L=2, locked_dropout=locked, **{rate: 0.5})
        rng = np.random.default_rng(9)
        _, _, cache = ml.forward_with_cache(random_params(config), config, random_ids(), rng=rng)
        dropped = PLACES[rate](cache) == 0  # (T, B, D)
        assert np.all(dropped == dropped[0]) == locked
        assert not np.all(dropped[:, 0] == dropped[:, 1])


def test_without_a_generator_nothing_is_dropped():
    rates = dict.fromkeys(PLACES, 0.5)
    config, plain = config_of("embedding", **rates), config_of("embedding")
    params, inputs, targets = random_params(config), random_ids(seed=3), random_ids(seed=4)
    loss, grads, _ = ml.loss_and_grads(params, config, inputs, targets)
    expected, expected_grads, _ = ml.loss_and_grads(params, plain, inputs, targets)
    assert loss == expected
    for name in params:
        np.testing.assert_array_equal(grads[name], expected_grads[name], err_msg=name)


def test_dropout_between_layers_of_which_there_is_one_is_warned_of(caplog):
    config_of(L=2, dropout=0.5)
    assert not caplog.records
    config_of(L=1, dropout=0.5)
    (record,) = caplog.records
    assert record.getMessage().startswith("dropout 0.5 acts between layers, and there is one")


# --- initial parameters


@every_kind
@every_init
def test_a_new_model_guesses_uniformly(kind, init):
    """Its loss is near ln V, whatever the text, so a first loss far from that is a bug."""
    config = config_of(kind, V=50, H=64, E=32, init=init)
    params = ml.init_params(config, np.random.default_rng(0))
    inputs, targets = np.random.default_rng(1).integers(50, size=(2, 20, 8))
    loss, _, _ = ml.loss_and_grads(params, config, inputs, targets)
    assert float(loss) == pytest.approx(math.log(50), abs=0.1)


@every_kind
def test_pytorch_init_draws_within_one_over_the_root_of_h(kind):
    params = ml.init_params(config_of(kind, 3), np.random.default_rng(0))
    bounded = [value for name, value in params.items() if name != "embedding.W"]
    assert max(np.abs(value).max() for value in bounded) <= 1 / math.sqrt(H)
    assert all(np.unique(value).size == value.size for value in bounded)  # drawn, biases too


def test_pytorch_init_draws_the_embedding_from_a_normal_distribution_narrower_if_tied():
    for kind, spread in (("embedding", 1), ("tied", 1 / math.sqrt(100))):
        params = ml.init_params(config_of(kind, V=300, H=100), np.random.default_rng(0))
        assert params["embedding.W"].std() == pytest.approx(spread, rel=0.05)
        assert np.abs(params["embedding.W"]).max() > 2.5 * spread


@pytest.mark.parametrize(
    ("init", "W_x_is", "W_h_is"),
    [
        ("xavier", "xavier", "xavier"),
        ("orthogonal", "orthogonal", "orthogonal"),
        ("xavier_orthogonal", "xavier", "orthogonal"),
    ],
)
def test_other_inits_act_on_the_whole_matrix_of_four_gates(init, W_x_is, W_h_is):
    config = config_of("embedding", L=1, V=80, H=60, E=70, init=init)
    params = ml.init_params(config, np.random.default_rng(0), dtype=np.float64)
    for name, kind in (("lstm0.W_x", W_x_is), ("lstm0.W_h", W_h_is)):
        W, (rows, columns) = params[name], params[name].shape
        if kind == "orthogonal":
            np.testing.assert_allclose(W @ W.T, np.eye(rows), atol=1e-13)
        else:
            assert np.abs(W).max() == pytest.approx(math.sqrt(6 / (rows + columns)), rel=1e-3)
    for name in ("embedding.W", "fc.W"):
        assert np.abs(params[name]).max() == pytest.approx(0.1, rel=1e-2)
    assert not params["lstm0.b"].any()
    assert not params["fc.b"].any()


@every_kind
@every_init
def test_forget_bias_lands_on_the_forget_gate_alone(kind, init):
    without = ml.init_params(config_of(kind, 3, init=init), np.random.default_rng(0))
    with_it = ml.init_params(
        config_of(kind, 3, init=init, forget_bias=1.25), np.random.default_rng(0)
    )
    forget = slice(H, 2 * H)  # the second block of i, f, g, o
    for name, value in with_it.items():
        if name.startswith("lstm") and name.endswith(".b"):
            np.testing.assert_array_equal(value[forget], np.full(H, 1.25, np.float32))
            without[name][forget] = 1.25
        np.testing.assert_array_equal(value, without[name], err_msg=name)


def test_a_very_negative_forget_bias_forgets_the_cell():
    """The block that init_params calls forget is the one that the cell multiplies c_prev with."""
    config = config_of(L=1, forget_bias=-1e4)
    params = ml.init_params(config, np.random.default_rng(0))
    h, c = random_state(config, dtype=np.float32)
    inputs = random_ids(steps=1)
    expected, _ = ml.forward(params, config, inputs, (h, 0 * c))
    np.testing.assert_array_equal(ml.forward(params, config, inputs, (h, c))[0], expected)


@every_kind
def test_a_seed_means_the_same_parameters_and_another_seed_others(kind):
    config = config_of(kind)
    first, again, other = (ml.init_params(config, np.random.default_rng(s)) for s in (1, 1, 2))
    for name, shape in config.parameter_shapes().items():
        assert first[name].shape == shape
        assert first[name].dtype == np.float32
        assert first[name].flags.c_contiguous
        np.testing.assert_array_equal(first[name], again[name])
        assert np.any(first[name] != other[name])


@every_kind
def test_float32_parameters_are_the_float64_ones_rounded(kind):
    config = config_of(kind)
    single = ml.init_params(config, np.random.default_rng(0))
    double = ml.init_params(config, np.random.default_rng(0), dtype=np.float64)
    for name in single:
        np.testing.assert_array_equal(single[name], double[name].astype(np.float32))


# --- what is refused, in one line that quotes what came and what was wanted


IDS = np.zeros((4, 3), np.int64)  # (T, B)
CONFIG = ml.ModelConfig(vocab_size=7, hidden_size=5, num_layers=2)
STATE = (np.zeros((2, 3, 5), np.float32), np.zeros((2, 3, 5), np.float32))  # (L, B, H)


def ids_with(value):
    ids = IDS.copy()
    ids[2, 1] = value
    return ids


BAD_INPUTS = [
    (IDS[:0], "inputs must have shape (T, B), both at least 1, got (0, 3)"),
    (IDS[:, :0], "inputs must have shape (T, B), both at least 1, got (4, 0)"),
    (IDS[0], "inputs must have shape (T, B), both at least 1, got (3,)"),
    (IDS[None], "inputs must have shape (T, B), both at least 1, got (1, 4, 3)"),
    (IDS.astype(float), "inputs must be an array of integer ids, got float64"),
    (IDS.astype(bool), "inputs must be an array of integer ids, got bool"),
    (IDS.astype(str), "inputs must be an array of integer ids, got <U21"),
    (IDS.tolist(), "inputs must be an array of integer ids, got list"),
    ("hello", "inputs must be an array of integer ids, got str"),
    (None, "inputs must be an array of integer ids, got NoneType"),
    (ids_with(7), "inputs must hold ids from 0 to 6, got 7"),
    (ids_with(-1), "inputs must hold ids from 0 to 6, got -1"),
    (ids_with(2**40), "inputs must hold ids from 0 to 6, got 1099511627776"),
]
BAD_TARGETS = [
    (IDS[:3], "targets must have shape (T, B) = (4, 3), got (3, 3)"),
    (IDS.T, "targets must have shape (T, B) = (4, 3), got (3, 4)"),
    (IDS.reshape(-1), "targets must have shape (T, B) = (4, 3), got (12,)"),
    (IDS.astype(np.float32), "targets must be an array of integer ids, got float32"),
    (IDS.tolist(), "targets must be an array of integer ids, got list"),
    (ids_with(7), "targets must hold ids from 0 to 6, got 7"),
    (ids_with(-1), "targets must hold ids from 0 to 6, got -1"),
]
WANTED = "must have shape (L, B, H) = (2, 3, 5), got "
BAD_STATES = [
    ((STATE[0][0], STATE[1]), f"state h {WANTED}(3, 5)"),
    ((STATE[0], STATE[1][:1]), f"state c {WANTED}(1, 3, 5)"),
    ((STATE[0][:, :2], STATE[1][:, :2]), f"state h {WANTED}(2, 2, 5)"),
    ((STATE[0].swapaxes(0, 1), STATE[1].swapaxes(0, 1)), f"state h {WANTED}(3, 2, 5)"),
    ((STATE[0], STATE[1][:, :, :4]), f"state c {WANTED}(2, 3, 4)"),
]


@pytest.fixture
def params():
    return ml.init_params(CONFIG, np.random.default_rng(0))


@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS, ids=[m[12:] for _, m in BAD_INPUTS])
def test_inputs_that_do_not_fit_are_refused(params, inputs, message):
    assert_refuses(lambda: ml.forward(params, CONFIG, inputs), message)
    assert_refuses(lambda: ml.forward_with_cache(params, CONFIG, inputs), message)
    assert_refuses(lambda: ml.loss_and_grads(params, CONFIG, inputs, IDS), message)


@pytest.mark.parametrize(("targets", "message"), BAD_TARGETS, ids=[m[13:] for _, m in BAD_TARGETS])
def test_targets_that_do_not_fit_are_refused(params, targets, message):
    assert_refuses(lambda: ml.loss_and_grads(params, CONFIG, IDS, targets), message)


@pytest.mark.parametrize(("state", "message"), BAD_STATES, ids=[m for _, m in BAD_STATES])
def test_a_state_of_another_shape_is_refused(params, state, message):
    _, _, cache = ml.forward_with_cache(params, CONFIG, IDS)
    dlogits = np.ones((4, 3, 7), np.float32)
    assert_refuses(lambda: ml.forward(params, CONFIG, IDS, state), message)
    assert_refuses(lambda: ml.loss_and_grads(params, CONFIG, IDS, IDS, state), message)
    assert_refuses(lambda: ml.backward(dlogits, cache, state), "d" + message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a positive integer, got 0"),
        ({"hidden_size": -3}, "hidden_size must be a positive integer, got -3"),
        ({"hidden_size": 5.0}, "hidden_size must be a positive integer, got 5.0"),
        ({"num_layers": 0}, "num_layers must be a positive integer, got 0"),
        ({"num_layers": True}, "num_layers must be a positive integer, got True"),
        ({"vocab_size": "7"}, "vocab_size must be a positive integer, got '7'"),
        ({"embedding_size": 0}, "embedding_size must be a positive integer, got 0"),
        (
            {"tie_weights": True},
            "tie_weights needs embedding_size = hidden_size = 5, got embedding_size None",
        ),
        (
            {"tie_weights": True, "embedding_size": 6},
            "tie_weights needs embedding_size = hidden_size = 5, got embedding_size 6",
        ),
        ({"forget_bias": math.nan}, "forget_bias must be a finite number, got nan"),
        ({"forget_bias": math.inf}, "forget_bias must be a finite number, got inf"),
        ({"forget_bias": "1"}, "forget_bias must be a finite number, got '1'"),
        ({"dropout": 1.0}, "dropout must be a finite number in [0, 1), got 1.0"),
        ({"output_dropout": -0.1}, "output_dropout must be a finite number in [0, 1), got -0.1"),
        ({"weight_drop": "0.5"}, "weight_drop must be a finite number in [0, 1), got '0.5'"),
        (
            {"embedding_dropout": 0.5},
            "embedding_dropout 0.5 needs an embedding, got embedding_size None (one-hot input)",
        ),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_is_refused(settings, message):
    sizes = {"vocab_size": 7, "hidden_size": 5}
    assert_refuses(lambda: ml.ModelConfig(**{**sizes, **settings}), message)


def test_an_unknown_init_is_refused_with_the_known_ones():
    with pytest.raises(ml.InputError, match=r"^init must be .*pytorch.*orthogonal.*, got 'he'$"):
        ml.ModelConfig(vocab_size=7, hidden_size=5, init="he")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.hidden_size = 6


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_a_batch_of_no_size_has_no_state(batch_size):
    wanted = f"batch_size must be a positive integer, got {batch_size}"
    assert_refuses(lambda: ml.init_state(CONFIG, batch_size), wanted)


def assert_refuses(call, message):
    with pytest.raises(ml.InputError) as refused:
        call()
    assert str(refused.value) == message


@pytest.mark.parametrize("name", [*ml.init_params(CONFIG, np.random.default_rng(0)), "h_0", "c_0"])
def test_one_array_alone_can_be_checked_by_the_complex_step(name):
    rng = np.random.default_rng(1)
    params = ml.init_params(CONFIG, rng, np.float64)
    state = {"h_0": rng.standard_normal((2, 3, 5)), "c_0": rng.standard_normal((2, 3, 5))}
    arrays = params | state
    inputs, targets = rng.integers(0, 7, (2, 4, 3))
    logits, _, cache = ml.forward_with_cache(params, CONFIG, inputs, tuple(state.values()))
    grads, dstate = ml.backward(ml.softmax_cross_entropy(logits, targets)[1], cache)
    grads = grads | dict(zip(state, dstate, strict=True))

    def f(one):
        a = arrays | one
        logits, _ = ml.forward(a, CONFIG, inputs, (a["h_0"], a["c_0"]))
        return ml.softmax_cross_entropy(logits, targets)[0]

    assert ml.gradcheck.complex_step(f, {name: arrays[name]}, {name: grads[name]}).passed
