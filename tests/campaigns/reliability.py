"""What happens when something goes wrong, many times over: writes docs/reliability.json and .md.

    python tests/campaigns/reliability.py kills [--times 200]     SIGKILL, at random, inside writes
    python tests/campaigns/reliability.py damage [--times 2000]   mutated files
    python tests/campaigns/reliability.py long [--steps 20000]    memory and files of a long run
    python tests/campaigns/reliability.py large [--megabytes 100] a text as large
    python tests/campaigns/reliability.py write                   the page

The suite has a small form of each (tests/test_checkpoint.py, tests/cli/test_resume.py). Each figure
is kept in docs/reliability.json under its part's name, with the commit.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "cli")]
RECORD, PAGE = ROOT / "docs" / "reliability.json", ROOT / "docs" / "reliability.md"
RUN = [
    "--num-layers",
    "2",
    "--dropout",
    "0.2",
    "--weight-drop",
    "0.2",
    "--batching",
    "shuffled",
    "--schedule",
    "cosine",
    "--data",
    "text.txt",
    "--hidden-size",
    "8",
    "--embedding-size",
    "5",
    "--batch-size",
    "4",
    "--seq-len",
    "9",
    "--steps",
    "60",
    "--eval-every",
    "20",
    "--checkpoint-every",
    "9",
    "--lr",
    "0.02",
    "--threads",
    "1",
]
CALLS = ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "open", "write")


def record(part: str, figures: dict[str, Any]) -> None:
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, text=True
    )
    kept = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    kept[part] = figures | {"commit": commit.strip()}
    RECORD.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(part, figures)


# --- killed


def dying(at: int, arguments: list[str]) -> None:
    """`minilstm train` in this process, killed by its own hand at moment `at`: before and after
    each call that changes something on the disk, and in the middle of each write."""
    import safetensors.numpy

    from minilstm.__main__ import main

    moments = 0

    def moment() -> None:
        nonlocal moments
        if moments == at:
            os.kill(os.getpid(), signal.SIGKILL)
        moments += 1

    def around(call: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            moment()
            result = call(*args, **options)
            moment()
            return result

        return wrapped

    def in_halves(path: Path, data: bytes) -> None:
        with open(path, "xb", buffering=0) as file:
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                moment()
                file.write(half)
        moment()

    for name in CALLS[:-1]:
        setattr(os, name, around(getattr(os, name)))
    Path.write_bytes = in_halves  # type: ignore[assignment, method-assign]
    safetensors.numpy.save_file = lambda arrays, path: in_halves(
        Path(path), safetensors.numpy.save(arrays)
    )
    try:
        main(["train", *arguments])
    finally:
        print(f"moments {moments}", flush=True)


def kills(times: int) -> None:
    """SIGKILL at random times and at injected moments; each run resumed and compared bit by bit."""
    from running import nonsense

    from minilstm.checkpoint import read_checkpoint, read_run

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    draw, outcomes = random.Random(0), collections.Counter[str]()

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "minilstm", "train", *RUN, *arguments]

    def weights(path: Path) -> dict[str, bytes]:
        run = read_run(path)
        both = {which: read_checkpoint(run, which) for which in ("best", "last")}  # type: ignore[arg-type]
        return {
            f"{which} {name}": p.tobytes()
            for which, c in both.items()
            for name, p in c.params.items()
        } | {"step": str(both["last"].step).encode()}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(nonsense(3000))
        quiet: dict[str, Any] = {
            "cwd": folder,
            "env": environment,
            "capture_output": True,
            "text": True,
        }
        started = time.monotonic()
        subprocess.run(command("--out", "whole"), check=True, **quiet)
        seconds, wanted = time.monotonic() - started, weights(folder / "whole")
        me = [sys.executable, __file__, "dying"]
        counted = subprocess.run([*me, "-1", *RUN, "--out", "counted"], **quiet).stdout
        moments = int(counted.split("moments ")[1])
        for n in range(times):
            out = f"run{n}"
            if n % 2:
                done = subprocess.run(
                    [*me, str(draw.randrange(moments)), *RUN, "--out", out], **quiet
                )
                killed = done.returncode == -signal.SIGKILL
            else:
                process = subprocess.Popen(
                    command("--out", out),
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0, 1.1 * seconds))
                process.kill()
                process.communicate()
                killed = process.returncode == -signal.SIGKILL
            begun = (folder / out / "last").exists()
            again = subprocess.run(command("--out", out, "--resume"), **quiet)
            how = "killed" if killed else "had ended"
            if again.returncode == 0 and weights(folder / out) == wanted:
                outcomes[
                    f"{how}, {'resumed' if begun else 'begun again'}, same to the last bit"
                ] += 1
            else:
                outcomes[f"{how}: {again.returncode} {again.stderr[-200:]}"] += 1
            shutil.rmtree(folder / out, ignore_errors=True)
    record("kills", {"times": times, "moments in a run": moments, "outcomes": dict(outcomes)})


# --- damaged


def damage(times: int) -> None:
    """Mutated files, half of them with their fingerprints made true again."""
    import safetensors.numpy
    import test_checkpoint as suite

    from minilstm import InputError

    draw, outcomes, slowest, largest = random.Random(0), collections.Counter[str](), 0.0, 0
    others, names = (
        [],
        ("config.json", "vocabulary.json", suite.PROGRESS, suite.WEIGHTS, suite.STATE),
    )

    def any_name(arrays: dict[str, np.ndarray]) -> str:
        return draw.choice(sorted(arrays))

    def swap(arrays: dict[str, np.ndarray]) -> None:
        a, b = draw.sample(sorted(arrays), 2)
        arrays[a], arrays[b] = arrays[b], arrays[a]

    def reshape(arrays: dict[str, np.ndarray]) -> None:
        name = any_name(arrays)
        arrays[name] = np.ascontiguousarray(arrays[name].reshape(-1)[: draw.randrange(1, 9)])

    def retype(arrays: dict[str, np.ndarray]) -> None:
        name = any_name(arrays)
        arrays[name] = arrays[name].astype(draw.choice(["f2", "f8", "i4", "u1"]))

    def spoil(arrays: dict[str, np.ndarray]) -> None:
        name = any_name(arrays)
        arrays[name] = arrays[name].copy()
        arrays[name].reshape(-1)[0] = draw.choice([np.nan, np.inf, -np.inf])

    def huge(file: Path) -> None:
        if file.suffix == ".json":
            text, digits = file.read_text(), "9" * draw.choice([12, 40, 5000])
            places = [n for n, sign in enumerate(text) if sign.isdigit()]
            place = draw.choice(places)
            file.write_text(text[:place] + digits + text[place + 1 :])
        else:
            suite.header(str, length=draw.choice([2**31, 2**40, 2**63]))(file)

    def twice(file: Path) -> None:
        if file.suffix == ".json":
            lines = file.read_text().splitlines(keepends=True)
            place = draw.randrange(1, len(lines))
            file.write_text("".join([*lines[:place], lines[place], *lines[place:]]))
        else:
            suite.header(lambda h: h.replace('"dtype"', '"dtype":"F32","dtype"', 1))(file)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        suite.new_run(root / "whole", 1)
        suite.reseal(root / "whole")
        for n in range(times):
            run = Path(shutil.copytree(root / "whole", root / "run"))
            file = run / draw.choice(names)
            kinds: dict[str, Any] = {
                "bit flips": lambda file: [
                    suite.flip(draw.randrange(file.stat().st_size), draw.randrange(8))(file)
                    for _ in range(draw.randrange(1, 4))
                ],
                "cut": lambda file: suite.cut(draw.randrange(file.stat().st_size))(file),
                "huge": huge,
                "twice": twice,
                "of the future": lambda file, run=run: suite.put("format", draw.randrange(2, 99))(
                    run / "config.json"
                ),
            }
            if file.suffix == ".safetensors":
                kinds |= {
                    "swapped": suite.tensors(swap),
                    "shape": suite.tensors(reshape),
                    "dtype": suite.tensors(retype),
                    "not finite": suite.tensors(spoil),
                }
            kind = draw.choice(sorted(kinds))
            kinds[kind](file)
            if sealed := n % 2 == 1:
                suite.reseal(run)
            held = {f.name: f.read_bytes() for f in (run / suite.WEIGHTS, run / suite.STATE)}
            started = time.perf_counter()
            tracemalloc.start()
            try:
                found = suite.read_all(run)
                outcome = "loaded what the files hold"
                params = safetensors.numpy.load(held["weights.safetensors"])
                if any(p.tobytes() != params[name].tobytes() for name, p in found.params.items()):
                    outcome = "GARBAGE"
            except InputError as error:
                outcome = "refused by name"
                if not str(error).isprintable() or str(run) not in str(error):
                    outcome = f"refused, but: {error!r}"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            slowest = max(slowest, time.perf_counter() - started)
            largest = max(largest, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            outcomes[f"{'sealed again' if sealed else 'as it was'}: {outcome}"] += 1
            if outcome not in ("refused by name", "loaded what the files hold"):
                others.append(f"{kind} {file.name}: {outcome}")
            shutil.rmtree(run)
    record(
        "damage",
        {
            "times": times,
            "outcomes": dict(sorted(outcomes.items())),
            "others": others,
            "slowest_ms": round(1e3 * slowest, 1),
            "largest_bytes": largest,
        },
    )


# --- long, and large


LONG = """
import json, os, sys
import minilstm as ml
from pathlib import Path

def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

steps, seen, count = int(sys.argv[1]), {}, 0

def look():
    global count
    count += 1
    if count % (steps // 20) == 0:
        seen[count] = (rss(), len(os.listdir("/proc/self/fd")))
    return False

corpus = ml.load_corpus(sys.argv[2], level="char")
config = ml.ModelConfig(len(corpus.vocab), hidden_size=32, num_layers=2, dropout=0.1)
import numpy as np
model = ml.LanguageModel(config, ml.init_params(config, np.random.default_rng(0)), corpus.vocab)
how = ml.TrainConfig(steps=steps, batch_size=8, seq_len=16, eval_every=steps // 40,
                     sample_every=steps // 40)
ml.train(model, corpus, how, out=sys.argv[3], say=lambda line: None, should_stop=look)
print(json.dumps(seen))
"""


def python(code: str, *arguments: object) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def long(steps: int) -> None:
    from running import nonsense

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "text.txt").write_text(nonsense(60_000))
        seen = python(LONG, steps, Path(folder, "text.txt"), Path(folder, "run"))
    (_, (early, files_early)), *_, (_, (late, files_late)) = list(seen.items())[1:]
    record(
        "long",
        {
            "steps": steps,
            "rss_early": early,
            "rss_late": late,
            "growth": late / early - 1,
            "files_early": files_early,
            "files_late": files_late,
        },
    )


LARGE = """
import json, re, sys
from pathlib import Path
import numpy as np
import minilstm as ml

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
corpus = ml.load_corpus(sys.argv[1], level="char")
loaded = peak()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, from what is held now
config = ml.ModelConfig(len(corpus.vocab), hidden_size=32)
model = ml.LanguageModel(config, ml.init_params(config, np.random.default_rng(0)), corpus.vocab)
ml.train(model, corpus, ml.TrainConfig(steps=50, batch_size=8, seq_len=16, eval_every=50,
         eval_tokens=10_000), say=lambda line: None)
print(json.dumps({"before": before, "loaded": loaded, "trained": peak(),
                  "dtype": str(corpus.train.dtype),
                  "tokens": sum(map(len, corpus.parts.values()))}))
"""


def large(megabytes: int) -> None:
    from running import nonsense

    with tempfile.TemporaryDirectory() as folder:
        text, path = nonsense(1_000_000), Path(folder, "text.txt")
        with open(path, "w") as file:
            for _ in range(megabytes):
                file.write(text)
        record("large", {"megabytes": megabytes} | python(LARGE, path))


# --- the page


def write() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    seen = json.loads(RECORD.read_text())
    kills, damage, long, large = (seen[part] for part in ("kills", "damage", "long", "large"))
    MB = 1e6

    def table(outcomes: dict[str, int]) -> str:
        lines = ["| outcome | times |", "|---|---|"]
        return "\n".join(lines + [f"| {name} | {count} |" for name, count in outcomes.items()])

    text = f"""# Reliability

*This page is written by `python tests/campaigns/reliability.py write`, from figures measured
there.*

A person leaves a model training overnight. Whatever happens, they lose at most the steps since the
last checkpoint, and what they load is either right or refused. How that is done is at the head of
`minilstm/checkpoint.py`: a checkpoint is written whole, forced to the disk and only then named;
every file is vouched for by the one that leads to it. Here is what happened when it was tried.

## Killed

{kills["times"]} runs of 60 steps with a checkpoint every nine, half of them killed (SIGKILL) at a
random time,
half at a moment inside: before and after each call that changes something on the disk, and in the
middle of
each write ({kills["moments in a run"]} such moments in a run). Each was then resumed by the same
command with
`--resume`, and its best and last weights compared with those of a run that nobody disturbed.

{table(kills["outcomes"])}

## Damaged

{damage["times"]} times one file of a run was changed: bits flipped, cut short, tensors swapped, of
another shape
or dtype or not finite, sizes of up to 5,000 digits, keys twice, a format of the future. In half of
the cases the
fingerprints were made true again, so that the parsers and the checks of shapes, types, sizes and
numbers are what refuses. What was loaded is compared with what the files hold: with the old
fingerprints a change that had changed nothing (a tensor cut to its own length), with new ones a
number made another. The slowest answer took {damage["slowest_ms"]:.0f} ms, the most memory was
{damage["largest_bytes"] / MB:.1f} MB.

{table(damage["outcomes"])}

## Long

{long["steps"]:,} steps with evaluations, samples and checkpoints: {long["rss_early"] / MB:.1f} MB
of memory after a
tenth of them, {long["rss_late"] / MB:.1f} MB at the end ({100 * long["growth"]:+.2f} %),
{long["files_early"]} open files then and {long["files_late"]} now.

## Large

A text of {large["megabytes"]} MB, {large["tokens"]:,} characters, kept as {large["dtype"]}:
loading it took {(large["loaded"] - large["before"]) / MB:.0f} MB at its peak, training on it
{(large["trained"] - large["before"]) / MB:.0f} MB.

Commits: {", ".join(f"{part} {seen[part]['commit']}" for part in seen)}.
"""
    plain = (part if part[0] in "#|" else textwrap.fill(part, 99) for part in text.split("\n\n"))
    return "\n\n".join(plain).rstrip() + "\n"


def main() -> None:
    if sys.argv[1:2] == ["dying"]:
        return dying(int(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    for part, flag, default in (
        (kills, "times", 200),
        (damage, "times", 2000),
        (long, "steps", 20_000),
        (large, "megabytes", 100),
    ):
        of_part = parts.add_parser(part.__name__)
        of_part.add_argument(f"--{flag}", type=int, default=default)
        of_part.set_defaults(work=part)
    parts.add_parser("write").set_defaults(work=write)
    given = vars(parser.parse_args())
    given.pop("work")(**given)
    return None


if __name__ == "__main__":
    main()
