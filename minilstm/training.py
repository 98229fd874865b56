"""The training loop behind the command line: batches, step, evaluation, checkpoints, resume.

examples/train_hello.py shows the step alone. What is added here is what a run of an hour needs:
it measures itself on held-out text, keeps its best and its last state, stops on a number that is
no number, and goes on after an interruption as if there had been none.

Everything random comes from one seed: SeedSequence(seed, spawn_key=(purpose, n)). The masks of
step n are a function of the seed and n alone, and so are the batches; neither evaluating nor
sampling draws from them, so to do so more often never changes the weights, and a resumed run needs
no generator's state.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from minilstm import checkpoint as checkpoints
from minilstm.backend import Array, get_array_module, is_on_host, like, to_host
from minilstm.checks import State
from minilstm.errors import InputError, IntArray, check_number, printable
from minilstm.evaluation import Evaluation, evaluate, perplexity
from minilstm.language_model import LanguageModel
from minilstm.metrics import append_row, keep_rows, read_rows
from minilstm.model import Params, loss_and_grads
from minilstm.optim import Plateau, clip_and_tensor_norms, step_decay, warmup_cosine
from minilstm.text.batching import (
    Batch,
    contiguous_streams,
    random_windows,
    shuffled_windows,
)
from minilstm.text.corpora import Corpus
from minilstm.train_config import TrainConfig

INIT, DATA, DROPOUT, SAMPLE = range(4)  # purposes of random streams
_READ_EVERY = 50  # steps between two looks at losses and norms that wait on a GPU


def random_stream(seed: int, purpose: int, n: int = 0) -> np.random.Generator:
    """The generator for one purpose (INIT, DATA, DROPOUT, SAMPLE) and its n-th use."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, n)))


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        steps: taken in all. seconds: of training, evaluation and checkpoints aside.
        reason: "finished", "patience" or "interrupted".
        best_step: the step whose weights the model now has: those with the lowest validation loss,
            or the last where nothing validates.
        best, last: the best and the last weights on the whole validation text; None without one,
            and after an interruption.
    """

    steps: int
    seconds: float
    reason: str
    best_step: int
    best: Evaluation | None
    last: Evaluation | None


def is_finished(last: checkpoints.Checkpoint, config: TrainConfig, total: int) -> bool:
    """Whether a run whose last checkpoint this is has nothing left to do: all steps are taken, or
    it has stopped for lack of improvement."""
    patience = config.patience
    bad_evaluations: int = last.progress.get("bad_evaluations", 0)
    return last.step >= total or (patience is not None and bad_evaluations >= patience)


class NonFiniteError(ArithmeticError):
    """A loss or gradient is NaN or infinite. The message names the step and the first tensor."""


def steps_within(minutes: float, step: Callable[[], object], trials: int = 10) -> int:
    """How many calls of `step` fit into so many minutes, from the median of a few timed ones.

    A clock is looked at here, once, and never again: a run whose number of steps is fixed can be
    repeated, and its learning-rate schedule knows where it ends.

    Args:
        minutes: a finite number above 0.
        step: does what a training step does, on throw-away parameters, and waits for the device.
        trials: how many calls are timed.
    Returns:
        At least 1.
    Raises:
        InputError: minutes is not a finite number above 0.
    """
    check_number("minutes", minutes, "above 0", lambda x: x > 0)
    step(), step()  # the first calls pay for caches and allocations
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return max(1, int(60 * minutes / statistics.median(seconds)))


def total_steps(model: LanguageModel, ids: IntArray, config: TrainConfig) -> int:
    """The number of steps that config's steps, epochs or minutes come to; decided once per run."""
    if config.minutes is None:
        return counted_steps(ids, config)
    params = {name: p.copy() for name, p in model.params.items()}
    optimizer = config.make_optimizer()
    inputs, targets, _ = next(batches(ids, config))
    rng = random_stream(config.seed, DROPOUT)

    def step() -> None:
        there = like(inputs, params["fc.b"]), like(targets, params["fc.b"])
        loss, grads, _ = loss_and_grads(params, model.config, *there, rng=rng)
        clip_and_tensor_norms(grads, config.clip)
        optimizer.step(params, grads)
        float(loss)

    return steps_within(config.minutes, step)


def counted_steps(ids: IntArray, config: TrainConfig) -> int:
    """The number of steps that config's steps or epochs come to."""
    if config.steps is not None:
        return config.steps
    return max(1, math.ceil((config.epochs or 1) * steps_per_epoch(ids, config)))


def steps_per_epoch(ids: IntArray, config: TrainConfig) -> int:
    """Steps that read the text once; for random windows, as many targets as it has."""
    B, T = config.batch_size, min(config.seq_len, len(ids) - 1)
    if config.batching == "streams":
        return len(contiguous_streams(ids, B, T))
    if config.batching == "shuffled":
        return len(shuffled_windows(ids, B, T, random_stream(config.seed, DATA)))
    return math.ceil((len(ids) - 1) / (B * T))


def batches(ids: IntArray, config: TrainConfig, first: int = 0) -> Iterator[Batch]:
    """The batches of steps first, first + 1, … without end: a function of seed and step alone."""
    B, T = config.batch_size, min(config.seq_len, len(ids) - 1)
    if config.batching == "random":
        for step in itertools.count(first):
            yield from random_windows(ids, B, T, 1, random_stream(config.seed, DATA, step))
    epoch, skip = divmod(first, steps_per_epoch(ids, config))
    streams = contiguous_streams(ids, B, T) if config.batching == "streams" else None
    for n in itertools.count(epoch):
        one_pass = streams or shuffled_windows(ids, B, T, random_stream(config.seed, DATA, n))
        yield from itertools.islice(one_pass, skip, None)
        skip = 0


def train(
    model: LanguageModel,
    corpus: Corpus,
    config: TrainConfig,
    out: str | os.PathLike[str] | checkpoints.Run | None = None,
    *,
    resume: bool = False,
    total: int | None = None,
    say: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train the model on the corpus; afterwards it has the weights with the best validation loss.

    Args:
        model: its parameters are updated in place, wherever they live.
        corpus: training text and, if it has one, validation text.
        config: how.
        out: a folder to begin a run in, or a run that has been begun: for checkpoints ("best",
            "last"), metrics.csv, and loss.png at the end. None keeps everything in memory.
        resume: go on from the run's last checkpoint, if it has one. The folder then holds a run.
        total: the number of steps, if `total_steps` has been asked already.
        say: takes each line of progress; None prints them on stderr.
        should_stop: asked after each step; True saves a checkpoint and ends the run.
    Returns:
        How it ended, and the two final evaluations.
    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite. No checkpoint holds anything later.
        InputError: the checkpoint to resume from is damaged or of another run.
    """
    for part in ("train", "valid"):
        ids = getattr(corpus, part)
        if ids is not None and len(ids) < 2:
            raise InputError(f"the {part} part must have at least 2 tokens, got {len(ids)}")
    with thread_limit(config.threads):
        if total is None:
            total = total_steps(model, corpus.train, config)
        if isinstance(out, str | os.PathLike):
            how = {"train": asdict(config), "corpus": corpus.name, "total_steps": total}
            if resume and checkpoints.holds_run(out):
                out = checkpoints.read_run(out)
            else:
                out = checkpoints.write_run(out, model.config, model.vocab, how)
        run = _Run(model, corpus, config, out, total, say)
        if resume:
            run.restore()
        return run.go(should_stop)


def thread_limit(threads: int | None) -> Any:
    """Context: NumPy's matrix products use so many threads; None leaves them as they are."""
    if threads is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads, user_api="blas")


class _Run:
    """One run of `train`: what it is about, and everything that changes while it goes on."""

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        config: TrainConfig,
        out: checkpoints.Run | None,
        total: int,
        say: Callable[[str], None] | None,
    ) -> None:
        self.model, self.corpus, self.config = model, corpus, config
        self.out, self.total = out, total
        self.optimizer = config.make_optimizer()
        self.plateau = Plateau(config.lr, config.decay_factor, config.decay_patience)
        self.state: State | None = None
        self.step = self.tokens = self.best_step = self.bad_evaluations = 0
        self.seconds = 0.0
        self.best_loss = math.inf
        self.best_params: Params | None = None
        self.losses: list[float] = []  # since the last row of metrics.csv
        self.norm = math.nan
        self.unread: list[tuple[int, Array, Array, Array]] = []  # step, loss, norm, tensors' norms
        self.saved: tuple[int, str] | None = None  # step and name of the newest checkpoint
        self.eval_every = config.eval_every or max(1, total // 20)
        self.row_every = max(1, self.eval_every // 10)
        self._say = say
        self._bar: Any = None

    def go(self, should_stop: Callable[[], bool]) -> TrainResult:
        from tqdm import tqdm

        reason = "finished"
        self._bar = tqdm(total=self.total, initial=self.step, unit="step", disable=None)
        with self._bar:
            for batch in batches(self.corpus.train, self.config, self.step):
                if self.step >= self.total or self.out_of_patience():
                    break
                started = time.perf_counter()
                self.train_step(*batch)
                if self.step % self.row_every == 0:
                    self.read()  # waits for a GPU, which is part of the time that training takes
                self.seconds += time.perf_counter() - started
                self._bar.update()
                last = self.step == self.total
                if self.step % self.eval_every == 0 or last:
                    self.validate()
                elif self.step % self.row_every == 0:
                    self.write_row(None)
                every = self.config.checkpoint_every or self.eval_every
                if self.step % every == 0:
                    self.save("last")
                if self.config.sample_every and self.step % self.config.sample_every == 0:
                    self.sample()
                if should_stop() and not last and not self.out_of_patience():
                    reason = "interrupted"
                    break
        self.save("last")
        if reason == "interrupted":
            return TrainResult(self.step, self.seconds, reason, self.best_step, None, None)
        return self.finish("patience" if self.out_of_patience() else reason)

    def out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.bad_evaluations >= patience

    def train_step(self, inputs: IntArray, targets: IntArray, starts: bool) -> None:
        params, config = self.model.params, self.config
        rng = random_stream(config.seed, DROPOUT, self.step)
        loss, grads, self.state = loss_and_grads(
            params,
            self.model.config,
            like(inputs, params["fc.b"]),
            like(targets, params["fc.b"]),
            None if starts else self.state,
            rng=rng,
        )
        norm, tensor_norms = clip_and_tensor_norms(grads, config.clip)
        self.unread.append((self.step, loss, norm, tensor_norms))
        # On the CPU a look costs nothing, so a NaN never reaches the parameters. A GPU would have
        # to be waited for: there the numbers queue up, and are read before anything is saved.
        if is_on_host(norm) or len(self.unread) == _READ_EVERY:
            self.read()
        self.optimizer.lr = self.rate()
        self.optimizer.step(params, grads)
        self.step += 1
        self.tokens += targets.size

    def rate(self) -> float:
        config = self.config
        if config.schedule == "cosine":
            return warmup_cosine(
                self.step, self.total, config.lr, config.warmup_steps, config.final_lr
            )
        if config.schedule == "step":
            return step_decay(self.step, config.lr, config.decay_every, config.decay_factor)
        return self.plateau.lr

    def read(self) -> None:
        """Bring losses and norms to the host. Raises NonFiniteError for the first bad one."""
        for step, loss, norm, tensor_norms in self.unread:
            bad = np.flatnonzero(~np.isfinite(to_host(tensor_norms)))
            if len(bad) or not math.isfinite(float(loss)):
                # Of several bad gradients the last in order is the first that backward made.
                names = list(self.model.config.parameter_shapes())
                finite_loss = math.isfinite(float(loss))
                name = f"gradient of {names[bad[-1]]}" if finite_loss else "loss"
                raise NonFiniteError(
                    f"the {name} is not finite at step {step} (loss {float(loss):.4g}): "
                    "a smaller lr or clip may help; the checkpoints before it are intact"
                )
            self.losses.append(float(loss))
            self.norm = float(norm)
        self.unread.clear()

    def validate(self) -> None:
        """Score the validation text; save the weights if they are the best so far."""
        self.read()
        valid = self.corpus.valid
        if valid is None:
            for name, p in self.model.params.items():
                if not bool(get_array_module(p).isfinite(p).all()):
                    raise NonFiniteError(f"{name} is not finite after step {self.step}")
            self.write_row(None)
            self.best_step = self.step
            return
        score = evaluate(
            self.model.params,
            self.model.config,
            valid[: self.config.eval_tokens + 1],
            self.config.eval_streams,
        )
        if not math.isfinite(score.loss):
            raise NonFiniteError(f"the validation loss is {score.loss} after step {self.step}")
        self.write_row(score.loss)
        if self.config.schedule == "plateau":
            self.plateau.observe(score.loss)
        if score.loss < self.best_loss:
            self.best_loss, self.best_step, self.bad_evaluations = score.loss, self.step, 0
            self.best_params = {name: to_host(p).copy() for name, p in self.model.params.items()}
            self.save("best")
        else:
            self.bad_evaluations += 1

    def save(self, which: Literal["best", "last"]) -> None:
        """Write a checkpoint and point `which` ("best" or "last") at it."""
        self.read()
        if self.out is None:
            return
        if self.saved is None or self.saved[0] != self.step:
            self.saved = (self.step, checkpoints.write_checkpoint(self.out, self.checkpoint()))
        checkpoints.point(self.out, which, self.saved[1])
        if self.corpus.valid is None:
            checkpoints.point(self.out, "best", self.saved[1])
        checkpoints.prune(self.out)

    def checkpoint(self) -> checkpoints.Checkpoint:
        """All that the rest of the run depends on."""
        progress = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "best_step": self.best_step,
            "bad_evaluations": self.bad_evaluations,
            "plateau": self.plateau.state_dict(),
            "losses": self.losses,
        }
        return checkpoints.Checkpoint(
            self.step, self.model.params, self.optimizer.state_dict(), self.state, progress
        )

    def restore(self) -> None:
        """Continue from the run folder's last checkpoint, if there is one."""
        if self.out is None:
            return
        if not checkpoints.has_checkpoint(self.out, "last"):
            keep_rows(self.out.path / "metrics.csv", 0)
            return
        there = self.model.params["fc.b"]
        last = checkpoints.read_checkpoint(self.out, "last")
        if last.optimizer is None:
            raise InputError(
                f"{self.out.path} holds weights without the optimizer's state: they can begin a "
                "new run (--init-from), but not go on with one"
            )
        self.load_params(last.params)
        self.optimizer.load_state_dict(_map_moments(last.optimizer, there))
        if last.carry is not None:
            self.state = like(last.carry[0], there), like(last.carry[1], there)
        progress = last.progress
        self.step, self.tokens, self.seconds = last.step, progress["tokens"], progress["seconds"]
        self.best_step, self.bad_evaluations = progress["best_step"], progress["bad_evaluations"]
        self.losses = list(progress["losses"])
        self.plateau.load_state_dict(progress["plateau"])
        if progress["best_loss"] is not None:
            self.best_loss = progress["best_loss"]
            self.best_params = checkpoints.read_checkpoint(self.out, "best").params
        keep_rows(self.out.path / "metrics.csv", self.step)

    def load_params(self, params: Params) -> None:
        for name, p in self.model.params.items():
            p[...] = like(params[name], p)

    def finish(self, reason: str) -> TrainResult:
        """Score the last and the best weights on the whole validation text; keep the best."""
        valid, streams = self.corpus.valid, self.config.eval_streams
        best = last = None
        if valid is not None:
            best = last = evaluate(self.model.params, self.model.config, valid, streams)
            if self.best_params is not None and self.best_step != self.step:
                self.load_params(self.best_params)
                best = evaluate(self.model.params, self.model.config, valid, streams)
        if self.out is not None:
            self.draw()
        return TrainResult(self.step, self.seconds, reason, self.best_step, best, last)

    def draw(self) -> None:
        """loss.png from metrics.csv."""
        from minilstm import plots

        assert self.out is not None
        rows = read_rows(self.out.path / "metrics.csv")
        unigram = self.corpus.unigram_entropy()
        ax = plots.loss_of_run(rows, self.model.config.vocab_size, unigram=unigram)
        plots.save(ax, self.out.path / "loss.png")

    def write_row(self, valid_loss: float | None) -> None:
        """One row of metrics.csv, and where the run is watched, a line."""
        self.read()
        train_loss = statistics.fmean(self.losses) if self.losses else None
        self.losses = []
        values = (self.step, self.tokens, self.optimizer.lr, train_loss, valid_loss, self.norm,
                  round(self.seconds, 3))  # fmt: skip
        if self.out is not None:
            append_row(self.out.path / "metrics.csv", values)
        if valid_loss is not None or self._bar.disable:
            line = f"step {self.step:>{len(str(self.total))}} of {self.total}"
            line += f"  train {train_loss:.4f}" if train_loss is not None else ""
            if valid_loss is not None:
                line += f"  valid {valid_loss:.4f}  perplexity {perplexity(valid_loss):.2f}"
            self.say(f"{line}  lr {self.optimizer.lr:.2e}  norm {self.norm:.3f}")

    def sample(self) -> None:
        """Print a continuation of the training text's first token; draws from nothing of ours."""
        self.read()
        prompt = self.model.vocab.decode(self.corpus.train[:1])
        text = self.model.generate(prompt, self.config.sample_length, seed=self.step)
        self.say(f"--- a sample after {self.step} steps ---\n{text}\n---")

    def say(self, line: str) -> None:
        if self._say is not None:
            self._say(line)
        else:
            self._bar.write(printable(line), file=sys.stderr)


def _map_moments(state: dict[str, Any] | None, reference: Array) -> dict[str, Any]:
    """An optimizer's state with its arrays where `reference` lives."""
    return {
        key: value if key == "steps" else {name: like(x, reference) for name, x in value.items()}
        for key, value in (state or {}).items()
    }
