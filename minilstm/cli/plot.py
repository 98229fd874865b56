"""Draw a run's loss, its gates, or how far its gradient flows.

loss is that of its metrics.csv; gates, what those of the top layer do while it reads a text;
gradient-flow, how large the gradient of the last token's loss is at each earlier step.
"""

from typing import Any

import minilstm as ml
from minilstm import checkpoint, metrics, plots
from minilstm.cli import Args, Parser, runs, show
from minilstm.errors import quote, require

_PICTURES = ("loss", "gates", "gradient-flow")
_LABELLED = 100  # tokens, more than which gates cannot label


def add_flags(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("--what", choices=_PICTURES, required=True, help="the picture")
    parser.add_argument("--out", metavar="FILE", required=True, help=".png, .svg or .pdf")
    parser.add_argument("--text", help="what the model reads; otherwise what it writes itself")


def main(args: Args) -> None:
    plots.check_path(args.out)
    if args.what == "loss":
        require(args.text is None, "--text has no part in --what loss", quote(args.text))
        run = checkpoint.read_run(args.run)
        unigram = runs.read_record(run).get("unigram_entropy")
        rows = metrics.read_rows(run.path / "metrics.csv")
        ax = plots.loss_of_run(rows, run.config.vocab_size, unigram=unigram)
    elif args.what == "gates":
        model, ids = _read(args, least=1, write=15)
        require(len(ids) <= _LABELLED, f"--what gates can label {_LABELLED} tokens", len(ids))
        _, _, cache = ml.forward_with_cache(model.params, model.config, ids[:, None])
        ax = plots.gates([model.vocab.symbols[id] for id in ids], cache)[0]
    else:
        model, ids = _read(args, least=3, write=80)
        ax = plots.gradient_flow(*plots.gradient_norms(model.params, model.config, ids))
    show(str(plots.save(ax, args.out)))


def _read(args: Args, least: int, write: int) -> tuple[Any, Any]:
    """The model, and what it is to read as ids: the text, or as many tokens as it is to write."""
    run, model = runs.load_run(args.run, "cpu")
    own = args.text is None
    text = model.generate(runs.first_token(run), write, seed=0) if own else args.text
    ids = model.vocab.encode(text)
    require(len(ids) >= least, f"--text must have at least {least} tokens", len(ids))
    return model, ids
