"""minilstm train: from settings to a run folder, and on after an interruption."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilstm.cli import Failure, Interrupted, flags
from minilstm.errors import InputError

if TYPE_CHECKING:
    from minilstm.checkpoint import Run
    from minilstm.cli.setup import Setup
    from minilstm.language_model import LanguageModel
    from minilstm.training import TrainResult


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a model on a text",
        description="Train a model on a text. Ctrl-C saves a checkpoint first; the same command "
        "with --resume goes on from there.",
    )
    parser.add_argument("--out", metavar="DIR", help="run folder; default: runs/PRESET or runs/DATA")
    parser.add_argument("--init-from", metavar="RUN", help="start from the best weights of a run, "
                        "its settings in place of the defaults")  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in --out")
    how.add_argument("--force", action="store_true", help="overwrite the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    flags.add_settings(parser)
    parser.set_defaults(work=train)


def train(args: argparse.Namespace) -> None:
    from minilstm import checkpoint, training
    from minilstm.cli.record import check_text, read_record
    from minilstm.cli.setup import blas_threads, prepare, tell

    given = flags.given_settings(args)
    out = _out(args, given)
    run = checkpoint.read_run(out) if args.resume and checkpoint.holds_run(out) else None
    record = read_record(run) if run is not None else None
    if run is None and not args.force and checkpoint.holds_run(out):
        raise InputError(f"{out} holds a run already: --resume goes on with it, --force overwrites "
                         "it, --out names another folder")  # fmt: skip

    # Which settings, and whose vocabulary
    init_from = args.init_from
    if record is not None:
        assert run is not None
        _check_resumed(args, given, record)
        init_from, given = record.init_from, settings.merge(record.settings, text of given)
        vocab = run.vocabulary
    elif ...
