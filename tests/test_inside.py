"""How far gradients reach and what cells follow, each against a way of its own to know it."""

import itertools

import numpy as np
import pytest
from handmade_models import random_model

import minilstm as ml
from minilstm import InputError, inside

IDS = np.array([0, 3, 1, 7, 2, 5, 5, 4])


def loss_and_grads_of(model, ids):
    column = ids[:, None]
    return ml.loss_and_grads(model.params, model.config, column[:-1], column[1:])


@pytest.mark.parametrize("name", ["lstm0.W_h", "lstm1.W_h", "lstm0.W_x", "lstm1.b", "fc.W"])
def test_the_terms_of_a_gradient_add_up_to_it(name):
    model = random_model()
    terms = inside.gradient_terms(model.params, model.config, IDS, name)
    assert len(terms) == len(IDS) - 1
    _, grads, _ = loss_and_grads_of(model, IDS)
    np.testing.assert_allclose(terms.sum(axis=0), grads[name], rtol=0, atol=1e-13)


def test_a_term_is_the_outer_product_of_the_state_read_and_dz():
    """The first step read h_0 = 0, so its term of W_h is zero, and no other's is."""
    model = random_model()
    terms = inside.gradient_terms(model.params, model.config, IDS, "lstm0.W_h")
    assert not terms[0].any()
    assert all(np.linalg.matrix_rank(term) == 1 for term in terms[1:])


@pytest.mark.parametrize("layers", [1, 2])
def test_the_gradient_norms_are_those_of_moving_h_or_c_where_it_is_made(layers):
    """Against central differences: h_t alone is moved, or c_t, on which h_t = o tanh(c_t) hangs."""
    model, eps = random_model(num_layers=layers), 1e-6
    norms = inside.gradient_norms(model.params, model.config, IDS)
    T, column = len(IDS) - 1, IDS[:, None]
    assert norms.shape == (2, T - 1)

    def loss(t, which, unit, by):
        _, (h, c) = ml.forward(model.params, model.config, column[: t + 1])
        if which == 0:
            h[-1, 0, unit] += by
        else:
            o = h[-1, 0, unit] / np.tanh(c[-1, 0, unit])
            c[-1, 0, unit] += by
            h[-1, 0, unit] = o * np.tanh(c[-1, 0, unit])
        logits, _ = ml.forward(model.params, model.config, column[t + 1 : T], (h, c))
        return float(ml.softmax_cross_entropy(logits[-1:], column[T:])[0])

    for which, t in itertools.product((0, 1), (0, 3, T - 2)):
        units = range(model.config.hidden_size)
        slopes = [(loss(t, which, n, eps) - loss(t, which, n, -eps)) / (2 * eps) for n in units]
        assert norms[which, t] == pytest.approx(np.linalg.norm(slopes), rel=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda p, c: inside.gradient_norms(p, c, [0, 1]),
        lambda p, c: inside.gradient_norms(p, c, np.zeros((5, 2), int)),
        lambda p, c: inside.gradient_reach(p, c, np.zeros((5, 2), int)),
        lambda p, c: inside.gradient_terms(p, c, [0], "fc.W"),
        lambda p, c: inside.gradient_terms(p, c, IDS, "nope"),
        lambda p, c: inside.cell_states(p, c, []),
        lambda p, c: inside.cell_states(p, c, np.zeros((5, 2), int)),
        lambda p, c: inside.coloured("ab", [0, 1.01]),
        lambda p, c: inside.coloured("ab", [0, np.nan]),
        lambda p, c: inside.coloured("ab", [0]),
    ],
)
def test_what_is_no_text_is_refused(call):
    model = random_model()
    with pytest.raises(InputError, match=r"must|need"):
        call(model.params, model.config)


def test_an_empty_text_has_no_features():
    assert all(len(values) == 0 for values in inside.features("").values())


def test_a_row_of_the_reach_is_the_gradient_of_that_steps_loss():
    """Against central differences: each entry of h_s is moved, the rest of the text read on."""
    model, eps = random_model(num_layers=1), 1e-6
    reach = inside.gradient_reach(model.params, model.config, IDS)
    T, column = len(IDS) - 1, IDS[:, None]
    assert np.isnan(reach[np.triu_indices(T)]).all()

    def loss(t, s, unit, by):
        _, (h, c) = ml.forward(model.params, model.config, column[: s + 1])
        h[0, 0, unit] += by
        logits, _ = ml.forward(model.params, model.config, column[s + 1 : t + 1], (h, c))
        return float(ml.softmax_cross_entropy(logits[-1:], column[t + 1 : t + 2])[0])

    for t, s in [(1, 0), (4, 1), (6, 0), (6, 5)]:
        H = model.config.hidden_size
        slopes = [(loss(t, s, n, eps) - loss(t, s, n, -eps)) / (2 * eps) for n in range(H)]
        assert reach[t, s] == pytest.approx(np.linalg.norm(slopes), rel=1e-5)


def test_cell_states_are_those_of_one_pass_however_long_the_text():
    model = random_model()
    ids = np.tile(IDS, 40)  # more than are read at a time
    states = inside.cell_states(model.params, model.config, ids)
    assert states.shape == (len(ids), 2, 5)
    _, (_, c) = ml.forward(model.params, model.config, ids[:, None])
    np.testing.assert_allclose(states[-1], np.tanh(c[:, 0]), rtol=0, atol=1e-13)


def test_features_begin_and_end_where_they_should():
    found = inside.features('He "said" (x (y) z).\n')
    text = 'He "said" (x (y) z).\n'
    quoted = "".join(sign for sign, inside_ in zip(text, found["quotes"], strict=True) if inside_)
    bracketed = "".join(sign for sign, on in zip(text, found["brackets"], strict=True) if on)
    assert (quoted, bracketed) == ('"said', "(x (y) z")
    assert found["line"].tolist() == [*range(1, len(text)), 0]
    assert found["word"][:5].tolist() == [1, 2, 0, 1, 2]


def test_a_bracket_that_was_never_opened_closes_nothing():
    assert inside.features(") (a) b")["brackets"].tolist() == [0, 0, 1, 1, 0, 0, 0]


def test_the_search_finds_the_cell_that_follows_and_the_one_that_runs_against_it():
    text = 'ab (cd) ef "gh" ij\n' * 3
    rng = np.random.default_rng(0)
    states = 0.3 * rng.normal(size=(len(text), 2, 4))
    states[:, 1, 2] -= inside.features(text)["brackets"]
    states[:, 0, 3] = 0.01 * inside.features(text)["line"]
    states[:, 0, 0] = 0  # never moves, follows nothing
    found = inside.search(states, text)
    assert found["brackets"][0][1:3] == (1, 2)
    assert found["brackets"][0].r < -0.7
    assert found["line"][0][1:3] == (0, 3)
    assert found["line"][0].r == pytest.approx(1)
    assert found["line"][-1][1:3] == (0, 0)
    assert set(inside.search(states[:5], text[:5])) == {"brackets", "line", "word"}


def test_the_search_refuses_states_of_another_text():
    with pytest.raises(InputError, match=r"states must be of the text's characters, got \(2, 3\)"):
        inside.search(np.zeros((3, 1, 1)), "ab")


def test_coloured_text_is_the_text_between_shades():
    shown = inside.coloured("a\nb", [-1, 0, 1])
    assert shown == (
        "\x1b[48;5;232;38;5;15ma\x1b[48;5;244;38;5;16m↵\x1b[0m\n\x1b[48;5;255;38;5;16mb\x1b[0m"
    )
