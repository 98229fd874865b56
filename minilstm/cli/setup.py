"""From settings to all that a run needs, worked out and checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilstm import settings
from minilstm.backend import choose_device
from minilstm.checkpoint import Pointer, Run, has_checkpoint, read_checkpoint, read_run
from minilstm.errors import InputError, IntArray
from minilstm.generation import check_sampling
from minilstm.language_model import LanguageModel
from minilstm.memory import estimate_memory
from minilstm.model import ModelConfig
from minilstm.settings import DataConfig, RunConfig, SampleConfig
from minilstm.text.corpora import Corpus
from minilstm.text.vocabulary import Vocabulary
from minilstm.train_config import TrainConfig
from minilstm.training import counted_steps, steps_per_epoch

_MOST = 1 << 48  # bytes; more is a slip of the keyboard


@dataclass(frozen=True)
class Setup:
    """A training run, but for its weights.

    Attributes:
        settings: all of them, flat.
        corpus: the text as ids. model, train: the configs. device, dtype: where, and what.
        batch: sequences B and steps T of the largest batch.
        memory: bytes by name, as `estimate_memory` returns them.
    """

    settings: dict[str, Any]
    corpus: Corpus
    model: ModelConfig
    train: TrainConfig
    device: str
    dtype: np.dtype[Any]
    batch: tuple[int, int]
    memory: dict[str, int]

    @property
    def steps(self) -> int | None:
        """Training steps in all; None where minutes are yet to be timed."""
        if self.train.minutes is not None:
            return None
        return counted_steps(self.corpus.train, self.train)

    def lines(self, steps: int | None) -> Iterator[str]:
        """What one wants to know before so many steps of training, one line each."""
        corpus, V = self.corpus, self.model.vocab_size
        yield from corpus.notes
        valid = len(corpus.valid) if corpus.valid is not None else 0
        tokens = {"char": "characters", "word": "words"}[corpus.level]
        yield (
            f"{corpus.name}: {len(corpus.train):,} {tokens} to train on, {valid:,} to validate on, "
            f"{V:,} distinct"
        )
        yield (
            f"loss in nats per {corpus.level}: uniform guess ln {V} = {math.log(V):.3f}, "
            f"unigram entropy {corpus.unigram_entropy():.3f}"
        )
        yield from size_lines(self.model, self.batch, self.dtype, self.memory)
        if steps is None:
            yield f"as many steps as {self.train.minutes} minutes hold, on {self.device}"
        else:
            epochs = steps / steps_per_epoch(corpus.train, self.train)
            yield f"{steps:,} steps, {epochs:.3g} epochs, on {self.device}"


def size_lines(
    model: ModelConfig, batch: tuple[int, int], dtype: np.dtype[Any], memory: dict[str, int]
) -> Iterator[str]:
    """How large a model is, and what a training step with it takes."""
    yield f"{sum(map(math.prod, model.parameter_shapes().values())):,} parameters, {dtype}"
    parts = ", ".join(f"{k} {in_bytes(size)}" for k, size in memory.items() if k != "total")
    total, (B, T) = in_bytes(memory["total"]), batch
    yield f"memory of a training step with {B} x {T} tokens: {total} ({parts})"


def prepare(given: Mapping[str, Any], vocab: Vocabulary | None = None) -> Setup:
    """Complete the settings with the defaults, read the text and check all there is to check.

    Args:
        given: flat settings, `data` among them.
        vocab: numbers the text; None makes a vocabulary from it.
    Raises:
        InputError: whatever is wrong with them.
    """
    flat = settings.complete(given)
    data = DataConfig(**settings.of_table("data", flat))
    train = TrainConfig(**settings.of_table("train", flat))
    run = RunConfig(**settings.of_table("run", flat))
    sample = SampleConfig(**settings.of_table("sample", flat))
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
    return Setup(flat, corpus, model, train, device, dtype, (B, T), memory)


def load_run(path: str, device: str | None) -> tuple[Run, LanguageModel]:
    """A run and its best model, or its last where none is the best yet."""
    device = choose_device(device)
    run = read_run(path)
    which: Pointer = "best" if has_checkpoint(run, "best") else "last"
    if not has_checkpoint(run, which):
        raise InputError(f"{path} holds no checkpoint yet")
    params = read_checkpoint(run, which, weights_only=True).params
    return run, LanguageModel(run.config, params, run.vocabulary).to(device)


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

