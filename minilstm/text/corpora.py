"""Where the text comes from: files, and the part held out for validation."""

from __future__ import annotations

import os
from numbers import Real
from pathlib import Path

from minilstm.errors import InputError, quote


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a UTF-8 file, its lines ended by a newline character alone.

    A byte order mark is dropped; the line ends of Windows (CR LF) and of old Macs (CR) are read as
    LF, so that the same text gives the same vocabulary wherever it was saved.

    Raises:
        InputError: there is no such file, it cannot be read, is a folder, is empty, is not UTF-8,
            or holds a NUL, which no text does.

    >>> read_text("no/such/file")
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: want a UTF-8 text file, but 'no/such/file' does not exist
    """
    try:
        file = Path(path)
    except TypeError:
        raise InputError(f"path must be a str or a Path, got {quote(path)}") from None

    def refusal(reason: str) -> InputError:
        # repr: a path may hold a newline, and the message is one line.
        return InputError(f"want a UTF-8 text file, but {os.fspath(path)!r} {reason}")

    if os.path.isdir(file):  # Path.is_dir raises where a folder above may not be entered
        raise refusal("is a folder")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise refusal("does not exist") from None
    except OSError as error:
        raise refusal(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:  # a NUL or half a surrogate pair in the path
        raise refusal("is no path") from None

    try:
        # Not "utf-8-sig": it counts the offset of a bad byte from after the mark.
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        bad = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise refusal(f"has {bad}, which is not UTF-8") from None
    if not text:
        raise refusal("is empty")
    if "\0" in text:
        nul = data.index(b"\0")
        raise refusal(f"has a NUL byte at offset {nul}, so it is binary")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def train_validation_split(text: str, fraction: float = 0.9) -> tuple[str, str]:
    """Cut a text in two: the first int(fraction * len(text)) characters train, the rest validates.

    The rest is one piece from the end, not characters picked here and there: those would have
    neighbours in the training part, and validation would measure memory.

    Args:
        text: of any length.
        fraction: 0 < fraction <= 1; with 1 nothing validates.
    Returns:
        The training text and the validation text; a short text may leave either of them empty.
    Raises:
        InputError: text is no str, or fraction is not in that range.

    >>> train_validation_split("hello", fraction=0.8)
    ('hell', 'o')
    """
    if not isinstance(text, str):
        raise InputError(f"text must be a str, got {type(text).__name__}")
    if isinstance(fraction, bool) or not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise InputError(f"fraction must be a number in (0, 1], got {quote(fraction)}")
    n = int(fraction * len(text))
    return text[:n], text[n:]
