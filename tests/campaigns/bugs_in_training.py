"""What a training run looks like with each bug of the museum: writes docs/museum.json.

    python tests/campaigns/bugs_in_training.py [--steps 500] [--only TEXT]

Every exhibit is put back into a copy of the package, in which one and the same small model, with
everything that the exhibits touch (two layers, tied weights, dropout, clipping, AdamW), is trained
on tiny Shakespeare: step by step as in examples/train_hello.py or, for an exhibit of the faster
form, with a workspace. MINILSTM_DATA names the folder of the text. Two at a time; nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from museum import BUGS, Bug, copy_of_the_package

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "museum.json"
SEEDS = 3  # of the run without a bug: how far apart two right runs are
FAST = ("nn/lstm_fast.py", "nn/lstm_steps.py", "workers.py")
NO_PART = ("gradcheck.py", "torch_weights.py")  # in training

TRAIN = """
import json, sys
from itertools import islice
import numpy as np
import minilstm as ml

steps, seed, fast = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "fast"
corpus = ml.load_corpus("shakespeare", level="char")
config = ml.ModelConfig(
    len(corpus.vocab), hidden_size=64, num_layers=2, embedding_size=64, tie_weights=True,
    dropout=0.1, output_dropout=0.1, forget_bias=1.0,
)
params = ml.init_params(config, np.random.default_rng(seed))
rng, optimizer, workspace = np.random.default_rng(seed + 1), ml.AdamW(4e-3), ml.Workspace()
losses, state = [], None

def batches():
    while True:
        yield from ml.contiguous_streams(corpus.train, 32, 64)

for inputs, targets, starts in islice(batches(), steps):
    state = None if starts else state
    if fast:
        loss, grads, state = ml.loss_and_grads(
            params, config, inputs, targets, state, rng=rng, workspace=workspace
        )
    else:
        logits, state, cache = ml.forward_with_cache(params, config, inputs, state, rng=rng)
        loss, dlogits = ml.softmax_cross_entropy(logits, targets)
        grads, _ = ml.backward(dlogits, cache)
    ml.clip_by_global_norm(grads, 1.0)
    optimizer.step(params, grads)
    losses.append(float(loss))
text = corpus.vocab.decode(corpus.valid[:20001])
valid = ml.LanguageModel(config, params, corpus.vocab).evaluate(text, streams=16).loss
print(json.dumps({"losses": losses, "valid": valid}))
"""


def trained(bug: Bug | None, steps: int, seed: int = 0) -> dict[str, float | str]:
    """The mean training loss of the last tenth of the steps, and the validation loss."""
    fast = "fast" if bug is not None and bug.file in FAST else "page"
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_package(Path(folder), bug)
        environment = {**os.environ, "PYTHONPATH": folder, "OPENBLAS_NUM_THREADS": "1"}
        if bug is not None and bug.file == "workers.py":
            environment["OPENBLAS_NUM_THREADS"] = "2"  # else there are no other processes
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(steps), str(seed), fast],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    seen = json.loads(done.stdout)
    last = seen["losses"][-max(1, steps // 10) :]
    figures = {"train": sum(last) / len(last), "valid": seen["valid"]}
    return {name: round(x, 4) if math.isfinite(x) else str(x) for name, x in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--only", default="", help="exhibits whose name holds this; writes nothing")
    args = parser.parse_args()
    chosen = [bug for bug in BUGS if args.only in bug.name and bug.file not in NO_PART]
    with ThreadPoolExecutor(max_workers=2) as pool:
        right = [pool.submit(trained, None, args.steps, seed) for seed in range(SEEDS)]
        seen = {bug.name: pool.submit(trained, bug, args.steps) for bug in chosen}
        results = {"right": [run.result() for run in right]}
        print("without a bug:", results["right"], flush=True)
        results["bugs"] = {}
        for name, run in seen.items():
            results["bugs"][name] = run.result()
            print(f"{name}: {run.result()}", flush=True)
    if not args.only:
        TARGET.write_text(json.dumps({"steps": args.steps, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
