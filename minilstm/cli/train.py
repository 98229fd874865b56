"""Train a model on a text: from settings to a run folder.

Ctrl-C saves a checkpoint; the same command with --resume goes on from the last one.
"""

import contextlib
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import minilstm as ml
from minilstm import checkpoint, metrics, settings, training
from minilstm.cli import Args, Parser, runs, show, tell
from minilstm.cli.evaluate import table
from minilstm.threads import thread_limit, threads_now

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHAPE = ("hidden_size", "num_layers", "embedding_size", "tie_weights")  # of all the weights
_PLACES = ("data", "val_data", "device")  # may change on the way, as long as the text is the same


def add_flags(parser: Parser) -> None:
    parser.usage = ("%(prog)s [--preset P] [--config FILE] [--set KEY=VALUE ...] [settings]\n"
                    "       [--out DIR] [--resume | --force] [--init-from RUN] [--dry-run]")
    parser.add_argument("--out", metavar="DIR", help="a folder; otherwise runs/PRESET or runs/DATA")
    parser.add_argument("--init-from", metavar="RUN", help="with its best weights and its settings")
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument("--resume", action="store_true", help="go on with the run in --out")
    exclusive.add_argument("--force", action="store_true", help="overwrite the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, as TOML")
    settings.add_flags(parser)


def main(args: Args) -> None:
    given = settings.given(args)
    name = args.out or args.preset or settings.complete(given)["data"]
    out = Path(name) if args.out else Path("runs", Path(name).stem)
    before = [signal.signal(number, _end) for number in _SIGNALS]
    try:
        if args.force or not checkpoint.holds_run(out) or (args.dry_run and not args.resume):
            _begin(args, given, out)
        elif args.resume:
            with contextlib.nullcontext() if args.dry_run else checkpoint.locked(out):
                _resume(args, given, out)
        else:
            ways = "--resume goes on with it, --force overwrites it, --out names another folder"
            raise ml.InputError(f"{out} holds a run already: {ways}")
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _end(number: int, frame: object) -> None:
    """A signal ends the work at once."""
    raise KeyboardInterrupt("interrupted", 128 + number)


def _begin(args: Args, given: dict[str, Any], out: Path) -> None:
    """A new run."""
    source = None
    if args.init_from is not None:
        source = checkpoint.read_run(args.init_from)
        given = _settings_from(source, given)
    setup = runs.prepare(given, source)
    if args.dry_run:
        return _show_plan(setup, out)
    threads = setup.train.threads or threads_now()
    with thread_limit(threads), checkpoint.locked(out):
        model = _new_model(setup, args.init_from)
        total = training.total_steps(model, setup.corpus.train, setup.train)
        record = runs.record(setup, total, args.init_from, threads)
        run = checkpoint.write_run(out, setup.model, model.vocab, record, overwrite=args.force)
        (out / "loss.png").unlink(missing_ok=True)  # of a run that was overwritten
        _train(run, setup, model, total)


def _resume(args: Args, given: dict[str, Any], out: Path) -> None:
    """The run in the folder, from its last checkpoint, or from step 0 if it has none yet."""
    run = checkpoint.read_run(out)
    record = runs.read_record(run, needed=True)
    flat, init_from, total = record["settings"], record["init_from"], record["total_steps"]
    fixed = {name: value for name, value in flat.items() if name not in _PLACES}
    said = {"init_from": args.init_from} if args.init_from is not None else {}
    settings.check_same(fixed | {"init_from": init_from}, given | said, "the run",
                        hint="; --resume goes with the command that began the run, or --out alone; "
                             "--init-from begins another run with its weights")  # fmt: skip
    if checkpoint.has_checkpoint(run, "last"):
        last = checkpoint.read_checkpoint(run, "last", weights_only=True)
        config, init_from = ml.TrainConfig(**settings.of_table("train", flat)), None
        bad_evaluations = last.progress.get("bad_evaluations", 0)
        if training.reason_to_end(last.step, total, bad_evaluations, config):
            checkpoint.prune(run)  # if it was killed between its last pointer and this
            if (out / "loss.png").exists():  # drawn last: else its end is still to come
                return show(f"{out} is finished: {last.step:,} of {total:,} steps are taken")
        tell(f"{out}: going on after step {last.step:,} of {total:,}")
    setup = runs.prepare(flat | given, run)
    runs.check_text(record, setup.corpus)
    if setup.model != run.config:
        raise ml.InputError(f"{run.path / 'config.json'}: its settings must make its model")
    if args.dry_run:
        return _show_plan(setup, out, total)
    with thread_limit(record["threads"]):
        _train(run, setup, _new_model(setup, init_from), total)


def _settings_from(source: checkpoint.Run, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run to begin from, and over them those given."""
    vocab = source.vocabulary
    own = {name: getattr(source.config, name) for name in _SHAPE}
    own |= {"level": vocab.kind, **asdict(vocab.normalisation)}
    if isinstance(vocab, ml.WordVocabulary):
        own["tokenizer"] = vocab.tokenizer
    settings.check_same(own, given, f"the model of {source.path}")
    base = runs.read_record(source).get("settings", own | asdict(source.config))
    of_text = {"val_data": None} if "data" in given else {}  # it validates the other text
    return settings.merge(base, of_text, given)


def _new_model(setup: runs.Setup, init_from: str | None) -> ml.LanguageModel:
    """The model before its first step, on its device."""
    dtype = setup.settings["dtype"]
    if init_from is None:
        rng = training.random_stream(setup.train.seed, training.INIT)
        params = ml.init_params(setup.model, rng, dtype)
    else:
        source = ml.LanguageModel.load(init_from)
        params = {name: p.astype(dtype) for name, p in source.params.items()}
    return ml.LanguageModel(setup.model, params, setup.corpus.vocab).to(setup.device)


def _show_plan(setup: runs.Setup, out: Path, total: int | None = None) -> None:
    """All settings as a TOML file, and as comments what else there is to know."""
    there = ", which holds a run already" if checkpoint.holds_run(out) else ""
    for line in (f"would be written to {out}{there}", *setup.lines(total)):
        show(f"# {line}")
    show(f"\n{settings.to_toml(setup.settings)}")


def _train(run: checkpoint.Run, setup: runs.Setup, model: ml.LanguageModel, total: int) -> None:
    """Go on from the run's last checkpoint, if it has one, and say how it ended."""
    for line in setup.lines(total):
        tell(line)
    received: list[int] = []

    def finish_step(number: int, frame: object) -> None:
        if received:  # a second one does not wait
            _end(number, frame)
        received.append(number)

    for number in _SIGNALS:
        signal.signal(number, finish_step)
    result = training.train(model, setup.corpus, setup.train, run, resume=True, total=total,
                            should_stop=lambda: bool(received))  # fmt: skip
    if result.reason == "interrupted":
        saved = f"interrupted after step {result.steps:,} of {total:,}: the checkpoint is saved"
        raise KeyboardInterrupt(f"{saved}, --resume goes on", 128 + received[0])
    if result.reason == "patience":
        tell("stopped before its end: the validation loss no longer falls")
    tell(f"{result.steps:,} steps in {result.seconds:.1f} seconds, evaluations aside")
    if result.best is None or result.last is None:
        loss = metrics.read_rows(run.path / "metrics.csv")[-1].get("train_loss")
        show(f"nothing validates; the last training loss is {loss:.4f} nats")
    else:
        pieces, level = setup.train.eval_streams, model.vocab.kind
        show(f"{setup.corpus.name}, valid, read as {pieces} pieces side by side (eval: as one)")
        show(table({f"best (step {result.best_step})": result.best,
                    f"last (step {result.steps})": result.last}, level))  # fmt: skip
    show(f"run: {run.path}")
