"""minilstm plot: pictures of a run."""

from __future__ import annotations

import argparse
from typing import Any

from minilstm import plots
from minilstm.checkpoint import read_run
from minilstm.cli import flags, runs, show
from minilstm.errors import InputError
from minilstm.metrics import read_rows
from minilstm.model import forward_with_cache

_LABELLED = 40  # tokens, more than which gates cannot label


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "plot",
        help="draw a run's loss, its gates, or how far its gradient flows",
        description="Draw one picture of a run: loss, from its metrics.csv; gates, what those of "
        "the top layer do while it reads a text; gradient-flow, how large the gradient of the last "
        "token's loss is at each earlier step.",
    )
    flags.add_run(parser)
    parser.add_argument("--what", choices=tuple(_PICTURES), required=True, help="the picture")
    parser.add_argument("--out", metavar="FILE", required=True, help=".png, .svg or .pdf")
    parser.add_argument("--text", help="what the model reads; otherwise what it writes itself")
    parser.set_defaults(work=plot)


def plot(args: argparse.Namespace) -> None:
    plots.check_path(args.out)
    show(f"{plots.save(_PICTURES[args.what](args.run, args.text), args.out)}")


def _loss(path: str, text: str | None) -> Any:
    if text is not None:
        raise InputError("--text has no part in --what loss")
    run = read_run(path)
    unigram = runs.read_record(run)["unigram_entropy"] if runs.has_record(run) else None
    rows = read_rows(run.path / "metrics.csv")
    return plots.loss_of_run(rows, run.config.vocab_size, unigram=unigram)


def _gates(path: str, text: str | None) -> Any:
    model, ids = _read(path, text, least=1, write=15)
    if len(ids) > _LABELLED:
        raise InputError(f"--what gates can label {_LABELLED} tokens, got {len(ids)}")
    _, _, cache = forward_with_cache(model.params, model.config, ids[:, None])
    return plots.gates([model.vocab.symbols[id] for id in ids], cache)[0]


def _gradient_flow(path: str, text: str | None) -> Any:
    model, ids = _read(path, text, least=3, write=80)
    return plots.gradient_flow(*plots.gradient_norms(model.params, model.config, ids))


def _read(path: str, text: str | None, least: int, write: int) -> tuple[Any, Any]:
    """The model, and what it is to read as ids: the text, or as many tokens as it is to write."""
    run, model = runs.load_run(path, "cpu")
    if text is None:
        text = model.generate(runs.first_token(run), write, seed=0)
    ids = model.vocab.encode(text)
    if len(ids) < least:
        raise InputError(f"--text must have at least {least} tokens, got {len(ids)}")
    return model, ids


_PICTURES = {"loss": _loss, "gates": _gates, "gradient-flow": _gradient_flow}
