"""What several verbs do with settings and runs: prepare, record, read back, describe."""

import hashlib
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import minilstm as ml
from minilstm import checkpoint, generation, memory, settings, training
from minilstm.errors import InputError, check_positive_int, quote
from minilstm.threads import thread_limit
from minilstm.workers import TRAINING, processes

VERSIONS = {"minilstm": ml.__version__, "numpy": np.__version__,
            "python": platform.python_version()}  # fmt: skip
_MOST = 1 << 48  # bytes; more is a slip of the keyboard

# Of the entries that `minilstm train` adds to config.json those that are read back, and their types
_READ_BACK: dict[str, Any] = {
    "settings": dict, "total_steps": int, "init_from": str | None, "corpus": str, "text": dict,
    "unigram_entropy": float, "first_token": str, "threads": int | None}


@dataclass(frozen=True)
class Setup:
    """A training run, but for its weights.

    Attributes:
        settings: all of them, flat.
        corpus: the text as ids. model, train: the configs. device: where.
        batch: sequences B and steps T of the largest batch, which a short text makes smaller.
        memory: bytes by name, of a training step.
    """

    settings: dict[str, Any]
    corpus: ml.Corpus
    model: ml.ModelConfig
    train: ml.TrainConfig
    device: str
    batch: tuple[int, int]
    memory: dict[str, int]

    def lines(self, steps: int | None = None) -> Iterator[str]:
        """What one wants to know before training, one line each.

        Args:
            steps: how many there are; None: what the settings say, but no minutes are timed.
        """
        corpus, V, level = self.corpus, self.model.vocab_size, self.corpus.vocab.kind
        yield from corpus.notes
        valid = 0 if corpus.valid is None else len(corpus.valid)
        train = f"{len(corpus.train):,} {'words' if level == 'word' else 'characters'}"
        yield f"{corpus.name}: {train} to train on, {valid:,} to validate on, {V:,} distinct"
        guess, entropy = f"uniform guess ln {V} = {math.log(V):.3f}", corpus.unigram_entropy()
        yield f"loss in nats per {level}: {guess}, unigram entropy {entropy:.3f}"
        yield from size_lines(self.model, self.batch, self.settings["dtype"], self.memory)
        if steps is None and self.train.minutes is not None:
            yield f"as many steps as {self.train.minutes} minutes hold, on {self.device}"
        else:
            steps = steps or training.counted_steps(corpus.train, self.train)
            epochs = steps / training.steps_per_epoch(corpus.train, self.train)
            yield f"{steps:,} steps, {epochs:.3g} epochs, on {self.device}"


def memory_of(model: ml.ModelConfig, flat: Mapping[str, Any], batch: tuple[int, int],
              device: str, keep_best: bool = True) -> dict[str, int]:
    """estimate_memory, for as many processes as the batch would be shared out to here."""
    (B, T), units = batch, model.hidden_size * model.num_layers
    parameters = sum(map(math.prod, model.parameter_shapes().values()))
    with thread_limit(flat["threads"]):
        n = processes(parameters, B, T * B * units, TRAINING) if device == "cpu" else 1
    bytes_each = np.dtype(flat["dtype"]).itemsize
    return memory.estimate_memory(model, B, T, bytes_each, flat["optimizer"], keep_best, n)


def size_lines(model: ml.ModelConfig, batch: tuple[int, int], dtype: str,
               sizes: dict[str, int]) -> Iterator[str]:
    """How large a model is, and what a training step with it takes."""
    yield f"{sum(map(math.prod, model.parameter_shapes().values())):,} parameters, {dtype}"
    told = {name: f"{size / 1e6:,.1f} MB" for name, size in sizes.items()}
    B, T, total = *batch, told.pop("total")
    parts = ", ".join(f"{name} {size}" for name, size in told.items())
    yield f"memory of a training step with {B} x {T} tokens: {total} ({parts})"


def prepare(given: Mapping[str, Any], source: checkpoint.Run | None = None) -> Setup:
    """Complete the settings with the defaults, read the text and check all there is to check.

    Args:
        given: flat settings, `data` among them.
        source: a run whose vocabulary numbers the text; None makes one from it.
    Raises:
        InputError: whatever is wrong with them.
    """
    flat, vocab = settings.complete(given), source.vocabulary if source is not None else None
    own = {table: settings.of_table(table, flat) for table in settings.TABLES}
    train, run = ml.TrainConfig(**own["train"]), settings.RunConfig(**own["run"])
    ml.ModelConfig(vocab_size=1, **own["model"])  # may be refused before the text is read
    device = ml.choose_device(run.device)
    corpus = settings.DataConfig(**own["data"]).load(vocab)
    if (tokens := len(corpus.train)) < 2:
        raise InputError(f"need a text of at least 2 tokens to train on, got {tokens}")
    model = ml.ModelConfig(vocab_size=len(corpus.vocab), **own["model"])
    generation.check_sampling(**own["sample"], V=model.vocab_size)
    B, T = train.batch_size, min(train.seq_len, tokens - 1)
    if train.batching != "random":
        B = min(B, max(1, (tokens - 1) // T))
    validates = corpus.valid is not None
    sizes = memory_of(model, flat, (B, T), device, validates)
    if sizes["total"] > _MOST:
        raise InputError("a step would take more memory than any machine has: see hidden_size, "
                         "embedding_size, num_layers, batch_size and seq_len")  # fmt: skip
    return Setup(flat, corpus, model, train, device, (B, T), sizes)


def record(setup: Setup, total_steps: int, init_from: str | None,
           threads: int | None) -> dict[str, Any]:  # fmt: skip
    """The entries of config.json for a run that begins now."""
    corpus = setup.corpus
    return {
        "settings": setup.settings, "total_steps": total_steps,
        "init_from": init_from,  # the run whose weights it began with
        "corpus": corpus.name, "notes": list(corpus.notes),
        "text": _digests(corpus),  # it is known again wherever it lies
        "unigram_entropy": corpus.unigram_entropy(),
        "first_token": corpus.vocab.decode(corpus.train[:1]),  # samples begin with it
        "versions": VERSIONS, "device": setup.device, "threads": threads,
    }  # fmt: skip


def read_record(run: checkpoint.Run, needed: bool = False) -> dict[str, Any]:
    """What `record` wrote; where it is not needed, {} of a run that a program began.

    Raises:
        InputError: the run was begun by a program, or an entry cannot be what `record` wrote.
    """
    where, extra = run.path / "config.json", run.extra
    if "settings" not in extra and not needed:
        return {}
    for name, kind in _READ_BACK.items():
        if name not in extra:
            raise InputError(f"{where} lacks {name}: the run was not begun by `minilstm train`")
        if not isinstance(extra[name], kind):
            raise InputError(f"{where}: {name} cannot be {quote(extra[name])}")
    check_positive_int(f"{where}: total_steps", extra["total_steps"])
    check_positive_int(f"{where}: threads", extra["threads"] or 1)
    return extra | {"settings": settings.check_recorded(extra["settings"], where)}


def first_token(run: checkpoint.Run) -> str:
    """With which a sample begins: the training text's first token, or else a symbol."""
    vocab = run.vocabulary
    symbols = (symbol for symbol in vocab.symbols if symbol != vocab.unknown)
    return str(read_record(run).get("first_token", next(symbols, vocab.symbols[0])))


def check_text(recorded: Mapping[str, Any], corpus: ml.Corpus) -> None:
    """Raise an InputError unless the corpus is the text that the run was begun with."""
    if _digests(corpus) != recorded["text"]:
        was, got = quote(recorded["corpus"]), quote(corpus.name)
        another = f"the run has {was}, got {got}, which is another text"
        changed = f"{got} has changed since the run was begun"
        raise InputError(f"data: {changed if was == got else another}")


def _digests(corpus: ml.Corpus) -> dict[str, str]:
    """Part -> SHA-256 of its ids, the same on every machine."""
    parts = corpus.parts.items()
    same = {part: ids.astype(ids.dtype.newbyteorder("<")) for part, ids in parts}
    return {part: hashlib.sha256(ids.data).hexdigest() for part, ids in same.items()}


def load_run(path: str, device: str | None) -> tuple[checkpoint.Run, ml.LanguageModel]:
    """A run and its best model, or its last where none is the best yet."""
    run = checkpoint.read_run(path)
    which: checkpoint.Pointer = "best" if checkpoint.has_checkpoint(run, "best") else "last"
    if not checkpoint.has_checkpoint(run, which):
        raise InputError(f"{path} holds no checkpoint yet")
    params = checkpoint.read_checkpoint(run, which, weights_only=True).params
    return run, ml.LanguageModel(run.config, params, run.vocabulary).to(ml.choose_device(device))
