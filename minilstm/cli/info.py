"""minilstm info: versions, device, threads; and of a run or of settings, parameters and memory."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np

from minilstm import settings
from minilstm.backend import choose_device
from minilstm.checkpoint import has_checkpoint, read_checkpoint, read_run
from minilstm.cli import flags, show
from minilstm.cli.record import has_record, read_record, versions
from minilstm.cli.setup import blas_threads, prepare, size_lines
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
    if args.run is not None and given.keys() - {"device"}:
        raise InputError(f"want a run or settings, got {args.run} and {', '.join(given)}")
    device = choose_device(given.get("device"))
    show(", ".join(f"{name} {version}" for name, version in versions().items()))
    show(f"device: {device}; threads of matrix products: {blas_threads()}")
    if args.run is not None:
        _show_run(args.run)
    elif given.keys() - {"device"}:
        setup = prepare(given)
        for line in setup.lines(setup.steps):
            show(line)


def _show_run(path: str) -> None:
    """Of a run that `minilstm train` did not begin, its batches are not known."""
    run = read_run(path)
    record = read_record(run) if has_record(run) else None
    flat = record.settings if record is not None else settings.defaults()
    B, T, dtype = flat["batch_size"], flat["seq_len"], np.dtype(flat["dtype"])
    memory = estimate_memory(run.config, B, T, dtype.itemsize, flat["optimizer"])
    show(f"{run.path}: {run.vocabulary!r}")
    for name, value in asdict(run.config).items():
        show(f"  {name} = {settings.spell(value)}")
    for line in size_lines(run.config, (B, T), dtype, memory):
        show(line)
    for which in ("best", "last"):
        if has_checkpoint(run, which):
            step = read_checkpoint(run, which, weights_only=True).step
            of = f" of {record.total_steps:,}" if record is not None else ""
            show(f"{which}: step {step:,}{of}")
