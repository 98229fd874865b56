"""Files -> text, in pieces: UTF-8, plain line ends, nothing binary."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minilstm.errors import InputError, quote

BLOCK = 1 << 20  # bytes read at a time


class TextFile:
    """The text of a UTF-8 file, in pieces; each `for` loop over it reads the file anew.

    A byte order mark is dropped; the line ends of Windows (CR LF) and of old Macs (CR) are read as
    LF, so that the same text gives the same vocabulary wherever it was saved. `notes` says so,
    one line each, once the file has been read to its end.

    Raises InputError, path at once and the others in the loop: path is no path, there is no such
    file, it cannot be read, is a folder, is empty, is not UTF-8, or holds a NUL, which no text
    does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = Path(path)
        except TypeError:
            raise InputError(f"path must be a str or a Path, got {quote(path)}") from None
        self._name = os.fspath(path)
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        utf8 = codecs.getincrementaldecoder("utf-8")()  # not "utf-8-sig": it shifts the offsets
        lines = io.IncrementalNewlineDecoder(utf8, translate=True)
        offset, mark, empty = 0, False, True
        for block in self._blocks():
            held = len(utf8.getstate()[0])  # the first bytes of a character cut in two
            try:
                text = lines.decode(block, final=not block)
            except UnicodeDecodeError as error:
                byte, at = error.object[error.start], offset - held + error.start
                bad = f"byte 0x{byte:02x} at offset {at}"
                raise self._refusal(f"has {bad}, which is not UTF-8") from None
            if "\0" in text:
                at = offset + block.index(b"\0")
                raise self._refusal(f"has a NUL byte at offset {at}, so it is binary")
            offset += len(block)
            if empty and not mark and text.startswith("\ufeff"):
                text, mark = text[1:], True
            if text:
                empty = False
                yield text
        if empty:
            raise self._refusal("is empty")
        self.notes = tuple(self._notes(mark, lines.newlines))

    def _blocks(self) -> Iterator[bytes]:
        """The bytes of the file, at last none."""
        if os.path.isdir(self.path):  # Path.is_dir raises where a folder above may not be entered
            raise self._refusal("is a folder")
        try:
            with self.path.open("rb") as file:
                while block := file.read(BLOCK):
                    yield block
                yield b""
        except FileNotFoundError:
            raise self._refusal("does not exist") from None
        except OSError as error:
            raise self._refusal(
                f"cannot be read: {error.strerror or type(error).__name__}"
            ) from None
        except ValueError:  # a NUL or half a surrogate pair in the path
            raise self._refusal("is no path") from None

    def _refusal(self, reason: str) -> InputError:
        # repr: a path may hold a newline, and the message is one line.
        return InputError(f"want a UTF-8 text file, but {self._name!r} {reason}")

    def _notes(self, mark: bool, newlines: str | tuple[str, ...] | None) -> Iterator[str]:
        if mark:
            yield f"{self._name!r}: the byte order mark was dropped"
        ends = newlines if isinstance(newlines, tuple) else (newlines,)
        if odd := [name for name, end in (("CR LF", "\r\n"), ("CR", "\r")) if end in ends]:
            yield f"{self._name!r}: line ends {' and '.join(odd)} were read as LF"


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
