"""Symbols <-> ids: the V distinct symbols of a text, numbered from 0 to V - 1.

`Vocabulary` holds the numbering and is the one place that knows what to do with a symbol outside
it; a subclass says how a text falls into symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilstm.errors import InputError, check_ids, quote

MAX_NAMED = 5  # symbols named in one error message


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """A numbering of symbols: the id of a symbol is its place in `symbols`.

    Args:
        symbols: the V distinct, non-empty strings, in the order of their ids.
        unknown: the one of them that stands for every symbol outside; None: there is no such one,
            and a symbol outside is an error.

    Raises:
        InputError: symbols are missing, repeated or no strings, or unknown is not among them.
    """

    symbols: tuple[str, ...]
    unknown: str | None = None

    kind: ClassVar[str]  # what `to_dict` calls the subclass
    separator: ClassVar[str]  # what `decode` puts between two symbols

    def __post_init__(self) -> None:
        if not isinstance(self.symbols, list | tuple) or not self.symbols:
            raise InputError(f"symbols must be a non-empty list, got {quote(self.symbols)}")
        object.__setattr__(self, "symbols", tuple(self.symbols))
        seen: set[str] = set()
        for i, symbol in enumerate(self.symbols):
            if not isinstance(symbol, str) or not symbol:
                got = f"{quote(symbol)} at index {i}"
                raise InputError(f"symbols must be non-empty strings, got {got}")
            if symbol in seen:
                got = f"{quote(symbol)} again at index {i}"
                raise InputError(f"symbols must be distinct, got {got}")
            seen.add(symbol)
        if self.unknown is not None and self.unknown not in self.symbols:
            got = quote(self.unknown)
            raise InputError(f"unknown must be None or one of the symbols, got {got}")

    @cached_property
    def unknown_id(self) -> int | None:
        """The id of the unknown symbol; None where there is none."""
        return None if self.unknown is None else self.symbols.index(self.unknown)

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._id_of

    def __repr__(self) -> str:
        shown = [repr(symbol) for symbol in self.symbols]
        if len(shown) > 6:
            shown[3:-1] = ["..."]
        if self.unknown is not None:
            shown.append(f"unknown={self.unknown!r}")
        return f"{type(self).__name__}({len(self)} symbols: {', '.join(shown)})"

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids (N,) of the N symbols a text falls into; each subclass has its own way."""
        raise NotImplementedError

    def decode(self, ids: ArrayLike) -> str:
        """Return the text of the ids.

        Args:
            ids: (N,) array or list of integers, 0 <= id < V.
        Raises:
            InputError: ids are not a row of integers, or one is out of range.
        """
        array = check_ids(ids)
        self._check_range(array)
        return self.separator.join(map(self.symbols.__getitem__, array.tolist()))

    def _check_range(self, ids: NDArray[np.integer]) -> None:
        if ids.size == 0:
            return
        V = len(self)
        # As Python's integers: NumPy's unsigned ones cannot be negated.
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= V:
            worst = ids.argmin() if -lowest > highest - (V - 1) else ids.argmax()
            got = f"{ids[worst]} at index {worst}"
            raise InputError(f"ids must lie in 0..{V - 1} (V = {V}), got {got}")

    def _resolve_unknown(self, ids: NDArray[np.int64], tokens: Sequence[str]) -> NDArray[np.int64]:
        """Put the unknown id, in place, where ids say -1: tokens[n] is not in the vocabulary."""
        missing = np.flatnonzero(ids < 0)
        if missing.size == 0:
            return ids
        if self.unknown_id is not None:
            ids[missing] = self.unknown_id
            return ids
        first: dict[str, int] = {}  # each such token, and where it stands first
        for n in missing.tolist():
            first.setdefault(tokens[n], n)
        named = [f"{t!r} at {_place(tokens, n)}" for t, n in islice(first.items(), MAX_NAMED)]
        if len(first) > MAX_NAMED:
            named.append(f"and {len(first) - MAX_NAMED} more")
        raise InputError(f"text has symbols outside {self}: {', '.join(named)}")

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and strings, fit for JSON; `from_dict` takes them back."""
        return {"kind": self.kind, "symbols": list(self.symbols), "unknown": self.unknown}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return the vocabulary that `to_dict` wrote.

        Raises:
            InputError: keys are missing or too many, the kind is another, or symbols do not fit.
        """
        if not isinstance(data, dict) or data.keys() != {"kind", "symbols", "unknown"}:
            wanted = "a dict with the keys kind, symbols and unknown"
            raise InputError(f"a vocabulary must be {wanted}, got {quote(data)}")
        if data["kind"] != cls.kind:
            raise InputError(f"kind must be {cls.kind!r}, got {quote(data['kind'])}")
        return cls(data["symbols"], data["unknown"])


class CharVocabulary(Vocabulary):
    """The distinct characters (Unicode code points) of a text, numbered in sorted order.

    >>> vocab = CharVocabulary.from_text("hello")
    >>> vocab
    CharVocabulary(4 symbols: 'e', 'h', 'l', 'o')
    >>> vocab.encode("hello")
    array([1, 0, 2, 2, 3])
    >>> vocab.decode([1, 0, 2, 3])
    'helo'
    >>> vocab.encode("help!")
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: text has symbols outside CharVocabulary(4 symbols: 'e', 'h', 'l', \
'o'): 'p' at index 3, '!' at index 4
    """

    kind = "char"
    separator = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, symbol in enumerate(self.symbols):
            if len(symbol) != 1 and symbol != self.unknown:
                got = f"{quote(symbol)} at index {i}"
                raise InputError(f"symbols other than unknown must be single characters, got {got}")

    @classmethod
    def from_text(cls, text: str, unknown: str | None = None) -> Self:
        """Number the characters of a text.

        Args:
            text: at least one character.
            unknown: one more symbol, with the last id, for all characters not in the text, such as
                "\\ufffd" or "<unk>". None: such a character is an error when it is encoded.
        Raises:
            InputError: text is empty or no str; unknown is empty, no str, or occurs in the text.

        >>> vocab = CharVocabulary.from_text("hello", unknown="<unk>")
        >>> vocab.decode(vocab.encode("help!"))
        'hel<unk><unk>'
        """
        _check_text(text)
        if not text:
            raise InputError("text must have at least one character, got ''")
        symbols = sorted(set(text))
        if unknown is not None:
            if not isinstance(unknown, str) or not unknown:
                raise InputError(f"unknown must be None or a non-empty str, got {quote(unknown)}")
            if unknown in symbols:
                got = f"{unknown!r} at {_place(text, text.index(unknown))}"
                raise InputError(f"unknown must not be a character of the text, got {got}")
            symbols.append(unknown)
        return cls(tuple(symbols), unknown)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of the characters of a text of N characters.

        Returns:
            (N,) int64; characters outside the vocabulary have the unknown id.
        Raises:
            InputError: text is no str, or has characters outside and there is no unknown symbol.
        """
        _check_text(text)
        # Python allows half a surrogate pair in a str; it is a code point like any other here.
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")  # (N,)
        table = self._id_of_code
        return self._resolve_unknown(table[np.minimum(codes, len(table) - 1)], text)

    @cached_property
    def _id_of_code(self) -> NDArray[np.int64]:
        """Code point -> id, or -1; the last entry, always -1, stands for every code beyond."""
        ids = {ord(symbol): i for i, symbol in enumerate(self.symbols) if len(symbol) == 1}
        table = np.full(max(ids, default=-1) + 2, -1, dtype=np.int64)
        for code, i in ids.items():
            table[code] = i
        return table


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"text must be a str, got {type(text).__name__}")


def _place(tokens: Sequence[str], index: int) -> str:
    """Where tokens[index] stands: its index, counted from 0, and in a text of several lines the
    line and column an editor shows, counted from 1."""
    if not isinstance(tokens, str) or "\n" not in tokens[:index]:
        return f"index {index}"
    line, column = tokens.count("\n", 0, index) + 1, index - tokens.rindex("\n", 0, index)
    return f"index {index} (line {line}, column {column})"
