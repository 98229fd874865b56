"""Let a model write: print a prompt and the model's continuation.

Control characters but newline and tab are spelled out, as \\x1b, whatever the training text held.
"""

from minilstm import settings
from minilstm.cli import Args, Parser, runs, tell
from minilstm.errors import printable


def add_flags(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("--prompt", metavar="TEXT", help="else the training text's first token")
    parser.add_argument("--length", type=int, default=200, metavar="N", help="tokens to add")
    for name in settings.of_table("sample", settings.setting_types()):
        settings.add_flag(parser, name, otherwise="the run's setting")
    parser.add_argument("--greedy", action="store_true", help="the likeliest token each time")
    parser.add_argument("--stop", metavar="TEXT", help="end after this text")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed, the same text")
    parser.add_argument("--stream", action="store_true", help="show each token as it is made")
    parser.add_argument("--device", help=settings.helps()["device"])


def main(args: Args) -> None:
    run, model = runs.load_run(args.run, args.device)
    flat = runs.read_record(run).get("settings", settings.defaults())
    how = settings.of_table("sample", flat)
    how |= {name: settings.parse(name, getattr(args, name)) for name in how if name in args}
    prompt = args.prompt if args.prompt is not None else runs.first_token(run)
    how |= {"greedy": args.greedy, "stop": args.stop, "seed": args.seed}
    pieces = model.stream(prompt, args.length, **how)
    tokens = (token for tokens in model.vocab.tokens([prompt]) for token in tokens)
    if strange := sorted({token for token in tokens if token not in model.vocab}):
        tell(f"outside the vocabulary, read as {model.vocab.unknown}: {' '.join(strange)}")
    print(printable(prompt), end="")
    for piece in pieces:
        print(printable(piece), end="", flush=args.stream)
    print()
