"""minilstm info: versions, device, threads; and of a run or of settings, parameters and memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from minilstm import settings
from minilstm.backend import choose_device
from minilstm.checkpoint import has_checkpoint, read_checkpoint, read_run
from minilstm.cli import flags, runs, show
from minilstm.errors import InputError
from minilstm.memory import estimate_memory


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="versions, device, parameters, memory",
        usage="minilstm info [RUN]\n"
        "       minilstm info [--preset P] [--config FILE] [--set KEY=VALUE ...] [any setting]",
        description="What computes here; and for a run, or for settings given as to train, the "
        "number of parameters and the memory that a training step takes.",
    )
    flags.add_run(parser, nargs="?")
    flags.add_settings(parser)
    parser.set_defaults(work=info)


def info(args: argparse.Namespace) -> None:
    given = flags.given_settings(args)
    lines = [
        ", ".join(f"{name} {version}" for name, version in runs.versions().items()),
        f"device: {choose_device(given.get('device'))}; "
        f"threads of matrix products: {runs.blas_threads()}",
    ]
    about_settings = bool(given.keys() - {"device"})
    if args.run is not None and about_settings:
        raise InputError(f"want a run or settings, got {args.run} and {', '.join(given)}")
    if args.run is not None:
        lines += _of_run(args.run)
    elif about_settings:
        setup = runs.prepare(given)
        lines += setup.lines(setup.steps)
    show("\n".join(lines))


def _of_run(path: str) -> Iterator[str]:
    """What a run is; if `minilstm train` did not begin it, the batches are the defaults'."""
    run = read_run(path)
    record = runs.read_record(run) if runs.has_record(run) else {}
    flat = record.get("settings", settings.defaults())
    B, T, dtype = flat["batch_size"], flat["seq_len"], np.dtype(flat["dtype"])
    memory = estimate_memory(run.config, B, T, dtype.itemsize, flat["optimizer"])
    yield f"{run.path}: {run.vocabulary!r}"
    for name, value in asdict(run.config).items():
        yield f"  {name} = {settings.spell(value)}"
    yield from runs.size_lines(run.config, (B, T), dtype, memory)
    for which in ("best", "last"):
        if has_checkpoint(run, which):
            step = read_checkpoint(run, which, weights_only=True).step
            of = f" of {record['total_steps']:,}" if record else ""
            yield f"{which}: step {step:,}{of}"
