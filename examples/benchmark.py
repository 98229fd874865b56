"""How fast is it, and beside PyTorch?

    python examples/benchmark.py                                  this project alone, all rows
    python examples/benchmark.py --against torch --json speed.json
    python examples/benchmark.py --against torch --rows hello small

A training row is one step: forward, loss, backward, clipping, Adam. Both sides begin with the same
weights and see the same batch, and before anything is timed their first losses must agree. They
take turns in one process, with a pause in between, because a library's threads go on spinning for
a while after its last product. Each turn gives one time, each pair of turns one ratio; medians are
reported. Memory is measured in a process for each side: the peak above what the imports took.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minilstm as ml
from minilstm import cli
from minilstm.backend import like
from minilstm.evaluation import evaluate
from minilstm.generation import generate_ids

Run = Callable[[], float]

TURN_SECONDS = 0.3  # a turn repeats what it times until then
PAUSE_SECONDS = 0.15  # longer than threads spin
CHUNK = 128  # time steps that PyTorch's evaluation reads at once


@dataclass(frozen=True)
class Row:
    """A model, and what is done with it."""

    V: int
    E: int | None  # None: one-hot
    L: int
    H: int
    B: int = 1
    T: int = 1
    kind: str = "training"
    tokens: int = 0  # 0: T·B, a batch

    @property
    def config(self) -> ml.ModelConfig:
        return ml.ModelConfig(self.V, self.H, self.L, embedding_size=self.E)

    @property
    def flop(self) -> int:
        """Of this project's matrix products in a training step: an embedding's rows meet W_x once
        each where they are fewer than the tokens, and a one-hot input is looked up."""
        tokens, gates = self.T * self.B, 4 * self.H
        weights = gates * self.H * (2 * self.L - 1) + self.H * self.V
        inputs = min(self.V, tokens) * (self.E or 0) * gates
        return 3 * 2 * (tokens * weights + inputs)


ROWS = {
    "hello": Row(65, None, 1, 128, 1, 10),
    "small": Row(65, None, 1, 128, 32, 50),
    "deep": Row(65, 64, 2, 256, 64, 64),
    "windows": Row(65, 512, 1, 512, 128, 256),
    "wiki-chars": Row(283, 512, 1, 1024, 64, 100),
    "wiki-words": Row(28_782, 400, 2, 400, 20, 35),
    "sampling-chars": Row(65, None, 1, 256, kind="sampling", tokens=2000),
    "sampling-words": Row(28_782, 400, 2, 400, kind="sampling", tokens=2000),
    "evaluation": Row(65, 64, 2, 256, 64, kind="evaluation", tokens=111_540),
    "evaluation-1": Row(65, 64, 2, 256, 1, kind="evaluation", tokens=111_540),
}


def batch(row: Row) -> tuple[Any, Any]:
    ids = np.random.default_rng(1).integers(0, row.V, (row.T + 1, row.B))
    return ids[:-1], ids[1:]


def text(row: Row) -> Any:
    return np.random.default_rng(1).integers(0, row.V, row.tokens)


def initial_params(row: Row) -> ml.model.Params:
    return ml.init_params(row.config, np.random.default_rng(0))


# --- this project


def ours(row: Row, device: str) -> Run:
    """What is timed, as a function that returns a figure to compare: the loss, where it has one."""
    config, params = row.config, ml.to_device(initial_params(row), device)
    if row.kind == "sampling":
        return partial(ours_samples, row, params)
    if row.kind == "evaluation":
        return lambda: evaluate(params, config, text(row), streams=row.B).loss
    inputs, targets = like(batch(row), params["fc.b"])
    optimizer, workspace = ml.Adam(lr=1e-3), ml.Workspace()

    def step() -> float:
        loss, grads, _ = ml.loss_and_grads(params, config, inputs, targets, workspace=workspace)
        ml.clip_by_global_norm(grads, 1.0)
        optimizer.step(params, grads)
        return float(loss)

    return step


def ours_samples(row: Row, params: ml.model.Params) -> float:
    rng = np.random.default_rng(2)
    ids = list(generate_ids(params, row.config, np.array([0]), row.tokens, rng=rng))
    return float(len(ids))


# --- PyTorch, as one would write it there


def of_torch(row: Row, device: str, forms: tuple[str, ...] = ("foreach", "fused")) -> Run:
    """The same, with nn.LSTM over the whole sequence, and the faster of these forms of Adam."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy, one_hot

    model = nn.ModuleDict()
    if row.E is not None:
        model["embedding"] = nn.Embedding(row.V, row.E)
    model["lstm"] = nn.LSTM(row.E or row.V, row.H, row.L)
    model["fc"] = nn.Linear(row.H, row.V)

    def forward(ids: Any, state: Any = None) -> Any:
        x = one_hot(ids, row.V).float() if row.E is None else model["embedding"](ids)
        hs, state = model["lstm"](x, state)
        return model["fc"](hs), state

    weights = ml.to_torch_state_dict(initial_params(row), row.config)
    model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    model.to(device)

    def step(inputs: Any, targets: Any, optimizer: Any) -> float:
        optimizer.zero_grad()
        logits, _ = forward(inputs)
        loss = cross_entropy(logits.reshape(-1, row.V), targets.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    def samples() -> float:
        generator, token, state = torch.Generator(device).manual_seed(2), 0, None
        for _ in range(row.tokens):
            logits, state = forward(torch.tensor([[token]], device=device), state)
            p = torch.softmax(logits[-1, 0], 0)
            token = int(torch.multinomial(p, 1, generator=generator))
        return float(row.tokens)

    def evaluation() -> float:
        ids = torch.from_numpy(text(row)).to(device)
        length = (len(ids) - 1) // row.B
        pairs = [ids[n : n + length * row.B].reshape(row.B, length).T for n in (0, 1)]
        nats, hits, state = 0.0, 0, None
        for first in range(0, length, CHUNK):
            inputs, targets = (ids[first : first + CHUNK] for ids in pairs)
            logits, state = forward(inputs, state)
            nats += float(cross_entropy(logits.reshape(-1, row.V), targets.reshape(-1),
                                        reduction="sum"))  # fmt: skip
            hits += int((logits.argmax(-1) == targets).sum())
        return nats / (length * row.B)

    if row.kind != "training":
        other: Run = torch.inference_mode()(samples if row.kind == "sampling" else evaluation)
        return other
    inputs, targets = (torch.from_numpy(ids.copy()).to(device) for ids in batch(row))
    seconds: dict[str, float] = {}
    for form in forms:
        run = partial(step, inputs, targets, torch.optim.Adam(model.parameters(), **{form: True}))
        run()
        seconds[form] = min(seconds_of(run) for _ in range(5))
    model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    best = min(forms, key=lambda form: seconds[form])
    return partial(step, inputs, targets, torch.optim.Adam(model.parameters(), **{best: True}))


SIDES = {"ours": ours, "torch": of_torch}


# --- measuring


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def turn(run: Callable[[], object]) -> float:
    """Seconds of one call: the median of as many as a turn holds, after one that is not timed."""
    time.sleep(PAUSE_SECONDS)
    times, once = [], seconds_of(run)
    for _ in range(max(1, min(200, int(TURN_SECONDS / once)))):
        times.append(seconds_of(run))
    return statistics.median(times)


def product_rate(n: int = 2048) -> float:
    """FLOP per second of a large float32 product by NumPy."""
    a = np.ones((n, n), dtype=np.float32)
    return 2 * n**3 / min(seconds_of(lambda: a @ a) for _ in range(5))


def peak_bytes(name: str, side: str, device: str, threads: int) -> int:
    """The peak of memory above the imports', of three calls in a process of their own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return int(pool.apply(_peak_bytes, (name, side, device, threads)))


def _peak_bytes(name: str, side: str, device: str, threads: int) -> int:
    if side == "torch":
        import torch

        torch.set_num_threads(threads)
    with threadpool_limits(threads, user_api="blas"):
        before = _peak_so_far()
        if side == "torch":  # the other form of Adam would leave a higher peak
            run = of_torch(ROWS[name], device, ("fused",))
        else:
            run = SIDES[side](ROWS[name], device)
        for _ in range(3):
            run()
        return _peak_so_far() - before + _of_forks()


def _of_forks() -> int:
    """What the processes hold to which a batch was shared out; of memory that several see, each
    has its part."""
    children, held = Path(f"/proc/self/task/{os.getpid()}/children"), 0
    for process in children.read_text().split() if children.exists() else []:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        held += 1024 * int(rollup.split("\nPss:")[1].split()[0])
    return held


def _peak_so_far() -> int:
    """Of this process. (What getrusage says includes its parent's, on Linux.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(name: str, sides: list[str], rounds: int, device: str, threads: int) -> dict[str, Any]:
    row = ROWS[name]
    runs = {side: SIDES[side](row, device) for side in sides}
    first = {side: run() for side, run in runs.items()}
    if max(first.values()) - min(first.values()) > 1e-3 * max(first.values()):
        raise SystemExit(f"{name}: the two sides do not do the same work: {first}")
    once = sum(seconds_of(run) for run in runs.values())
    rounds = rounds if once < 5 else min(rounds, 3)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for n in range(rounds):
        for side in sides if n % 2 == 0 else reversed(sides):
            times[side].append(turn(runs[side]))
    tokens, mine = row.tokens or row.T * row.B, statistics.median(times["ours"])
    figures: dict[str, Any] = {
        "row": name, "kind": row.kind, "rounds": rounds,
        "milliseconds": {side: 1e3 * statistics.median(t) for side, t in times.items()},
        "spread": {side: [1e3 * min(t), 1e3 * max(t)] for side, t in times.items()},
        "tokens_per_second": tokens / mine,
    }  # fmt: skip
    if "torch" in sides:
        pairs = [b / a for a, b in zip(times["ours"], times["torch"], strict=True)]
        figures |= {"ratio": statistics.median(pairs), "ratio_spread": [min(pairs), max(pairs)]}
    if row.kind == "training":
        figures["share_of_product_rate"] = row.flop / mine / product_rate()
        figures["peak_bytes"] = {s: peak_bytes(name, s, device, threads) for s in sides}
    return figures


def line(figures: dict[str, Any]) -> str:
    """One row of the table."""
    ms, (low, high) = figures["milliseconds"], figures["spread"]["ours"]
    cells = [f"{figures['row']:15}", f"{ms['ours']:10.2f} ({low:.2f}-{high:.2f})".ljust(32),
             f"{figures['tokens_per_second']:11,.0f}"]  # fmt: skip
    share = figures.get("share_of_product_rate")
    cells.append(f"{share:6.0%}" if share is not None else " " * 6)
    if "torch" in ms:
        low, high = figures["ratio_spread"]
        cells.append(f"{ms['torch']:10.2f}")
        cells.append(f"{figures['ratio']:6.2f} ({low:.2f}-{high:.2f})".ljust(20))
    memory = figures.get("peak_bytes", {}).values()
    return "  ".join([*cells, " / ".join(f"{peak / 1e6:.0f}" for peak in memory)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--against", choices=["torch"], help="time it beside ours")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW",
                        help=", ".join(ROWS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side; of slow rows 3")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both sides")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    args = parser.parse_args()

    sides = ["ours", *([args.against] if args.against else [])]
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    if args.against:
        import torch

        torch.set_num_threads(args.threads)
        versions += f", torch {torch.__version__}"
    print(f"{args.threads} threads, {args.device}, {versions}")
    heading = f"{'row':15}  {'ours ms (lowest-highest)':>32}  {'tokens/s':>11}  {'share':>6}"
    print(heading + (f"  {'torch ms':>10}  {'torch / ours':20}" if args.against else "") + "  MB")
    results = []
    with threadpool_limits(args.threads, user_api="blas"):
        for name in args.rows:
            results.append(measure(name, sides, args.rounds, args.device, args.threads))
            print(line(results[-1]), flush=True)
    ratios = [r["ratio"] for r in results if r["kind"] == "training" and "ratio" in r]
    mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None
    if mean is not None:
        print(f"geometric mean of the training rows: {mean:.2f}")
    if args.json:
        report = {"versions": versions, "threads": args.threads, "device": args.device,
                  "rows": results, "geometric_mean": mean}  # fmt: skip
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    cli.run(main)
