"""A disk that is full, a folder that has gone: one line, and the checkpoint before it intact."""

import os
import resource
import shutil
import subprocess

import pytest
from running import ENVIRONMENT, SMALL, assert_same, command, files, weights

from minilstm import training
from minilstm.checkpoint import read_checkpoint, read_run


def limited(folder, size, *arguments):
    """The command in a process whose files cannot grow beyond so many bytes."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


def at_step(monkeypatch, step, act):
    """Let `act` happen in the middle of the next training."""
    taken = training._Run.train_step

    def acting(run, *batch):
        if run.step == step:
            act()
        taken(run, *batch)

    monkeypatch.setattr(training._Run, "train_step", acting)


def raised(error):
    raise error


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(folder, cli, monkeypatch):
    assert cli("train", *SMALL[:-1], "whole").code == 0
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: raised(KeyboardInterrupt))
        assert cli("train", *SMALL).code == 130
    before = files(folder / "run")
    done = limited(folder, 1500, "train", "--resume", "--out", "run")
    assert done.returncode == 1
    (line,) = errors(done.stderr)
    assert "File too large" in line
    assert "Traceback" not in done.stderr
    assert read_checkpoint(read_run("run"), "last").step == 4
    kept = files(folder / "run")
    assert {path: data for path, data in before.items() if path.name != "metrics.csv"} == {
        path: data for path, data in kept.items() if path.name != "metrics.csv"
    }
    assert cli("train", "--resume", "--out", "run").code == 0
    assert_same(weights("run", "last"), weights("whole", "last"))


@pytest.mark.parametrize("what", ["run", "run/checkpoints"])
def test_a_folder_deleted_under_the_run_is_one_line(folder, cli, monkeypatch, what):
    at_step(monkeypatch, 6, lambda: shutil.rmtree(what))
    done = cli("train", *SMALL)
    assert done.code in (1, 2)
    (line,) = errors(done.err)
    assert "run" in line
    assert "Traceback" not in done.err


@pytest.mark.parametrize("step", [5, 6])  # before a row of metrics.csv alone, and a checkpoint
def test_a_folder_replaced_by_another_run_is_left_to_it(folder, cli, monkeypatch, step):
    assert cli("train", *SMALL[:-1], "other").code == 0
    before = [data for _, data in sorted(files(folder / "other").items())]

    def replace():
        os.rename("run", "moved")
        os.rename("other", "run")

    at_step(monkeypatch, step, replace)
    done = cli("train", *SMALL)
    assert done.code == 2
    (line,) = errors(done.err)
    assert "run is no longer the folder that this run began in" in line
    assert [data for _, data in sorted(files(folder / "run").items())] == before


def test_a_place_where_nothing_can_be_written_is_one_line(cli, folder):
    done = cli("train", *SMALL[:-1], "/proc/minilstm/run")
    assert done.code == 1
    (line,) = errors(done.err)
    assert "/proc/minilstm" in line
