"""minilstm sample: let a run's model write."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from minilstm import settings
from minilstm.cli import flags, runs, tell
from minilstm.errors import printable


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "sample",
        help="let a model write",
        description="Print a prompt and the model's continuation. Control characters but newline "
        "and tab are spelled out, as \\x1b, whatever the training text held.",
    )
    flags.add_run(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="what to continue; otherwise the first "
                        "token of the training text")  # fmt: skip
    parser.add_argument("--length", type=int, default=200, metavar="N", help="tokens to add")
    for name in asdict(settings.SampleConfig()):
        flags.add_setting(parser, name, otherwise="the run's setting")
    parser.add_argument("--greedy", action="store_true", help="the likeliest token each time")
    parser.add_argument("--stop", metavar="TEXT", help="end after this text")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed, the same text")
    parser.add_argument("--stream", action="store_true", help="show each token as it is made")
    parser.add_argument("--device", help=settings.helps()["device"])
    parser.set_defaults(work=sample)


def sample(args: argparse.Namespace) -> None:
    run, model = runs.load_run(args.run, args.device)
    how = asdict(settings.SampleConfig())
    if runs.has_record(run):
        how = settings.of_table("sample", runs.read_record(run)["settings"])
    how |= {name: settings.parse(name, getattr(args, name)) for name in how if name in args}
    prompt = args.prompt if args.prompt is not None else runs.first_token(run)
    pieces = model.stream(
        prompt, args.length, greedy=args.greedy, stop=args.stop, seed=args.seed, **how
    )
    tokens = (token for tokens in model.vocab.tokens([prompt]) for token in tokens)
    if strange := sorted({token for token in tokens if token not in model.vocab}):
        tell(f"outside the vocabulary, read as {model.vocab.unknown}: {' '.join(strange)}")
    sys.stdout.write(printable(prompt))
    for piece in pieces:
        sys.stdout.write(printable(piece))
        if args.stream:
            sys.stdout.flush()
    sys.stdout.write("\n")
