"""Convert weights to PyTorch's names and shapes, and back; PyTorch is not needed.

convert RUN --to torch --out F.safetensors writes the state dict of the equivalent PyTorch module
(embedding, lstm, fc), which loads it strict=True. convert F.safetensors --from torch --like RUN
--out NEWRUN reads one back, with the shape, vocabulary and settings of RUN.
"""

from pathlib import Path

import minilstm as ml
from minilstm.checkpoint import holds_run, read_run, replace_file, save_model
from minilstm.cli import Args, Parser, runs, show


def add_flags(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN|FILE", help="what to convert")
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--to", choices=("torch",), help="from a run's best weights")
    direction.add_argument("--from", choices=("torch",), dest="from_", help="into a new run")
    parser.add_argument("--like", metavar="RUN", help="with --from: a run of the same model")
    parser.add_argument("--out", metavar="FILE|RUN", required=True, help="where to")


def main(args: Args) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save

    out = Path(args.out)
    if (args.like is None) is (args.to is None):
        got = f"got --from {args.from_} and --like {args.like}"
        raise ml.InputError(f"--from and --like, a run of the same model, go together, {got}")
    if args.to and (out.is_dir() or out.suffix != ".safetensors"):
        raise ml.InputError(f"--out must be a file like F.safetensors, got {args.out!r}")
    if args.to:
        _, model = runs.load_run(args.source, "cpu")
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, save(ml.to_torch_state_dict(model.params, model.config)))
    elif holds_run(out):
        raise ml.InputError(f"--out must be a new folder, {out} holds a run already")
    else:
        run = read_run(args.like)
        try:
            tensors = load_file(args.source)
        except (OSError, SafetensorError, TypeError, AttributeError) as error:
            # NumPy lacks some of the format's types: TypeError, AttributeError
            wanted = "want a safetensors file with tensors of F32 or F64"
            raise ml.InputError(f"{wanted}, but {args.source!r} is none: {error}") from None
        params = ml.from_torch_state_dict(tensors, run.config)
        save_model(out, run.config, params, run.vocabulary, run.extra)
    show(args.out)
