"""Tell versions, device and threads; of a run or of settings, parameters and memory too.

The settings are given as to train; the memory is what a training step takes.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from minilstm import settings
from minilstm.backend import choose_device
from minilstm.checkpoint import has_checkpoint, read_checkpoint, read_run
from minilstm.cli import runs, show
from minilstm.errors import InputError
from minilstm.memory import estimate_memory


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage = ("minilstm info [RUN]\n       minilstm info [--preset P] [--config FILE] "
                    "[--set KEY=VALUE ...] [any setting]")  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="the folder of a run", nargs="?")
    settings.add_flags(parser)


def main(args: argparse.Namespace) -> None:
    given = settings.given(args)
    device, threads = choose_device(given.get("device")), runs.blas_threads()
    lines = [", ".join(f"{name} {version}" for name, version in runs.VERSIONS.items()),
             f"device: {device}; threads of matrix products: {threads}"]  # fmt: skip
    about_settings = bool(given.keys() - {"device"})
    if args.run is not None and about_settings:
        raise InputError(f"want a run or settings, got {args.run} and {', '.join(given)}")
    if args.run is not None:
        lines += _of_run(args.run)
    elif about_settings:
        lines += runs.prepare(given).lines()
    show("\n".join(lines))


def _of_run(path: str) -> Iterator[str]:
    """What a run is; if `minilstm train` did not begin it, the batches are the defaults'."""
    run = read_run(path)
    record = runs.read_record(run)
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
