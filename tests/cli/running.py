"""How the tests here run the command line, and what they look at afterwards."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minilstm
from minilstm.__main__ import main
from minilstm.checkpoint import read_checkpoint, read_run

SMALL = ["--data", "text.txt", "--hidden-size", "8", "--embedding-size", "5", "--batch-size", "4",
         "--seq-len", "9", "--steps", "12", "--eval-every", "4", "--lr", "0.02",
         "--threads", "1", "--out", "run"]  # fmt: skip
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(minilstm.__file__).parents[1])}


def nonsense(characters, seed=0):
    """A text with something to learn, in which every letter comes early."""
    words = ["to be,", "or not", "is it?\n", "a question", "the very same", "jump fox", "lazy dog"]
    drawn = np.random.default_rng(seed).choice(words, characters // 4)
    return " ".join([*words, *drawn])[:characters]


def call(capsys, *arguments):
    """Run the command in this process: exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return SimpleNamespace(code=exit.value.code, out=out, err=err)


def command(*arguments):
    """The command as a process of its own, for subprocess."""
    return [sys.executable, "-m", "minilstm", *map(str, arguments)]


def weights(run, which="best"):
    """The parameters of a checkpoint, by name."""
    return read_checkpoint(read_run(run), which).params


def assert_same(params, others):
    """Bit for bit."""
    assert params.keys() == others.keys()
    for name, p in params.items():
        np.testing.assert_array_equal(p, others[name], err_msg=name, strict=True)


def files(folder):
    """Every file below a folder, with its bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
