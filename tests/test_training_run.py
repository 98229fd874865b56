"""minilstm.train: what a run of an hour needs. The resumes here start in the same process from the
folder alone; tests/cli kills real processes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import minilstm as ml
from minilstm import training
from minilstm.checkpoint import read_checkpoint, read_run
from minilstm.metrics import COLUMNS, read_rows
from minilstm.text.corpora import load_corpus
from minilstm.train_config import TrainConfig
from minilstm.training import INIT, NonFiniteError, batches, random_stream, train

# Every kind of mask, two layers, tied: all that a step can depend on.
MODEL = {
    "hidden_size": 6,
    "num_layers": 2,
    "embedding_size": 6,
    "tie_weights": True,
    "dropout": 0.2,
    "embedding_dropout": 0.1,
    "output_dropout": 0.2,
    "locked_dropout": True,
    "weight_drop": 0.3,
}
QUICK = TrainConfig(steps=30, batch_size=3, seq_len=7, lr=0.02, schedule="cosine", eval_every=5)


@pytest.fixture
def corpus(tmp_path):
    words = np.random.default_rng(0).choice(["to be", "or not", "is it", "the question"], 200)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(words), encoding="utf-8")
    return load_corpus(path)


def new_model(corpus, **changes):
    config = ml.ModelConfig(len(corpus.vocab), **(MODEL | changes))
    return ml.LanguageModel(config, ml.init_params(config, random_stream(0, INIT)), corpus.vocab)


def run(corpus, config=QUICK, out=None, stop_after=None, resume=False, model=None):
    """Train a new model quietly; stop_after: as if a signal came during that step of this call."""
    model = model or new_model(corpus)
    taken = iter(range(1, 10**6))
    result = train(
        model, corpus, config, out, resume=resume, say=lambda line: None,
        should_stop=lambda: next(taken) == stop_after,
    )  # fmt: skip
    return model, result


def assert_same_weights(a, b):
    for name, p in a.params.items():
        assert np.array_equal(p, b.params[name]), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw"])
@pytest.mark.parametrize("batching", ["streams", "random", "shuffled"])
@pytest.mark.parametrize("stop_after", [1, 5, 17])
def test_a_resumed_run_equals_the_uninterrupted_one(
    corpus, tmp_path, batching, optimizer, stop_after
):
    momentum = 0.9 if optimizer == "sgd" else 0.0
    config = replace(QUICK, batching=batching, optimizer=optimizer, momentum=momentum)
    whole, whole_result = run(corpus, config, tmp_path / "whole")
    _, stopped = run(corpus, config, tmp_path / "parts", stop_after=stop_after)
    assert (stopped.reason, stopped.steps) == ("interrupted", stop_after)
    resumed, resumed_result = run(corpus, config, tmp_path / "parts", resume=True)
    assert_same_weights(whole, resumed)
    assert resumed_result.best == whole_result.best
    assert resumed_result.last == whole_result.last
    one, other = (read_rows(tmp_path / name / "metrics.csv") for name in ("whole", "parts"))
    for rows in (one, other):
        for row in rows:
            del row["seconds"]
    assert one == other


@pytest.mark.parametrize("stop_after", [1, 5, 17])
@pytest.mark.parametrize("fresh_every", [1, 5])
def test_a_resumed_run_empties_the_streams_that_the_uninterrupted_one_does(
    corpus, tmp_path, fresh_every, stop_after
):
    config = replace(QUICK, fresh_every=fresh_every)
    whole, _ = run(corpus, config, tmp_path / "whole")
    run(corpus, config, tmp_path / "parts", stop_after=stop_after)
    resumed, _ = run(corpus, config, tmp_path / "parts", resume=True)
    assert_same_weights(whole, resumed)
    a, b = (read_checkpoint(read_run(tmp_path / name), "last") for name in ("whole", "parts"))
    assert all(np.array_equal(x, y) for x, y in zip(a.carry, b.carry, strict=True))
    never, _ = run(corpus, QUICK)
    assert any(not np.array_equal(p, never.params[name]) for name, p in whole.params.items())


@pytest.mark.parametrize("fresh_every", [None, 1, 3, 5])
def test_one_stream_in_turn_begins_anew_and_the_others_go_on(corpus, monkeypatch, fresh_every):
    """After step n it is stream n mod max(fresh_every, 3) of the three, if there is such a one."""
    B, carried = 3, [None]

    def seen(params, config, inputs, targets, state=None, **options):
        n = len(carried) - 1  # the step that is taken now
        if state is None:
            starts.append(n)
        else:
            turn = (n - 1) % max(fresh_every or 0, B) if fresh_every else None
            for got, left in zip(state, carried[n], strict=True):
                wanted = left.copy()
                if turn is not None and turn < B:
                    wanted[:, turn] = 0
                assert np.array_equal(got, wanted)
                assert np.abs(left).min() > 0  # so that a zero is one that was put there
        loss, grads, state = ml.loss_and_grads(params, config, inputs, targets, state, **options)
        carried.append([part.copy() for part in state])
        return loss, grads, state

    starts = []
    monkeypatch.setattr(training, "loss_and_grads", seen)
    run(corpus, replace(QUICK, steps=12, fresh_every=fresh_every), model=new_model(corpus))
    assert starts == [0]
    assert len(carried) == 13


@pytest.mark.parametrize("fresh_every", [0, -1, 1.5, True])
def test_fresh_every_must_be_a_number_of_steps(fresh_every):
    with pytest.raises(ml.InputError, match="fresh_every must be a positive integer, got"):
        replace(QUICK, fresh_every=fresh_every)


def test_plateau_and_patience_go_on_where_they_were(corpus, tmp_path):
    config = replace(QUICK, schedule="plateau", decay_patience=0, lr=0.5, patience=3, steps=200)
    whole, result = run(corpus, config, tmp_path / "whole")
    assert result.reason == "patience"
    assert result.steps < 200
    run(corpus, config, tmp_path / "parts", stop_after=result.steps - 7)
    resumed, again = run(corpus, config, tmp_path / "parts", resume=True)
    assert (again.reason, again.steps, again.best) == (result.reason, result.steps, result.best)
    assert_same_weights(whole, resumed)
    rates = [row["lr"] for row in read_rows(tmp_path / "whole" / "metrics.csv")]
    assert rates[-1] < rates[0]


def test_neither_evaluating_nor_sampling_more_often_changes_the_weights(corpus, tmp_path):
    config = replace(QUICK, schedule="constant")
    seldom, often = tmp_path / "seldom", tmp_path / "often"
    run(corpus, replace(config, eval_every=30), seldom)
    run(corpus, replace(config, eval_every=1, sample_every=2, sample_length=3), often)
    a, b = (read_checkpoint(read_run(out), "last").params for out in (seldom, often))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_the_model_ends_with_the_weights_that_validated_best(corpus, tmp_path):
    config = replace(QUICK, lr=1.0, schedule="constant", clip=None, steps=40, eval_every=1)
    model, result = run(corpus, config, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    losses = {int(row["step"]): row["valid_loss"] for row in rows if "valid_loss" in row}
    best = min(losses, key=losses.get)
    assert result.best_step == best < 40
    assert result.best.loss == pytest.approx(losses[best], abs=1e-12)
    assert result.last.loss == pytest.approx(losses[40], abs=1e-12)
    again = ml.LanguageModel.load(tmp_path / "run")
    assert_same_weights(model, again)


def test_the_final_evaluation_scores_every_target(corpus):
    _, result = run(corpus, replace(QUICK, eval_tokens=20))
    assert result.last.tokens == len(corpus.valid) - 1


@pytest.mark.parametrize("eval_every", [4, 30])
def test_a_gradient_that_is_no_number_stops_the_run_and_leaves_the_best_checkpoint(
    corpus, tmp_path, monkeypatch, eval_every
):
    def poisoned(params, config, inputs, targets, state=None, **options):
        loss, grads, state = ml.loss_and_grads(params, config, inputs, targets, state, **options)
        if len(steps) == 9:
            grads["lstm1.W_h"][0, 0] = math.nan
        steps.append(None)
        return loss, grads, state

    steps = []
    monkeypatch.setattr(training, "loss_and_grads", poisoned)
    model = new_model(corpus)
    with pytest.raises(NonFiniteError, match=r"gradient of lstm1\.W_h is not finite at step 9 "):
        run(corpus, replace(QUICK, eval_every=eval_every), tmp_path / "run", model=model)
    assert all(np.isfinite(p).all() for p in model.params.values())
    if eval_every == 4:
        assert all(
            np.isfinite(p).all() for p in ml.LanguageModel.load(tmp_path / "run").params.values()
        )
        assert read_rows(tmp_path / "run" / "metrics.csv")[-1]["step"] <= 9


def test_metrics_have_a_row_per_interval_and_count_every_token(corpus, tmp_path):
    run(corpus, out=tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, 31))
    first_thirty = itertools.islice(batches(corpus.train, QUICK), 30)
    scored = np.cumsum([targets.size for _, targets, _ in first_thirty])
    assert [row["tokens"] for row in rows] == scored.tolist()
    assert all(set(row) == set(COLUMNS) - (set() if row["step"] % 5 == 0 else {"valid_loss"})
               for row in rows)  # fmt: skip
    assert (tmp_path / "run" / "loss.png").stat().st_size > 0


def test_hello_trains_on_everything_and_its_best_is_its_last(tmp_path):
    corpus = load_corpus("hello")
    config = TrainConfig(steps=100, batch_size=1, seq_len=10, lr=0.02)
    model = new_model(corpus, num_layers=1, dropout=0.0, hidden_size=16, embedding_size=None,
                      tie_weights=False, embedding_dropout=0.0, output_dropout=0.0,
                      weight_drop=0.0)  # fmt: skip
    _, result = run(corpus, config, tmp_path / "run", model=model)
    assert (result.best, result.last, result.best_step) == (None, None, 100)
    assert ml.LanguageModel.load(tmp_path / "run").generate("h", 4, greedy=True) == "hello"


@pytest.mark.parametrize("batching", ["streams", "random", "shuffled"])
def test_the_batches_of_a_step_depend_on_seed_and_step_alone(corpus, batching):
    config = replace(QUICK, batching=batching)
    from_start = [batch for _, batch in zip(range(50), batches(corpus.train, config), strict=False)]
    later = next(batches(corpus.train, config, first=37))
    assert np.array_equal(from_start[37][0], later[0])
    assert from_start[37][2] == later[2]
    if batching != "streams":
        other = next(batches(corpus.train, replace(config, seed=1)))
        assert not np.array_equal(from_start[0][0], other[0])


@pytest.mark.parametrize("with_validation", [True, False])
def test_a_last_step_that_ruins_the_weights_is_no_finished_run(corpus, tmp_path, with_validation):
    corpus = corpus if with_validation else replace(corpus, valid=None)
    config = TrainConfig(steps=1, optimizer="sgd", lr=1e39, clip=None, batch_size=3, seq_len=7)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="after step 1"):
        run(corpus, config, tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


def test_a_loss_that_is_no_number_is_named_before_the_gradients_it_spoils(corpus):
    model = new_model(corpus)
    model.params["fc.b"][0] = math.nan
    with pytest.raises(NonFiniteError, match="the loss is not finite at step 0 "):
        run(corpus, model=model)


@pytest.mark.parametrize("part", ["train", "valid"])
@pytest.mark.parametrize("batching", ["streams", "random", "shuffled"])
def test_a_part_of_one_token_is_refused_before_the_first_step(corpus, part, batching):
    short = replace(corpus, **{part: getattr(corpus, part)[:1]})
    wanted = f"the {part} part must have at least 2 tokens, got 1"
    with pytest.raises(ml.InputError, match=wanted):
        run(short, replace(QUICK, batching=batching))
