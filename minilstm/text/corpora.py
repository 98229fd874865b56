"""Where the text comes from: named corpora and files, and the part held out for validation."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from minilstm.errors import InputError, IntArray, check_text, quote
from minilstm.text import downloads
from minilstm.text.files import Passage, TextFile
from minilstm.text.tokens import AS_IT_IS, UNKNOWN, Normalisation, check_normalisation, words
from minilstm.text.vocabulary import MAX_NAMED, CharVocabulary, Vocabulary, WordVocabulary

Text = Iterable[str]  # in pieces; each `for` loop over it begins anew

_COUNTED = 1 << 20  # ids counted at a time


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as ids, in up to three parts, each in the smallest unsigned dtype that will do.

    Attributes:
        name: of the corpus, or the path of the file.
        vocab: made from the training text alone.
        train: (N,) ids.
        valid, test: the same; None where there is no such part.
        notes: facts worth telling, one line each.
    """

    name: str
    vocab: Vocabulary
    train: IntArray
    valid: IntArray | None
    test: IntArray | None
    notes: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """What a token is: "char" or "word"."""
        return self.vocab.kind

    @property
    def normalisation(self) -> Normalisation:
        return self.vocab.normalisation

    def split(self, name: str) -> IntArray:
        """Return the ids of the part "train", "valid" or "test"; InputError if there is none."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        there = {part: ids for part, ids in parts.items() if ids is not None}
        if not isinstance(name, str) or name not in there:
            raise InputError(f"{self.name} has the parts {', '.join(there)}, got {quote(name)}")
        return there[name]

    def unigram_entropy(self) -> float:
        """-sum_v p_v ln p_v, in nats per token, where p_v is the share of token v in train.

        A model that knows how frequent each token is and nothing more comes down to this loss.

        >>> round(load_corpus("hello").unigram_entropy(), 3)  # shares 1/5, 1/5, 2/5, 1/5
        1.332
        """
        counts = np.zeros(len(self.vocab))
        for n in range(0, len(self.train), _COUNTED):  # bincount makes int64 of what it is given
            counts += np.bincount(self.train[n : n + _COUNTED], minlength=len(self.vocab))
        p = counts[counts > 0] / len(self.train)
        return float(-(p * np.log(p)).sum())


def load_corpus(
    name_or_path: str | os.PathLike[str],
    level: str = "char",
    *,
    val_path: str | os.PathLike[str] | None = None,
    tokenizer: str = "basic_english",
    min_count: int = 1,
    normalisation: Normalisation | None = None,
    unknown: str | None = None,
    vocab: Vocabulary | None = None,
) -> Corpus:
    """Read a text, number its symbols, encode it.

    The corpora with a name:

        hello           the word "hello", and no more
        shakespeare     tiny Shakespeare, 1 MB; its last tenth validates
        wikitext2       WikiText-2, 13 MB, with <unk> for rare words; train, valid and test
        wikitext2-raw   the same with nothing replaced; as characters, always with <unk>

    Any other name is the path of a UTF-8 file ("./hello" for one that is called like a corpus), and
    so is a Path. Its last tenth validates, or where val_path is given that file; all of the first
    file trains then. Where fewer than two tokens would validate, all of the text trains.

    Args:
        level: what a token is, "char" or "word".
        val_path: a UTF-8 file to validate on instead.
        tokenizer, min_count: see `WordVocabulary.from_text`; for words only.
        normalisation: what is done to the text first; None: nothing.
        unknown: the symbol for characters outside the training text. None: there is one, <unk>, if
            the other parts have such characters, and a note says so. For characters only.
        vocab: number the text with this one; level, tokenizer, min_count, normalisation and unknown
            then have no say.
    Raises:
        InputError: there is no such corpus or file, a file is no text or cannot be downloaded, or
            an argument does not fit.

    >>> corpus = load_corpus("hello")
    >>> corpus.vocab.decode(corpus.train), corpus.valid
    ('hello', None)
    >>> print(*corpus.notes)
    too short to hold anything out: training on all of it, validating on nothing
    """
    normalisation = AS_IT_IS if normalisation is None else check_normalisation(normalisation)
    if vocab is not None:
        level = vocab.kind
    elif level not in ("char", "word"):
        raise InputError(f"level must be 'char' or 'word', got {quote(level)}")

    def tokens(text: Text) -> Iterator[Sequence[str]]:
        if vocab is not None:
            return vocab.tokens(text)
        pieces = normalisation.pieces(text)
        return pieces if level == "char" else words(pieces, tokenizer)

    # Which text trains, and which validates.
    texts, notes = _texts(name_or_path), []
    if val_path is not None:
        texts["valid"] = TextFile(val_path)
    files = [text for text in texts.values() if isinstance(text, TextFile)]
    whole = texts["train"]
    if "valid" not in texts:
        texts |= _hold_out(whole, level)
    if sum(map(len, tokens(texts["valid"]))) < 2:
        del texts["valid"]
        texts["train"] = whole
        why = "too short to hold anything out" if val_path is None else "too little to validate on"
        notes.append(f"{why}: training on all of it, validating on nothing")

    # The vocabulary: from the training text alone, but for the unknown symbol.
    if vocab is None and level == "word":
        vocab = WordVocabulary.from_pieces(texts["train"], tokenizer, min_count, normalisation)
    elif vocab is None:
        if unknown is None and name_or_path == "wikitext2-raw":
            unknown = UNKNOWN
        vocab = CharVocabulary.from_pieces(texts["train"], unknown, normalisation)
        others = [text for part, text in texts.items() if part != "train"]
        if unknown is None and any(_outside(vocab, text) for text in others):
            vocab = CharVocabulary((*vocab.symbols, UNKNOWN), UNKNOWN, normalisation)

    ids = {part: vocab.encode_pieces(text) for part, text in texts.items()}
    for part, text in texts.items():
        if note := _outside_note(vocab, text, ids[part]):
            notes.append(f"{part}: {note}")
    return Corpus(
        os.fspath(name_or_path),
        vocab,
        ids["train"],
        ids.get("valid"),
        ids.get("test"),
        (*(note for file in files for note in file.notes), *notes),
    )


def _texts(name_or_path: str | os.PathLike[str]) -> dict[str, Text]:
    """The parts that a corpus is published in."""
    if isinstance(name_or_path, str):
        if name_or_path == "hello":
            return {"train": ["hello"]}
        if name_or_path in downloads.CORPORA:
            return {part: TextFile(path) for part, path in downloads.fetch(name_or_path).items()}
        if not os.path.exists(name_or_path):
            wanted = f"a text file or one of the corpora {', '.join(downloads.CORPORA)}"
            raise InputError(f"want {wanted}, got {name_or_path!r}, which does not exist")
    return {"train": TextFile(name_or_path)}


def _hold_out(text: Text, level: str) -> dict[str, Text]:
    """Cut a text as `train_validation_split` does; for words, where from there on one begins."""
    N = sum(map(len, text))
    n = int(0.9 * N)
    if level == "word":
        n = max(0, n - 1)
        for piece in Passage(text, n, N):
            if space := re.search(r"\s", piece):
                n += space.end()
                break
            n += len(piece)
    return {"train": Passage(text, 0, n), "valid": Passage(text, n, N)}


def _outside(vocab: Vocabulary, text: Text) -> list[str]:
    """The symbols of a text that are not in the vocabulary, sorted."""
    found: set[str] = set()
    for tokens in vocab.tokens(text):
        found.update(tokens)
    return sorted(symbol for symbol in found if symbol not in vocab)


def _outside_note(vocab: Vocabulary, text: Text, ids: IntArray) -> str | None:
    """Which symbols of a text the vocabulary has not, and how often the unknown one stands there;
    None if there are none."""
    count = 0 if vocab.unknown_id is None else np.count_nonzero(ids == vocab.unknown_id)
    if not count or not (outside := _outside(vocab, text)):  # the second reads the text once more
        return None
    named = ", ".join(map(repr, outside[:MAX_NAMED]))
    if len(outside) > MAX_NAMED:
        named += f" and {len(outside) - MAX_NAMED:,} more"
    return (
        f"outside the vocabulary are {named}; "
        f"{count:,} of {len(ids):,} tokens are read as {vocab.unknown}"
    )


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a UTF-8 file, its lines ended by a newline character alone.

    The whole of a `minilstm.text.files.TextFile` at once.

    Raises:
        InputError: there is no such file, it cannot be read, is a folder, is empty, is not UTF-8,
            or holds a NUL, which no text does.

    >>> read_text("no/such/file")
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: want a UTF-8 text file, but 'no/such/file' does not exist
    """
    return "".join(TextFile(path))


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
    check_text(text)
    if isinstance(fraction, bool) or not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise InputError(f"fraction must be a number in (0, 1], got {quote(fraction)}")
    n = int(fraction * len(text))
    return text[:n], text[n:]
