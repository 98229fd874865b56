"""Symbols <-> ids: the V distinct symbols of a text, numbered from 0 to V - 1.

`Vocabulary` holds the numbering and is the one place that knows what to do with a symbol outside
it. To it a text is its characters; `WordVocabulary` says how a text falls into words instead, and
how words make a text again.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import chain, repeat
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minilstm.errors import InputError, IntArray, check_ids, check_positive_int, quote, require
from minilstm.text.tokens import AS_IT_IS, EOS, UNKNOWN, Normalisation, check_tokenizer, words

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
        InputError: symbols are missing, repeated or no strings, or unknown is not among them.
    """

    symbols: tuple[str, ...]
    unknown: str | None = None
    normalisation: Normalisation = AS_IT_IS

    kind: ClassVar[str]  # what `to_dict` calls the subclass
    _symbol: ClassVar[re.Pattern[str]]  # matches each of its symbols but, perhaps, unknown

    def __post_init__(self) -> None:
        fits = isinstance(self.symbols, list | tuple) and len(self.symbols) > 0
        require(fits, "symbols must be a non-empty list", quote(self.symbols))
        object.__setattr__(self, "symbols", tuple(self.symbols))
        seen: set[str] = set()
        for i, symbol in enumerate(self.symbols):
            fits = isinstance(symbol, str) and symbol != "" and symbol not in seen
            if not (fits and (symbol == self.unknown or self._symbol.fullmatch(symbol))):
                got = f"{quote(symbol)} at index {i}"
                raise InputError(f"symbols must be distinct {self.kind}s, got {got}")
            seen.add(symbol)
        fits = self.unknown in (None, *self.symbols)
        require(fits, "unknown must be None or one of the symbols", quote(self.unknown))

    @cached_property
    def _id_of(self) -> dict[str | None, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown symbol; None where there is none."""
        return self._id_of.get(self.unknown)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._id_of

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} symbols: {quote(list(self.symbols))[1:-1]})"

    def tokens(self, pieces: Iterable[str]) -> Iterator[Sequence[str]]:
        """Yield the symbols that a text in pieces falls into, many at a time.

        Symbols outside the vocabulary are yielded as they stand.
        """
        return self.normalisation.pieces(pieces)  # a str is a sequence of its characters

    def _piece(self, symbol: str, before: str) -> str:
        """What a symbol adds to the text `before` it, of which only the end matters."""
        return symbol

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of the N symbols that a text falls into.

        Returns:
            (N,) int64; symbols outside the vocabulary have the unknown id.
        Raises:
            InputError: text is no str, or has symbols outside and there is no unknown symbol.
        """
        return self.encode_pieces([text]).astype(np.int64)

    def encode_pieces(self, pieces: Iterable[str]) -> IntArray:
        """As `encode`, for a text in pieces, of which one or two are in memory at a time.

        Returns:
            (N,) ids in the smallest unsigned dtype that holds V - 1.

        >>> CharVocabulary.from_text("hello").encode_pieces(["he", "llo"])
        array([1, 0, 2, 2, 3], dtype=uint8)
        """
        dtype = np.min_scalar_type(len(self) - 1)
        default = -1 if self.unknown_id is None else self.unknown_id
        # A bytearray grows in place: joining arrays at the end would hold all ids twice.
        ids, N = bytearray(), 0
        for tokens in self.tokens(pieces):
            found = np.fromiter(map(self._id_of.get, tokens, repeat(default)), np.int64)
            if found.min(initial=0) < 0:
                outside = list(dict.fromkeys(token for token in tokens if token not in self))
                named = [f"{t!r} at index {N + tokens.index(t)}" for t in outside[:MAX_NAMED]]
                named += [f"and {len(outside) - MAX_NAMED} more"] * (len(outside) > MAX_NAMED)
                raise InputError(f"text has symbols outside {self}: {', '.join(named)}")
            ids += found.astype(dtype).tobytes()
            N += len(tokens)
        return np.frombuffer(ids, dtype)

    def decode(self, ids: ArrayLike, before: str = "") -> str:
        """Return the text of the ids, as it goes on after the text `before`.

        So a text can be shown as it is made, id by id:

        >>> vocab = WordVocabulary.from_text("hello world")
        >>> text = vocab.decode([1])
        >>> text, vocab.decode([2], text)
        ('hello', ' world')

        Args:
            ids: (N,) array or list of integers, 0 <= id < V.
            before: of it only the end matters.
        Raises:
            InputError: ids are not a row of integers, or one is out of range.
        """
        array, V = check_ids(ids), len(self)
        outside = np.flatnonzero((array < 0) | (array >= V))
        if outside.size:
            got = f"{array[outside[0]]} at index {outside[0]}"
            raise InputError(f"ids must lie in 0..{V - 1} (V = {V}), got {got}")
        pieces = [before]
        for id in array.tolist():
            pieces.append(self._piece(self.symbols[id], pieces[-1]))
        return "".join(pieces[1:])

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and strings, fit for JSON; `vocabulary_from_dict` takes them back."""
        return {"kind": self.kind} | asdict(self) | {"symbols": list(self.symbols)}


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
    _symbol = re.compile(".", re.DOTALL)

    @classmethod
    def from_text(cls, text: str | Iterable[str], unknown: str | None = None,
                  normalisation: Normalisation = AS_IT_IS) -> Self:  # fmt: skip
        """Number the characters of a text.

        Args:
            text: at least one character; as a whole, or in pieces.
            unknown: one more symbol, with the last id, for all characters not in the text, such as
                "\\ufffd" or "<unk>". None: such a character is an error when it is encoded.
            normalisation: what is done to the text first, and to every text that is encoded.
        Raises:
            InputError: text is empty or no str; unknown is empty, no str, or occurs in the text.

        >>> vocab = CharVocabulary.from_text("hello", unknown="<unk>")
        >>> vocab.decode(vocab.encode("help!"))
        'hel<unk><unk>'
        """
        found = set(chain.from_iterable(normalisation.pieces(text)))
        require(len(found) > 0, "text must have at least one character", "''")
        fits = unknown not in found | {""}
        require(fits, "unknown must be no character of the text nor empty", quote(unknown))
        symbols = sorted(found) if unknown is None else [*sorted(found), unknown]
        return cls(tuple(symbols), unknown, normalisation)


@dataclass(frozen=True, repr=False)
class WordVocabulary(Vocabulary):
    """The distinct words of a text: <unk> has id 0, the others follow from frequent to rare.

    So an id is a rank, the rows of an embedding that are used most lie side by side, and a larger
    min_count gives the same numbering cut short. Words of equal count are in order of code points.

    Args:
        tokenizer: "basic_english", or "split"; see `minilstm.text.tokens`.

    >>> vocab = WordVocabulary.from_text("To be, or not to be?")
    >>> vocab
    WordVocabulary(7 symbols: '<unk>', 'be', 'to', ',', '?', 'not', ...)
    >>> vocab.encode("To sleep?")
    array([2, 0, 4])
    >>> vocab.decode([2, 1, 4])
    'to be ?'
    """

    unknown: str | None = UNKNOWN
    tokenizer: str = "basic_english"

    kind = "word"
    _symbol = re.compile(r"\S+")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tokenizer(self.tokenizer)

    @classmethod
    def from_text(cls, text: str | Iterable[str], tokenizer: str = "basic_english",
                  min_count: int = 1, normalisation: Normalisation = AS_IT_IS) -> Self:  # fmt: skip
        """Number the words of a text.

        Args:
            text: at least one word that is kept; as a whole, or in pieces.
            tokenizer: "basic_english", or "split" on white space with <eos> for each newline.
            min_count: words that occur less often are left out, and so become <unk>.
            normalisation: what is done to the text first, and to every text that is encoded.
        Raises:
            InputError: text is no str or no word of it is kept, there is no such tokenizer, or
                min_count is no positive integer.
        """
        check_positive_int("min_count", min_count)
        counts = Counter(chain.from_iterable(words(normalisation.pieces(text), tokenizer)))
        del counts[UNKNOWN]  # a literal <unk> in the text is the same symbol
        kept = [word for word, count in counts.items() if count >= min_count]
        require(len(kept) > 0, f"text must have a word with a count of {min_count} or more", "none")
        kept.sort(key=lambda word: (-counts[word], word))
        return cls((UNKNOWN, *kept), UNKNOWN, normalisation, tokenizer)

    def tokens(self, pieces: Iterable[str]) -> Iterator[Sequence[str]]:
        return words(self.normalisation.pieces(pieces), self.tokenizer)

    def _piece(self, symbol: str, before: str) -> str:
        if symbol == EOS and self.tokenizer == "split":
            return "\n"
        return " " + symbol if before[-1:].strip() else symbol


def vocabulary_from_dict(data: object) -> Vocabulary:
    """Return the vocabulary, of characters or of words, that its `to_dict` wrote.

    Raises:
        InputError: the kind is another, keys are missing or too many, or symbols do not fit.

    >>> vocabulary_from_dict(CharVocabulary.from_text("hello").to_dict())
    CharVocabulary(4 symbols: 'e', 'h', 'l', 'o')
    """
    wanted = "a dict whose kind is 'char' or 'word'"
    for cls in (CharVocabulary, WordVocabulary):
        if isinstance(data, dict) and data.get("kind") == cls.kind:
            keys = [field.name for field in fields(cls)]
            if data.keys() == {"kind", *keys}:
                normalisation = Normalisation.from_dict(data["normalisation"])
                return cls(**{key: data[key] for key in keys} | {"normalisation": normalisation})
            wanted = f"a dict with kind {cls.kind!r} and the keys {', '.join(keys)}"
    raise InputError(f"a vocabulary must be {wanted}, got {quote(data)}")
