"""What a training run looks like with each bug of the museum: writes docs/museum.json.

    python tests/campaigns/bugs_in_training.py [--steps 500] [--only TEXT ...]

Every exhibit is put back into a copy of the package, in which one and the same small model, with
everything that the exhibits touch (two layers, tied weights, dropout, clipping, AdamW), is trained
on tiny Shakespeare: step by step as in examples/train_hello.py. An exhibit that such a run would
not meet has a recipe of its own, as one of the faster form, and the right code is then trained by
that one as well. MINILSTM_DATA names the folder of the text. Two at a time; nothing is timed.
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
from typing import Any

from museum import BUGS, Bug, copy_of_the_package

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "museum.json"
SEEDS = 3  # of the run without a bug: how far apart two right runs are
NO_PART = ("gradcheck.py", "torch_weights.py")  # in training

TRAIN = """
import json, sys
from itertools import islice
import numpy as np
import minilstm as ml
from minilstm.nn import embedding, loss as loss_module

steps, seed, recipe = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
embedding._LARGEST_ONE_HOT = recipe.get("largest_one_hot", embedding._LARGEST_ONE_HOT)
loss_module.CHUNK = recipe.get("chunk", loss_module.CHUNK)
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
    if recipe.get("fast"):
        loss, grads, state = ml.loss_and_grads(
            params, config, inputs, targets, state, rng=rng, workspace=workspace
        )
    else:
        logits, state, cache = ml.forward_with_cache(params, config, inputs, state, rng=rng)
        loss, dlogits = ml.softmax_cross_entropy(logits, targets)
        grads, _ = ml.backward(dlogits, cache)
    ml.clip_by_global_norm(grads, recipe.get("clip", 1.0))
    optimizer.step(params, grads)
    losses.append(float(loss))
text = corpus.vocab.decode(corpus.valid[:20001])
valid = ml.LanguageModel(config, params, corpus.vocab).evaluate(text, streams=16).loss
print(json.dumps({"losses": losses, "valid": valid}))
"""


def trained(bug: Bug | None, steps: int, seed: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """The mean training loss of the last tenth of the steps, and the validation loss."""
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_package(Path(folder), bug)
        threads = str(recipe.get("threads", 1))  # with one there are no other processes
        environment = {**os.environ, "PYTHONPATH": folder, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(steps), str(seed), json.dumps(recipe)],
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
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="exhibits whose names hold one of these; others stay")  # fmt: skip
    args = parser.parse_args()
    chosen = [bug for bug in BUGS if bug.file not in NO_PART
              and any(text in bug.name for text in args.only)]  # fmt: skip
    kept = {"steps": args.steps, "bugs": {}}
    if args.only != [""]:
        kept = json.loads(TARGET.read_text())
    if kept["steps"] != args.steps:
        parser.error(f"the others were trained for {kept['steps']} steps")
    with ThreadPoolExecutor(max_workers=2) as pool:

        def begin(bug: Bug | None, recipe: dict[str, Any]) -> Any:
            seeds = range(1 if bug else SEEDS)
            return [pool.submit(trained, bug, args.steps, seed, recipe) for seed in seeds]

        recipes = {json.dumps(bug.recipe): bug.recipe for bug in chosen} | {"{}": {}}
        right = {name: begin(None, recipe) for name, recipe in recipes.items()}
        runs = {bug.name: begin(bug, bug.recipe) for bug in chosen}
        found = {name: [run.result() for run in its] for name, its in right.items()}
        kept["right"] = kept.get("right", {}) | found
        for bug in chosen:
            (run,) = runs[bug.name]
            kept["bugs"][bug.name] = run.result() | {"recipe": json.dumps(bug.recipe)}
            print(f"{bug.name}: {run.result()}; right: {found[json.dumps(bug.recipe)]}", flush=True)
    TARGET.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
