"""Where the text comes from: named corpora and files, and the part held out for validation.

A text is read in pieces: UTF-8, plain line ends, nothing binary.
"""

import codecs
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path

import numpy as np

from minilstm.errors import InputError, IntArray, check_positive_int, quote, require
from minilstm.text.downloads import CORPORA, fetch
from minilstm.text.tokens import AS_IT_IS, UNKNOWN, Normalisation, words
from minilstm.text.vocabulary import MAX_NAMED, CharVocabulary, Vocabulary, WordVocabulary

BLOCK = 1 << 20  # characters read at a time
Text = Iterable[str]  # in pieces; each `for` loop over it begins anew


@dataclass
class TextFile:
    """The text of a UTF-8 file, in pieces; each `for` loop over it reads the file anew.

    A byte order mark is dropped; the line ends of Windows (CR LF) and of old Macs (CR) are read as
    LF, so that the same text gives the same vocabulary wherever it was saved. `notes` says so,
    one line each, once the file has been read to its end.

    The loop raises InputError: there is no such file, it cannot be read, is a folder, is empty, is
    not UTF-8, or holds a NUL, which no text does.
    """

    path: str | PathLike[str]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        name = repr(os.fspath(self.path))  # repr: it may hold a newline, and messages are one line
        notes, empty, want = [], True, f"want a UTF-8 text file, but {name}"
        try:
            with Path(self.path).open("rb") as file:
                if file.peek(3).startswith(codecs.BOM_UTF8):
                    file.seek(3)
                    notes.append(f"{name}: the byte order mark was dropped")
                lines = io.TextIOWrapper(file, "utf-8")
                try:
                    while text := lines.read(BLOCK):
                        if "\0" in text:
                            raise InputError(f"{want} has a NUL character, so it is binary")
                        empty = False
                        yield text
                except UnicodeDecodeError as error:
                    at = file.tell() - len(error.object) + error.start
                    bad = f"byte 0x{error.object[error.start]:02x} at offset {at}"
                    raise InputError(f"{want} has {bad}, which is not UTF-8") from None
        except OSError as error:
            reasons = {FileNotFoundError: "does not exist", IsADirectoryError: "is a folder"}
            reason = reasons.get(type(error), f"cannot be read: {error.strerror}")
            raise InputError(f"{want} {reason}") from None
        if empty:
            raise InputError(f"{want} is empty")
        ends = lines.newlines if isinstance(lines.newlines, tuple) else (lines.newlines,)
        if odd := [kind for kind, end in (("CR LF", "\r\n"), ("CR", "\r")) if end in ends]:
            notes.append(f"{name}: line ends {' and '.join(odd)} were read as LF")
        self.notes = tuple(notes)


@dataclass(frozen=True)
class Passage:
    """The characters start .. stop - 1 of a text, in pieces; each `for` loop reads it anew.

    >>> "".join(Passage(["he", "ll", "o"], 1, 4))
    'ell'
    """

    text: Text
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
    def parts(self) -> dict[str, IntArray]:
        """The parts that there are, by name: "train", "valid" and "test"."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {part: ids for part, ids in parts.items() if ids is not None}

    def split(self, name: str) -> IntArray:
        """Return the ids of the part "train", "valid" or "test"; InputError if there is none."""
        parts = self.parts
        require(name in parts, f"{self.name} has the parts {', '.join(parts)}", quote(name))
        return parts[name]

    def unigram_entropy(self) -> float:
        """-sum_v p_v ln p_v, in nats per token, where p_v is the share of token v in train.

        A model that knows how frequent each token is and nothing more comes down to this loss.

        >>> round(load_corpus("hello").unigram_entropy(), 3)  # shares 1/5, 1/5, 2/5, 1/5
        1.332
        """
        _, counts = np.unique(self.train, return_counts=True)  # bincount would make them int64
        p = counts / len(self.train)
        return float(-(p * np.log(p)).sum())


def load_corpus(name_or_path: str | PathLike[str], level: str = "char", *,
                val_path: str | PathLike[str] | None = None, tokenizer: str = "basic_english",
                min_count: int = 1, normalisation: Normalisation = AS_IT_IS,
                unknown: str | None = None, vocab: Vocabulary | None = None) -> Corpus:  # fmt: skip
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
        normalisation: what is done to the text first; otherwise nothing.
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
    level = level if vocab is None else vocab.kind
    require(level in ("char", "word"), "level must be char or word", quote(level))
    check_positive_int("min_count", min_count)

    # Which text trains, and which validates.
    texts, notes = _texts(name_or_path), []
    if val_path is not None:
        texts["valid"] = TextFile(val_path)
    files = [text for text in texts.values() if isinstance(text, TextFile)]
    whole = texts["train"]
    if "valid" not in texts:
        texts |= _hold_out(whole, level)
    pieces = normalisation.pieces(texts["valid"])
    tokens = pieces if level == "char" else words(pieces, tokenizer)
    if sum(map(len, tokens if vocab is None else vocab.tokens(texts["valid"]))) < 2:
        del texts["valid"]
        texts["train"] = whole
        why = "too short to hold anything out" if val_path is None else "too little to validate on"
        notes.append(f"{why}: training on all of it, validating on nothing")

    # The vocabulary: from the training text alone, but for the unknown symbol.
    if vocab is None and level == "word":
        vocab = WordVocabulary.from_text(texts["train"], tokenizer, min_count, normalisation)
    elif vocab is None:
        vocab = CharVocabulary.from_text(texts["train"], unknown, normalisation)
        others = (text for part, text in texts.items() if part != "train")
        always = name_or_path == "wikitext2-raw"
        if unknown is None and (always or any(_outside(vocab, text) for text in others)):
            vocab = CharVocabulary((*vocab.symbols, UNKNOWN), UNKNOWN, normalisation)

    ids = {part: vocab.encode_pieces(text) for part, text in texts.items()}
    for part, text in texts.items():
        count = 0 if vocab.unknown_id is None else np.count_nonzero(ids[part] == vocab.unknown_id)
        if count and (outside := _outside(vocab, text)):  # which reads the text once more
            some = ", ".join(map(repr, outside[:MAX_NAMED]))
            more = f" and {len(outside) - MAX_NAMED:,} more" if len(outside) > MAX_NAMED else ""
            read = f"{count:,} of {len(ids[part]):,} tokens are read as {vocab.unknown}"
            notes.append(f"{part}: outside the vocabulary are {some}{more}; {read}")
    notes = [*(note for file in files for note in file.notes), *notes]
    parts = ids["train"], ids.get("valid"), ids.get("test")
    return Corpus(os.fspath(name_or_path), vocab, *parts, tuple(notes))


def _texts(name_or_path: str | PathLike[str]) -> dict[str, Text]:
    """The parts that a corpus is published in."""
    if name_or_path == "hello":
        return {"train": ["hello"]}
    if isinstance(name_or_path, str) and name_or_path in CORPORA:
        return {part: TextFile(path) for part, path in fetch(name_or_path).items()}
    return {"train": text_file(name_or_path)}


def text_file(path: str | PathLike[str]) -> TextFile:
    """A file, where a corpus could have been named as well; InputError if there is none."""
    fits = not isinstance(path, str) or os.path.exists(path)
    wanted = f"want a text file or one of the corpora {', '.join(CORPORA)}"
    require(fits, wanted, f"{path!r}, which does not exist")
    return TextFile(path)


def _hold_out(text: Text, level: str) -> dict[str, Text]:
    """The first nine tenths of a text train; for words, up to where from there on one begins.

    The rest is one piece from the end, not characters picked here and there: those would have
    neighbours in the training part, and validation would measure memory.
    """
    N = sum(map(len, text))
    n = int(0.9 * N)
    if level == "word":
        rest = chain.from_iterable(Passage(text, max(0, n - 1), N))  # character after character
        n = next((end for end, c in enumerate(rest, max(1, n)) if c.isspace()), N)
    return {"train": Passage(text, 0, n), "valid": Passage(text, n, N)}


def _outside(vocab: Vocabulary, text: Text) -> list[str]:
    """The symbols of a text that are not in the vocabulary, sorted."""
    found = set(chain.from_iterable(vocab.tokens(text)))
    return sorted(symbol for symbol in found if symbol not in vocab)
