"""docs/results.md and docs/leaky_split.md as text, from the figures in docs/results/*.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import FULL_SIZE, RESULTS, ROWS, Row

HEADINGS = {
    "shakespeare": "Tiny Shakespeare: nats per character on the last tenth",
    "chars": "WikiText-2, characters: nats per character",
    "words": "WikiText-2, words: perplexity",
    "hello": "hello",
}
UNITS: dict[str, Callable[[dict[str, float]], str]] = {
    "words": lambda score: f"{score['perplexity']:.1f}",
}
REFERENCES = {
    "shakespeare": [
        ("4.174", "a uniform guess, ln 65"),
        ("3.347, 2.484, 2.045, 1.579, 1.558", "counting: Kneser-Ney n-grams of order 1, 2, 3, 5, 6 "
         "on exactly this split. A model above 1.558 has not beaten counting"),
        ("1.88", "nanoGPT, CPU setting: 4 layers, 4 heads, 128 wide, block 64, batch 12, 2,000 "
         "iterations, about 3 minutes on a laptop"),
        ("1.555, 1.548, 1.575, 1.547", "minLSTM, minGRU, Mamba, Transformer (arXiv 2410.01201)"),
        ("1.4697", "nanoGPT, GPU setting: 6 layers, 384 wide, dropout 0.2, 5,000 iterations, 3 "
         "minutes on one A100"),
    ],
    "chars": [
        ("1.183", "counting: Kneser-Ney of order 6, the tokenised files; 1.1725 (1.6916 bits) on "
         "test"),
        ("1.324 on test", "LSTM 2×128, 30 epochs, the raw files; unreviewed"),
        ("1.6387", "embedding 512, 1×2048, batch 512, T 100, 400 steps of Adam 2e-3, the raw files:"
         " on one random batch, with dropout active"),
    ],
    "words": [
        ("271.2 / 254.7", "valid / test; counting: Kneser-Ney of order 2"),
        ("227.3 / 214.2, 220.9 / 209.9", "the same of order 3 and 4"),
    ],
}  # fmt: skip
NOTES = {
    "shakespeare": "The best checkpoint is chosen on the text it is reported on, as nanoGPT does; "
    "the last one stands beside it.",
    "chars": "The tokenised files, 283 symbols. The best checkpoint is chosen on valid; test is "
    "reported once.",
    "words": "basic_english: 28,782 types with `<unk>`; perplexities of other vocabularies cannot "
    "be compared. The best checkpoint is chosen on valid; test is reported once.",
    "hello": "Five letters, of which four are predicted. Nothing validates: this is the training "
    "loss.",
}


def results_page() -> str:
    """What every preset reached, beside what others reached."""
    parts = [
        "# Results",
        "Every figure here is measured by `python tests/campaigns/results.py`, which also writes "
        "this page: do not edit it. It trains each preset from the command line, as `minilstm "
        "train --preset NAME` does. The headline is one pass over the whole validation text, "
        "dropout off, one stream, the state carried from a zero state, summed in float64; *cold* "
        "reads it in windows of 256 from a zero state each. Means over the seeds, the worst "
        "in brackets; differences below 0.01 nat are noise. The time is that of training, "
        "evaluation aside; a preset of minutes fixes its number of steps before it begins.",
    ]
    for key, heading in HEADINGS.items():
        rows = [row for row in ROWS.values() if row.heading == key and read_results(row)]
        if rows:
            parts += [f"## {heading}", table(key, rows), NOTES[key]]
            if key in REFERENCES:
                lines = [f"| {figure} | {what} |" for figure, what in REFERENCES[key]]
                parts += ["What others reached:", "\n".join(["| | |", "|---|---|", *lines])]
            parts += [picture(row) for row in rows] + [samples(row) for row in rows]
    parts += ["## The presets at full size", full_size_table(), "## How", how()]
    return "\n\n".join(parts) + "\n"


def read_results(row: Row) -> list[dict[str, Any]]:
    paths = [RESULTS / f"{row.preset}-{seed}.json" for seed in row.seeds]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def table(key: str, rows: list[Row]) -> str:
    show = UNITS.get(key, lambda score: f"{score['loss']:.4f}")
    lines = [
        "| preset | model | parameters | seeds | tokens seen | training | best | last | cold "
        "| test (seed 0) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = read_results(row)
        score = {
            "best": [figures["best"] for figures in found],
            "last": [figures["last"] for figures in found],
            "cold": [figures["best"]["cold_windows"] for figures in found],
            "test": [figures["test"] for figures in found if figures["test"]],
        }
        cells = [mean_and_worst(scores, show) for scores in score.values()]
        tokens = statistics.fmean(figures["tokens_seen"] for figures in found)
        seconds = statistics.fmean(figures["seconds"] for figures in found)
        took = f"{seconds / 60:.1f} min" if seconds > 60 else f"{seconds:.1f} s"
        lines.append(
            f"| `{row.preset}` | {row.model} | {found[0]['parameters']:,} | {len(found)} | "
            f"{tokens:,.0f} | {took} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def mean_and_worst(
    scores: list[dict[str, Any]], show: Callable[[dict[str, float]], str]
) -> str:
    if not scores:
        return "–"
    mean = {k: statistics.fmean(s[k] for s in scores) for k in ("loss", "perplexity")}
    if len(scores) == 1:
        return show(mean)
    return f"{show(mean)} ({show(max(scores, key=lambda s: s['loss']))})"


def picture(row: Row) -> str:
    return f"![training and validation loss of {row.preset}](results/{row.preset}.png)"


def samples(row: Row) -> str:
    """What seed 0 writes, warts included: the first sample at each temperature, none chosen."""
    lines = [f"`{row.preset}`, seed 0, the first sample at each temperature:", "", "```text"]
    for temperature, text in read_results(row)[0]["samples"].items():
        lines += [f"--- temperature {temperature} ---", *text.strip("\n").splitlines(), ""]
    return "\n".join([*lines[:-1], "```"])


def full_size_table() -> str:
    lines = [
        "Three steps at full shape on the CPU, in one process, and the memory that "
        "`minilstm info` predicts for them (the raw text's place is taken by the tokenised one):",
        "",
        "| preset | predicted | measured | ratio | seconds per step |",
        "|---|---|---|---|---|",
    ]
    for preset in FULL_SIZE:
        path = RESULTS / f"{preset}-three-steps.json"
        if path.exists():
            figures = json.loads(path.read_text(encoding="utf-8"))
            was, got = figures["predicted_bytes"], figures["measured_bytes"]
            lines.append(
                f"| `{preset}` | {was / 1e9:.2f} GB | {got / 1e9:.2f} GB | {got / was:.2f} | "
                f"{figures['seconds_per_step']:.1f} |"
            )
    return "\n".join(lines)


def how() -> str:
    """Machine, commit, steps and the checks of every single run."""
    lines = [
        "Each run with seed 0 was killed with SIGKILL after the step given and resumed. *PyTorch* "
        "is the loss of the best checkpoint, converted and evaluated there, less ours.",
        "",
        "| run | commit | steps | killed after | best at | seconds | peak memory | PyTorch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    machines = set()
    for row in ROWS.values():
        for run in read_results(row):
            machines.add(run["machine"])
            off = run["pytorch_loss"] - run["best"]["loss"]
            killed = "–" if run["killed_after_step"] is None else f"{run['killed_after_step']:,}"
            lines.append(
                f"| `{row.preset}` {run['seed']} | {run['commit']} | {run['steps']:,} | {killed} | "
                f"{run['best_step']:,} | {run['seconds']:.0f} | {run['peak_bytes'] / 1e6:.0f} MB | "
                f"{off:+.1e} |"
            )
    return "\n".join([*lines, "", *(f"- {m}" for m in sorted(machines))])


def leaky_page() -> str:
    """The leaky split, reproduced."""
    path = Path(RESULTS, "leaky.json")
    figures = json.loads(path.read_text(encoding="utf-8"))
    last = {name: {k: v[-1] for k, v in c.items()} for name, c in figures["curves"].items()}
    best = {name: min(c["validation"]) for name, c in figures["curves"].items()}

    def row(split: str, name: str) -> str:
        cells = [last[name]["training"], last[name]["validation"], best[name]]
        return f"| {split} | {cells[0]:.3f} | **{cells[1]:.3f}** | {cells[2]:.3f} |"

    return f"""# The leaky split

*This page is written by `python tests/campaigns/results.py`, from figures measured there.*

Published character models of tiny Shakespeare report validation losses of 1.22 to 1.30 nats. None
of the honest figures on [the results page](results.md) comes near. The difference is not the model.

Those codes cut the text into windows, one from every place, shuffle the windows, and keep a tenth
of them for validation. Two windows that begin one character apart share all but one of their
characters. So nearly every character that validates is also a training target, with nearly the
same characters before it: the "validation" loss is a second reading of the training loss, and
falls as long as the model learns the text by heart.

Here is one recipe (one layer of 256, windows of 100, {figures["steps"]:,} steps of Adam, the same
seed), once with that split, and once with the last tenth of the text held out:

| split | training loss | "validation" loss at the end | at its lowest |
|---|---|---|---|
{row("shuffled windows of the whole text", "leaky")}
{row("the last tenth", "honest")}

![both losses over the steps, side by side](results/leaky.png)

On the left the two curves are one. On the right the training loss is the same, and the loss on
text that the model has not seen turns away from it: that gap is what the left picture hides. It
cannot show overfitting, cannot choose a checkpoint, and cannot be compared with any figure of an
honest split.

How to notice it in somebody's code: the split comes *after* the windows are cut, or a shuffle
comes before the split; the validation loss follows the training loss wherever it goes, or is
lower than it whenever dropout is on.

`minilstm.load_corpus` cuts a text once, in one place, before anything else happens.

Commit {figures["commit"]}, {figures["machine"].split(",")[0]}.
"""
