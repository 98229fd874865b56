"""What a run's config.json tells about its making, beside the model: written once, at its start."""

from __future__ import annotations

import hashlib
import platform
import types
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

import minilstm
from minilstm import settings
from minilstm.checkpoint import Run
from minilstm.cli.setup import Setup
from minilstm.errors import InputError, check_positive_int, quote
from minilstm.text.corpora import Corpus


@dataclass(frozen=True)
class Record:
    """The entries of config.json that `minilstm train` adds.

    Attributes:
        settings: all of them, flat.
        total_steps: of the whole run, decided at its start.
        init_from: the run whose weights it began with.
        corpus: its name or path. text: part -> SHA-256 of its ids, by which a text is known again
            wherever it lies.
        notes: facts about the text. unigram_entropy: of its training part.
        first_token: of the training text; samples begin with it.
        versions, device, threads: with what and on what the run was begun.
    """

    settings: dict[str, Any]
    total_steps: int
    init_from: str | None
    corpus: str
    text: dict[str, str]
    notes: list[str]
    unigram_entropy: float
    first_token: str
    versions: dict[str, str]
    device: str
    threads: int | None

    @classmethod
    def of(
        cls, setup: Setup, total_steps: int, init_from: str | None, threads: int | None
    ) -> Record:
        """The record of a run that begins now."""
        corpus = setup.corpus
        return cls(
            setup.settings,
            total_steps,
            init_from,
            corpus.name,
            digests(corpus),
            list(corpus.notes),
            corpus.unigram_entropy(),
            corpus.vocab.decode(corpus.train[:1]),
            versions(),
            setup.device,
            threads,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_KINDS: dict[str, Any] = {
    "init_from": (str, types.NoneType),
    "corpus": str,
    "text": dict,
    "unigram_entropy": float,
    "first_token": str,
}


def has_record(run: Run) -> bool:
    """Whether the run was begun by `minilstm train`, not by a program."""
    return "settings" in run.extra


def read_record(run: Run) -> Record:
    """The record of a run.

    Raises:
        InputError: it was not begun by `minilstm train`, or an entry cannot be what that wrote.
    """
    where = run.path / "config.json"
    names = [field.name for field in fields(Record)]
    if missing := [name for name in names if name not in run.extra]:
        raise InputError(f"{where} lacks {missing[0]}: the run was not begun by `minilstm train`")
    record = Record(**{name: run.extra[name] for name in names})
    check_positive_int(f"{where}: total_steps", record.total_steps)
    if record.threads is not None:
        check_positive_int(f"{where}: threads", record.threads)
    for name, kinds in _KINDS.items():
        if not isinstance(getattr(record, name), kinds):
            raise InputError(f"{where}: {name} cannot be {quote(getattr(record, name))}")
    return replace(record, settings=settings.check_recorded(record.settings, where))


def first_token(run: Run) -> str:
    """With which a sample begins: the training text's first token, or else a symbol."""
    if has_record(run):
        return read_record(run).first_token
    vocab = run.vocabulary
    return next((symbol for symbol in vocab.symbols if symbol != vocab.unknown), vocab.symbols[0])


def versions() -> dict[str, str]:
    """Of what computes, by name."""
    return {
        "minilstm": minilstm.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def digests(corpus: Corpus) -> dict[str, str]:
    """Part -> SHA-256 of its ids, the same on every machine."""
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    return {
        part: hashlib.sha256(ids.astype(ids.dtype.newbyteorder("<"), copy=False).data).hexdigest()
        for part, ids in parts.items()
        if ids is not None
    }


def check_text(record: Record, corpus: Corpus) -> None:
    """Raise an InputError unless the corpus is the text that the run was begun with."""
    if digests(corpus) == record.text:
        return
    if corpus.name == record.corpus:
        raise InputError(f"data: {quote(corpus.name)} has changed since the run was begun")
    was, got = quote(record.corpus), quote(corpus.name)
    raise InputError(f"data: the run has {was}, got {got}, which is another text")
