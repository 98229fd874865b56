"""What the scripts and the command line share: how a failure looks, and a few flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from minilstm.errors import InputError


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main and exit: 0 when it returns, and after a failure one line on stderr.

    2: bad input (InputError). 1: the system refused (OSError). 130: interrupted.
    Anything else is a bug of ours, and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        sys.exit(_say(error, code=2))
    except OSError as error:
        sys.exit(_say(error, code=1))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", code=130))
    sys.exit(0)


def _say(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows defaults in --help and takes no abbreviated flags."""
    return argparse.ArgumentParser(
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
