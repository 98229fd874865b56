"""The same run again gives the same weights, and a longer one takes no more memory or files."""

import gc
import io
import os
import subprocess
import sys
import tracemalloc

import numpy as np
from running import ENVIRONMENT, SMALL, assert_same, command, nonsense, weights

import minilstm as ml
from minilstm.text.corpora import load_corpus

MASKS = ["--num-layers", "2", "--dropout", "0.2", "--weight-drop", "0.2", "--batching", "shuffled"]


def test_two_processes_with_one_seed_end_with_the_same_weights(folder):
    for name in ("one", "other"):
        subprocess.run(
            command("train", *SMALL[:-1], name, *MASKS),
            cwd=folder, env=ENVIRONMENT, check=True, capture_output=True,
        )  # fmt: skip
    assert_same(weights("one", "last"), weights("other", "last"))


def test_a_progress_bar_changes_nothing(cli, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert cli("train", *SMALL[:-1], "without").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal := Terminal())
        cli("train", *SMALL[:-1], "with")
    assert "12/12" in terminal.getvalue()  # it was there
    assert_same(weights("without", "last"), weights("with", "last"))


def test_a_long_run_takes_no_more_memory_and_leaves_no_file_open(folder):
    (folder / "long.txt").write_text(nonsense(9000))
    corpus, seen, count = load_corpus("long.txt", level="char"), {}, 0
    config = ml.ModelConfig(len(corpus.vocab), hidden_size=8)
    params = ml.init_params(config, np.random.default_rng(0))
    model = ml.LanguageModel(config, params, corpus.vocab)

    def look():
        nonlocal count
        count += 1
        if count in (399, 799):  # it is not asked after the last
            gc.collect()
            seen[count] = tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))
        return False

    how = ml.TrainConfig(steps=800, batch_size=4, seq_len=8, eval_every=50, sample_every=50)
    files = len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        ml.train(model, corpus, how, out="run", say=lambda line: None, should_stop=look)
    finally:
        tracemalloc.stop()
    (early, files_early), (late, files_late) = seen.values()
    # 100 bytes a step: a kept array has more. Python's own free lists, of tuples and bound methods,
    # fill for the first thousand steps, by 10 to 25 bytes a step.
    assert late - early < 40_000
    assert files_early == files_late
    assert len(os.listdir("/proc/self/fd")) == files
