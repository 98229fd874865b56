"""minilstm eval: how well a run's model predicts a text."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from minilstm import evaluation
from minilstm.checkpoint import Run
from minilstm.cli import flags, runs, show, tell
from minilstm.errors import InputError, IntArray, check_positive_int
from minilstm.evaluation import Evaluation
from minilstm.settings import DataConfig, helps, of_table
from minilstm.text.corpora import TextFile, load_corpus
from minilstm.text.downloads import CORPORA

_WINDOW, _WINDOWS = 256, 64  # tokens of a cold window; and how many are read side by side


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="measure a model on a text",
        description="Score every token of a text but the first: in one pass with the state "
        f"carried, and again in windows of {_WINDOW} tokens, each from a zero state.",
    )
    flags.add_run(parser)
    parser.add_argument("--data", metavar="NAME|FILE", help="a corpus, or a file, which is scored "
                        "as a whole; otherwise the run's own text")  # fmt: skip
    parser.add_argument("--split", choices=("valid", "test", "train"), help="which part of it; "
                        "otherwise valid, or train where nothing validates")  # fmt: skip
    parser.add_argument("--streams", type=int, default=1, metavar="N",
                        help="pieces read side by side, each from a zero state")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--device", help=helps()["device"])
    parser.set_defaults(work=evaluate)


def evaluate(args: argparse.Namespace) -> None:
    check_positive_int("streams", args.streams)
    run, model = runs.load_run(args.run, args.device)
    what, ids = _text(run, args.data, args.split)
    carried = evaluation.evaluate(model.params, model.config, ids, args.streams)
    cold = evaluation.evaluate(model.params, model.config, ids, _WINDOWS, window=_WINDOW)
    if args.json:
        show(json.dumps({**_figures(carried), "cold_windows": _figures(cold)}, indent=2))
    else:
        show(what)
        show(table({"state carried": carried, f"windows of {_WINDOW}": cold}))


def table(rows: Mapping[str, Evaluation]) -> str:
    """Evaluations, one to a line, under a heading."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}  nats/token  perplexity  bits/token  accuracy       tokens"]
    for name, score in rows.items():
        lines.append(
            f"{name:{width}}  {score.loss:10.4f}  {score.perplexity:10.3f}  "
            f"{score.bits_per_token:10.4f}  {score.accuracy:8.2%}  {score.tokens:11,}"
        )
    return "\n".join(lines)


def _figures(score: Evaluation) -> dict[str, float | int | None]:
    """The five figures; JSON has no infinity."""
    return {k: v if math.isfinite(v) else None for k, v in score.to_dict().items()}


def _text(run: Run, data: str | None, split: str | None) -> tuple[str, IntArray]:
    """What is scored, in words and in ids."""
    vocab = run.vocabulary
    if data is not None and data not in CORPORA:
        if split is not None:
            raise InputError(f"--split is of a corpus; a file is scored whole, got {data!r}")
        text = TextFile(data)
        what, ids = f"{data}, the whole file", vocab.encode_pieces(text)
        for note in text.notes:
            tell(note)
    else:
        if data is not None:
            corpus = load_corpus(data, vocab=vocab)
        else:
            record = runs.read_record(run)
            corpus = DataConfig(**of_table("data", record["settings"])).load(vocab)
            runs.check_text(record, corpus)
        split = split or ("valid" if corpus.valid is not None else "train")
        what, ids = f"{corpus.name}, {split}", corpus.split(split)
    if unknown := 0 if vocab.unknown_id is None else int((ids == vocab.unknown_id).sum()):
        tell(f"{unknown:,} of {len(ids):,} tokens are {vocab.unknown} or read as such")
    return what, ids
