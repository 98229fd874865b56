"""Train a model on a text: from settings to a run folder.

Ctrl-C saves a checkpoint; the same command with --resume goes on from the last one.
"""

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from minilstm import checkpoint, settings, training
from minilstm.checkpoint import Run
from minilstm.cli import FailedError, Interrupted, runs, show, tell
from minilstm.cli.evaluate import table
from minilstm.errors import InputError
from minilstm.language_model import LanguageModel
from minilstm.metrics import read_rows
from minilstm.model import init_params
from minilstm.text.vocabulary import WordVocabulary
from minilstm.train_config import TrainConfig

_PLACES = ("data", "val_data", "device")  # may change on the way, as long as the text is the same


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage = ("minilstm train [--preset P] [--config FILE] [--set KEY=VALUE ...] "
                    "[any setting]\n       [--out DIR] [--resume | --force] [--init-from RUN] [--dry-run]")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="the run's folder; otherwise runs/PRESET or "
                        "runs/DATA")  # fmt: skip
    parser.add_argument("--init-from", metavar="RUN", help="begin with the best weights of a run, "
                        "its settings in place of the defaults")  # fmt: skip
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument("--resume", action="store_true", help="go on with the run in --out")
    exclusive.add_argument("--force", action="store_true", help="overwrite the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, as TOML")
    settings.add_flags(parser)


def main(args: argparse.Namespace) -> None:
    given = settings.given(args)
    name = args.out or args.preset or given.get("data")
    if not name:
        raise InputError("a run needs a name: want --out, or --data or --preset, got none of them")
    out = Path(name) if args.out else Path("runs", Path(name).stem)
    with _on_signal(_end):
        if args.force or not checkpoint.holds_run(out):
            _begin(args, given, out)
        elif args.resume:
            _resume(args, given, out)
        else:
            ways = "--resume goes on with it, --force overwrites it, --out names another folder"
            raise InputError(f"{out} holds a run already: {ways}")


def _begin(args: argparse.Namespace, given: dict[str, Any], out: Path) -> None:
    """A new run."""
    vocab = None
    if args.init_from is not None:
        source = checkpoint.read_run(args.init_from)
        given, vocab = _settings_from(source, given), source.vocabulary
    setup = runs.prepare(given, vocab)
    if args.dry_run:
        return _show_plan(setup, out)
    threads = setup.train.threads or runs.blas_threads()
    with training.thread_limit(threads):
        model = _new_model(setup, args.init_from)
        total = training.total_steps(model, setup.corpus.train, setup.train)
        record = runs.record(setup, total, args.init_from, threads)
        run = checkpoint.write_run(out, setup.model, model.vocab, record, overwrite=args.force)
        (out / "loss.png").unlink(missing_ok=True)  # of a run that was overwritten
        _train(run, setup, model, total)


def _resume(args: argparse.Namespace, given: dict[str, Any], out: Path) -> None:
    """The run in the folder, from its last checkpoint, or from step 0 if it has none yet."""
    run = checkpoint.read_run(out)
    record = runs.read_record(run, needed=True)
    flat, init_from, total = record["settings"], record["init_from"], record["total_steps"]
    said = {name: value for name, value in given.items() if name not in _PLACES}
    if args.init_from is not None:
        said["init_from"] = args.init_from
    settings.check_same(flat | {"init_from": init_from}, said, "the run")
    if checkpoint.has_checkpoint(run, "last"):
        last = checkpoint.read_checkpoint(run, "last", weights_only=True)
        config, init_from = TrainConfig(**settings.of_table("train", flat)), None
        if training.is_finished(last, config, total):
            return show(f"{out} is finished: {last.step:,} of {total:,} steps are taken")
    setup = runs.prepare(flat | given, run.vocabulary)
    runs.check_text(record, setup.corpus)
    if setup.model != run.config:
        raise InputError(f"{run.path / 'config.json'}: its settings must make its model")
    if args.dry_run:
        return _show_plan(setup, out, total)
    with training.thread_limit(record["threads"]):
        _train(run, setup, _new_model(setup, init_from), total)


def _settings_from(source: Run, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run to begin from, and over them those given."""
    vocab = source.vocabulary
    own = {"level": vocab.kind, **vocab.normalisation.to_dict()}
    if isinstance(vocab, WordVocabulary):
        own["tokenizer"] = vocab.tokenizer
    settings.check_same(own, given, f"the vocabulary of {source.path}")
    base = runs.read_record(source).get("settings", own | asdict(source.config))
    if "data" in given:
        base = base | {"val_data": None}  # it validates the other text
    return settings.merge(base, given)


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


def _show_plan(setup: runs.Setup, out: Path, total: int | None = None) -> None:
    """All settings as a TOML file, and as comments what else there is to know."""
    for line in (f"would be written to {out}", *setup.lines(total)):
        show(f"# {line}")
    show(f"\n{settings.to_toml(setup.settings)}")


def _train(run: Run, setup: runs.Setup, model: LanguageModel, total: int) -> None:
    """Go on from the run's last checkpoint, if it has one, and say how it ended."""
    for line in setup.lines(total):
        tell(line)
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:  # a second signal does not wait for the step
            raise Interrupted(number)
        received.append(number)

    try:
        with _on_signal(note):
            result = training.train(
                model, setup.corpus, setup.train, run,
                resume=True, total=total, should_stop=lambda: bool(received),
            )  # fmt: skip
    except training.NonFiniteError as error:
        raise FailedError(str(error)) from None
    if result.reason == "interrupted":
        saved = f"interrupted after step {result.steps:,} of {total:,}: the checkpoint is saved"
        raise Interrupted(received[0], f"{saved}, --resume goes on")
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


def _end(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def _on_signal(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Context: what SIGINT and SIGTERM do."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
