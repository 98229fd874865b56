"""Symbols <-> ids: the V distinct symbols of a text, numbered from 0 to V - 1.

`Vocabulary` holds the numbering and is the one place that knows what to do with a symbol outside
it; a subclass says how a text falls into symbols, and how symbols make a text again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice, repeat
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilstm.errors import (
    InputError,
    IntArray,
    check_ids,
    check_positive_int,
    check_text,
    quote,
)
from minilstm.text.tokens import (
    AS_IT_IS,
    END_OF_LINE,
    UNKNOWN,
    Normalisation,
    check_normalisation,
    check_tokenizer,
    words,
)

MAX_NAMED = 5  # symbols named in one error message


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """A numbering of symbols: the id of a symbol is its place in `symbols`.

    Args:
        symbols: the V distinct, non-empty strings, in the order of their ids.
        unknown: the one of them that stands for every symbol outside; None: there is no such one,
            and a symbol outside is an error.
        normalisation: what is done to every text before it is encoded, a prompt's too.

    Raises:
        InputError: symbols are missing, repeated or no strings, unknown is not among them, or
            normalisation is no Normalisation.
    """

    symbols: tuple[str, ...]
    unknown: str | None = None
    normalisation: Normalisation = AS_IT_IS

    kind: ClassVar[str]  # what `to_dict` calls the subclass

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
        check_normalisation(self.normalisation)

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

    def tokens(self, pieces: Iterable[str]) -> Iterator[Sequence[str]]:
        """Yield the symbols that a text in pieces falls into, many at a time.

        A subclass's own. Symbols outside the vocabulary are yielded as they stand.
        """
        raise NotImplementedError

    def _join(self, symbols: Iterable[str]) -> str:
        """The text that symbols make; a subclass's own."""
        raise NotImplementedError

    def piece(self, id: int, before: str) -> str:
        """Return what the symbol of an id adds to the text `before` it, of which the end matters.

        Adding piece to piece makes the text of all ids, so that it can be shown as it is made:

        >>> vocab = WordVocabulary.from_text("hello world")
        >>> text = "hello"
        >>> text + vocab.piece(2, text)
        'hello world'

        Raises:
            InputError: the id is out of range.
        """
        return self.decode([id])

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of the N symbols that a text falls into.

        Returns:
            (N,) int64; symbols outside the vocabulary have the unknown id.
        Raises:
            InputError: text is no str, or has symbols outside and there is no unknown symbol.
        """
        return self._encode([check_text(text)], np.dtype(np.int64))

    def encode_pieces(self, pieces: Iterable[str]) -> IntArray:
        """As `encode`, for a text in pieces, of which one or two are in memory at a time.

        Returns:
            (N,) ids in the smallest unsigned dtype that holds V - 1.

        >>> CharVocabulary.from_text("hello").encode_pieces(["he", "llo"])
        array([1, 0, 2, 2, 3], dtype=uint8)
        """
        return self._encode(pieces, np.min_scalar_type(len(self) - 1))

    def _encode(self, pieces: Iterable[str], dtype: np.dtype[Any]) -> NDArray[Any]:
        # A bytearray grows in place: joining arrays at the end would hold all ids twice.
        ids, N = bytearray(), 0
        for tokens in self.tokens(pieces):
            found = self._resolve_unknown(self._look_up(tokens), tokens, N)
            ids += found.astype(dtype).tobytes()
            N += len(tokens)
        return np.frombuffer(ids, dtype)

    def _look_up(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """The ids (N,) of N tokens; -1 for those that are not in the vocabulary."""
        found = map(self._id_of.get, tokens, repeat(-1))
        return np.fromiter(found, np.int64, count=len(tokens))

    def decode(self, ids: ArrayLike) -> str:
        """Return the text of the ids.

        Args:
            ids: (N,) array or list of integers, 0 <= id < V.
        Raises:
            InputError: ids are not a row of integers, or one is out of range.
        """
        array = check_ids(ids)
        self._check_range(array)
        return self._join(map(self.symbols.__getitem__, array.tolist()))

    def _check_range(self, ids: IntArray) -> None:
        if ids.size == 0:
            return
        V = len(self)
        # As Python's integers: NumPy's unsigned ones cannot be negated.
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= V:
            worst = ids.argmin() if -lowest > highest - (V - 1) else ids.argmax()
            got = f"{ids[worst]} at index {worst}"
            raise InputError(f"ids must lie in 0..{V - 1} (V = {V}), got {got}")

    def _resolve_unknown(
        self, ids: NDArray[np.int64], tokens: Sequence[str], before: int
    ) -> NDArray[np.int64]:
        """Put the unknown id, in place, where ids say -1: tokens[n] is not in the vocabulary.

        before: the number of tokens in the pieces before these.
        """
        missing = np.flatnonzero(ids < 0)
        if missing.size == 0:
            return ids
        if self.unknown_id is not None:
            ids[missing] = self.unknown_id
            return ids
        first: dict[str, int] = {}  # each such token, and where it stands first
        for n in missing.tolist():
            first.setdefault(tokens[n], n)
        named = [
            f"{t!r} at {_place(tokens, n, before)}" for t, n in islice(first.items(), MAX_NAMED)
        ]
        if len(first) > MAX_NAMED:
            named.append(f"and {len(first) - MAX_NAMED} more")
        raise InputError(f"text has symbols outside {self}: {', '.join(named)}")

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and strings, fit for JSON; `vocabulary_from_dict` takes them back."""
        return {
            "kind": self.kind,
            "symbols": list(self.symbols),
            "unknown": self.unknown,
            "normalisation": self.normalisation.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return the vocabulary that `to_dict` wrote.

        Raises:
            InputError: keys are missing or too many, the kind is another, or symbols do not fit.
        """
        names = ["kind", *(field.name for field in fields(cls))]
        if not isinstance(data, dict) or data.keys() != set(names):
            wanted = f"a dict with the keys {', '.join(names[:-1])} and {names[-1]}"
            raise InputError(f"a vocabulary must be {wanted}, got {quote(data)}")
        if data["kind"] != cls.kind:
            raise InputError(f"kind must be {cls.kind!r}, got {quote(data['kind'])}")
        values = {name: data[name] for name in names[1:]}
        return cls(**values | {"normalisation": Normalisation.from_dict(data["normalisation"])})


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

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, symbol in enumerate(self.symbols):
            if len(symbol) != 1 and symbol != self.unknown:
                got = f"{quote(symbol)} at index {i}"
                raise InputError(f"symbols other than unknown must be single characters, got {got}")

    @classmethod
    def from_text(
        cls, text: str, unknown: str | None = None, normalisation: Normalisation = AS_IT_IS
    ) -> Self:
        """Number the characters of a text.

        Args:
            text: at least one character.
            unknown: one more symbol, with the last id, for all characters not in the text, such as
                "\\ufffd" or "<unk>". None: such a character is an error when it is encoded.
            normalisation: what is done to the text first, and to every text that is encoded.
        Raises:
            InputError: text is empty or no str; unknown is empty, no str, or occurs in the text.

        >>> vocab = CharVocabulary.from_text("hello", unknown="<unk>")
        >>> vocab.decode(vocab.encode("help!"))
        'hel<unk><unk>'
        """
        return cls.from_pieces([check_text(text)], unknown, normalisation)

    @classmethod
    def from_pieces(
        cls,
        pieces: Iterable[str],
        unknown: str | None = None,
        normalisation: Normalisation = AS_IT_IS,
    ) -> Self:
        """As `from_text`, for a text in pieces."""
        found: set[str] = set()
        for piece in check_normalisation(normalisation).pieces(pieces):
            found.update(piece)
        if not found:
            raise InputError("text must have at least one character, got ''")
        symbols = sorted(found)
        if unknown is not None:
            if not isinstance(unknown, str) or not unknown:
                raise InputError(f"unknown must be None or a non-empty str, got {quote(unknown)}")
            if unknown in found:
                raise InputError(f"unknown must not be a character of the text, got {unknown!r}")
            symbols.append(unknown)
        return cls(tuple(symbols), unknown, normalisation)

    def tokens(self, pieces: Iterable[str]) -> Iterator[Sequence[str]]:
        return self.normalisation.pieces(pieces)  # a str is a sequence of its characters

    def _join(self, symbols: Iterable[str]) -> str:
        return "".join(symbols)

    def _look_up(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        # Python allows half a surrogate pair in a str; it is a code point like any other here.
        assert isinstance(tokens, str)  # as `tokens` yields it
        codes = np.frombuffer(tokens.encode("utf-32-le", "surrogatepass"), dtype="<u4")  # (N,)
        table = self._id_of_code
        ids: NDArray[np.int64] = table[np.minimum(codes, len(table) - 1)]
        return ids

    @cached_property
    def _id_of_code(self) -> NDArray[np.int64]:
        """Code point -> id, or -1; the last entry, always -1, stands for every code beyond."""
        ids = {ord(symbol): i for i, symbol in enumerate(self.symbols) if len(symbol) == 1}
        table = np.full(max(ids, default=-1) + 2, -1, dtype=np.int64)
        for code, i in ids.items():
            table[code] = i
        return table


@dataclass(frozen=True, repr=False)
class WordVocabulary(Vocabulary):
    """The distinct words of a text: <unk> has id 0, the others follow from frequent to rare.

    So an id is a rank, the rows of an embedding that are used most lie side by side, and a larger
    min_count gives the same numbering cut short. Words of equal count are in order of code points.

    Args:
        tokenizer: "basic_english", or "split"; see `minilstm.text.tokens`.

    >>> vocab = WordVocabulary.from_text("To be, or not to be?")
    >>> vocab
    WordVocabulary(7 symbols: '<unk>', 'be', 'to', ..., 'or', unknown='<unk>')
    >>> vocab.encode("To sleep?")
    array([2, 0, 4])
    >>> vocab.decode([2, 1, 4])
    'to be ?'
    """

    unknown: str | None = UNKNOWN
    tokenizer: str = "basic_english"

    kind = "word"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tokenizer(self.tokenizer)
        if self.unknown is None:
            raise InputError("unknown must be one of the symbols of a word vocabulary, got None")
        for i, symbol in enumerate(self.symbols):
            if symbol.split() != [symbol]:
                got = f"{quote(symbol)} at index {i}"
                raise InputError(f"symbols must have no white space in them, got {got}")

    @classmethod
    def from_text(
        cls,
        text: str,
        tokenizer: str = "basic_english",
        min_count: int = 1,
        normalisation: Normalisation = AS_IT_IS,
    ) -> Self:
        """Number the words of a text.

        Args:
            text: at least one word that is kept.
            tokenizer: "basic_english", or "split" on white space with <eos> for each newline.
            min_count: words that occur less often are left out, and so become <unk>.
            normalisation: what is done to the text first, and to every text that is encoded.
        Raises:
            InputError: text is no str or no word of it is kept, there is no such tokenizer, or
                min_count is no positive integer.
        """
        return cls.from_pieces([check_text(text)], tokenizer, min_count, normalisation)

    @classmethod
    def from_pieces(
        cls,
        pieces: Iterable[str],
        tokenizer: str = "basic_english",
        min_count: int = 1,
        normalisation: Normalisation = AS_IT_IS,
    ) -> Self:
        """As `from_text`, for a text in pieces."""
        check_positive_int("min_count", min_count)
        counts: Counter[str] = Counter()
        for tokens in words(check_normalisation(normalisation).pieces(pieces), tokenizer):
            counts.update(tokens)
        del counts[UNKNOWN]  # a literal <unk> in the text is the same symbol
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise InputError(f"text must have a word with a count of {min_count} or more, got none")
        kept.sort(key=lambda word: (-counts[word], word))
        return cls((UNKNOWN, *kept), UNKNOWN, normalisation, tokenizer)

    def tokens(self, pieces: Iterable[str]) -> Iterator[Sequence[str]]:
        return words(self.normalisation.pieces(pieces), self.tokenizer)

    def _join(self, symbols: Iterable[str]) -> str:
        if self.tokenizer != "split":
            return " ".join(symbols)
        text = " ".join("\n" if symbol == END_OF_LINE else symbol for symbol in symbols)
        return text.replace(" \n", "\n").replace("\n ", "\n")

    def piece(self, id: int, before: str) -> str:
        word = self.decode([id])
        return word if word == "\n" or before[-1:].strip() == "" else " " + word

    def to_dict(self) -> dict[str, object]:
        return super().to_dict() | {"tokenizer": self.tokenizer}


def vocabulary_from_dict(data: object) -> Vocabulary:
    """Return the vocabulary, of characters or of words, that its `to_dict` wrote.

    Raises:
        InputError: as `Vocabulary.from_dict`, and for a kind that there is not.

    >>> vocabulary_from_dict(CharVocabulary.from_text("hello").to_dict())
    CharVocabulary(4 symbols: 'e', 'h', 'l', 'o')
    """
    kinds: dict[object, type[Vocabulary]] = {
        cls.kind: cls for cls in (CharVocabulary, WordVocabulary)
    }
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        wanted = f"a dict whose kind is {' or '.join(map(repr, kinds))}"
        raise InputError(f"a vocabulary must be {wanted}, got {quote(data)}")
    return kinds[kind].from_dict(data)


def _place(tokens: Sequence[str], n: int, before: int) -> str:
    """Where tokens[n] stands: its index, counted from 0, and in a text of several lines the line
    and column an editor shows, counted from 1. before: tokens in pieces that came earlier."""
    if before or not isinstance(tokens, str) or "\n" not in tokens[:n]:
        return f"index {before + n}"
    line, column = tokens.count("\n", 0, n) + 1, n - tokens.rindex("\n", 0, n)
    return f"index {n} (line {line}, column {column})"
