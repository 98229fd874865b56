"""minilstm sample: the prompt and its continuation, and nothing that steers a terminal."""

import os
import subprocess
import sys

import numpy as np
import pytest
from running import ENVIRONMENT, command, nonsense

import minilstm as ml
from minilstm.text.vocabulary import WordVocabulary


def model():
    return ml.LanguageModel.load("run")


def test_the_prompt_and_what_the_model_says_after_it(on_run):
    done = on_run("sample", "run", "--prompt", "to be", "--length", "30", "--seed", "1")
    assert (done.code, done.err) == (0, "")
    assert done.out == model().generate("to be", 30, seed=1) + "\n"


@pytest.mark.parametrize(
    "flags, settings",
    [
        (["--temperature", "0.3"], {"temperature": 0.3}),
        (["--top-k", "3"], {"top_k": 3}),
        (["--top-p", "0.5"], {"top_p": 0.5}),
        (["--greedy"], {"greedy": True}),
        (["--stop", "e"], {"stop": "e"}),
        (["--stream"], {}),
        (["--temperature", "2", "--top-k", "9", "--top-p", ".8", "--stream"],
         {"temperature": 2.0, "top_k": 9, "top_p": 0.8}),
    ],
)  # fmt: skip
def test_every_flag_has_its_say(on_run, flags, settings):
    done = on_run("sample", "run", "--prompt", "t", "--length", "40", "--seed", "2", *flags)
    assert done.out == model().generate("t", 40, seed=2, **settings) + "\n"


def test_without_a_seed_each_time_another_text(on_run):
    assert len({on_run("sample", "run").out for _ in range(3)}) == 3


def test_it_begins_with_the_first_token_of_the_training_text(on_run):
    assert on_run("sample", "run", "--length", "0").out == "t\n"


def test_the_runs_own_settings_hold_unless_told_otherwise(train, cli):
    train("--temperature", "0.4", "--top-k", "5")
    sample = ["sample", "run", "--seed", "3", "--prompt", "o"]
    assert cli(*sample).out == model().generate("o", 200, 0.4, top_k=5, seed=3) + "\n"
    otherwise = cli(*sample, "--top-k", "none", "--temperature", "1")
    assert otherwise.out == model().generate("o", 200, seed=3) + "\n"


def test_streaming_shows_each_token_as_it_is_made(on_run, monkeypatch):
    flushes = []
    monkeypatch.setattr(sys.stdout, "flush", lambda: flushes.append(1))
    on_run("sample", "run", "--length", "50")
    whole = len(flushes)
    on_run("sample", "run", "--length", "50", "--stream")
    assert (whole < 5, len(flushes) - whole >= 50) == (True, True)


def test_a_reader_that_has_enough_ends_it_without_a_traceback(trained):
    with subprocess.Popen(
        command("sample", "run", "--length", 10**9, "--stream", "--prompt", "the very"),
        cwd=trained, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.read(100).startswith("the very")
        process.stdout.close()  # as `| head` does
        assert process.wait(timeout=30) == 1
        assert process.stderr.read() == ""


def test_control_characters_are_spelled_out(folder, cli):
    text = "a\x1b[31m\x07\x9bb\x7f\tc\n" * 100
    (folder / "text.txt").write_text(text)
    cli("train", "--data", "text.txt", "--hidden-size", "4", "--steps", "2", "--out", "run")
    for flags in ([], ["--stream"]):
        done = cli("sample", "run", "--prompt", "a\x1b", "--length", "300", *flags)
        assert done.code == 0
        assert done.out.startswith("a\\x1b")
        assert "\\x9b" in done.out
        assert "\t" in done.out
        assert not {c for c in done.out if not c.isprintable()} - {"\n", "\t"}


def test_a_symbol_outside_is_refused_and_named(on_run):
    refused = on_run("sample", "run", "--prompt", "to bé")
    assert (refused.code, refused.out) == (2, "")
    assert "'é' at index 4" in refused.err


def test_a_symbol_outside_is_read_as_unknown_where_there_is_such_a_symbol(cli, folder):
    cli("train", "--data", "text.txt", "--hidden-size", "4", "--steps", "1", "--unknown", "<unk>",
        "--out", "run")  # fmt: skip
    done = cli("sample", "run", "--prompt", "to bé\x1b", "--length", "50")
    assert done.code == 0
    assert done.out.startswith("to bé\\x1b")
    assert "<unk>" not in done.out  # which is never said
    assert done.err == "outside the vocabulary, read as <unk>: \\x1b é\n"


def test_words_are_joined_as_a_text_whether_streamed_or_not(cli, folder):
    (folder / "words.txt").write_text(nonsense(4000))
    cli("train", "--data", "words.txt", "--level", "word", "--tokenizer", "split",
        "--hidden-size", "4", "--steps", "3", "--out", "run")  # fmt: skip
    sample = ["sample", "run", "--prompt", "to be,", "--length", "20", "--seed", "1"]
    whole, streamed = cli(*sample), cli(*sample, "--stream")
    assert whole.out == streamed.out == model().generate("to be,", 20, seed=1) + "\n"
    assert len(whole.out.split()) > 15


def test_a_run_made_by_a_program_can_be_sampled(cli):
    vocab = WordVocabulary.from_text("to be or not")
    config = ml.ModelConfig(len(vocab), 4)
    params = ml.init_params(config, np.random.default_rng(0))
    ml.LanguageModel(config, params, vocab).save("saved")
    done = cli("sample", "saved", "--length", "2")
    assert (done.code, len(done.out.split())) == (0, 3)


def test_a_run_that_has_no_best_yet_lets_its_last_speak(train, cli):
    train()
    os.unlink("run/best")
    assert cli("sample", "run").code == 0
    os.unlink("run/last")
    assert cli("sample", "run").err == "error: run holds no checkpoint yet\n"
