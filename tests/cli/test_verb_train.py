"""minilstm train: which settings hold, what is written, and what is refused."""

import json
import math
import re
import shutil
import tomllib

import numpy as np
import pytest
from running import SMALL, assert_same, files, weights

from minilstm import settings
from minilstm.checkpoint import read_checkpoint, read_run
from minilstm.metrics import read_rows
from minilstm.text.corpora import load_corpus

OTHER_VALUES = {  # for every setting one that is not the default, and that fits the others
    "data": "text.txt", "val_data": "text.txt", "level": "word", "tokenizer": "split",
    "min_count": 2, "lower": True, "collapse_whitespace": True, "keep": "abcdefghij klmnopqrst",
    "unknown": "?", "hidden_size": 6, "num_layers": 2, "embedding_size": 6, "dropout": 0.1,
    "embedding_dropout": 0.2, "output_dropout": 0.3, "locked_dropout": True, "weight_drop": 0.4,
    "tie_weights": True, "init": "xavier", "forget_bias": 1.0, "steps": 7, "epochs": None,
    "minutes": None, "batching": "shuffled", "batch_size": 3, "seq_len": 5, "optimizer": "sgd",
    "momentum": 0.9, "weight_decay": 0.1, "lr": 0.5, "schedule": "step", "warmup_steps": 3,
    "final_lr": 0.01, "decay_every": 4, "decay_factor": 0.25, "decay_patience": 1, "clip": None,
    "eval_every": 2, "eval_tokens": 100, "eval_streams": 2, "patience": 3, "checkpoint_every": 2,
    "sample_every": 3, "sample_length": 4, "fresh_every": None, "seed": 5, "threads": 1,
    "device": "cpu", "dtype": "float64", "temperature": 0.5, "top_k": 3, "top_p": 0.9,
}  # fmt: skip


def config(folder="run"):
    with open(f"{folder}/config.json") as file:
        return json.load(file)


# --- which settings hold


def as_flag(name, value):
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
    return [f"--{name.replace('_', '-')}", settings.spell(value)]


def test_every_setting_has_a_flag_that_sets_it(cli):
    flags = [word for name, value in OTHER_VALUES.items() for word in as_flag(name, value)]
    done = cli("train", *flags, "--dry-run")
    assert (done.code, done.err) == (0, "")
    plan = settings.parse_toml(done.out, "plan")
    assert plan == OTHER_VALUES
    unchanged = {n for n, v in settings.defaults().items() if v == OTHER_VALUES[n]}
    assert unchanged == {"epochs", "minutes", "fresh_every"}  # which exclude others
    done = cli("train", "--data", "text.txt", "--fresh-every", "7", "--dry-run")
    assert settings.parse_toml(done.out, "plan")["fresh_every"] == 7


def test_every_setting_can_be_set_by_its_name(cli):
    pairs = [f"{name}={settings.spell(value)}" for name, value in OTHER_VALUES.items()]
    done = cli("train", "--set", *pairs[:9], "--set", *pairs[9:], "--dry-run")
    assert settings.parse_toml(done.out, "plan") == OTHER_VALUES


def test_flag_beats_file_beats_preset_beats_default(cli, folder):
    (folder / "my.toml").write_text("[train]\nlr = 0.2\nbatch_size = 7\nepochs = 3.0\n")
    layers = ["--preset", "hello", "--config", "my.toml", "--lr", "0.3", "--no-tie-weights"]
    plan = settings.parse_toml(cli("train", *layers, "--dry-run").out, "plan")
    assert plan["lr"] == 0.3
    assert plan["batch_size"] == 7
    assert plan["seq_len"] == 10
    assert plan["eval_streams"] == 64
    assert (plan["steps"], plan["epochs"]) == (None, 3.0)


def test_without_preset_and_config_the_defaults_hold(cli):
    plan = settings.parse_toml(cli("train", "--data", "text.txt", "--dry-run").out, "plan")
    assert plan == {**settings.defaults(), "data": "text.txt"}


def test_a_dry_run_says_what_would_happen_and_writes_nothing(cli, folder):
    before = files(folder)
    done = cli("train", *SMALL, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert files(folder) == before
    for line in (
        "# would be written to run",
        "# text.txt: 2,700 characters to train on, 300 to validate on, ",
        "# loss in nats per char: uniform guess ln ",
        " parameters, float32\n",
        "# memory of a training step with 4 x 9 tokens: ",
        "# 12 steps, 0.16 epochs, on cpu",
    ):
        assert line in done.out
    (folder / "plan.toml").write_text(done.out)  # what it prints is a config
    again = cli("train", "--config", "plan.toml", "--out", "run", "--dry-run")
    assert again.out == done.out


def test_a_dry_run_beside_a_run_says_that_the_folder_is_taken(trained, cli, folder):
    shutil.copytree(trained / "run", "run")
    done = cli("train", *SMALL, "--dry-run")
    assert done.code == 0
    assert "# would be written to run, which holds a run already\n" in done.out


def test_a_line_is_told_at_each_evaluation_and_no_more(train):
    told = [line for line in train().err.splitlines() if line.startswith("step ")]
    assert [int(line.split()[1]) for line in told] == [4, 8, 12]


def test_a_dry_run_times_nothing(cli, monkeypatch):
    monkeypatch.setattr("minilstm.training.steps_within", lambda *_: pytest.fail("timed"))
    done = cli("train", "--data", "text.txt", "--minutes", "2", "--dry-run")
    assert "# as many steps as 2.0 minutes hold, on cpu" in done.out


# --- what is written and said


def test_a_run_leaves_its_folder_results_on_stdout_and_progress_on_stderr(train):
    done = train()
    assert done.code == 0
    what, heading, best, last, run = done.out.splitlines()
    assert what == "text.txt, valid, read as 64 pieces side by side (eval: as one)"
    assert heading.split() == ["nats/char", "perplexity", "bits/char", "accuracy", "chars"]
    assert run == "run: run"
    for line, name, which in ((best, "best", "best"), (last, "last", "last")):
        step, nats, perplexity, bits, accuracy, tokens = re.fullmatch(
            rf"{name} \(step (\d+)\) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)% +(\d+)", line
        ).groups()
        assert int(step) == read_checkpoint(read_run("run"), which).step
        assert int(tokens) == 299
        assert 0 < float(accuracy) < 100
        assert math.isclose(float(perplexity), math.exp(float(nats)), rel_tol=1e-3)
        assert math.isclose(float(bits), float(nats) / math.log(2), rel_tol=1e-3)
    entropy = load_corpus("text.txt").unigram_entropy()
    assert f"uniform guess ln 27 = 3.296, unigram entropy {entropy:.3f}\n" in done.err
    assert " parameters, float32\n" in done.err
    assert re.search(r"^12 steps, 0.16 epochs, on cpu$", done.err, re.M)
    assert re.search(r"^step 12 of 12  train \d.* valid \d", done.err, re.M)


def test_a_run_folder_holds_all_there_is_to_know(trained):
    names = {path.name for path in (trained / "run").iterdir()}
    assert names == {"config.json", "vocabulary.json", "metrics.csv", "loss.png", "best", "last",
                     "checkpoints"}  # fmt: skip


def test_config_json_records_how_the_run_was_made(train):
    train("--seed", "3")
    recorded = config()
    assert recorded["settings"] == {
        **settings.defaults(), "data": "text.txt", "hidden_size": 8, "embedding_size": 5,
        "batch_size": 4, "seq_len": 9, "steps": 12, "eval_every": 4, "lr": 0.02, "threads": 1,
        "seed": 3,
    }  # fmt: skip
    assert recorded["total_steps"] == 12
    assert recorded["corpus"] == "text.txt"
    assert recorded["versions"].keys() == {"minilstm", "numpy", "python"}
    assert recorded["versions"]["numpy"] == np.__version__
    assert (recorded["device"], recorded["threads"]) == ("cpu", 1)
    assert recorded["notes"] == []


def test_the_number_of_threads_is_recorded_where_none_is_asked_for(cli, monkeypatch):
    monkeypatch.setattr("minilstm.cli.train.threads_now", lambda: 1)
    assert cli("train", "--data", "hello", "--steps", "1", "--out", "run").code == 0
    assert config()["threads"] == 1
    assert config()["settings"]["threads"] is None


def test_minutes_are_timed_once_and_recorded_as_steps(cli, monkeypatch):
    monkeypatch.setattr("minilstm.training.steps_within", lambda *_: 3)
    done = cli("train", "--data", "text.txt", "--hidden-size", "4", "--minutes", "9", "--out", "r")
    assert done.code == 0
    assert config("r")["total_steps"] == 3
    assert read_checkpoint(read_run("r"), "last").step == 3


def test_the_folder_is_named_after_the_preset_or_the_text(cli, folder):
    assert "# would be written to runs/hello" in cli("train", "--preset", "hello", "--dry-run").out
    done = cli("train", "--data", "./text.txt", "--dry-run")
    assert "# would be written to runs/text\n" in done.out


def test_a_text_too_short_to_validate_says_so_and_best_is_last(cli):
    done = cli("train", "--preset", "hello", "--steps", "20", "--batch-size", "3", "--out", "run")
    assert done.code == 0
    assert done.out.startswith("nothing validates; the last training loss is 1.2")
    assert done.err.count("too short to hold anything out") == 1
    assert done.err.count("too few for") == 1  # streams for a batch of 3
    assert "a training step with 1 x 4 tokens" in done.err
    assert_same(weights("run", "best"), weights("run", "last"))


def test_a_file_of_its_own_validates(train, folder):
    (folder / "valid.txt").write_text("to be, or\x9b not")
    done = train("--val-data", "valid.txt")
    assert "3,000 characters to train on, 14 to validate on, 28 distinct" in done.err
    assert r"'\x9b'" in done.err
    assert "\x9b" not in done.err


def test_the_dtype_is_that_of_the_weights(train):
    assert train("--dtype", "float64", "--steps", "2").code == 0
    assert {p.dtype for p in weights("run").values()} == {np.dtype(np.float64)}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train):
    train("--output-dropout", "0.3")
    train("--output-dropout", "0.3", "--out", "again")
    train("--output-dropout", "0.3", "--out", "other", "--seed", "1")
    assert_same(weights("run"), weights("again"))
    assert not np.array_equal(weights("run")["fc.b"], weights("other")["fc.b"])


def test_samples_in_between_never_steer_the_terminal(train, folder):
    (folder / "text.txt").write_text("a\x1b[31m" * 300)
    done = train("--sample-every", "6", "--sample-length", "50")
    assert done.code == 0
    assert "\\x1b" in done.err
    assert "\x1b" not in done.err + done.out


def test_a_run_that_is_there_is_not_touched_unless_forced(train, folder):
    train()
    before = files(folder)
    refused = train("--lr", "0.1")
    assert refused.code == 2
    assert refused.err == (
        "error: run holds a run already: --resume goes on with it, --force overwrites it, "
        "--out names another folder\n"
    )
    assert files(folder) == before
    assert train("--force", "--lr", "0.1", "--steps", "3").code == 0
    assert config()["settings"]["lr"] == 0.1
    assert read_checkpoint(read_run("run"), "last").step == 3
    assert [row["step"] for row in read_rows(folder / "run" / "metrics.csv")] == [1, 2, 3]


def test_a_diverging_run_names_the_tensor_and_keeps_its_best_checkpoint(train, monkeypatch):
    from minilstm import training

    def poisoned(*arguments, **options):
        loss, grads, state = honest(*arguments, **options)
        calls.append(loss)
        if len(calls) == 7:
            grads["lstm0.W_h"][0, 0] = np.nan
        return loss, grads, state

    honest, calls = training.loss_and_grads, []
    monkeypatch.setattr(training, "loss_and_grads", poisoned)
    done = train()
    assert done.code == 1
    (line,) = re.findall("^error: .*", done.err, re.M)
    assert "gradient of lstm0.W_h is not finite at step 6" in line
    assert read_checkpoint(read_run("run"), "best").step == 4
    assert read_checkpoint(read_run("run"), "last").step == 4


# --- --init-from


def test_a_run_can_begin_with_the_best_weights_of_another(train, cli):
    train()
    done = cli("train", "--init-from", "run", "--lr", "0", "--steps", "2", "--out", "new")
    assert done.code == 0
    assert_same(weights("new", "last"), weights("run", "best"))
    recorded = config("new")
    assert recorded["init_from"] == "run"
    assert recorded["settings"] == {**config()["settings"], "lr": 0.0, "steps": 2}
    assert read_checkpoint(read_run("new"), "last").optimizer["steps"] == 2


def test_it_may_go_on_with_another_text_of_the_same_symbols(train, cli, folder):
    train()
    (folder / "other.txt").write_text("to be, or not to be. " * 50)
    assert "'.'" in cli("train", "--init-from", "run", "--data", "other.txt", "--out", "n").err
    (folder / "other.txt").write_text("to be, or not to be? " * 50)
    assert cli("train", "--init-from", "run", "--data", "other.txt", "--out", "new").code == 0
    assert read_run("new").vocabulary == read_run("run").vocabulary


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--hidden-size", "9"], "hidden_size: the model of run has 8, got 9"),
        (["--num-layers", "2"], "num_layers: the model of run has 1, got 2"),
        (["--level", "word"], "level: the model of run has char, got word"),
        (["--lower"], "lower: the model of run has false, got true"),
    ],
)
def test_what_does_not_fit_the_other_run_is_named(train, cli, folder, flags, message):
    train()
    before = files(folder)
    done = cli("train", "--init-from", "run", *flags, "--out", "new")
    assert done.code == 2
    assert message in done.err
    assert files(folder) == before


def test_the_preset_files_are_toml_for_other_readers_too():
    for name in settings.preset_names():
        text = (settings.PRESETS / f"{name}.toml").read_text()
        assert tomllib.loads(text).keys() <= settings.TABLES.keys()
