"""Files -> text, in pieces: UTF-8, plain line ends, nothing binary."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minilstm.errors import InputError

BLOCK = 1 << 20  # characters read at a time


class TextFile:
    """The text of a UTF-8 file, in pieces; each `for` loop over it reads the file anew.

    A byte order mark is dropped; the line ends of Windows (CR LF) and of old Macs (CR) are read as
    LF, so that the same text gives the same vocabulary wherever it was saved. `notes` says so,
    one line each, once the file has been read to its end.

    The loop raises InputError: there is no such file, it cannot be read, is a folder, is empty, is
    not UTF-8, or holds a NUL, which no text does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._name = repr(os.fspath(path))  # repr: it may hold a newline, and messages are one line
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        notes, empty = [], True
        try:
            with self.path.open("rb") as file:
                if file.peek(3).startswith(codecs.BOM_UTF8):
                    file.seek(3)
                    notes.append(f"{self._name}: the byte order mark was dropped")
                lines = io.TextIOWrapper(file, "utf-8")
                while text := self._read(lines, file):
                    empty = False
                    yield text
        except OSError as error:
            reasons = {FileNotFoundError: "does not exist", IsADirectoryError: "is a folder"}
            reason = reasons.get(type(error), f"cannot be read: {error.strerror}")
            raise self._refusal(reason) from None
        if empty:
            raise self._refusal("is empty")
        ends = lines.newlines if isinstance(lines.newlines, tuple) else (lines.newlines,)
        if odd := [name for name, end in (("CR LF", "\r\n"), ("CR", "\r")) if end in ends]:
            notes.append(f"{self._name}: line ends {' and '.join(odd)} were read as LF")
        self.notes = tuple(notes)

    def _read(self, lines: io.TextIOWrapper, file: io.BufferedReader) -> str:
        try:
            text = lines.read(BLOCK)
        except UnicodeDecodeError as error:
            at = file.tell() - len(error.object) + error.start
            bad = f"byte 0x{error.object[error.start]:02x} at offset {at}"
            raise self._refusal(f"has {bad}, which is not UTF-8") from None
        if "\0" in text:
            raise self._refusal("has a NUL character, so it is binary")
        return text

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"want a UTF-8 text file, but {self._name} {reason}")


@dataclass(frozen=True)
class Passage:
    """The characters start .. stop - 1 of a text, in pieces; each `for` loop reads it anew.

    >>> "".join(Passage(["he", "ll", "o"], 1, 4))
    'ell'
    """

    text: Iterable[str]
    start: int
    stop: int

    def __iter__(self) -> Iterator[str]:
        at = 0  # where the piece begins
        for piece in self.text:
            if part := piece[max(0, self.start - at) : self.stop - at]:
                yield part
            at += len(piece)
            if at >= self.stop:
                return
