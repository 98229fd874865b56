"""minilstm train: from settings to a run folder, and on with it after an interruption."""

from __future__ import annotations

import argparse
import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from minilstm import checkpoint, settings, training
from minilstm.checkpoint import Run
from minilstm.cli import FailedError, Interrupted, flags, runs, show, tell
from minilstm.cli.evaluate import table
from minilstm.errors import InputError
from minilstm.language_model import LanguageModel
from minilstm.metrics import read_rows
from minilstm.model import init_params
from minilstm.text.vocabulary import WordVocabulary
from minilstm.train_config import TrainConfig

_PLACES = ("data", "val_data", "device")  # may change on the way, as long as the text is the same


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a model on a text",
        usage="minilstm train [--preset P] [--config FILE] [--set KEY=VALUE ...] [any setting]\n"
        "       [--out DIR] [--resume | --force] [--init-from RUN] [--dry-run]",
        description="Train a model on a text. Ctrl-C saves a checkpoint; the same command with "
        "--resume goes on from the last one.",
    )
    parser.add_argument("--out", metavar="DIR", help="the run's folder; otherwise runs/PRESET or "
                        "runs/DATA")  # fmt: skip
    parser.add_argument("--init-from", metavar="RUN", help="begin with the best weights of a run, "
                        "its settings in place of the defaults")  # fmt: skip
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument("--resume", action="store_true", help="go on with the run in --out")
    exclusive.add_argument("--force", action="store_true", help="overwrite the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, as TOML")
    flags.add_settings(parser)
    parser.set_defaults(work=train)


def train(args: argparse.Namespace) -> None:
    given = flags.given_settings(args)
    name = args.out or args.preset or given.get("data")
    if not name:
        raise InputError("a run needs a name: want --out, or --data or --preset, got none of them")
    out = Path(name) if args.out else Path("runs", Path(name).stem)
    with _Signals() as signals:
        if checkpoint.holds_run(out) and args.resume:
            _resume(args, given, out, signals)
        elif checkpoint.holds_run(out) and not args.force:
            ways = "--resume goes on with it, --force overwrites it, --out names another folder"
            raise InputError(f"{out} holds a run already: {ways}")
        else:
            _begin(args, given, out, signals)


def _begin(args: argparse.Namespace, given: dict[str, Any], out: Path, signals: _Signals) -> None:
    """A new run."""
    vocab = None
    if args.init_from is not None:
        source = checkpoint.read_run(args.init_from)
        given, vocab = _settings_from(source, given), source.vocabulary
    setup = runs.prepare(given, vocab)
    if args.dry_run:
        _show_plan(setup, out, setup.steps)
        return
    threads = setup.train.threads or runs.blas_threads()
    with training.thread_limit(threads):
        model = _new_model(setup, args.init_from)
        total = training.total_steps(model, setup.corpus.train, setup.train)
        record = runs.record(setup, total, args.init_from, threads)
        run = checkpoint.write_run(out, setup.model, model.vocab, record, overwrite=args.force)
        for name in ("metrics.csv", "loss.png"):
            (out / name).unlink(missing_ok=True)  # of a run that was overwritten
        _train(run, setup, model, total, signals, resume=False)


def _resume(args: argparse.Namespace, given: dict[str, Any], out: Path, signals: _Signals) -> None:
    """The run in the folder, from its last checkpoint, or from step 0 if it has none yet."""
    run = checkpoint.read_run(out)
    record = runs.read_record(run)
    flat, init_from, total = record["settings"], record["init_from"], record["total_steps"]
    flags.check_same(flat, _without(given, *_PLACES), "the run")
    if args.init_from is not None:
        flags.check_same({"init_from": init_from}, {"init_from": args.init_from}, "the run")
    if checkpoint.has_checkpoint(run, "last"):
        last = checkpoint.read_checkpoint(run, "last", weights_only=True)
        config, init_from = TrainConfig(**settings.of_table("train", flat)), None
        if training.is_finished(last, config, total):
            show(f"{out} is finished: {last.step:,} of {total:,} steps are taken")
            return
    setup = runs.prepare(flat | given, run.vocabulary)
    runs.check_text(record, setup.corpus)
    if setup.model != run.config:
        raise InputError(f"{run.path / 'config.json'}: its settings must make its model")
    if args.dry_run:
        _show_plan(setup, out, total)
        return
    with training.thread_limit(record["threads"]):
        _train(run, setup, _new_model(setup, init_from), total, signals, resume=True)


def _settings_from(source: Run, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run to begin from, and over them those given."""
    vocab = source.vocabulary
    own = {"level": vocab.kind, **vocab.normalisation.to_dict()}
    if isinstance(vocab, WordVocabulary):
        own["tokenizer"] = vocab.tokenizer
    flags.check_same(own, given, f"the vocabulary of {source.path}")
    base = own | _without(asdict(source.config), "vocab_size")
    if runs.has_record(source):
        base = runs.read_record(source)["settings"]
    if "data" in given:
        base = _without(base, "val_data")  # it validates the other text
    return settings.merge(base, given)


def _without(named: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name not in names}


def _new_model(setup: runs.Setup, init_from: str | None) -> LanguageModel:
    """The model before its first step, on its device."""
    if init_from is None:
        rng = training.random_stream(setup.train.seed, training.INIT)
        params = init_params(setup.model, rng, setup.dtype)
    else:
        config, params, _ = checkpoint.load_model(init_from)
        there, here = config.parameter_shapes(), setup.model.parameter_shapes()
        for name in here | there:
            if (was := there.get(name)) != (wanted := here.get(name)):
                shapes = f"has shape {was}, this model's {wanted}"
                raise InputError(f"init_from: {name} of {init_from} {shapes}")
        params = {name: p.astype(setup.dtype) for name, p in params.items()}
    return LanguageModel(setup.model, params, setup.corpus.vocab).to(setup.device)


def _show_plan(setup: runs.Setup, out: Path, total: int | None) -> None:
    """All settings as a TOML file, and as comments what else there is to know."""
    for line in (f"would be written to {out}", *setup.lines(total)):
        show(f"# {line}")
    show(f"\n{settings.to_toml(setup.settings)}")


def _train(
    run: Run, setup: runs.Setup, model: LanguageModel, total: int, signals: _Signals, resume: bool
) -> None:
    for line in setup.lines(total):
        tell(line)
    signals.wait = True
    try:
        result = training.train(
            model, setup.corpus, setup.train, run,
            resume=resume, total=total, should_stop=lambda: signals.received is not None,
        )  # fmt: skip
    except training.NonFiniteError as error:
        raise FailedError(str(error)) from None
    if result.reason == "interrupted" and signals.received is not None:
        saved = f"interrupted after step {result.steps:,} of {total:,}: the checkpoint is saved"
        raise Interrupted(signals.received, f"{saved}, --resume goes on")
    if result.reason == "patience":
        tell("stopped before its end: the validation loss no longer falls")
    tell(f"{result.steps:,} steps in {result.seconds:.1f} seconds, evaluations aside")
    if result.best is None or result.last is None:
        loss = read_rows(run.path / "metrics.csv")[-1].get("train_loss")
        show(f"nothing validates; the last training loss is {loss:.4f} nats")
    else:
        show(table({f"best (step {result.best_step})": result.best,
                    f"last (step {result.steps})": result.last}))  # fmt: skip
    show(f"run: {run.path}")


class _Signals:
    """SIGINT and SIGTERM end the work: at once, or while `wait` is set, when somebody looks.

    A second one always ends it at once.
    """

    def __enter__(self) -> _Signals:
        self.received: int | None = None
        self.wait = False
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or not self.wait:
            raise Interrupted(number)
        self.received = number
