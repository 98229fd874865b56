"""A run that was stopped, whichever way, goes on as if it had not been."""

import re
import shutil
import signal
import subprocess
import time

import pytest
from running import ENVIRONMENT, SMALL, assert_same, command, files, nonsense, weights

from minilstm import training
from minilstm.checkpoint import locked, read_checkpoint, read_run, write_run
from minilstm.metrics import COLUMNS, read_rows

MASKS = ["--num-layers", "2", "--dropout", "0.2", "--output-dropout", "0.2", "--weight-drop", "0.2",
         "--batching", "shuffled", "--schedule", "cosine"]  # fmt: skip


def stop_after(monkeypatch, step, error=KeyboardInterrupt):
    """Let the next training end in the middle of a step, as a process that is killed there."""
    taken = training._Run.train_step

    def stopping(run, *batch):
        if run.step == step:
            raise error
        taken(run, *batch)

    monkeypatch.setattr(training._Run, "train_step", stopping)


@pytest.fixture
def stopped(train, monkeypatch):
    """A run of 12 steps that was stopped in step 10, with a checkpoint at step 8."""
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        assert train(*MASKS).code == 130
    assert read_checkpoint(read_run("run"), "last").step == 8
    return "run"


def forget_checkpoints(run):
    for name in ("best", "last"):
        (run / name).unlink()
    for checkpoint in (run / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)


# --- real processes


LONG = [*SMALL[:-2], *MASKS, "--steps", "60", "--checkpoint-every", "9", "--eval-every", "20"]


@pytest.fixture
def uninterrupted(folder, cli):
    """The weights after 60 steps of the run that is interrupted below."""
    assert cli("train", *LONG, "--out", "whole").code == 0
    return weights("whole", "last")


def interrupt(number, folder):
    """Send the signal once the run has a checkpoint; its exit code and stderr."""
    slow = ["--sample-every", "1", "--sample-length", "100"]  # some 10 ms a step, for the signal
    process = subprocess.Popen(
        command("train", *LONG, *slow, "--out", "run"),
        cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (folder / "run" / "last").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_from_which_it_goes_on(
    folder, cli, uninterrupted, number, code
):
    returned, err = interrupt(number, folder)
    assert returned == code
    assert "error" not in err  # who asked for it is not told that it failed
    line = r"^interrupted after step (\d+) of 60: the checkpoint is saved, --resume goes on\n\Z"
    step = int(re.search(line, err, re.M)[1])
    assert read_checkpoint(read_run("run"), "last").step == step
    assert cli("train", "--resume", "--out", "run").code == 0
    assert_same(weights("run", "last"), uninterrupted)


def test_a_killed_run_goes_on_bit_for_bit(folder, cli, uninterrupted):
    assert interrupt(signal.SIGKILL, folder)[0] == -signal.SIGKILL
    step = read_checkpoint(read_run("run"), "last").step
    assert 0 < step < 60
    assert step % 9 == 0
    done = cli("train", "--resume", "--out", "run")
    assert done.code == 0
    assert_same(weights("run", "last"), uninterrupted)
    assert_same(weights("run", "best"), weights("whole", "best"))
    of_run, of_whole = (read_rows(folder / name / "metrics.csv") for name in ("run", "whole"))
    for row, other in zip(of_run, of_whole, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_signals_before_training_end_at_once_and_write_nothing(train, folder, monkeypatch):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        monkeypatch.setattr(
            "minilstm.cli.runs.prepare", lambda *_, number=number: signal.raise_signal(number)
        )
        before = files(folder)
        done = train()
        assert (done.code, done.out, done.err) == (code, "", "interrupted\n")
        assert files(folder) == before


def test_a_second_signal_does_not_wait_for_the_step(train, monkeypatch):
    def hit(*_):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second one was waited for")

    monkeypatch.setattr(training._Run, "train_step", hit)
    before = signal.getsignal(signal.SIGTERM)
    assert train().code == 143
    assert signal.getsignal(signal.SIGTERM) is before


# --- in this process, by the rules


def test_the_same_flags_or_none_go_on_to_the_same_end(stopped, train, cli, folder):
    shutil.copytree("run", "copy")
    assert train(*MASKS, "--resume").code == 0
    assert cli("train", "--resume", "--out", "copy").code == 0
    assert train(*MASKS, "--out", "whole").code == 0
    for run in ("run", "copy"):
        assert_same(weights(run, "last"), weights("whole", "last"))
        assert_same(weights(run, "best"), weights("whole", "best"))
    steps = [row["step"] for row in read_rows(folder / "run" / "metrics.csv")]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--lr", "0.1"], "lr: the run has 0.02, got 0.1"),
        (["--set", "lr=0.1"], "lr: the run has 0.02, got 0.1"),
        (["--hidden-size", "9"], "hidden_size: the run has 8, got 9"),
        (["--clip", "none"], "clip: the run has 1.0, got none"),
        (["--steps", "13"], "steps: the run has 12, got 13"),
        (["--minutes", "1"], "minutes: the run has none, got 1.0"),
        (["--no-tie-weights", "--threads", "2"], "threads: the run has 1, got 2"),
        (["--preset", "hello"], "hidden_size: the run has 8, got 128"),
        (["--seed", "1"], "seed: the run has 0, got 1"),
        (["--init-from", "run"], "init_from: the run has none, got run"),
    ],
)
def test_a_flag_that_differs_from_the_run_is_named_with_both_values(
    trained, cli, folder, flags, message
):
    shutil.copytree(trained / "run", "run")
    before = files(folder)
    done = cli("train", "--resume", "--out", "run", *flags)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}; --resume goes with the command that began the ")
    assert done.err.count("\n") == 1
    assert files(folder) == before


def test_a_run_without_a_checkpoint_starts_at_step_0(train, cli, folder):
    train()
    whole = weights("run", "last")
    forget_checkpoints(folder / "run")
    assert cli("train", "--resume", "--out", "run").code == 0
    assert_same(weights("run", "last"), whole)
    steps = [row["step"] for row in read_rows(folder / "run" / "metrics.csv")]
    assert steps == list(range(1, 13))


def test_a_run_without_a_checkpoint_begins_with_the_weights_it_was_to_begin_with(
    train, cli, folder
):
    train()
    again = ["train", "--init-from", "run", "--seed", "4", "--out", "new"]
    cli(*again)
    whole = weights("new", "last")
    forget_checkpoints(folder / "new")
    assert cli(*again, "--resume").code == 0
    assert_same(weights("new", "last"), whole)


def test_a_run_on_another_text_keeps_the_vocabulary_it_began_with(train, cli, folder, monkeypatch):
    train()
    (folder / "other.txt").write_text("to be, or not to be? " * 50)  # not all of the letters
    again = ["train", "--init-from", "run", "--data", "other.txt", "--out", "new"]
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        assert cli(*again).code == 130
    assert cli(*again, "--resume").code == 0
    assert read_run("new").vocabulary == read_run("run").vocabulary


def test_where_there_is_no_run_one_begins(train):
    assert train("--resume").code == 0
    assert read_checkpoint(read_run("run"), "last").step == 12


def test_a_finished_run_says_so_and_is_left_alone(trained, cli, folder):
    shutil.copytree(trained / "run", "run")
    before = files(folder)
    done = cli("train", *SMALL, "--resume")
    assert (done.code, done.err) == (0, "")
    assert done.out == "run is finished: 12 of 12 steps are taken\n"
    assert files(folder) == before


def test_a_run_killed_between_its_last_step_and_its_end_comes_to_it(trained, cli, folder):
    shutil.copytree(trained / "run", "run")
    (folder / "run" / "loss.png").unlink()
    before = files(folder)
    done = cli("train", *SMALL, "--resume")
    assert done.code == 0
    assert "last (step 12)" in done.out
    assert files(folder) == before | {folder / "run" / "loss.png": b""}


def test_a_run_that_has_lost_its_patience_is_finished(train, cli):
    flags = ["--lr", "0", "--steps", "100", "--patience", "2"]
    done = train(*flags)
    assert done.code == 0
    assert "stopped before its end" in done.err
    assert train(*flags, "--resume").out == "run is finished: 12 of 100 steps are taken\n"


def test_a_run_killed_before_its_last_evaluation_lets_the_counts_go_on(train, cli, monkeypatch):
    """Patience, plateau and best loss are part of the checkpoint."""
    flags = ["--lr", "0", "--steps", "100", "--patience", "4", "--schedule", "plateau"]
    with monkeypatch.context() as patch:
        stop_after(patch, 10)  # one evaluation without improvement is behind it
        train(*flags)
    assert train(*flags, "--resume").code == 0
    assert read_checkpoint(read_run("run"), "last").step == 20


def test_the_text_may_have_moved_but_must_be_the_same(stopped, cli, folder):
    whole = cli("train", "--resume", "--out", "run", "--dry-run").out
    (folder / "text.txt").rename(folder / "moved.txt")
    lost = cli("train", "--resume", "--out", "run")
    assert (lost.code, "'text.txt', which does not exist" in lost.err) == (2, True)
    moved = cli("train", "--resume", "--out", "run", "--data", "moved.txt", "--dry-run").out
    assert moved == whole.replace("text.txt", "moved.txt")
    (folder / "text.txt").write_text(nonsense(3000, seed=1))
    changed = cli("train", "--resume", "--out", "run")
    assert changed.err == (
        "run: going on after step 8 of 12\n"
        "error: data: 'text.txt' has changed since the run was begun\n"
    )
    (folder / "other.txt").write_text(nonsense(3000, seed=1))
    other = cli("train", "--resume", "--out", "run", "--data", "other.txt")
    assert other.err.endswith(
        "error: data: the run has 'text.txt', got 'other.txt', which is another text\n"
    )
    assert cli("train", "--resume", "--out", "run", "--data", "moved.txt").code == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_size": 9}, "its settings must make its model"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": -1.0}, "lr must be a finite number from 0 up, got -1.0"),
        ({"data": 5}, "data must be a text, got 5"),
        ({"more": 5}, "settings must be those of a run"),
    ],
)
def test_settings_in_a_config_that_cannot_be_are_refused(trained, cli, change, message):
    run = read_run(trained / "run")
    crafted = run.extra | {"settings": run.extra["settings"] | change}
    write_run("new", run.config, run.vocabulary, crafted)
    done = cli("train", "--resume", "--out", "new", "--data", trained / "text.txt")
    assert (done.code, message in done.err) == (2, True), done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [{"total_steps": 0}, {"total_steps": "12"}, {"threads": -1}, {"text": []}, {"corpus": None},
     {"unigram_entropy": "1"}, {"first_token": 5}, {"init_from": 5}, {"settings": []}],
)  # fmt: skip
def test_entries_of_a_config_that_cannot_be_are_named(trained, cli, change):
    run = read_run(trained / "run")
    write_run("new", run.config, run.vocabulary, run.extra | change)
    done = cli("train", "--resume", "--out", "new")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("error: new/config.json: ")
    assert next(iter(change)) in done.err


def test_a_run_begun_by_a_program_is_not_the_command_lines_to_go_on_with(trained, cli):
    run = read_run(trained / "run")
    write_run("new", run.config, run.vocabulary)
    done = cli("train", "--resume", "--out", "new")
    assert (done.code, "was not begun by `minilstm train`" in done.err) == (2, True)


def test_the_number_of_threads_stays_what_it_was(stopped, cli, monkeypatch):
    """Although the machine, or the environment, would now take another."""
    monkeypatch.setattr("minilstm.cli.train.threads_now", lambda: 2)
    limits, limit = [], training.thread_limit
    monkeypatch.setattr(training, "thread_limit", lambda n: limits.append(n) or limit(n))
    assert cli("train", "--resume", "--out", "run").code == 0
    assert limits[0] == read_run("run").extra["threads"] == 1


def test_weights_alone_are_no_run_to_go_on_with(trained, cli):
    cli("convert", trained / "run", "--to", "torch", "--out", "w.safetensors")
    cli("convert", "w.safetensors", "--from", "torch", "--like", trained / "run", "--out", "new")
    done = cli("train", "--resume", "--out", "new")
    assert done.code == 2
    assert "holds weights without the optimizer's state" in done.err


def test_metrics_of_a_process_killed_while_writing_a_row_are_mended(stopped, cli, folder):
    with open("run/metrics.csv", "a") as file:
        file.write("9,324,0.0")
    assert cli("train", "--resume", "--out", "run").code == 0
    lines = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert [line.count(",") for line in lines] == [len(COLUMNS) - 1] * 13


# --- two at once


@pytest.mark.parametrize("how", [["--resume"], ["--force", *LONG]])
def test_a_second_training_in_the_same_folder_is_refused_and_changes_nothing(
    stopped, cli, folder, how
):
    before = files(folder)
    with locked("run"):
        done = cli("train", *how, "--out", "run")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: run is in use: another training is at it\n"
    assert files(folder) == before
    assert cli("train", "--resume", "--out", "run").code == 0


def test_looking_at_a_run_needs_no_lock(stopped, cli):
    with locked("run"):
        for verb in (["train", "--resume", "--dry-run", "--out", "run"], ["info", "run"],
                     ["sample", "run", "--length", "3"]):  # fmt: skip
            assert cli(*verb).code == 0
