"""Measure a model on a text.

Every token of it but the first is scored: in one pass with the state carried, and again in windows
of 256 tokens, each from a zero state.
"""

import json
import math

import minilstm as ml
from minilstm import evaluation, settings
from minilstm.checkpoint import Run
from minilstm.cli import Args, Parser, runs, show, tell
from minilstm.errors import IntArray, check_positive_int, quote, require
from minilstm.text import corpora, downloads

_WINDOW, _WINDOWS = 256, 64  # tokens of a cold window; and how many are read side by side


def add_flags(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("--data", metavar="NAME|FILE", help="a corpus, or a file, which is scored "
                        "as a whole; otherwise the run's own text")  # fmt: skip
    parser.add_argument("--split", choices=("valid", "test", "train"), help="which part of it; "
                        "otherwise valid, or train where nothing validates")  # fmt: skip
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="pieces side by side")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--device", help=settings.helps()["device"])


def main(args: Args) -> None:
    check_positive_int("streams", args.streams)
    run, model = runs.load_run(args.run, args.device)
    what, ids = _text(run, args.data, args.split)
    level, unknown = run.vocabulary.kind, run.vocabulary.unknown_id
    if unknown is not None and (count := int((ids == unknown).sum())):
        tell(f"{count:,} of {len(ids):,} tokens are {run.vocabulary.unknown} or read as such")
    carried = evaluation.evaluate(model.params, model.config, ids, args.streams)
    cold = evaluation.evaluate(model.params, model.config, ids, _WINDOWS, window=_WINDOW)
    if args.json:
        said = {"run": args.run, "text": what, "level": level, **_figures(carried)}
        show(json.dumps({**said, "cold_windows": _figures(cold)}, indent=2))
    else:
        rows = {"state carried": carried, f"cold windows of {_WINDOW}": cold}
        show(f"{what}\n{table(rows, level)}")


def table(rows: dict[str, ml.Evaluation], level: str) -> str:
    """Evaluations, one to a line, under a heading; what a token is, char or word, is said there."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}   nats/{level}  perplexity   bits/{level}  accuracy        {level}s"]
    for name, score in rows.items():
        loss = f"{score.loss:10.4f}  {score.perplexity:10.3f}  {score.bits_per_token:10.4f}"
        lines.append(f"{name:{width}}  {loss}  {score.accuracy:8.2%}  {score.tokens:11,}")
    return "\n".join(lines)


def _figures(score: ml.Evaluation) -> dict[str, float | int | None]:
    """The five figures; JSON has no infinity."""
    return {k: v if math.isfinite(v) else None for k, v in score.to_dict().items()}


def _text(run: Run, data: str | None, split: str | None) -> tuple[str, IntArray]:
    """What is scored, in words and in ids."""
    if data is not None and data not in downloads.CORPORA:
        require(split is None, "--split is of a corpus; a file is scored whole", quote(data))
        text = corpora.text_file(data)
        ids = run.vocabulary.encode_pieces(text)
        for note in text.notes:
            tell(note)
        return f"{data}, the whole file", ids
    if data is None:
        record = runs.read_record(run, needed=True)
        own = settings.of_table("data", record["settings"])
        corpus = settings.DataConfig(**own).load(run.vocabulary)
        runs.check_text(record, corpus)
    else:
        corpus = ml.load_corpus(data, vocab=run.vocabulary)
    split = split or ("valid" if corpus.valid is not None else "train")
    return f"{corpus.name}, {split}", corpus.split(split)
