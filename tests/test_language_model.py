"""LanguageModel: evaluation against a loop over single tokens, and three parts that must fit."""

import math
from itertools import pairwise

import numpy as np
import pytest
from handmade_models import ALPHABET, V, chain, random_model, unigram

from minilstm import (
    Adam,
    CharVocabulary,
    Evaluation,
    InputError,
    LanguageModel,
    ModelConfig,
    contiguous_streams,
    evaluation,
    forward,
    init_params,
    loss_and_grads,
)

rng = np.random.default_rng(0)
TEXT = "".join(rng.choice(list(ALPHABET), size=30))


def score_by_hand(model, text, cold=()):
    """(nats, hit) of every target, one token at a time; a zero state before the places `cold`."""
    ids = model.vocab.encode(text)
    scores, state = [], None
    for n, (token, target) in enumerate(pairwise(ids)):
        state = None if n in cold else state
        logits, state = forward(model.params, model.config, np.array([[token]]), state)
        row = logits[0, 0].astype(np.float64).tolist()
        log_sum_exp = max(row) + math.log(math.fsum(math.exp(x - max(row)) for x in row))
        scores.append((log_sum_exp - row[target], row[target] == max(row)))
    return scores


def assert_equals_by_hand(result, scores):
    nats, hits = zip(*scores, strict=True)
    assert result.tokens == len(scores)
    assert result.loss == pytest.approx(math.fsum(nats) / len(nats), rel=1e-12)
    assert result.accuracy == pytest.approx(sum(hits) / len(hits), rel=1e-12)


# --- evaluation against the loop


@pytest.mark.parametrize("config", [{}, {"embedding_size": 3}], ids=["one-hot", "embedding"])
def test_one_stream_scores_every_token_given_all_before_it(config):
    model = random_model(**config)
    assert_equals_by_hand(model.evaluate(TEXT), score_by_hand(model, TEXT))


def test_the_state_is_carried_from_chunk_to_chunk_of_a_long_text(monkeypatch):
    model = random_model()
    long = TEXT * 40
    scores = score_by_hand(model, long)
    assert_equals_by_hand(model.evaluate(long), scores)  # two chunks of 512, and a shorter one
    monkeypatch.setattr(evaluation, "_NUMBERS", 1000)  # seven steps at a time
    assert_equals_by_hand(model.evaluate(long), scores)


@pytest.mark.parametrize("streams", range(1, len(TEXT) + 4))
def test_streams_score_every_target_once_and_start_cold(streams):
    """Streams of equal length, and the fewer than `streams` targets left over as one more."""
    model = random_model()
    length = max(1, (len(TEXT) - 1) // streams)
    cold = [b * length for b in range(streams + 1)]
    assert_equals_by_hand(
        model.evaluate(TEXT, streams=streams), score_by_hand(model, TEXT, cold=cold)
    )


@pytest.mark.parametrize("window", range(1, len(TEXT) + 4))
def test_each_window_starts_cold_however_many_run_side_by_side(window):
    """The last is shorter where they do not divide the text."""
    model = random_model()
    scores = score_by_hand(model, TEXT, cold=range(0, len(TEXT), window))
    for streams in (1, 2, 3, 7, 64):
        assert_equals_by_hand(model.evaluate(TEXT, streams=streams, window=window), scores)


def test_cold_starts_cost_something_and_a_window_of_the_whole_text_has_none():
    model = random_model()
    honest = model.evaluate(TEXT).loss
    assert model.evaluate(TEXT, window=len(TEXT)).loss == pytest.approx(honest, rel=1e-12)
    assert abs(model.evaluate(TEXT, window=2).loss - honest) > 1e-3
    assert abs(model.evaluate(TEXT, streams=5).loss - honest) > 1e-3


@pytest.mark.parametrize("streams, window", [(1, None), (3, None), (1, 4), (3, 4)])
def test_the_smallest_text_has_one_target(streams, window):
    model = random_model()
    result = model.evaluate("ba", streams, window)
    assert result.tokens == 1
    assert_equals_by_hand(result, score_by_hand(model, "ba"))


def test_float32_and_float64_agree():
    one, other = random_model().evaluate(TEXT * 20), random_model(np.float32).evaluate(TEXT * 20)
    assert other.loss == pytest.approx(one.loss, rel=1e-5)


def test_unknown_characters_are_scored_as_the_unknown_symbol():
    model = unigram(np.log([0.7, 0.2, 0.1]), CharVocabulary.from_text("ab", unknown="<unk>"))
    result = model.evaluate("a#b")
    assert result.loss == pytest.approx(-(math.log(0.1) + math.log(0.2)) / 2)


def test_evaluating_changes_no_weight_and_repeats():
    model = random_model()
    before = {name: p.copy() for name, p in model.params.items()}
    once = model.evaluate(TEXT, streams=3)
    model.evaluate(TEXT, window=4)
    assert model.evaluate(TEXT, streams=3) == once
    for name in before:
        np.testing.assert_array_equal(model.params[name], before[name])


# --- what the figures mean


def test_a_model_that_knows_nothing_costs_ln_V():
    result = unigram(np.zeros(V)).evaluate(TEXT)
    assert result.loss == pytest.approx(math.log(V), rel=1e-15)
    assert result.perplexity == pytest.approx(V)
    assert result.bits_per_token == pytest.approx(3)


def test_loss_perplexity_and_bits_of_known_probabilities():
    # b, a, a after the first: ln 4 + 2 ln (4/3)
    result = unigram(np.log([0.75, 0.25])).evaluate("abaa")
    nats = (math.log(4) + 2 * math.log(4 / 3)) / 3
    assert result.loss == pytest.approx(nats)
    assert result.perplexity == pytest.approx((4 * 4 / 3 * 4 / 3) ** (1 / 3))
    assert result.bits_per_token == pytest.approx((2 + 2 * math.log2(4 / 3)) / 3)
    assert result.accuracy == pytest.approx(2 / 3)


def test_accuracy_counts_the_targets_that_were_likeliest():
    result = chain("abcde").evaluate("abcdeabdeab")  # only the d after b is not foreseen
    assert result.tokens == 10
    assert result.accuracy == pytest.approx(0.9)
    assert result.loss == pytest.approx(100 * math.tanh(1) / 10)  # what the sure model pays


def test_perplexity_of_a_hopeless_loss_is_infinite_and_of_nan_is_nan():
    assert Evaluation(loss=1e6, accuracy=0.0, tokens=1).perplexity == math.inf
    assert math.isnan(Evaluation(loss=math.nan, accuracy=0.0, tokens=1).perplexity)


def test_a_diverged_model_has_a_loss_of_nan():
    model = random_model()
    model.params["fc.b"][0] = math.nan
    assert math.isnan(model.evaluate(TEXT).loss)


# --- a vocabulary of one symbol: nothing to learn, and nothing to trip over


def test_a_vocabulary_of_one_symbol_trains_scores_and_speaks_at_loss_zero():
    vocab = CharVocabulary.from_text("aaaa")
    config = ModelConfig(vocab_size=1, hidden_size=4)
    params = init_params(config, np.random.default_rng(0))
    optimizer = Adam()
    for inputs, targets, _ in contiguous_streams(vocab.encode("a" * 20), 2, 3):
        loss, grads, _ = loss_and_grads(params, config, inputs, targets)
        assert float(loss) == 0
        assert not any(np.any(g) for g in grads.values())
        optimizer.step(params, grads)
    model = LanguageModel(config, params, vocab)
    assert model.evaluate("aaaaa", streams=2) == Evaluation(loss=0.0, accuracy=1.0, tokens=4)
    assert model.generate("a", 3) == model.generate("a", 3, top_k=1, top_p=0.5) == "aaaa"


def test_a_text_of_one_symbol_is_scored_by_a_model_that_knows_more():
    model = random_model()
    assert_equals_by_hand(model.evaluate("cccc"), score_by_hand(model, "cccc"))


# --- the parts


@pytest.mark.parametrize(
    "config, count",
    [
        ({}, (5 * 12 + 3 * 12 + 12) + (3 * 12 + 3 * 12 + 12) + (3 * 5 + 5)),
        ({"embedding_size": 2}, 5 * 2 + (2 * 12 + 36 + 12) + (36 + 36 + 12) + 20),
        ({"embedding_size": 3, "tie_weights": True}, 5 * 3 + 2 * (36 + 36 + 12) + 5),
    ],
    ids=["one-hot", "embedding", "tied"],
)
def test_parameter_count_is_that_of_the_arrays(config, count):
    config = ModelConfig(vocab_size=5, hidden_size=3, num_layers=2, **config)
    params = init_params(config, np.random.default_rng(0))
    model = LanguageModel(config, params, CharVocabulary.from_text("abcde"))
    assert model.parameter_count == count == sum(p.size for p in params.values())


def test_to_moves_the_parameters_and_returns_the_model():
    model = random_model()
    assert model.to("cpu") is model
    with pytest.raises(InputError, match="device must be auto, cpu or cuda, got 'gpu'"):
        model.to("gpu")


def test_a_vocabulary_of_another_size_is_refused():
    model = random_model()
    with pytest.raises(InputError, match=r"config.vocab_size = 8 symbols, got 3"):
        LanguageModel(model.config, model.params, CharVocabulary.from_text("abc"))


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda p: p.pop("fc.b"), r"\{'fc.b': \(8,\)\}, got \{'fc.b': None\}"),
        (lambda p: p.update(extra=np.zeros(2)), r"\{'extra': None\}, got \{'extra': \(2,\)\}"),
        (lambda p: p.update({"fc.b": np.zeros((8, 1))}), r"\(8,\)\}, got \{'fc.b': \(8, 1\)\}"),
    ],
    ids=["missing", "surplus", "other shape"],
)
def test_parameters_that_do_not_fit_the_config_are_named(change, named):
    model = random_model()
    params = dict(model.params)
    change(params)
    with pytest.raises(InputError, match=f"params must have the config's shapes.*{named}"):
        LanguageModel(model.config, params, model.vocab)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("",), "at least 2 tokens to score one, got 0"),
        (("a",), "at least 2 tokens to score one, got 1"),
        (("ab~",), "'~' at index 2"),
        ((b"ab",), "text must be a str, got bytes"),
        (("ab", 0), "streams must be a positive integer, got 0"),
        (("ab", 1.5), "streams must be a positive integer, got 1.5"),
        (("ab", 1, 0), "window must be a positive integer, got 0"),
        (("ab", 1, -4), "window must be a positive integer, got -4"),
    ],
    ids=str,
)
def test_bad_input_is_quoted_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        random_model().evaluate(*arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
