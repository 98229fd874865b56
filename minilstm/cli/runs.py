"""What several verbs do with settings and runs: prepare, record, read back, describe."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import minilstm
from minilstm import checkpoint, settings, training
from minilstm.backend import choose_device
from minilstm.checkpoint import Run
from minilstm.errors import InputError, check_positive_int, quote
from minilstm.generation import check_sampling
from minilstm.language_model import LanguageModel
from minilstm.memory import estimate_memory
from minilstm.model import ModelConfig
from minilstm.text.corpora import Corpus
from minilstm.text.vocabulary import Vocabulary
from minilstm.train_config import TrainConfig

_MOST = 1 << 48  # bytes; more is a slip of the keyboard

# The entries that `minilstm train` adds to config.json when a run begins
_RECORD: dict[str, Any] = {
    "settings": dict,  # all of them, flat
    "total_steps": int,
    "init_from": str | None,  # the run whose weights it began with
    "corpus": str,  # its name or path
    "text": dict,  # part -> SHA-256 of its ids: the text is known again wherever it lies
    "notes": list,  # facts about the text
    "unigram_entropy": float,  # of its training part
    "first_token": str,  # of the training text; samples begin with it
    "versions": dict,
    "device": str,
    "threads": int | None,
}


@dataclass(frozen=True)
class Setup:
    """A training run, but for its weights.

    Attributes:
        settings: all of them, flat.
        corpus: the text as ids. model, train: the configs. device, dtype: where, and what.
    """

    settings: dict[str, Any]
    corpus: Corpus
    model: ModelConfig
    train: TrainConfig
    device: str
    dtype: np.dtype[Any]

    @property
    def steps(self) -> int | None:
        """Training steps in all; None where minutes are yet to be timed."""
        if self.train.minutes is not None:
            return None
        return training.counted_steps(self.corpus.train, self.train)

    @property
    def batch(self) -> tuple[int, int]:
        """Sequences B and steps T of the largest batch, which a short text makes smaller."""
        B, pairs = self.train.batch_size, len(self.corpus.train) - 1
        T = min(self.train.seq_len, pairs)
        return (B if self.train.batching == "random" else min(B, max(1, pairs // T))), T

    @property
    def memory(self) -> dict[str, int]:
        """Bytes by name, of a training step."""
        validates, optimizer = self.corpus.valid is not None, self.train.optimizer
        return estimate_memory(
            self.model, *self.batch, self.dtype.itemsize, optimizer, keep_best=validates
        )

    def lines(self, steps: int | None) -> Iterator[str]:
        """What one wants to know before so many steps of training, one line each."""
        corpus, V = self.corpus, self.model.vocab_size
        yield from corpus.notes
        valid = 0 if corpus.valid is None else len(corpus.valid)
        train = f"{len(corpus.train):,} {'words' if corpus.level == 'word' else 'characters'}"
        yield f"{corpus.name}: {train} to train on, {valid:,} to validate on, {V:,} distinct"
        guess, entropy = f"uniform guess ln {V} = {math.log(V):.3f}", corpus.unigram_entropy()
        yield f"loss in nats per {corpus.level}: {guess}, unigram entropy {entropy:.3f}"
        yield from size_lines(self.model, self.batch, self.dtype, self.memory)
        if steps is None:
            yield f"as many steps as {self.train.minutes} minutes hold, on {self.device}"
        else:
            epochs = steps / training.steps_per_epoch(corpus.train, self.train)
            yield f"{steps:,} steps, {epochs:.3g} epochs, on {self.device}"


def size_lines(
    model: ModelConfig, batch: tuple[int, int], dtype: np.dtype[Any], memory: dict[str, int]
) -> Iterator[str]:
    """How large a model is, and what a training step with it takes."""
    yield f"{sum(map(math.prod, model.parameter_shapes().values())):,} parameters, {dtype}"
    parts = ", ".join(f"{k} {in_bytes(size)}" for k, size in memory.items() if k != "total")
    total, (B, T) = in_bytes(memory["total"]), batch
    yield f"memory of a training step with {B} x {T} tokens: {total} ({parts})"


def in_bytes(size: int) -> str:
    """
    >>> in_bytes(2_500_000), in_bytes(7_140_000_000)
    ('2.5 MB', '7.1 GB')
    """
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def prepare(given: Mapping[str, Any], vocab: Vocabulary | None = None) -> Setup:
    """Complete the settings with the defaults, read the text and check all there is to check.

    Args:
        given: flat settings, `data` among them.
        vocab: numbers the text; None makes a vocabulary from it.
    Raises:
        InputError: whatever is wrong with them.
    """
    flat = settings.complete(given)
    own = {table: settings.of_table(table, flat) for table in settings.TABLES}
    train, run = TrainConfig(**own["train"]), settings.RunConfig(**own["run"])
    ModelConfig(vocab_size=1, **own["model"])  # may be refused before the text is read
    device = choose_device(run.device)
    corpus = settings.DataConfig(**own["data"]).load(vocab)
    if len(corpus.train) < 2:
        raise InputError(f"need a text of at least 2 tokens to train on, got {len(corpus.train)}")
    model = ModelConfig(vocab_size=len(corpus.vocab), **own["model"])
    check_sampling(**own["sample"], V=model.vocab_size)
    setup = Setup(flat, corpus, model, train, device, np.dtype(run.dtype))
    if setup.memory["total"] > _MOST:
        raise InputError("a step would take more memory than any machine has: see hidden_size, "
                         "embedding_size, num_layers, batch_size and seq_len")  # fmt: skip
    return setup


def record(
    setup: Setup, total_steps: int, init_from: str | None, threads: int | None
) -> dict[str, Any]:
    """The entries of config.json for a run that begins now."""
    corpus = setup.corpus
    return {
        "settings": setup.settings,
        "total_steps": total_steps,
        "init_from": init_from,
        "corpus": corpus.name,
        "text": _digests(corpus),
        "notes": list(corpus.notes),
        "unigram_entropy": corpus.unigram_entropy(),
        "first_token": corpus.vocab.decode(corpus.train[:1]),
        "versions": versions(),
        "device": setup.device,
        "threads": threads,
    }


def has_record(run: Run) -> bool:
    """Whether the run was begun by `minilstm train`, not by a program."""
    return "settings" in run.extra


def read_record(run: Run) -> dict[str, Any]:
    """What `record` wrote.

    Raises:
        InputError: the run was begun by a program, or an entry cannot be what `record` wrote.
    """
    where = run.path / "config.json"
    for name, kind in _RECORD.items():
        if name not in run.extra:
            raise InputError(f"{where} lacks {name}: the run was not begun by `minilstm train`")
        if not isinstance(run.extra[name], kind):
            raise InputError(f"{where}: {name} cannot be {quote(run.extra[name])}")
    check_positive_int(f"{where}: total_steps", run.extra["total_steps"])
    check_positive_int(f"{where}: threads", run.extra["threads"] or 1)
    return run.extra | {"settings": settings.check_recorded(run.extra["settings"], where)}


def first_token(run: Run) -> str:
    """With which a sample begins: the training text's first token, or else a symbol."""
    if has_record(run):
        return str(read_record(run)["first_token"])
    vocab = run.vocabulary
    return next((symbol for symbol in vocab.symbols if symbol != vocab.unknown), vocab.symbols[0])


def check_text(recorded: Mapping[str, Any], corpus: Corpus) -> None:
    """Raise an InputError unless the corpus is the text that the run was begun with."""
    was, got = quote(recorded["corpus"]), quote(corpus.name)
    if _digests(corpus) == recorded["text"]:
        return
    if was == got:
        raise InputError(f"data: {got} has changed since the run was begun")
    raise InputError(f"data: the run has {was}, got {got}, which is another text")


def _digests(corpus: Corpus) -> dict[str, str]:
    """Part -> SHA-256 of its ids, the same on every machine."""
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    return {
        part: hashlib.sha256(ids.astype(ids.dtype.newbyteorder("<"), copy=False).data).hexdigest()
        for part, ids in parts.items()
        if ids is not None
    }


def load_run(path: str, device: str | None) -> tuple[Run, LanguageModel]:
    """A run and its best model, or its last where none is the best yet."""
    device = choose_device(device)
    run = checkpoint.read_run(path)
    which: checkpoint.Pointer = "best" if checkpoint.has_checkpoint(run, "best") else "last"
    if not checkpoint.has_checkpoint(run, which):
        raise InputError(f"{path} holds no checkpoint yet")
    params = checkpoint.read_checkpoint(run, which, weights_only=True).params
    return run, LanguageModel(run.config, params, run.vocabulary).to(device)


def versions() -> dict[str, str]:
    """Of what computes, by name."""
    own, python = minilstm.__version__, platform.python_version()
    return {"minilstm": own, "numpy": np.__version__, "python": python}


def blas_threads() -> int | None:
    """How many threads NumPy's matrix products use; None where that cannot be told."""
    from threadpoolctl import threadpool_info

    libraries = (library for library in threadpool_info() if library["user_api"] == "blas")
    return max((library["num_threads"] for library in libraries), default=None)
