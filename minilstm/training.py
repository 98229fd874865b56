"""The training loop behind the command line: batches, step, evaluation, checkpoints, resume.

examples/train_hello.py shows the step alone. What is added here is what a run of an hour needs:
it measures itself on held-out text, keeps its best and its last state, stops on a number that is
no number, and goes on after an interruption as if there had been none.

Everything random comes from one seed: SeedSequence(seed, spawn_key=(purpose, n)). The masks of
step n are a function of the seed and n alone, and so are the batches; neither evaluating nor
sampling draws from them, so to do so more often never changes the weights, and a resumed run needs
no generator's state.
"""

import itertools
import math
import os
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minilstm import checkpoint as checkpoints
from minilstm.backend import Array, get_array_module, is_on_host, like, to_host
from minilstm.checks import State
from minilstm.errors import InputError, IntArray, check_number, printable, require
from minilstm.evaluation import Evaluation, evaluate
from minilstm.language_model import LanguageModel
from minilstm.metrics import append_row, keep_rows, read_rows
from minilstm.model import Params, loss_and_grads
from minilstm.optim import Plateau, clip_and_tensor_norms, step_decay, warmup_cosine
from minilstm.text.batching import Batch, contiguous_streams, random_windows, shuffled_windows
from minilstm.text.corpora import Corpus
from minilstm.threads import thread_limit
from minilstm.train_config import TrainConfig
from minilstm.workspace import Workspace

INIT, DATA, DROPOUT, SAMPLE = range(4)  # purposes of random streams
_READ_EVERY = 50  # steps at the most between two looks at what waits on a GPU


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


def reason_to_end(step: int, total: int, bad_evaluations: int, config: TrainConfig) -> str | None:
    """Why a run has nothing left to do after so many steps: "patience", "finished", or None."""
    if bad_evaluations >= (config.patience or math.inf):
        return "patience"
    return "finished" if step >= total else None


class NonFiniteError(ArithmeticError):
    """A loss or gradient is NaN or infinite. The message names the step and the first tensor."""


def steps_within(minutes: float, step: Callable[[], object], trials: int = 10) -> int:
    """How many calls of `step` fit into so many minutes, from the median of a few timed ones.

    A clock is looked at here, once, and never again: a run whose number of steps is fixed can be
    repeated, and its learning-rate schedule knows where it ends.

    Args:
        minutes: a finite number above 0.
        step: does what a training step does, on throw-away parameters, and waits for the device.
        trials: how many calls are timed at least; more, up to 50 times as many, until they have
            taken a fiftieth of the minutes: a machine's speed changes from second to second.
    Returns:
        At least 1.
    Raises:
        InputError: minutes is not a finite number above 0.
    """
    check_number("minutes", minutes, "above 0", lambda x: x > 0)
    step(), step()  # the first calls pay for caches and allocations
    time_calls = partial(timeit.repeat, step, timer=time.perf_counter, number=1)
    seconds = time_calls(repeat=trials)
    wanted = int(60 * minutes / 50 / statistics.median(seconds))
    seconds += time_calls(repeat=min(wanted, 50 * trials) - trials)
    return max(1, int(60 * minutes / statistics.median(seconds)))


def total_steps(model: LanguageModel, ids: IntArray, config: TrainConfig) -> int:
    """The number of steps that config's steps, epochs or minutes come to; decided once per run."""
    if config.minutes is None:
        return counted_steps(ids, config)
    params = {name: p.copy() for name, p in model.params.items()}
    optimizer, rng = config.make_optimizer(), random_stream(config.seed, DROPOUT)
    inputs, targets, _ = like(next(batches(ids, config)), params["fc.b"])
    workspace = Workspace()

    def step() -> None:
        loss, grads, _ = loss_and_grads(params, model.config, inputs, targets, rng=rng,
                                        workspace=workspace)
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


def train(model: LanguageModel, corpus: Corpus, config: TrainConfig,
          out: str | os.PathLike[str] | checkpoints.Run | None = None, *, resume: bool = False,
          total: int | None = None, say: Callable[[str], None] | None = None,
          should_stop: Callable[[], bool] = lambda: False) -> TrainResult:
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
    for part, ids in corpus.parts.items():
        fits = part == "test" or len(ids) >= 2
        require(fits, f"the {part} part must have at least 2 tokens", len(ids))
    # A run that was handed over is the caller's to lock.
    lock = checkpoints.locked(out) if isinstance(out, str | os.PathLike) else nullcontext()
    with thread_limit(config.threads), lock:
        total = total or total_steps(model, corpus.train, config)
        if isinstance(out, str | os.PathLike) and resume and checkpoints.holds_run(out):
            out = checkpoints.read_run(out)
        elif isinstance(out, str | os.PathLike):
            how = {"train": asdict(config), "corpus": corpus.name, "total_steps": total}
            out = checkpoints.write_run(out, model.config, model.vocab, how)
        run = _Run(model, corpus, config, out, total, say)
        if resume and out is not None:
            run.restore(out)
        return run.go(should_stop)


def begin_anew(state: State, step: int, every: int) -> None:
    """Let one stream, each in its turn, begin anew: its part of the state becomes zero, in place.

    A model that meets the zero state once per epoch drifts away from it, and validation, which
    begins there, shows it.

    Args:
        state: h and c, each (L, B, H), to be carried into the next step.
        step: counted from 0; which stream it is depends on nothing else.
        every: steps between two fresh starts of the same stream; at least B, one for each.
    """
    B = state[0].shape[1]
    if (stream := step % max(every, B)) < B:
        for part in state:
            part[:, stream] = 0


@dataclass
class _Progress:
    """What progress.json keeps of a run, besides its step and the plateau."""

    tokens: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    bad_evaluations: int = 0
    losses: list[float] = field(default_factory=list)  # since the last row of metrics.csv


class _Run:
    """One run of `train`: what it is about, and everything that changes while it goes on."""

    def __init__(self, model: LanguageModel, corpus: Corpus, config: TrainConfig,
                 out: checkpoints.Run | None, total: int,
                 say: Callable[[str], None] | None) -> None:
        self.model, self.corpus, self.config = model, corpus, config
        self.out, self.total, self._say = out, total, say
        self._bar: Any = None
        self.optimizer = config.make_optimizer()
        self.plateau = Plateau(config.lr, config.decay_factor, config.decay_patience)
        self.step, self.progress, self.norm = 0, _Progress(), math.nan
        self.state: State | None = None
        self.workspace = Workspace()
        self.best_params: Params | None = None
        self.unread: list[tuple[int, Array, Array, Array]] = []  # step, loss, norm, tensors' norms
        self.eval_every = config.eval_every or max(1, total // 20)
        self.place = None if out is None else os.stat(out.path)

    def go(self, should_stop: Callable[[], bool]) -> TrainResult:
        from tqdm import tqdm

        stream, reason = batches(self.corpus.train, self.config, self.step), self.reason()
        with tqdm(total=self.total, initial=self.step, unit="step", disable=None) as self._bar:
            while reason is None:
                batch, started = next(stream), time.perf_counter()
                self.train_step(*batch)
                validates = self.step % self.eval_every == 0 or self.step == self.total
                tenths = [10 * step // self.eval_every for step in (self.step - 1, self.step)]
                writes_row = validates or tenths[0] < tenths[1]  # ten rows from one to the next
                if writes_row:
                    self.read()  # waits for a GPU, which is part of the time that training takes
                self.progress.seconds += time.perf_counter() - started
                self._bar.update()
                valid = self.validate() if validates else None
                if writes_row:
                    self.write_row(valid, told=validates)
                improved = valid is not None and self.improves(valid.loss)
                reason = self.reason() or ("interrupted" if should_stop() else None)
                every = self.config.checkpoint_every or self.eval_every
                last = self.step % every == 0 or reason is not None
                if improved or last:
                    self.save(improved, last)
                if self.config.sample_every and self.step % self.config.sample_every == 0:
                    self.sample()
        return self.finish(reason)

    def say(self, line: str) -> None:
        if self._say is not None:
            self._say(line)
        else:
            self._bar.write(printable(line), file=sys.stderr)

    def reason(self) -> str | None:
        return reason_to_end(self.step, self.total, self.progress.bad_evaluations, self.config)

    def train_step(self, inputs: IntArray, targets: IntArray, starts: bool) -> None:
        params, config = self.model.params, self.config
        there, state = like((inputs, targets), params["fc.b"]), None if starts else self.state
        rng = random_stream(config.seed, DROPOUT, self.step)
        loss, grads, self.state = loss_and_grads(
            params, self.model.config, *there, state, rng=rng, workspace=self.workspace)
        if config.fresh_every:
            begin_anew(self.state, self.step, config.fresh_every)
        norm, tensor_norms = clip_and_tensor_norms(grads, config.clip)
        self.unread.append((self.step, loss, norm, tensor_norms))
        # On the CPU a look costs nothing, so a NaN never reaches the parameters. A GPU would have
        # to be waited for: there the numbers queue up, and are read before anything is saved.
        if is_on_host(norm) or len(self.unread) == _READ_EVERY:
            self.read()
        self.optimizer.lr = self.rate()
        self.optimizer.step(params, grads)
        self.step += 1
        self.progress.tokens += targets.size

    def rate(self) -> float:
        config, step = self.config, self.step
        if config.schedule == "cosine":
            return warmup_cosine(step, self.total, config.lr, config.warmup_steps, config.final_lr)
        if config.schedule == "step":
            return step_decay(step, config.lr, config.decay_every, config.decay_factor)
        return self.plateau.lr

    def read(self) -> None:
        """Bring losses and norms to the host. Raises NonFiniteError for the first bad one."""
        for step, loss, norm, tensor_norms in self.unread:
            loss, bad = float(loss), np.flatnonzero(~np.isfinite(to_host(tensor_norms)))
            if len(bad) or not math.isfinite(loss):
                # Of several bad gradients the last in order is the first that backward made.
                names = list(self.model.config.parameter_shapes())
                name = f"gradient of {names[bad[-1]]}" if math.isfinite(loss) else "loss"
                fault = f"the {name} is not finite at step {step} (loss {loss:.4g})"
                remedy = "a smaller lr or clip may help; the checkpoints before it are intact"
                raise NonFiniteError(f"{fault}: {remedy}")
            self.progress.losses.append(loss)
            self.norm = float(norm)
        self.unread.clear()

    def score(self, ids: IntArray) -> Evaluation:
        # Each stream starts from a zero state; in short ones there would be little else to see.
        streams = max(1, min(self.config.eval_streams, len(ids) // 256))
        return evaluate(self.model.params, self.model.config, ids, streams)

    def validate(self) -> Evaluation | None:
        """How the validation text is read; None without one. A bad loss is a NonFiniteError."""
        if self.corpus.valid is None:
            for name, p in self.model.params.items():
                if not bool(get_array_module(p).isfinite(p).all()):
                    raise NonFiniteError(f"{name} is not finite after step {self.step}")
            return None
        valid = self.score(self.corpus.valid[: self.config.eval_tokens + 1])
        if not math.isfinite(valid.loss):
            raise NonFiniteError(f"the validation loss is {valid.loss} after step {self.step}")
        return valid

    def improves(self, loss: float) -> bool:
        """Take a validation loss into account; whether these weights are the best so far."""
        progress = self.progress
        if self.config.schedule == "plateau":
            self.plateau.observe(loss)
        if progress.best_loss is not None and loss >= progress.best_loss:
            progress.bad_evaluations += 1
            return False
        progress.best_loss, progress.best_step, progress.bad_evaluations = loss, self.step, 0
        self.best_params = {k: to_host(p).copy() for k, p in self.model.params.items()}
        return True

    def save(self, best: bool, last: bool) -> None:
        """Write a checkpoint of all that the rest of the run depends on, and point to it."""
        self.read()
        if self.out is None or self.place is None:
            return
        checkpoints.check_same(self.out.path, self.place)
        progress = asdict(self.progress) | {"plateau": self.plateau.state_dict()}
        name = checkpoints.write_checkpoint(self.out, checkpoints.Checkpoint(
            self.step, self.model.params, self.optimizer.state_dict(), self.state, progress))
        if best or self.corpus.valid is None:  # the best first: see `point`
            checkpoints.point(self.out, "best", name)
        if last:
            checkpoints.point(self.out, "last", name)
        checkpoints.prune(self.out)

    def restore(self, out: checkpoints.Run) -> None:
        """Continue from the run folder's last checkpoint, if there is one."""
        if checkpoints.has_checkpoint(out, "last"):
            last = checkpoints.read_checkpoint(out, "last")
            if last.optimizer is None:
                raise InputError(f"{out.path} holds weights without the optimizer's state: they "
                                 "can begin a new run (--init-from), but not go on with one")
            self.load_params(last.params)
            there, saved = self.model.params["fc.b"], dict(last.progress)
            self.step, self.state = last.step, like(last.carry, there)
            self.optimizer.load_state_dict(like(last.optimizer, there))
            self.plateau.load_state_dict(saved.pop("plateau"))
            self.progress = _Progress(**saved)
            if self.progress.best_loss is not None:
                self.best_params = checkpoints.read_checkpoint(out, weights_only=True).params
        keep_rows(out.path / "metrics.csv", self.step)

    def load_params(self, params: Params) -> None:
        for name, p in self.model.params.items():
            p[...] = like(params[name], p)

    def finish(self, reason: str) -> TrainResult:
        """Score the last and the best weights on the whole validation text; keep the best."""
        best = last = None
        best_step = self.step if self.corpus.valid is None else self.progress.best_step
        if reason != "interrupted":
            if self.corpus.valid is not None:
                best = last = self.score(self.corpus.valid)
                if self.best_params is not None and best_step != self.step:
                    self.load_params(self.best_params)
                    best = self.score(self.corpus.valid)
            if self.out is not None:
                self.draw()
        return TrainResult(self.step, self.progress.seconds, reason, best_step, best, last)

    def draw(self) -> None:
        """loss.png from metrics.csv."""
        from minilstm import plots

        assert self.out is not None
        rows, unigram = read_rows(self.out.path / "metrics.csv"), self.corpus.unigram_entropy()
        ax = plots.loss_of_run(rows, self.model.config.vocab_size, unigram=unigram,
                               level=self.model.vocab.kind)  # fmt: skip
        plots.save(ax, self.out.path / "loss.png")

    def write_row(self, valid: Evaluation | None, told: bool) -> None:
        """One row of metrics.csv; and if it is told, a line."""
        progress, lr = self.progress, self.optimizer.lr
        train_loss, progress.losses = statistics.fmean(progress.losses), []
        if self.out is not None and self.place is not None:
            checkpoints.check_same(self.out.path, self.place)  # or two runs would share one file
            append_row(self.out.path / "metrics.csv", (
                self.step, progress.tokens, lr, train_loss, valid and valid.loss, self.norm,
                round(progress.seconds, 3)))
        line = f"step {self.step:>{len(str(self.total))}} of {self.total}  train {train_loss:.4f}"
        if valid is not None:
            line += f"  valid {valid.loss:.4f}  perplexity {valid.perplexity:.2f}"
        if told:
            self.say(f"{line}  lr {lr:.2e}  norm {self.norm:.3f}")

    def sample(self) -> None:
        """Print a continuation of the training text's first token; draws from nothing of ours."""
        self.read()
        prompt = self.model.vocab.decode(self.corpus.train[:1])
        text = self.model.generate(prompt, self.config.sample_length, seed=self.step)
        self.say(f"--- a sample after {self.step} steps ---\n{text}\n---")
