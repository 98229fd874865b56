"""What the scripts and the command line share: how a failure looks, the parser, lines of text."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from minilstm.errors import InputError, printable


class FailedError(Exception):
    """The work was begun and failed; the message is one line, and the exit code 1."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work: exit with 128 + its number."""

    def __init__(self, signal_number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.code = 128 + signal_number


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main and exit: 0 when it returns, and after a failure one line on stderr.

    Any error but those below is a bug of ours, and keeps its traceback.

    Args:
        main: takes nothing, returns nothing.
    Raises:
        SystemExit: always: 0, main returned; 2, bad input (InputError); 1, it failed (FailedError)
            or the system refused (OSError, MemoryError); 130 and 143, interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character its encoding lacks is no reason
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()  # else a reader that has gone shows only after the last line
    except InputError as error:
        sys.exit(_say(error, code=2))
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes
        sys.exit(1)
    except (FailedError, OSError, MemoryError) as error:
        sys.exit(_say(error, code=1))
    except Interrupted as signalled:
        sys.exit(_say(signalled, signalled.code))
    except KeyboardInterrupt:
        sys.exit(_say(Interrupted(signal.SIGINT), code=130))
    sys.exit(0)


def _say(error: BaseException, code: int) -> int:
    message = str(error) or type(error).__name__
    tell(f"error: {' '.join(message.splitlines())}")
    return code


def show(text: str) -> None:
    """A result, on stdout; nothing in it can steer the terminal."""
    print(printable(text))


def tell(line: str) -> None:
    """A line of progress, on stderr; nothing in it can steer the terminal."""
    print(printable(line), file=sys.stderr)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Shows defaults in --help, takes no abbreviated flags, and refuses in one line."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _HelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows defaults in --help and takes no abbreviated flags.

    Args:
        description: what --help says first, such as the script's `__doc__`.
    Returns:
        A parser without any flag but --help.
    """
    return Parser(description=description)
