"""minilstm plot: pictures of a run."""

from __future__ import annotations

import argparse
from typing import Any

from minilstm import plots
from minilstm.checkpoint import Run, read_run
from minilstm.cli import flags, show
from minilstm.cli.record import first_token, has_record, read_record
from minilstm.cli.setup import load_run
from minilstm.errors import InputError, IntArray
from minilstm.language_model import LanguageModel
from minilstm.metrics import read_rows
from minilstm.model import forward_with_cache

_WRITTEN = 40  # tokens that the model writes where there is no --text
_LABELLED = 100  # tokens that gates can still label


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "plot",
        help="draw a run's loss, its gates, or how far its gradient flows",
        description="Draw one picture of a run: loss, from its metrics.csv; gates, what those of "
        "the top layer do while it reads a text; gradient-flow, how large the gradient of the last "
        "token's loss is at each earlier step.",
    )
    flags.add_run(parser)
    parser.add_argument("--what", choices=("loss", "gates", "gradient-flow"), required=True,
                        help="the picture")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", required=True, help=".png, .svg or .pdf")
    parser.add_argument("--text", help="what the model reads; otherwise what it writes itself")
    parser.set_defaults(work=plot)


def plot(args: argparse.Namespace) -> None:
    plots.check_path(args.out)
    if args.what == "loss":
        if args.text is not None:
            raise InputError("--text has no part in --what loss")
        ax = _loss(args.run)
    else:
        run, model = load_run(args.run, "cpu")
        ids = _ids(run, model, args.text)
        if args.what == "gates":
            if len(ids) > _LABELLED:
                raise InputError(f"gates can label {_LABELLED} tokens, got a text of {len(ids)}")
            tokens = [model.vocab.symbols[id] for id in ids]
            _, _, cache = forward_with_cache(model.params, model.config, ids[:, None])
            ax = plots.gates(tokens, cache)[0]
        else:
            if len(ids) < 3:
                raise InputError(f"gradient-flow needs a text of 3 tokens, got {len(ids)}")
            ax = plots.gradient_flow(*plots.gradient_norms(model.params, model.config, ids))
    show(f"{plots.save(ax, args.out)}")


def _loss(path: str) -> Any:
    run = read_run(path)
    unigram = read_record(run).unigram_entropy if has_record(run) else None
    return plots.loss_of_run(
        read_rows(run.path / "metrics.csv"), run.config.vocab_size, unigram=unigram
    )


def _ids(run: Run, model: LanguageModel, text: str | None) -> IntArray:
    if text is None:
        text = model.generate(first_token(run), _WRITTEN, seed=0)
    ids = model.vocab.encode(text)
    if len(ids) == 0:
        raise InputError(f"--text must have at least one token, got {text!r}")
    return ids
