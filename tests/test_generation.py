"""Sampling: the right probabilities, the right state, and text that a seed gives again."""

import math

import numpy as np
import pytest
from handmade_models import ALPHABET, V, chain, random_model, unigram
from hypothesis import given, settings
from hypothesis import strategies as st

from minilstm import (
    CharVocabulary,
    InputError,
    LanguageModel,
    ModelConfig,
    forward,
    generation,
    init_params,
)
from minilstm.generation import generate_ids, next_token_probabilities

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
scores = st.lists(st.floats(-8, 8, width=32), min_size=V, max_size=V).map(np.array)


@pytest.fixture
def passes(monkeypatch):
    """The (inputs, logits, state) of every forward pass that generation makes."""
    made = []

    def spy(params, config, inputs, state=None, **options):
        logits, state = forward(params, config, inputs, state, **options)
        made.append((inputs.copy(), logits.copy(), state))
        return logits, state

    monkeypatch.setattr(generation, "forward", spy)
    return made


# --- probabilities


@reproducible
@given(logits=scores, temperature=st.floats(0.05, 20))
def test_probabilities_are_the_softmax_of_logits_over_temperature(logits, temperature):
    weights = [math.exp(x / temperature) for x in logits.tolist()]
    expected = [w / math.fsum(weights) for w in weights]
    p = next_token_probabilities(logits, temperature)
    np.testing.assert_allclose(p, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [4, 50_000])
def test_float32_logits_give_float64_probabilities_that_sum_to_one(size):
    """float32 ones sum to 1 within 1e-7 V: too far for NumPy's choice in a large vocabulary."""
    logits = np.random.default_rng(0).normal(scale=3, size=size).astype(np.float32)
    for options in ({}, {"top_k": size // 2}, {"top_p": 0.9}, {"temperature": 5.0}):
        p = next_token_probabilities(logits, **options)
        assert p.dtype == np.float64
        assert abs(p.sum() - 1) < 1e-14 * math.sqrt(size)


@pytest.mark.parametrize("temperature", [1e-310, 1e-6, 1.0, 1e6, 1e300])
def test_no_logit_and_no_temperature_overflows(temperature):
    p = next_token_probabilities(np.array([1e4, -1e4, 0.0, 9999.0]), temperature)
    assert np.all(np.isfinite(p))
    assert p.sum() == pytest.approx(1, abs=1e-15)
    assert p[0] == p.max()


def test_a_tiny_temperature_leaves_only_the_likeliest_and_its_equals():
    p = next_token_probabilities(np.array([1.0, 3.0, 2.0, 3.0]), 1e-6)
    assert p.tolist() == [0, 0.5, 0, 0.5]
    # unless two are as close as the temperature is small
    p = next_token_probabilities(np.array([0.0, 1e-6]), 1e-6)
    np.testing.assert_allclose(p[1] / p[0], math.e)


def test_a_large_temperature_is_a_uniform_guess():
    p = next_token_probabilities(np.array([5.0, -5.0, 0.0, 1.0]), 1e9)
    np.testing.assert_allclose(p, 0.25, rtol=1e-7)


def test_an_infinitely_unlikely_token_has_probability_zero():
    p = next_token_probabilities(np.array([0.0, -np.inf, 0.0]), top_k=3, top_p=1.0)
    assert p.tolist() == [0.5, 0, 0.5]


def test_the_logits_are_left_as_they_were():
    logits = np.array([3.0, 1.0, 2.0])
    next_token_probabilities(logits, 0.5, top_k=2, top_p=0.5)
    assert logits.tolist() == [3, 1, 2]


@reproducible
@given(logits=scores, k=st.integers(1, V))
def test_top_k_keeps_the_k_likeliest_in_their_proportions(logits, k):
    p, full = next_token_probabilities(logits, top_k=k), next_token_probabilities(logits)
    kept = sorted(range(V), key=lambda i: (-full[i], i))[:k]
    assert np.flatnonzero(p).tolist() == sorted(kept)
    np.testing.assert_allclose(p[kept], full[kept] / full[kept].sum(), rtol=1e-12)


def test_top_k_breaks_ties_in_favour_of_the_smaller_id():
    logits = np.array([1.0, 2.0, 2.0, 2.0, 0.0])
    assert next_token_probabilities(logits, top_k=1).tolist() == [0, 1, 0, 0, 0]
    assert next_token_probabilities(logits, top_k=2).tolist() == [0, 0.5, 0.5, 0, 0]


@reproducible
@given(logits=scores, top_p=st.floats(1e-6, 1 - 1e-6))
def test_top_p_keeps_the_smallest_set_that_reaches_it(logits, top_p):
    p, full = next_token_probabilities(logits, top_p=top_p), next_token_probabilities(logits)
    kept = sorted(np.flatnonzero(p), key=lambda i: (-full[i], i))
    assert kept == sorted(range(V), key=lambda i: (-full[i], i))[: len(kept)]
    assert math.fsum(full[kept]) >= top_p - 1e-15
    assert math.fsum(full[kept[:-1]]) < top_p + 1e-15
    np.testing.assert_allclose(p[kept], full[kept] / full[kept].sum(), rtol=1e-12)


@reproducible
@given(logits=scores, n=st.integers(1, V - 1))
def test_a_probability_that_is_reached_exactly_is_enough(logits, n):
    likeliest_first = -np.sort(-next_token_probabilities(logits))
    top_p = float(np.cumsum(likeliest_first)[n - 1])
    if top_p < 1 and likeliest_first[n - 1] > 1e-15:
        assert np.count_nonzero(next_token_probabilities(logits, top_p=top_p)) == n


def test_the_smallest_top_p_keeps_the_likeliest_alone():
    assert next_token_probabilities(np.zeros(3), top_p=1e-300).tolist() == [1, 0, 0]


def test_top_p_of_one_keeps_everything_down_to_the_least_likely():
    logits = np.array([0.0, -50.0, -700.0])  # 1 + e^-50 is 1 in float64
    np.testing.assert_array_equal(
        next_token_probabilities(logits, top_p=1.0), next_token_probabilities(logits)
    )


def test_top_p_counts_what_top_k_has_left():
    # Of .4 .3 .2 .1, k = 2 leaves 4/7 and 3/7, and 4/7 reaches .5; in the other order .4 would not.
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    assert next_token_probabilities(logits, top_k=2, top_p=0.5).tolist() == [0, 1, 0, 0]
    assert np.count_nonzero(next_token_probabilities(logits, top_p=0.5)) == 2


def test_temperature_acts_before_top_p():
    # .5 .25 .25 at temperature ½ is 4/6 1/6 1/6
    logits = np.log([0.25, 0.5, 0.25])
    assert np.count_nonzero(next_token_probabilities(logits, 1.0, top_p=0.6)) == 2
    assert np.count_nonzero(next_token_probabilities(logits, 0.5, top_p=0.6)) == 1


# --- choosing


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"forbidden": 1}], ids=str
)
def test_tokens_come_as_often_as_their_probabilities_say(options):
    N = 4000
    logits = np.log([0.1, 0.4, 0.3, 0.15, 0.05])
    model = unigram(logits)
    ids = generate_ids(
        model.params, model.config, np.array([0]), N, rng=np.random.default_rng(0), **options
    )
    counts = np.bincount(list(ids), minlength=5)
    if "forbidden" in options:
        logits[options["forbidden"]] = -np.inf
    p = next_token_probabilities(logits, **{k: v for k, v in options.items() if k != "forbidden"})
    assert np.all(counts[p == 0] == 0)
    # four standard deviations of a binomial count
    assert np.all(np.abs(counts - N * p) <= 4 * np.sqrt(N * p * (1 - p)))


def test_greedy_takes_the_likeliest_token_of_each_step(passes):
    model = random_model()
    ids = list(generate_ids(model.params, model.config, np.array([3, 1]), 12, greedy=True))
    assert ids == [int(logits[-1, 0].argmax()) for _, logits, _ in passes]
    assert len(set(ids)) > 2


def test_greedy_asks_neither_seed_nor_temperature():
    model = random_model()
    texts = {
        model.generate("abc", 20, temperature, greedy=True, seed=seed)
        for temperature, seed in [(1.0, 1), (9.0, 2), (0.1, None)]
    }
    assert len(texts) == 1


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
def test_the_unknown_symbol_never_comes_however_likely(greedy):
    vocab = CharVocabulary.from_text("ab", unknown="?")
    logits = np.zeros(3)
    logits[vocab.unknown_id] = 100.0
    model = unigram(logits, vocab)
    text = model.generate("a#b", 50, greedy=greedy, seed=0)  # "#" is read as unknown, not refused
    assert text[:3] == "a#b"
    assert set(text[3:]) <= set("ab")


# --- the state


@pytest.mark.parametrize("config", [{}, {"embedding_size": 3}], ids=["one-hot", "embedding"])
def test_every_step_sees_the_logits_of_one_forward_pass_over_the_whole_text(passes, config):
    """So both h and c are carried, and nothing is read twice or left out."""
    model = random_model(**config)
    prompt = np.array([2, 0, 5])
    ids = list(
        generate_ids(model.params, model.config, prompt, 9, rng=np.random.default_rng(0))
    )
    assert [inputs.shape for inputs, _, _ in passes] == [(3, 1)] + [(1, 1)] * 8
    whole = np.concatenate([prompt, ids])[:-1, np.newaxis]
    expected, (h, c) = forward(model.params, model.config, whole)
    seen = np.concatenate([logits for _, logits, _ in passes])
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(passes[-1][2][0], h, rtol=0, atol=1e-12)
    np.testing.assert_allclose(passes[-1][2][1], c, rtol=0, atol=1e-12)


def test_reading_the_prompt_in_one_pass_equals_token_by_token(passes):
    model, prompt = random_model(), np.array([4, 4, 1, 7, 0])
    next(generate_ids(model.params, model.config, prompt, 1))
    ((_, logits, (h, c)),) = passes
    state = None
    for token in prompt:
        one, state = forward(model.params, model.config, np.array([[token]]), state)
    np.testing.assert_allclose(logits[-1], one[-1], rtol=0, atol=1e-12 * np.abs(one).max())
    np.testing.assert_allclose(h, state[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(c, state[1], rtol=0, atol=1e-12)


def test_an_id_that_the_model_has_not_is_refused_at_the_call():
    model = random_model()
    V = model.config.vocab_size
    with pytest.raises(InputError, match=f"the prompt must hold ids from 0 to {V - 1}, got {V}"):
        generate_ids(model.params, model.config, np.array([0, V]), 0)


def test_a_text_depends_on_the_whole_prompt_not_on_its_last_letter():
    model = random_model()
    texts = {model.generate(prompt, 20, greedy=True)[3:] for prompt in ("abc", "ggc", "ehc")}
    assert len(texts) == 3


def test_a_generated_text_as_a_prompt_goes_on_as_it_did():
    model = random_model()
    text = model.generate("abc", 20, greedy=True)
    assert model.generate(text[:8], 15, greedy=True) == text


def test_generating_changes_no_weight_and_leaves_no_state_behind():
    model = random_model()
    before = {name: p.copy() for name, p in model.params.items()}
    first = model.generate("ab", 30, seed=3)
    model.generate("hgfedcba", 5, seed=4)
    assert model.generate("ab", 30, seed=3) == first
    for name in before:
        np.testing.assert_array_equal(model.params[name], before[name])


# --- text


def test_a_chain_of_letters_is_followed_from_wherever_the_prompt_ends():
    assert chain("abcde").generate("c", 6) == "cdeabcd"
    assert chain("abcde").generate("acb", 3) == "acbcde"


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.5}, {"stop": "ab"}], ids=str
)
def test_generate_is_the_prompt_and_the_joined_stream(options):
    model = random_model()
    pieces = list(model.stream("ab", 40, seed=7, **options))
    assert model.generate("ab", 40, seed=7, **options) == "ab" + "".join(pieces)
    assert all(len(piece) == 1 for piece in pieces)


def test_a_seed_gives_the_same_text_and_another_seed_another():
    model = random_model()
    texts = [model.generate("a", 40, seed=seed) for seed in (0, 0, 1, np.int64(1))]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert texts[0] != texts[2]


def test_without_a_seed_each_text_is_new():
    model = unigram(np.zeros(V))
    assert model.generate("a", 60) != model.generate("a", 60)  # equal once in 8^60 runs


def test_a_shorter_text_is_the_beginning_of_the_longer():
    model = random_model()
    assert model.generate("a", 40, seed=5).startswith(model.generate("a", 15, seed=5))


def test_a_text_of_no_length_is_the_prompt():
    assert random_model().generate("abc", 0) == "abc"
    assert list(random_model().stream("abc", 0)) == []


def test_a_prompt_may_be_longer_than_any_training_window():
    assert chain("abcde").generate("abcde" * 400, 3) == "abcde" * 400 + "abc"


def test_float32_and_float64_say_the_same():
    model, narrow = random_model(), random_model(np.float32)
    assert narrow.generate("a", 30, seed=1) == model.generate("a", 30, seed=1)


# --- stopping


@pytest.mark.parametrize(
    "prompt, stop, text",
    [
        ("a", "d", "abcd"),
        ("a", "cde", "abcde"),  # in three pieces
        ("abcde", "de", "abcdeabcde"),  # that it stands in the prompt does not count
        ("abcd", "de", "abcdeabcde"),  # nor that it begins there
        ("a", "b", "ab"),
        ("a", "xyz", "abcdeabcdeabc"),  # never comes
        ("a", "eabc", "abcdeabc"),
    ],
)
def test_a_text_ends_right_after_the_stop_text(prompt, stop, text):
    assert chain("abcde").generate(prompt, 12, stop=stop) == text


def test_after_the_stop_text_nothing_more_is_computed(passes):
    chain("abcde").generate("a", 1000, stop="de")
    assert len(passes) == 4


# --- streaming


def test_a_piece_costs_one_step_and_the_rest_waits(passes):
    pieces = random_model().stream("abc", 10**9, seed=0)
    assert len(passes) == 0
    for n in range(1, 4):
        assert next(pieces) in ALPHABET
        assert len(passes) == n


def test_two_streams_of_one_model_do_not_meet():
    model = random_model()
    one, other = model.stream("a", 20, seed=0), model.stream("hh", 20, seed=1)
    pairs = list(zip(one, other, strict=True))
    assert "a" + "".join(a for a, _ in pairs) == model.generate("a", 20, seed=0)
    assert "hh" + "".join(b for _, b in pairs) == model.generate("hh", 20, seed=1)


# --- bad input

BAD = [
    ({"temperature": 0}, "temperature must be a finite number above 0, got 0"),
    ({"temperature": -0.5}, "temperature must be a finite number above 0, got -0.5"),
    ({"temperature": math.nan}, "temperature must be a finite number above 0, got nan"),
    ({"temperature": math.inf}, "temperature must be a finite number above 0, got inf"),
    ({"prompt": ""}, "prompt must be a text of at least one token, got ''"),
    ({"prompt": None}, "prompt must be a text of at least one token, got None"),
    ({"prompt": "ab~c"}, "'~' at index 2"),
    ({"length": -1}, "length must be an integer from 0 up, got -1"),
    ({"length": 2.0}, "length must be an integer from 0 up, got 2.0"),
    ({"top_k": 0}, "top_k must be a positive integer, got 0"),
    ({"top_k": V + 1}, f"top_k must be at most the vocabulary's {V}, got {V + 1}"),
    ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"),
    ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
    ({"top_p": math.nan}, "top_p must be above 0 and at most 1, got nan"),
    ({"stop": ""}, "stop must be a non-empty text or None, got ''"),
    ({"stop": 7}, "stop must be a non-empty text or None, got 7"),
    ({"seed": -1}, "seed must be an integer from 0 up, got -1"),
    ({"seed": 0.5}, "seed must be an integer from 0 up, got 0.5"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[str(change) for change, _ in BAD])
@pytest.mark.parametrize("greedy", [False, True], ids=["sampled", "greedy"])
def test_bad_input_is_quoted_in_one_line_at_the_call(passes, change, message, greedy):
    arguments = {"prompt": "abc", "length": 5, "greedy": greedy} | change
    for method in (random_model().stream, random_model().generate):
        with pytest.raises(InputError) as error:
            method(**arguments)  # stream: no piece was asked for
        assert message in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    assert passes == []


def test_an_empty_prompt_of_ids_is_refused_at_the_call():
    model = random_model()
    with pytest.raises(InputError, match="at least one token, got none"):
        generate_ids(model.params, model.config, np.array([], dtype=int), 5)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("greedy", [False, True], ids=["sampled", "greedy"])
def test_a_diverged_model_is_an_error_not_a_text(bad, greedy):
    model = unigram(np.zeros(3))
    model.params["fc.b"][1] = bad
    with pytest.raises(InputError, match=f"largest logit must be finite, got {bad}"):
        model.generate("a", 5, greedy=greedy)


def test_logits_that_allow_no_token_are_an_error():
    with pytest.raises(InputError, match="largest logit must be finite, got -inf"):
        next_token_probabilities(np.full(3, -np.inf))


def test_a_new_model_of_the_default_initialisation_speaks():
    config = ModelConfig(vocab_size=V, hidden_size=16)
    params = init_params(config, np.random.default_rng(0))
    model = LanguageModel(config, params, CharVocabulary.from_text(ALPHABET))
    assert len(model.generate("a", 100, seed=0)) == 101
    assert set(model.generate("a", 300, seed=0)) == set(ALPHABET)
