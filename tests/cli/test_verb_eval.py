"""minilstm eval: which text is scored, and how the figures are told."""

import json
import math
import shutil

import pytest
from running import nonsense, weights

import minilstm as ml
from minilstm.checkpoint import Checkpoint, point, read_run, save_model, write_checkpoint
from minilstm.evaluation import evaluate
from minilstm.text.corpora import load_corpus

FIGURES = ["loss", "perplexity", "bits_per_token", "accuracy", "tokens"]


def score(ids, run="run", **how):
    return evaluate(weights(run), read_run(run).config, ids, **how).to_dict()


def test_the_runs_own_validation_text_is_scored_in_one_pass_and_in_cold_windows(on_run):
    done = on_run("eval", "run", "--json")
    assert (done.code, done.err) == (0, "")
    figures = json.loads(done.out)
    assert list(figures) == ["run", "text", "level", *FIGURES, "cold_windows"]
    assert (figures["run"], figures["text"], figures["level"]) == ("run", "text.txt, valid", "char")
    assert list(figures["cold_windows"]) == FIGURES
    valid = load_corpus("text.txt").valid
    assert figures["tokens"] == len(valid) - 1 == figures["cold_windows"]["tokens"]
    assert {name: figures[name] for name in FIGURES} == score(valid)
    assert figures["cold_windows"] == score(valid, streams=64, window=256)
    assert figures["loss"] != figures["cold_windows"]["loss"]
    assert figures["perplexity"] == math.exp(figures["loss"])
    assert figures["bits_per_token"] == figures["loss"] / math.log(2)


def test_plain_figures_are_the_same(on_run):
    figures = json.loads(on_run("eval", "run", "--json").out)
    what, heading, carried, cold = on_run("eval", "run").out.splitlines()
    assert what == "text.txt, valid" == figures["text"]
    assert heading.split() == ["nats/char", "perplexity", "bits/char", "accuracy", "chars"]
    assert len(heading) == len(carried) == len(cold)
    for line, name, of in ((carried, "state carried", figures),
                           (cold, "cold windows of 256", figures["cold_windows"])):  # fmt: skip
        assert line.startswith(name)
        assert line.removeprefix(name).split() == [
            f"{of['loss']:.4f}", f"{of['perplexity']:.3f}", f"{of['bits_per_token']:.4f}",
            f"{of['accuracy']:.2%}", f"{of['tokens']}",
        ]  # fmt: skip


def test_a_split_is_scored_by_its_name(on_run):
    figures = json.loads(on_run("eval", "run", "--split", "train", "--json").out)
    assert figures["loss"] == score(load_corpus("text.txt").train)["loss"]
    refused = on_run("eval", "run", "--split", "test")
    assert refused.err == "error: text.txt has the parts train, valid, got 'test'\n"


def test_streams_are_read_side_by_side(on_run):
    figures = json.loads(on_run("eval", "run", "--streams", "7", "--json").out)
    assert figures["loss"] == score(load_corpus("text.txt").valid, streams=7)["loss"]
    assert figures["tokens"] == 299


def test_a_file_is_scored_as_a_whole(on_run, tmp_path):
    text = nonsense(700, seed=3)
    (tmp_path / "other.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    done = on_run("eval", "run", "--data", tmp_path / "other.txt", "--json")
    assert json.loads(done.out)["tokens"] == 699
    assert json.loads(done.out)["loss"] == ml.LanguageModel.load("run").evaluate(text).loss
    assert "the byte order mark was dropped" in done.err
    refused = on_run("eval", "run", "--data", tmp_path / "other.txt", "--split", "valid")
    assert refused.code == 2


def test_symbols_outside_the_vocabulary_are_named(on_run, tmp_path):
    (tmp_path / "other.txt").write_text("to be\nor not to é")
    refused = on_run("eval", "run", "--data", tmp_path / "other.txt")
    assert (refused.code, refused.out) == (2, "")
    assert "'é' at index 16" in refused.err


def test_or_counted_where_there_is_an_unknown_symbol(train, cli, folder):
    train("--unknown", "<unk>")
    (folder / "other.txt").write_text("to be é or not é")
    done = cli("eval", "run", "--data", "other.txt")
    assert done.code == 0
    assert done.err == "2 of 16 tokens are <unk> or read as such\n"
    assert done.out.startswith("other.txt, the whole file\n")


def test_a_corpus_is_read_with_the_runs_vocabulary(on_run):
    figures = json.loads(on_run("eval", "run", "--data", "hello", "--json").out)
    assert figures["loss"] == score(read_run("run").vocabulary.encode("hello"))["loss"]


def test_it_is_the_best_model_that_is_scored(train, cli):
    train()
    best, run = cli("eval", "run").out, read_run("run")
    worse = {name: 2 * p for name, p in weights("run").items()}
    point(run, "last", write_checkpoint(run, Checkpoint(13, worse)))
    assert cli("eval", "run").out == best
    point(run, "best", "step-00000013")
    assert cli("eval", "run").out != best


def test_where_nothing_validates_the_training_text_is_scored(cli):
    cli("train", "--preset", "hello", "--steps", "2", "--out", "run")
    assert cli("eval", "run").out.startswith("hello, train\n")
    assert cli("eval", "run", "--data", "hello").out.startswith("hello, train\n")
    assert cli("eval", "run", "--split", "valid").code == 2


def test_a_text_that_has_changed_is_not_taken_for_the_runs_own(trained, cli, folder):
    shutil.copytree(trained / "run", "run")
    assert cli("eval", "run").code == 0
    (folder / "text.txt").write_text(nonsense(3000, seed=5))
    done = cli("eval", "run")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: data: 'text.txt' has changed since the run was begun\n"


def test_a_config_cannot_make_it_score_a_file_elsewhere(trained, cli, folder):
    """A run from somewhere else: its config.json names a file of the reader's."""
    (folder / "secret").write_text("to be, or not " * 20)
    run = read_run(trained / "run")
    where = "./secret"
    crafted = run.extra | {"settings": run.extra["settings"] | {"data": where}, "corpus": where}
    save_model("crafted", run.config, weights(trained / "run"), run.vocabulary, crafted)
    done = cli("eval", "crafted")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: data: '{where}' has changed since the run was begun\n"


def test_an_infinite_perplexity_is_null_in_json(on_run, monkeypatch):
    from minilstm import evaluation

    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: evaluation.Evaluation(800, 0, 9))
    figures = json.loads(on_run("eval", "run", "--json").out)
    assert (figures["loss"], figures["perplexity"]) == (800, None)


@pytest.mark.parametrize("streams", ["0", "-1", "x"])
def test_streams_are_a_positive_number(on_run, streams):
    assert on_run("eval", "run", "--streams", streams).code == 2
