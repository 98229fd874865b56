"""The command line: minilstm = python -m minilstm."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from minilstm import __version__, cli
from minilstm.cli import convert, data, evaluate, gradcheck, info, plot, sample, train

_VERBS = (train, sample, evaluate, plot, info, convert, data, gradcheck)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit; `minilstm.cli.run` says with what.

    Args:
        arguments: None takes those of the process.
    """

    def work() -> None:
        parser = cli.parser("LSTM language models: train, sample, measure, look inside.")
        parser.prog = "minilstm"
        parser.add_argument("--version", action="version", version=f"minilstm {__version__}")
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        for verb in _VERBS:
            verb.add_parser(verbs)
        args = parser.parse_args(arguments)
        with _warnings_told_once():
            args.work(args)

    cli.run(work)


@contextmanager
def _warnings_told_once() -> Iterator[None]:
    """The package's warnings, as when a text is too short for a batch, on stderr, each once."""
    told: set[str] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (line := record.getMessage()) not in told:
                told.add(line)
                cli.tell(line)

    logger, handler = logging.getLogger("minilstm"), Handler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    main()
