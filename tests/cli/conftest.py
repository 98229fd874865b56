"""A folder with a text to train on, the command line in this process, and a run trained once."""

import os

import pytest
from running import SMALL, call, nonsense

from minilstm import training
from minilstm.__main__ import main


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Nothing is forced to the disk, and a run's picture is an empty file; not so in `trained`."""
    monkeypatch.setattr(os, "fsync", os.fstat)
    monkeypatch.setattr(training._Run, "draw", lambda run: (run.out.path / "loss.png").touch())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command runs: text.txt, and nothing of ours in the environment."""
    (tmp_path / "text.txt").write_text(nonsense(3000))
    monkeypatch.chdir(tmp_path)
    for name in ("MINILSTM_DATA", "MINILSTM_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cli(folder, capsys):
    """cli("train", "--data", …): exit code, stdout and stderr."""
    return lambda *arguments: call(capsys, *arguments)


@pytest.fixture
def train(cli):
    """train("--lr", "0.1"): a small run in run/, or why not."""
    return lambda *arguments: cli("train", *SMALL, *arguments)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with text.txt and run/, trained; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(nonsense(3000))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as exit:
            main(["train", *SMALL])
    assert exit.value.code == 0
    return folder


@pytest.fixture
def on_run(trained, monkeypatch, capsys):
    """on_run("eval", "run", …): as cli, beside the trained run."""
    monkeypatch.chdir(trained)
    return lambda *arguments: call(capsys, *arguments)
