"""Draw a run's loss, or what its model does while it reads a text.

loss is that of its metrics.csv. gates: those of the top layer. gradient-flow: how large the
gradient of the last token's loss is at each earlier step; gradient-reach: the same of every token's
loss; gradient-terms: what each step adds to the gradient of the top layer's W_h. next-tokens: what
the model expected after each token. saturation: how often each unit's gates are nearly open and
nearly shut. cell: the text, each character shaded by one cell, which is named by --layer and --unit
or found as the one that best --follows quotes, brackets, the line or the word; in a terminal the
text is also shown there.
"""

import sys
from typing import Any

import numpy as np

import minilstm as ml
from minilstm import checkpoint, inside, metrics, plots
from minilstm.cli import Args, Parser, runs, show
from minilstm.errors import InputError, check_count, check_positive_int, printable, quote, require

# The pictures of a text, and the fewest and the most tokens that each can show
_OF_A_TEXT = {"gates": (1, 100), "gradient-flow": (3, 10_000), "gradient-reach": (3, 200),
              "gradient-terms": (2, 26), "next-tokens": (1, 100), "saturation": (1, 10_000),
              "cell": (2, 100_000)}  # fmt: skip
_SHOWN = 2_000  # characters of a text that is drawn
_FEATURES = ("quotes", "brackets", "line", "word")


def add_flags(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("--what", choices=("loss", *_OF_A_TEXT), default="loss", help="the picture")
    parser.add_argument("--out", metavar="FILE", required=True, help=".png, .svg or .pdf")
    parser.add_argument("--text", help="what the model reads; otherwise what it writes itself")
    parser.add_argument("--chunk", type=int, metavar="T", help="gradient-reach: where BPTT is cut")
    parser.add_argument("--follows", choices=_FEATURES, help="cell: what it is to follow")
    parser.add_argument("--layer", type=int, metavar="K", help="cell: its layer, from 0 (0)")
    parser.add_argument("--unit", type=int, metavar="N", help="cell: its unit, from 0")


def main(args: Args) -> None:
    plots.check_path(args.out)
    _check_flags(args)
    if args.what == "loss":
        run = checkpoint.read_run(args.run)
        unigram, level = runs.read_record(run).get("unigram_entropy"), run.vocabulary.kind
        rows = metrics.read_rows(run.path / "metrics.csv")
        ax = plots.loss_of_run(rows, run.config.vocab_size, unigram=unigram, level=level)
    else:
        model, ids = _read(args)
        ax = _picture(args, model, ids)
    show(str(plots.save(ax, args.out)))


def _check_flags(args: Args) -> None:
    """Refuse a flag that has no part in the picture."""
    own = {"text": tuple(_OF_A_TEXT), "chunk": ("gradient-reach",), "follows": ("cell",),
           "layer": ("cell",), "unit": ("cell",)}  # fmt: skip
    for name, pictures in own.items():
        value = getattr(args, name)
        fits = value is None or args.what in pictures
        require(fits, f"--{name} has no part in --what {args.what}", quote(value))
    if args.chunk is not None:
        check_positive_int("--chunk", args.chunk)
    named = [n for n in ("follows", "layer", "unit") if getattr(args, n) is not None]
    if args.what == "cell" and named not in (["follows"], ["unit"], ["layer", "unit"]):
        told = ", ".join(f"--{n}" for n in named) or "none of them"
        raise InputError(f"--what cell needs either --follows or --unit (and --layer), got {told}")


def _read(args: Args) -> tuple[Any, Any]:
    """The model, and what it is to read as ids: the text, or as many tokens as it is to write."""
    run, model = runs.load_run(args.run, "cpu")
    least, most = _OF_A_TEXT[args.what]
    written = {"gradient-flow": 80, "saturation": 2000, "cell": 2000}.get(args.what, 15)
    own = args.text is None
    text = model.generate(runs.first_token(run), written, seed=0) if own else args.text
    ids = model.vocab.encode(text)
    require(len(ids) >= least, f"--text must have at least {least} tokens", len(ids))
    require(len(ids) <= most, f"--what {args.what} can show {most:,} tokens", len(ids))
    return model, ids


def _picture(args: Args, model: Any, ids: Any) -> Any:
    params, config = model.params, model.config
    tokens = [model.vocab.symbols[id] for id in ids]
    if args.what == "gradient-flow":
        return plots.gradient_flow(*inside.gradient_norms(params, config, ids))
    if args.what == "gradient-reach":
        reach = inside.gradient_reach(params, config, ids)
        labels = tokens[:-1] if len(tokens) <= 60 else ()
        return plots.gradient_reach(reach, chunk=args.chunk, text=labels)
    if args.what == "gradient-terms":
        name = f"lstm{config.num_layers - 1}.W_h"
        return plots.gradient_terms(inside.gradient_terms(params, config, ids, name))[0]
    if args.what == "cell":
        return _cell(args, inside.cell_states(params, config, ids), tokens, model.vocab.kind)
    logits, _, cache = ml.forward_with_cache(params, config, ids[:, None])
    if args.what == "gates":
        return plots.gates(tokens, cache)[0]
    if args.what == "saturation":
        return plots.saturation(cache)[0]
    rows = logits[:, 0].astype(np.float64)
    odds = np.exp(rows - rows.max(axis=1, keepdims=True))
    return plots.next_tokens(tokens, odds / odds.sum(axis=1, keepdims=True), model.vocab.symbols)


def _cell(args: Args, states: Any, tokens: list[str], kind: str) -> Any:
    """The text shaded by one cell; which one it is is said."""
    require(kind == "char", "--what cell needs a model over characters", kind)
    # One character for each token: the unknown one's name is more, and so is what is not printable.
    plain = (token if len(printable(token)) == 1 else "�" for token in tokens)
    text, (_, L, H) = "".join(plain), states.shape
    if args.follows is None:
        layer, unit = (check_count(f"--{n}", getattr(args, n) or 0) for n in ("layer", "unit"))
        require(layer < L, f"--layer must be below {L}", layer)
        require(unit < H, f"--unit must be below {H}", unit)
        show(f"unit {unit} of layer {layer}")
    else:
        half = len(text) // 2  # there is always a best one; the other half says whether it means it
        found, again = (inside.search(states[part], text[part])
                        for part in (slice(half), slice(half, None)))  # fmt: skip
        wanted = f"the text's first half must have what is to be followed: {args.follows}"
        require(args.follows in found, wanted, quote(text[:40]))
        _, layer, unit, r = found[args.follows][0]
        other = [its.r for its in again.get(args.follows, ()) if its[1:3] == (layer, unit)]
        show(f"unit {unit} of layer {layer} follows {args.follows} best: r = {r:.2f} in the text's "
             f"first half, {f'{other[0]:.2f}' if other else 'not to be had'} in the second")
    shown = states[:_SHOWN, layer, unit]
    if sys.stdout.isatty():
        print(inside.coloured(text[:_SHOWN], shown))
    return plots.coloured_text(text[:_SHOWN], shown)
