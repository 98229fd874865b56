"""The estimate of a step's memory against what a step allocates."""

import json
import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minilstm import workers
from minilstm.memory import estimate_memory
from minilstm.model import ModelConfig, init_params, loss_and_grads
from minilstm.nn import loss
from minilstm.optim import clip_and_tensor_norms
from minilstm.threads import thread_limit
from minilstm.train_config import TrainConfig
from minilstm.workspace import Workspace


def measured(config, B, T, optimizer, dtype):
    """The peak of bytes allocated while a step is taken, with all that stays between steps."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.integers(0, config.vocab_size, (2, T, B))
    tracemalloc.start()
    try:
        params = init_params(config, rng, dtype)
        best = {name: p.copy() for name, p in params.items()}
        update, state = TrainConfig(optimizer=optimizer).make_optimizer(), None
        workspace = Workspace()

        def step(state):
            _, grads, state = loss_and_grads(
                params, config, inputs, targets, state, rng=rng, workspace=workspace
            )
            clip_and_tensor_norms(grads, 1.0)
            update.step(params, grads)
            return state

        state = step(state)  # the first one makes the optimizer's arrays
        tracemalloc.reset_peak()
        step(state)
        assert len(best) == len(params)  # they are still there
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


CHARACTERS = ModelConfig(65, 128)
MASKED = ModelConfig(300, 64, 2, 64, dropout=0.2, embedding_dropout=0.2, output_dropout=0.2,
                     locked_dropout=True, weight_drop=0.3, tie_weights=True)  # fmt: skip
WORDS = ModelConfig(20_000, 32, 2, 48, dropout=0.5, output_dropout=0.5)
DROPPED = ModelConfig(65, 64, embedding_size=256, embedding_dropout=0.5)
WIDE = ModelConfig(65, 256, embedding_size=64)


@pytest.mark.parametrize(
    "config, B, T, optimizer, dtype",
    [
        (CHARACTERS, 32, 50, "adam", np.float32),  # activations
        (CHARACTERS, 16, 20, "adam", np.float64),
        (MASKED, 20, 30, "adamw", np.float32),  # masks
        (DROPPED, 40, 30, "adam", np.float32),
        (WORDS, 30, 20, "adam", np.float32),  # chunks of logits, a large embedding
        (WIDE, 2, 5, "sgd", np.float32),  # parameters
        (WIDE, 2, 5, "adam", np.float32),
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_a_step_allocates(
    config, B, T, optimizer, dtype, monkeypatch
):
    monkeypatch.setattr(loss, "CHUNK", 1 << 23)
    estimate = estimate_memory(config, B, T, np.dtype(dtype).itemsize, optimizer)
    arrays = estimate["total"] - estimate["program"]
    with thread_limit(1):  # and so in one process: what is in another, nobody traces here
        assert arrays == pytest.approx(measured(config, B, T, optimizer, dtype), rel=0.1)


@pytest.mark.parametrize(
    "row, config, B, T, processes",
    [
        ("hello", ModelConfig(65), 1, 10, 1),
        ("small", ModelConfig(65), 32, 50, 2),
        ("deep", ModelConfig(65, 256, 2, 64), 64, 64, 2),
        ("windows", ModelConfig(65, 512, 1, 512), 128, 256, 2),
        ("wiki-chars", ModelConfig(283, 1024, 1, 512), 64, 100, 1),
        ("wiki-words", ModelConfig(28_782, 400, 2, 400), 20, 35, 1),
    ],
)
def test_the_estimate_is_within_a_tenth_of_the_benchmarks_peaks_all_processes_together(
    row, config, B, T, processes, monkeypatch
):
    parameters = sum(map(math.prod, config.parameter_shapes().values()))
    numbers = T * B * config.hidden_size * config.num_layers
    monkeypatch.setattr(workers, "threads_now", lambda: 2)
    monkeypatch.setattr(sys, "platform", "linux")
    assert workers.processes(parameters, B, numbers, workers.TRAINING) == processes
    recorded = json.loads((Path(__file__).parents[1] / "docs" / "benchmark.json").read_text())
    (peak,) = (its["peak_bytes"]["ours"] for its in recorded["rows"] if its["row"] == row)
    estimate = estimate_memory(config, B, T, keep_best=False, processes=processes)
    program = estimate_memory(config, B, T)["program"]  # the peaks are above the imports'
    assert estimate["total"] - program == pytest.approx(peak, rel=0.1, abs=2e6)


def test_the_parts_add_up_and_those_that_stay_are_copies_of_the_parameters():
    parameters = 4 * (65 * 512 + 128 * 512 + 512 + 128 * 65 + 65)
    sizes = estimate_memory(CHARACTERS, 8, 8)
    assert (sizes["parameters"], sizes["optimizer"]) == (parameters, 2 * parameters)
    assert sizes["best weights"] == parameters
    assert sizes["total"] == sum(size for name, size in sizes.items() if name != "total")
    without = estimate_memory(CHARACTERS, 8, 8, keep_best=False)
    assert sizes["total"] - without["total"] == parameters
