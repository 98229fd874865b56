"""What the presets reach: trains them from the command line, measures, and writes docs/results.md.

    python tests/campaigns/results.py run shakespeare --seed 0      docs/results/shakespeare-0.json
    python tests/campaigns/results.py first shakespeare             first 50 losses, then and now
    python tests/campaigns/results.py full-size wikitext2-words     three steps, and their memory
    python tests/campaigns/results.py leaky                         the split that flatters
    python tests/campaigns/results.py example                       README's three minutes, 3 seeds
    python tests/campaigns/results.py write                         the pages, from all of these

A row is trained as a user would, by `minilstm train --preset`. With seed 0 the run is killed with
SIGKILL half-way and resumed. Then the best checkpoint is evaluated by `minilstm eval`, in one pass
over the whole validation text, sampled, converted, and evaluated once more by PyTorch. Nothing
else may run on the machine: the budgets are minutes. MINILSTM_DATA names the folder of the texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minilstm as ml
from minilstm import plots, settings
from minilstm.checkpoint import read_checkpoint, read_run
from minilstm.cli import runs
from minilstm.evaluation import evaluate
from minilstm.metrics import read_rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
TEMPERATURES = (0.5, 0.8, 1.0)
FIRST = 50  # losses that a row is known by


@dataclass(frozen=True)
class Row:
    """One preset: the heading it stands under, its model in words, and how it is measured."""

    preset: str
    heading: str
    model: str
    seeds: tuple[int, ...] = (0, 1, 2)
    test: bool = False  # whether the corpus has a test part, which is reported once
    sample: int = 300  # tokens of each sample


ROWS = {
    row.preset: row
    for row in (
        Row("hello", "hello", "one-hot, 1×128", sample=4),
        Row("shakespeare", "shakespeare", "embedding 64, 2×160, state carried"),
        Row("shakespeare-windows-cpu", "shakespeare", "embedding 64, 1×256, random windows"),
        Row("shakespeare-hour", "shakespeare", "embedding 64, 1×512, random windows", (0,)),
        Row("wikitext2-chars-cpu", "chars", "embedding 64, 2×192, state carried", test=True),
        Row("wikitext2-chars-hour", "chars", "embedding 64, 2×400, state carried", (0,), test=True),
        Row("wikitext2-words-cpu", "words", "tied, 1×200, state carried", test=True, sample=60),
        Row("wikitext2-words-hour", "words", "tied, 1×256, state carried", (0,), True, 60),
    )
}
FULL_SIZE = ("shakespeare-windows", "wikitext2-chars", "wikitext2-words")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="train and measure a preset")
    run.add_argument("row", choices=ROWS)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--set", nargs="+", default=[], help="settings to try; writes nothing")
    run.add_argument("--keep", type=Path, help="a folder for the run, such as for pictures.py")
    run.set_defaults(work=lambda args: measure(ROWS[args.row], args.seed, args.set, args.keep))
    first = commands.add_parser("first", help="the first losses of a row's first seed, again")
    first.add_argument("row", choices=ROWS)
    first.set_defaults(work=lambda args: first_again(ROWS[args.row]))
    full = commands.add_parser("full-size", help="three steps at full shape")
    full.add_argument("preset", choices=FULL_SIZE)
    full.set_defaults(work=lambda args: full_size(args.preset))
    leak = commands.add_parser("leaky", help="one recipe, two ways to hold out a tenth")
    leak.add_argument("--steps", type=int, default=4000)
    leak.set_defaults(work=lambda args: leaky(args.steps))
    three = commands.add_parser("example", help="examples/train_shakespeare.py, as README runs it")
    three.set_defaults(work=lambda _: example())
    pages = commands.add_parser("write", help="docs/results.md and docs/leaky_split.md")
    pages.set_defaults(work=lambda _: write())
    args = parser.parse_args()
    args.work(args)


def minilstm(*arguments: object) -> str:
    """Run `python -m minilstm`, its progress shown, and return its stdout."""
    print("$ minilstm", *arguments, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "minilstm", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- a row


def measure(row: Row, seed: int, tried: list[str], keep: Path | None = None) -> None:
    """Train, kill, resume, evaluate, sample, convert; write the row's JSON and its picture."""
    commit = "none: settings were tried" if tried else clean_commit()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = ["train", "--preset", row.preset, "--seed", seed, "--out", out]
        command += ["--set", *tried] if tried else []
        killed = None
        if seed == 0 and not tried:
            killed = kill_half_way(out, command)
            command += ["--resume"]
        minilstm(*command)
        if keep is not None:
            shutil.copytree(out, keep)
        figures = describe(row, seed, commit, out) | {"killed_after_step": killed}
        if tried:
            print(json.dumps(figures, indent=1, ensure_ascii=False))
            return
        RESULTS.mkdir(exist_ok=True)
        if seed == row.seeds[0]:
            minilstm("plot", out, "--what", "loss", "--out", RESULTS / f"{row.preset}.png")
    figures["first_losses"] = first_losses(row, seed, figures["steps"])
    dump(f"{row.preset}-{seed}", figures)


def example() -> None:
    """Three minutes of examples/train_shakespeare.py for each of three seeds."""
    figures: dict[str, Any] = {"commit": clean_commit(), "machine": machine(None), "seeds": {}}
    pattern = r"trained ([\d,]+) steps in (\d+) s;.*\nvalidation loss ([\d.]+) nats"
    for seed in (0, 1, 2):
        command = [sys.executable, ROOT / "examples" / "train_shakespeare.py", "--minutes", "3"]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([*command, "--seed", str(seed)], cwd=folder, check=True,
                                  stdout=subprocess.PIPE, text=True)  # fmt: skip
        steps, seconds, loss = re.findall(pattern, done.stdout)[0]
        sample = done.stdout.split("a sample at temperature 0.5 ---\n")[1].split("\n---")[0]
        figures["seeds"][seed] = {"steps": int(steps.replace(",", "")), "seconds": int(seconds),
                                  "loss": float(loss), "sample": sample}  # fmt: skip
        print(figures["seeds"][seed], file=sys.stderr)
    dump("example", figures)


def kill_half_way(out: Path, command: list[Any]) -> int:
    """Start a training, kill -9 it when half of its steps are in a checkpoint; return that step."""
    process, total = subprocess.Popen([sys.executable, "-m", "minilstm", *map(str, command)]), None
    while process.poll() is None:
        time.sleep(0.02)  # and look at the pointer alone: the run is being timed
        if not (out / "last").exists():
            continue
        step = int((out / "last").read_text().split("-")[1][:8])
        total = total or read_run(out).extra["total_steps"]
        if step >= total // 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return step
    raise SystemExit("the training ended before it could be killed")


def figures_of(run: Path, *flags: str) -> dict[str, Any]:
    """What `minilstm eval` says of a run, but for the names."""
    told = json.loads(minilstm("eval", run, *flags, "--json"))
    return {name: value for name, value in told.items() if name not in ("run", "text", "level")}


def describe(row: Row, seed: int, commit: str, out: Path) -> dict[str, Any]:
    """Everything that is measured of a finished run."""
    run, metrics = read_run(out), read_rows(out / "metrics.csv")
    best = read_checkpoint(run, "best", weights_only=True)
    last = read_checkpoint(run, "last", weights_only=True)
    data = settings.of_table("data", run.extra["settings"])
    corpus = settings.DataConfig(**data).load(run.vocabulary)
    ids = corpus.valid if corpus.valid is not None else corpus.train
    best_figures, test = figures_of(out), None
    if row.test and seed == row.seeds[0]:
        test = figures_of(out, "--split", "test")
    same = best.step == last.step  # then one pass says both
    return {
        "seed": seed,
        "commit": commit,
        "machine": machine(run.extra["threads"]),
        "parameters": sum(math.prod(shape) for shape in run.config.parameter_shapes().values()),
        "steps": last.step,
        "tokens_seen": int(metrics[-1]["tokens"]),
        "seconds": metrics[-1]["seconds"],
        "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "best_step": best.step,
        "best": best_figures,
        "last": {name: figure for name, figure in best_figures.items() if name != "cold_windows"}
        if same
        else evaluate(last.params, run.config, ids).to_dict(),
        "test": test,
        "pytorch_loss": pytorch_loss(run, out, ids),
        "samples": {
            t: minilstm("sample", out, "--length", row.sample, "--temperature", t, "--seed", 0)
            for t in TEMPERATURES
        },
    }


def first_losses(row: Row, seed: int, total: int) -> list[float]:
    """The training losses of the first steps of a row that has so many in all."""
    setup = runs.prepare(settings.merge(settings.read_preset(row.preset), {"seed": seed}))
    rng = ml.training.random_stream(seed, ml.training.INIT)
    model = ml.LanguageModel(setup.model, ml.init_params(setup.model, rng), setup.corpus.vocab)
    # Nothing validates, so that every step has a row of its own and no time is lost.
    corpus, step = dataclasses.replace(setup.corpus, valid=None), itertools.count(1)
    config = dataclasses.replace(setup.train, eval_every=10, checkpoint_every=10**9)
    with tempfile.TemporaryDirectory() as out:
        ml.train(model, corpus, config, out, total=total, should_stop=lambda: next(step) == FIRST)
        return [metrics["train_loss"] for metrics in read_rows(Path(out, "metrics.csv"))]


def first_again(row: Row) -> None:
    """Whether a row still stands: its first losses on this commit, beside those it was made of."""
    figures = json.loads((RESULTS / f"{row.preset}-{row.seeds[0]}.json").read_text("utf-8"))
    if "first_losses" not in figures:
        raise SystemExit(f"{row.preset} was measured before first losses were kept")
    then, now = figures["first_losses"], first_losses(row, row.seeds[0], figures["steps"])
    furthest = max(abs(a - b) for a, b in zip(then, now, strict=True))
    print(f"{row.preset}, {figures['commit']}: {len(now)} losses, the furthest {furthest:.1e} off")
    if furthest > 1e-4:
        raise SystemExit("it no longer stands")


def pytorch_loss(run: Any, out: Path, ids: Any) -> float:
    """The best checkpoint's loss over all targets, converted, loaded and evaluated by PyTorch."""
    import torch
    from safetensors.torch import load_file

    sys.path.insert(0, str(ROOT / "tests"))
    from torch_reference import TorchModel

    minilstm("convert", out, "--to", "torch", "--out", out / "torch.safetensors")
    model = TorchModel(run.config)
    model.load_state_dict(load_file(out / "torch.safetensors"), strict=True)
    tokens = torch.from_numpy(ids.astype(np.int64))
    state = tuple(torch.zeros(run.config.num_layers, 1, run.config.hidden_size) for _ in "hc")
    nats = 0.0
    with torch.inference_mode():
        for start in range(0, len(ids) - 1, 512):
            chunk = tokens[start : start + 513]
            logits, state = model(chunk[:-1, None], state)
            of_chunk = torch.nn.functional.cross_entropy(
                logits[:, 0].double(), chunk[1:], reduction="sum"
            )
            nats += of_chunk.item()
    return nats / (len(ids) - 1)


def machine(threads: int | None) -> str:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{os.cpu_count()} cores of {' '.join(cpu.split())}, {threads} threads, {versions}"


def clean_commit() -> str:
    """The commit that is measured; the package must be as it is in it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)
        return done.stdout.decode().strip()

    if changed := git("status", "--porcelain", "minilstm"):
        raise SystemExit(f"a figure belongs to a commit, and minilstm/ has changes:\n{changed}")
    return git("rev-parse", "--short=10", "HEAD")


def dump(name: str, figures: dict[str, Any]) -> None:
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


# --- the presets at full size


def full_size(preset: str) -> None:
    """Three steps at full shape, in one process: the memory that `info` predicts, and its peak."""
    # The raw training text's place is taken by the tokenised one, where that is all there is.
    data = {"threads": 1} | ({"data": "wikitext2"} if preset == "wikitext2-chars" else {})
    commit = clean_commit()
    predicted = runs.prepare(settings.read_preset(preset) | data).memory["total"]
    with tempfile.TemporaryDirectory() as folder:
        # Little to validate on: whole texts at full size would take a quarter of an hour.
        few = Path(folder, "valid.txt")
        few.write_text("To be , or not to be , that is the question .\n" * 40)
        flags = ["--steps", "3", "--val-data", str(few), "--out", f"{folder}/run"]
        flags += [word for name, value in data.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "minilstm", "train", "--preset", preset, *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{preset}: the training failed")
        figures = {
            "commit": commit,
            "machine": machine(read_run(f"{folder}/run").extra["threads"]),
            "predicted_bytes": predicted,
            "measured_bytes": usage.ru_maxrss * 1024,
            "seconds_per_step": read_rows(Path(folder, "run", "metrics.csv"))[-1]["seconds"] / 3,
        }
    dump(f"{preset}-three-steps", figures)


# --- the leaky split


def leaky(steps: int) -> None:
    """One recipe, two ways to hold out a tenth.

    Leaky: windows of 100 characters begin at every place of the whole text, and are shuffled; a
    tenth of them validates, the others train. Each overlaps its neighbours in the text by 99
    characters. Honest: the last tenth of the text validates, in windows of 100 too, all of them
    read from a zero state. Same seed, same number of steps.
    """
    commit, corpus = clean_commit(), ml.load_corpus("shakespeare")
    assert corpus.valid is not None
    text = np.concatenate([corpus.train, corpus.valid])
    T, B = 100, 32
    config = ml.ModelConfig(len(corpus.vocab), 256, 1, embedding_size=64, forget_bias=1.0)
    shuffled = np.random.default_rng(0).permutation(len(text) - T)
    held_out = shuffled[: len(shuffled) // 10][:1115]  # as many characters as the honest tenth
    splits = {
        "leaky": (shuffled[len(shuffled) // 10 :], held_out),
        "honest": (
            np.arange(len(corpus.train) - T),
            np.arange(len(corpus.train), len(text) - T, T),
        ),
    }

    def windows(first: Any) -> tuple[Any, Any]:
        tokens = text[np.arange(T + 1)[:, None] + first]  # (T + 1, B)
        return tokens[:-1], tokens[1:]

    def loss_of(params: Any, first: Any) -> float:
        inputs, targets = windows(first)
        return float(ml.softmax_cross_entropy(ml.forward(params, config, inputs)[0], targets)[0])

    curves: dict[str, dict[str, list[float]]] = {}
    for name, (training, validation) in splits.items():
        params = ml.init_params(config, np.random.default_rng(1))
        optimizer, rng = ml.Adam(), np.random.default_rng(2)
        curves[name] = {"step": [], "training": [], "validation": []}
        recent = []
        for step in range(1, steps + 1):
            loss, grads, _ = ml.loss_and_grads(params, config, *windows(rng.choice(training, B)))
            ml.clip_by_global_norm(grads, 1.0)
            optimizer.lr = ml.warmup_cosine(step - 1, steps, 5e-3)
            optimizer.step(params, grads)
            recent.append(float(loss))
            if step % (steps // 20) == 0:
                curves[name]["step"].append(step)
                curves[name]["training"].append(statistics.fmean(recent))
                curves[name]["validation"].append(loss_of(params, validation))
                recent = []
                print(name, *(values[-1] for values in curves[name].values()), flush=True)
    figures = {"commit": commit, "machine": machine(None), "steps": steps, "curves": curves}
    dump("leaky", figures)
    axes = plots.new_axes("AB", width=9, height=3.6)
    for ax, (name, curve) in zip(axes, curves.items(), strict=True):
        ax.plot(curve["step"], curve["training"], color="0.45", label="training")
        ax.plot(curve["step"], curve["validation"], color="C0", linewidth=2, marker="o",
                markersize=3, label="validation")  # fmt: skip
        ax.set(title=f"{name} split", xlabel="step", ylabel="nats per character", ylim=(0.9, 2.6))
        ax.legend(frameon=False)
    print(plots.save(axes[0], RESULTS / "leaky.png"))


# --- the pages


def write() -> None:
    from results_pages import leaky_page, results_page  # beside this file

    for name, page in (("results.md", results_page()), ("leaky_split.md", leaky_page())):
        (ROOT / "docs" / name).write_text(page, encoding="utf-8")
        print(ROOT / "docs" / name)


if __name__ == "__main__":
    main()
