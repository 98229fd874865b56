"""minilstm convert: weights to PyTorch's names and shapes, and back; PyTorch is not needed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from minilstm.checkpoint import holds_run, read_run, save_model
from minilstm.cli import show
from minilstm.cli.runs import load_run
from minilstm.errors import InputError
from minilstm.torch_weights import from_torch_state_dict, to_torch_state_dict


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="weights to and from PyTorch",
        description="convert RUN --to torch --out F.safetensors writes the state dict of the "
        "equivalent PyTorch module (embedding, lstm, fc), which loads it strict=True. "
        "convert F.safetensors --from torch --like RUN --out NEWRUN reads one back, with the "
        "shape, vocabulary and settings of RUN.",
    )
    parser.add_argument("source", metavar="RUN|FILE", help="what to convert")
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--to", choices=("torch",), help="from a run's best weights")
    direction.add_argument("--from", choices=("torch",), dest="from_", help="into a new run")
    parser.add_argument("--like", metavar="RUN", help="with --from: a run of the same model")
    parser.add_argument("--out", metavar="FILE|RUN", required=True, help="where to")
    parser.set_defaults(work=convert)


def convert(args: argparse.Namespace) -> None:
    if args.to is not None:
        if args.like is not None:
            raise InputError(f"--like goes with --from, got --to and --like {args.like}")
        _to_torch(args.source, Path(args.out))
    elif args.like is None:
        raise InputError("--from needs --like, a run of the same model")
    else:
        _from_torch(Path(args.source), args.like, args.out)
    show(args.out)


def _to_torch(source: str, out: Path) -> None:
    from safetensors.numpy import save

    if out.is_dir():
        raise InputError(f"--out must be a file, got the folder {str(out)!r}")
    _, model = load_run(source, "cpu")
    data = save(to_torch_state_dict(model.params, model.config))
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _from_torch(source: Path, like: str, out: str) -> None:
    run = read_run(like)
    if holds_run(out):
        raise InputError(f"--out must be a new folder, {out} holds a run already")
    params = from_torch_state_dict(_read_tensors(source), run.config)
    save_model(out, run.config, params, run.vocabulary, run.extra)


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"want a safetensors file, but {str(path)!r} is none")
    tensors: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                if (dtype := file.get_slice(name).get_dtype()) not in ("F16", "F32", "F64"):
                    wanted = "F32 or F64"
                    raise InputError(f"{path}: {name} must be {wanted}, got {dtype}")
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from None
    return tensors
