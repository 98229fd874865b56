"""What the scripts and the command line share: how a failure looks, the parser, lines of text."""

import argparse
import difflib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from minilstm.errors import InputError, printable
from minilstm.training import NonFiniteError

Args = argparse.Namespace


class FailedError(Exception):
    """The work was begun and failed; the message is one line, and the exit code 1."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main and exit: 0 when it returns, and after a failure one line on stderr.

    Any error but those below is a bug of ours, and keeps its traceback.

    Args:
        main: takes nothing, returns nothing.
    Raises:
        SystemExit: always: 0, main returned; 2, bad input (InputError); 1, it failed (FailedError,
            NonFiniteError) or the system refused (OSError, MemoryError); 130 and 143, interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character its encoding lacks is no reason
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()  # else a reader that has gone shows only after the last line
        sys.exit(0)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes
        sys.exit(1)
    except KeyboardInterrupt as error:  # what a signal's handler raised has a message and a code
        _exit(*(error.args or ("interrupted", 130)))
    except InputError as error:
        _exit(f"error: {error}", 2)
    except (FailedError, NonFiniteError, OSError, MemoryError) as error:
        _exit(f"error: {str(error) or type(error).__name__}", 1)


def _exit(message: str, code: int) -> NoReturn:
    tell(" ".join(message.splitlines()))
    sys.exit(code)


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
    """Shows defaults in --help, takes no abbreviated flags, and refuses in one line.

    Args:
        description: what --help says first, such as a script's `__doc__`.
        options: as argparse's.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options |= {"formatter_class": _HelpFormatter, "allow_abbrev": False}
        super().__init__(description=description, **options)

    def refuse(self, strange: list[str]) -> NoReturn:
        """Refuse arguments that there are not, with the flag that is nearest to the first."""
        near = difflib.get_close_matches(strange[0].partition("=")[0], self._option_string_actions)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(strange)}{hint}")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")
