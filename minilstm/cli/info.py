"""Tell versions, device and threads; of a run or of settings, parameters and memory too.

The settings are given as to train; the memory is what a training step takes.
"""

from dataclasses import asdict

import minilstm as ml
from minilstm import checkpoint, settings
from minilstm.cli import Args, Parser, runs, show
from minilstm.threads import threads_now


def add_flags(parser: Parser) -> None:
    parser.usage = "%(prog)s [RUN | [--preset P] [--config FILE] [--set KEY=VALUE ...] [settings]]"
    parser.add_argument("run", metavar="RUN", help="the folder of a run", nargs="?")
    settings.add_flags(parser)


def main(args: Args) -> None:
    given = settings.given(args)
    device, threads = ml.choose_device(given.pop("device", None)), threads_now()
    lines = [", ".join(f"{name} {version}" for name, version in runs.VERSIONS.items()),
             f"device: {device}; threads of matrix products: {threads}"]  # fmt: skip
    if args.run is not None and given:
        raise ml.InputError(f"want a run or settings, got {args.run} and {', '.join(given)}")
    if args.run is not None:
        run = checkpoint.read_run(args.run)
        record = runs.read_record(run)
        flat = record.get("settings", settings.defaults())  # the latter if a program began it
        lines.append(f"{run.path}: {run.vocabulary!r}")
        for name, value in asdict(run.config).items():
            lines.append(f"  {name} = {settings.spell(value)}")
        batch = flat["batch_size"], flat["seq_len"]
        sizes = runs.memory_of(run.config, flat, batch, device)
        lines += runs.size_lines(run.config, batch, flat["dtype"], sizes)
        for which in checkpoint.POINTERS:
            if checkpoint.has_checkpoint(run, which):
                step = checkpoint.read_checkpoint(run, which, weights_only=True).step
                of = f" of {record['total_steps']:,}" if record else ""
                lines.append(f"{which}: step {step:,}{of}")
    elif given:
        lines += runs.prepare(given | {"device": device}).lines()
    show("\n".join(lines))
