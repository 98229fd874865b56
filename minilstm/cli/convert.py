"""Convert weights to PyTorch's names and shapes, and back; PyTorch is not needed.

convert RUN --to torch --out F.safetensors writes the state dict of the equivalent PyTorch module
(embedding, lstm, fc), which loads it strict=True. convert F.safetensors --from torch --like RUN
--out NEWRUN reads one back, with the shape, vocabulary and settings of RUN.
"""

import argparse
from pathlib import Path

import numpy as np

from minilstm.checkpoint import holds_run, read_run, save_model
from minilstm.cli import show
from minilstm.cli.runs import load_run
from minilstm.errors import InputError
from minilstm.torch_weights import from_torch_state_dict, to_torch_state_dict


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN|FILE", help="what to convert")
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--to", choices=("torch",), help="from a run's best weights")
    direction.add_argument("--from", choices=("torch",), dest="from_", help="into a new run")
    parser.add_argument("--like", metavar="RUN", help="with --from: a run of the same model")
    parser.add_argument("--out", metavar="FILE|RUN", required=True, help="where to")


def main(args: argparse.Namespace) -> None:
    from safetensors.numpy import save

    out = Path(args.out)
    if args.to and args.like is not None:
        raise InputError(f"--like goes with --from, got --to and --like {args.like}")
    if args.to and out.is_dir():
        raise InputError(f"--out must be a file, got the folder {args.out!r}")
    if args.to:
        _, model = load_run(args.source, "cpu")
        out.write_bytes(save(to_torch_state_dict(model.params, model.config)))
    elif args.like is None:
        raise InputError("--from needs --like, a run of the same model")
    elif holds_run(out):
        raise InputError(f"--out must be a new folder, {out} holds a run already")
    else:
        run = read_run(args.like)
        params = from_torch_state_dict(_read_tensors(Path(args.source)), run.config)
        save_model(out, run.config, params, run.vocabulary, run.extra)
    show(args.out)


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"want a safetensors file, but {str(path)!r} is none")
    tensors: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                if (dtype := file.get_slice(name).get_dtype()) not in ("F32", "F64"):
                    raise InputError(f"{path}: {name} must be F32 or F64, got {dtype}")
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from None
    return tensors
