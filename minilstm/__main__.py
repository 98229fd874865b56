"""LSTM language models: train, sample, measure, look inside.

The command line: minilstm = python -m minilstm.
"""

import functools
import logging
from collections.abc import Sequence
from typing import NoReturn

from minilstm import __version__, cli
from minilstm.cli import convert, data, evaluate, gradcheck, info, plot, sample, train

# A verb's module is its help: the docstring, the flags, and what it does with them.
_VERBS = {"train": train, "sample": sample, "eval": evaluate, "plot": plot, "info": info,
          "convert": convert, "data": data, "gradcheck": gradcheck}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit; `minilstm.cli.run` says with what.

    Args:
        arguments: None takes those of the process.
    """

    def work() -> None:
        parser = cli.Parser(__doc__, prog="minilstm")
        parser.add_argument("--version", action="version", version=f"minilstm {__version__}")
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        for name, verb in _VERBS.items():
            doc = verb.__doc__ or ""
            of_verb = verbs.add_parser(name, help=doc.partition(".")[0], description=doc)
            verb.add_flags(of_verb)
            of_verb.set_defaults(main=verb.main, parser=of_verb)
        args, strange = parser.parse_known_args(arguments)
        if strange:
            args.parser.refuse(strange)
        logging.getLogger("minilstm").handlers = [_ToldOnce()]
        args.main(args)

    cli.run(work)


class _ToldOnce(logging.Handler):
    """The package's warnings, as when a text is too short for a batch, on stderr, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._tell = functools.cache(cli.tell)

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


if __name__ == "__main__":
    main()
