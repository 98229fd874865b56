"""From settings to all that a run needs, worked out and checked before anything is written."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilstm import settings
from minilstm.backend import choose_device
from minilstm.errors import InputError, IntArray, printable
from minilstm.generation import check_sampling
from minilstm.memory import estimate_memory
from minilstm.model import ModelConfig
from minilstm.settings import DataConfig, RunConfig, SampleConfig
from minilstm.text.corpora import Corpus
from minilstm.text.vocabulary import Vocabulary
from minilstm.train_config import TrainConfig

_MOST = 1 << 48  # bytes; more is a slip of the keyboard
_TOKENS = {"char": "characters", "word": "words"}


@dataclass(frozen=True)
class Setup:
    """A training run, but for its weights.

    Attributes:
        settings: all of them, flat.
        corpus: the text as ids. model, train: the configs. device, dtype: where, and what.
        memory: bytes by name, as `estimate_memory` returns them.
    """

    settings: dict[str, Any]
    corpus: Corpus
    model: ModelConfig
    train: TrainConfig
    device: str
    dtype: np.dtype[Any]
    memory: dict[str, int]

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.model.parameter_shapes().values())

    def lines(self) -> Iterator[str]:
        """What one wants to know before training, one line each."""
        corpus, V = self.corpus, self.model.vocab_size
        yield from corpus.notes
        valid = len(corpus.valid) if corpus.valid is not None else 0
        yield (
            f"{corpus.name}: {len(corpus.train):,} {_TOKENS[corpus.level]} to train on, "
            f"{valid:,} to validate on, {V:,} distinct"
        )
        yield (
            f"nats per {corpus.level}: uniform guess ln {V} = {math.log(V):.3f}, "
            f"unigram entropy {corpus.unigram_entropy():.3f}"
        )
        yield (
            f"{self.parameters:,} parameters in {self.dtype} on {self.device}; "
            f"a step takes {in_bytes(self.memory['total'])} of memory"
        )


def prepare(given: Mapping[str, Any], vocab: Vocabulary | None = None) -> Setup:
    """Complete the settings with the defaults, read the text and check all there is to check.

    Args:
        given: flat settings, `data` among them.
        vocab: numbers the text; None makes a vocabulary from it.
    Raises:
        InputError: whatever is wrong with them.
    """
    flat = settings.complete(given)
    data, train, run, sample = (
        kind(**settings.of_table(table, flat))
        for table, kind in settings.TABLES.items()
        if kind is not ModelConfig
    )
    assert isinstance(data, DataConfig) and isinstance(train, TrainConfig)
    assert isinstance(run, RunConfig) and isinstance(sample, SampleConfig)
    ModelConfig(vocab_size=1, **settings.of_table("model", flat))  # before the text is read
    device, dtype = choose_device(run.device), np.dtype(run.dtype)
    corpus = data.load(vocab)
    V = len(corpus.vocab)
    model = ModelConfig(vocab_size=V, **settings.of_table("model", flat))
    check_sampling(sample.temperature, sample.top_k, sample.top_p, V)
    B, T = batch_shape(corpus.train, train)
    validates = corpus.valid is not None
    memory = estimate_memory(model, B, T, dtype.itemsize, train.optimizer, validates)
    if memory["total"] > _MOST:
        raise InputError("a step would take more memory than any machine has: see hidden_size, "
                         "embedding_size, num_layers, batch_size and seq_len")  # fmt: skip
    return Setup(flat, corpus, model, train, device, dtype, memory)


def batch_shape(ids: IntArray, config: TrainConfig) -> tuple[int, int]:
    """Sequences B and steps T of the largest batch, which a short text makes smaller."""
    if len(ids) < 2:
        raise InputError(f"need a text of at least 2 tokens to train on, got {len(ids)}")
    pairs = len(ids) - 1
    T = min(config.seq_len, pairs)
    most = config.batch_size if config.batching == "random" else max(1, pairs // T)
    return min(config.batch_size, most), T


def in_bytes(size: int) -> str:
    """
    >>> in_bytes(2_500_000), in_bytes(7_140_000_000)
    ('2.5 MB', '7.1 GB')
    """
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def blas_threads() -> int | None:
    """How many threads NumPy's matrix products use; None where that cannot be told."""
    from threadpoolctl import threadpool_info

    libraries = (library for library in threadpool_info() if library["user_api"] == "blas")
    return max((library["num_threads"] for library in libraries), default=None)


def tell(line: str) -> None:
    """One line on stderr, where progress goes."""
    print(printable(line), file=sys.stderr)
