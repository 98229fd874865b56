"""Each preset in a small form, from end to end: killed, resumed, measured, sampled, converted."""

import json
import math
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from running import ENVIRONMENT, assert_same, command, weights
from safetensors.torch import load_file
from torch_reference import TorchModel

from minilstm import settings
from minilstm.checkpoint import read_run

STEPS = ["--steps", "30", "--eval-every", "15", "--checkpoint-every", "5", "--threads", "1"]
SLOW = ["--sample-every", "1", "--sample-length", "60"]  # some 6 ms a step, for the signal


def small(preset):
    """The preset's own model and training, with few units, short windows and a text of ours."""
    flags = ["--preset", preset, "--data", "text.txt", *STEPS]
    given = settings.read_preset(preset)
    sizes = {"hidden_size": 8, "batch_size": 4, "seq_len": 6, "embedding_size": 8}
    for name, value in sizes.items():
        if name in given:
            flags += [f"--{name.replace('_', '-')}", str(min(value, given[name]))]
    return flags


@pytest.mark.parametrize("preset", settings.preset_names())
def test_a_preset_killed_and_resumed_is_the_uninterrupted_run_and_fit_for_use(cli, folder, preset):
    process = subprocess.Popen(
        command("train", *small(preset), *SLOW, "--out", "run"),
        cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (folder / "run" / "last").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = cli("train", *small(preset), *SLOW, "--out", "run", "--resume")
    assert resumed.code == 0
    assert cli("train", *small(preset), "--out", "whole").code == 0
    for which in ("best", "last"):
        assert_same(weights("run", which), weights("whole", which))

    scores = json.loads(cli("eval", "run", "--json").out)
    V = read_run("run").config.vocab_size
    assert 0 < scores["loss"] < math.log(V) + 0.5
    assert scores["loss"] == pytest.approx(loss_in_pytorch(cli, "run"), abs=1e-4)

    sample = cli("sample", "run", "--length", "20", "--seed", "0")
    assert sample.code == 0
    assert len(sample.out) > 20
    assert cli("convert", "torch.safetensors", "--from", "torch", "--like", "run",
               "--out", "back").code == 0  # fmt: skip
    assert_same(weights("back"), weights("run"))


def loss_in_pytorch(cli, run):
    """The mean loss over the validation text, by PyTorch, from the converted weights."""
    assert cli("convert", run, "--to", "torch", "--out", "torch.safetensors").code == 0
    found = read_run(run)
    model = TorchModel(found.config)
    model.load_state_dict(load_file("torch.safetensors"), strict=True)
    own = settings.DataConfig(**settings.of_table("data", found.extra["settings"]))
    ids = torch.from_numpy(own.load(found.vocabulary).valid.astype(np.int64))
    state = tuple(torch.zeros(found.config.num_layers, 1, found.config.hidden_size) for _ in "hc")
    with torch.inference_mode():
        logits, _ = model(ids[:-1, None], state)
    return torch.nn.functional.cross_entropy(logits[:, 0].double(), ids[1:]).item()
