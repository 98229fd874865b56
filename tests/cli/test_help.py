"""--help: what it names, and how little it needs for it."""

import re
import subprocess
import sys

import pytest
from running import ENVIRONMENT, command

from minilstm import settings

VERBS = ["train", "sample", "eval", "plot", "info", "convert", "data", "gradcheck"]
HEAVY = ["matplotlib", "tqdm", "pooch", "safetensors", "cupy", "torch", "threadpoolctl"]
FLAGS = {
    "train": ["preset", "config", "set", "out", "resume", "init-from", "force", "dry-run"],
    "sample": ["prompt", "length", "temperature", "top-k", "top-p", "greedy", "stop", "seed",
               "stream", "device"],
    "eval": ["data", "split", "streams", "json", "device"],
    "plot": ["what", "out", "text", "chunk", "follows", "layer", "unit"],
    "info": ["preset", "config", "set"],
    "convert": ["to", "from", "like", "out"],
    "data": [],
    "gradcheck": ["layers", "one-hot", "seed"],
}  # fmt: skip


def test_no_help_imports_anything_heavy():
    program = f"""
import sys
from minilstm.__main__ import main
for arguments in [[], *[[verb] for verb in {VERBS}]]:
    try:
        main([*arguments, "--help"])
    except SystemExit as exit:
        assert exit.code in (0, None), exit.code
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "[]")
    assert done.stdout.count("usage: minilstm") == 1 + len(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_is_explained(cli, verb):
    done = cli(verb, "--help")
    assert (done.code, done.err) == (0, "")
    for flag in FLAGS[verb]:
        assert re.search(rf"^  --{flag}\b", done.out, re.M), flag
    assert "None" not in done.out
    assert "SUPPRESS" not in done.out


def test_every_setting_has_its_default_beside_it(cli):
    helped = " ".join(cli("train", "--help").out.split())
    for name, default in settings.defaults().items():
        help = f"{settings.helps()[name]} ({settings.spell(default)})"
        assert " ".join(help.split()) in helped


def test_the_module_is_the_command(folder):
    done = subprocess.run(
        command("--version"), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"minilstm \d+\.\d+\.\d+\n", done.stdout)
