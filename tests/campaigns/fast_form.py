"""What makes the LSTM fast on a CPU: the measurements behind docs/log.md's "The faster form".

    python tests/campaigns/fast_form.py layout      how the gates lie in memory, and what is kept
    python tests/campaigns/fast_form.py alignment   arrays that begin a line of the cache, or do not
    python tests/campaigns/fast_form.py blocks      products with W_h some columns at a time
    python tests/campaigns/fast_form.py threads     halves of a batch in two threads of Python
    python tests/campaigns/fast_form.py neighbour   beside a process that keeps a core busy
    python tests/campaigns/fast_form.py processes   batches shared out to processes, or not
    python tests/campaigns/fast_form.py limits      products in one thread or in two
    python tests/campaigns/fast_form.py lookup      the input's product, or its rows looked up
    python tests/campaigns/fast_form.py one_hot     one-hot input as a product, or gathered
    python tests/campaigns/fast_form.py scatter     a table's gradient: product, scatter or sums
    python tests/campaigns/fast_form.py sparse      an embedding's gradient: all rows, or those read
    python tests/campaigns/fast_form.py flat        one vector of all parameters, or a dict
    python tests/campaigns/fast_form.py loss        logits in chunks of rows
    python tests/campaigns/fast_form.py adam        parameters in blocks
    python tests/campaigns/fast_form.py growth      time against T, B and tokens; docs/growth.png
    python tests/campaigns/fast_form.py products    this machine's matrix products

The variants are timed in turn, so that a noisy moment hits all of them; milliseconds, medians and
the least. Run it alone on the machine.
"""

# ruff: noqa: B023 -- a loop's functions are called before its variables change

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

import minilstm as ml
from minilstm import evaluation, model, optim, plots, workers
from minilstm.nn import embedding, lstm_fast
from minilstm.nn import loss as loss_module
from minilstm.nn.embedding import embedding_forward
from minilstm.workspace import Workspace, empty

SHAPES = {  # H, B, T
    "small": (128, 32, 50),
    "deep": (256, 64, 64),
    "windows": (512, 128, 64),
    "wiki-chars": (1024, 64, 32),
    "wiki-words": (400, 20, 35),
}
Variant = Callable[[], object]


def in_turn(
    name: str, variants: dict[str, Variant], rounds: int, turn: float = 0.0
) -> list[float]:
    """Time the variants one after the other, again and again; print a line, return the least.

    turn: seconds; where a variant takes less, its time is the median of as many calls as fit, as it
    is for a step of training among others: after a pause everything has to wake up.
    """
    times: dict[str, list[float]] = {key: [] for key in variants}
    for variant in variants.values():
        variant()
    for _ in range(rounds):
        for key, variant in variants.items():
            time.sleep(0.15 if turn else 0.02)
            calls: list[float] = []
            while not calls or sum(calls) < turn:
                started = time.perf_counter()
                variant()
                calls.append(time.perf_counter() - started)
            times[key].append(1e3 * statistics.median(calls))
    cells = (f"{key} {statistics.median(t):.2f} ({min(t):.2f})" for key, t in times.items())
    print(f"{name:12}", " | ".join(cells), flush=True)
    return [min(t) for t in times.values()]


def random(*shape: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(len(shape)).normal(size=shape)).astype(np.float32)


# --- how the gates lie in memory


def layout(rounds: int) -> None:
    """One layer's forward, but for the input's product; gates o, i, f, g, σ halved."""
    for name, (H, B, T) in SHAPES.items():
        W_h, xs = random(H, 4 * H), random(T, B, 4 * H)
        gates, h, c = random(T, B, 4 * H), random(T + 1, B, H), random(T + 1, B, H)
        kept, product = random(T, B, H), random(B, 4 * H)

        def finish(t, sigmoids, o, i, f, g, tanh_c, h=h, c=c):
            sigmoids *= 0.5
            sigmoids += 0.5
            np.multiply(f, c[t], out=c[t + 1])
            np.multiply(i, g, out=h[t + 1])
            c[t + 1] += h[t + 1]
            np.multiply(o, np.tanh(c[t + 1], out=tanh_c), out=h[t + 1])

        def rows(tanh_c=kept, H=H, T=T, gates=gates, h=h, W_h=W_h, xs=xs, product=product):
            for t in range(T):
                np.matmul(h[t], W_h, out=product)
                product += xs[t]
                z = np.tanh(product, out=gates[t])
                columns = [z[:, k * H : (k + 1) * H] for k in range(4)]
                finish(t, z[:, : 3 * H], *columns, tanh_c[t])

        def in_blocks(tanh_of_view, keep, H=H, B=B, T=T, gates=gates, h=h, W_h=W_h, xs=xs,
                   product=product, kept=kept):  # fmt: skip
            for t in range(T):
                np.matmul(h[t], W_h, out=product)
                z = gates[t].reshape(4, B, H)
                if tanh_of_view:
                    product += xs[t]
                    np.tanh(as_blocks(product), out=z)
                else:
                    np.add(as_blocks(product), as_blocks(xs[t]), out=z)
                    np.tanh(z, out=z)
                finish(t, z[:3], *z, kept[t] if keep else kept[0])

        def products(T=T, h=h, W_h=W_h, product=product):
            for t in range(T):
                np.matmul(h[t], W_h, out=product)

        variants = {
            "rows (B, 4H)": rows,
            "blocks, sum into them": lambda: in_blocks(False, True),
            "blocks, tanh into them": lambda: in_blocks(True, True),
            "and tanh c made anew in backward": lambda: in_blocks(True, False),
            "the products alone": products,
        }
        in_turn(name, variants, rounds)


def as_blocks(rows: np.ndarray, n: int = 4) -> np.ndarray:
    """(B, 4H) as (n, B, 4H/n): a view."""
    return rows.reshape(len(rows), n, -1).transpose(1, 0, 2)


def at(offset: int, *shape: int) -> np.ndarray:
    """A random array that begins so many bytes behind a line of the cache."""
    size = 4 * int(np.prod(shape))
    array = empty(np, (size + 64,), np.uint8)[offset : offset + size].view(np.float32)
    array[...] = random(*shape).reshape(-1)
    return array.reshape(shape)


def alignment(rounds: int) -> None:
    """A hundred products of two (B, H) in place, and of h (B, H) and the gates' W_h (4, H, H)."""
    for name, (H, B, _) in SHAPES.items():
        variants = {}
        for offset in (0, 16):
            a, b, h = (at(offset, B, H) for _ in range(3))
            W, out = at(offset, 4, H, H), at(offset, 4, B, H)
            variants[f"a *= b at {offset}"] = lambda a=a, b=b: [
                np.multiply(a, b, out=a) for _ in range(100)]  # fmt: skip
            variants[f"h W_h at {offset}"] = lambda h=h, W=W, out=out: [
                np.matmul(h, W, out=out) for _ in range(100)]  # fmt: skip
        in_turn(name, variants, rounds)


def blocks(rounds: int) -> None:
    """A hundred products of h (B, H) and W_h, in one thread, whole and in n blocks of columns."""
    for H, B in [(128, 16), (128, 32), (256, 32), (256, 64), (400, 20), (512, 64), (1024, 64)]:
        h, W, out = at(0, B, H), at(0, H, 4 * H), at(0, B, 4 * H)
        variants: dict[str, Variant] = {"whole": lambda: [np.matmul(h, W, out=out)
                                                          for _ in range(100)]}  # fmt: skip
        for n in (4, 8, 16, 32):
            W_n, out_n = at(0, n, H, 4 * H // n), at(0, n, B, 4 * H // n)
            W_n[...] = as_blocks(W, n)
            variants[f"{n} blocks"] = lambda W_n=W_n, out_n=out_n: [
                np.matmul(h, W_n, out=out_n) for _ in range(100)]  # fmt: skip
        with threadpool_limits(1, user_api="blas"):
            in_turn(f"{B} x {H}", variants, rounds)


# --- threads


def threads(rounds: int) -> None:
    """One layer, forward and backward: threads of OpenBLAS, or halves of the batch in threads."""
    pool = ThreadPoolExecutor(2)
    for name, (H, B, T) in SHAPES.items():
        W_x, W_h, b = random(65, 4 * H), random(H, 4 * H), random(4 * H)
        ids = np.random.default_rng(0).integers(65, size=(T, B))

        def layer(part: slice, workspace: Workspace, H=H, T=T, W_x=W_x, W_h=W_h, b=b, ids=ids):
            ids_here = ids[:, part]
            zero = np.zeros((ids_here.shape[1], H), np.float32)
            x = lstm_fast.Lookup(ids_here, None)
            hs, _, cache = lstm_fast.lstm_forward(x, (zero, zero), W_x, W_h, b, workspace, "l")
            lstm_fast.lstm_backward(hs, (zero, zero), cache)

        whole, spaces = Workspace(), (Workspace(), Workspace())
        halves = slice(0, B // 2), slice(B // 2, B)

        def limited(n: int, work: Callable[[], object]) -> Variant:
            def run() -> None:
                with threadpool_limits(n, user_api="blas"):
                    work()

            return run

        variants = {
            "2 of OpenBLAS": limited(2, lambda: layer(slice(None), whole)),
            "1 of OpenBLAS": limited(1, lambda: layer(slice(None), whole)),
            "2 of Python, 1 of OpenBLAS each": limited(
                1, lambda: list(pool.map(layer, halves, spaces))
            ),
        }
        in_turn(name, variants, rounds)


def neighbour(rounds: int) -> None:
    """Training steps of the benchmark's row "windows", alone and beside a busy loop."""
    config = ml.ModelConfig(65, 512, 1, embedding_size=512)
    params = ml.init_params(config, np.random.default_rng(0))
    inputs, targets = np.random.default_rng(1).integers(65, size=(2, 256, 128))
    workspace = Workspace()

    def step() -> None:
        ml.loss_and_grads(params, config, inputs, targets, workspace=workspace)

    def beside() -> None:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as loop:
            time.sleep(0.2)
            started = time.perf_counter()
            step()
            busy.append(1e3 * (time.perf_counter() - started))
            loop.kill()

    busy: list[float] = []
    in_turn("windows", {"alone": step, "beside, and 0.2 s": beside}, rounds)
    print(f"beside: {statistics.median(busy):.0f} ms ({min(busy):.0f}-{max(busy):.0f})")


MODELS = {  # V, E, L, H, and B, T: the benchmark's
    "hello": ((65, None, 1, 128), (1, 10)),
    "small": ((65, None, 1, 128), (32, 50)),
    "deep": ((65, 64, 2, 256), (64, 64)),
    "windows": ((65, 512, 1, 512), (128, 256)),
    "wiki-chars": ((283, 512, 1, 1024), (64, 100)),
    "wiki-words": ((28_782, 400, 2, 400), (20, 35)),
}


def training_step(name: str) -> Variant:
    """Loss, gradients, clipping and Adam of one of the benchmark's models."""
    (V, E, L, H), (B, T) = MODELS[name]
    config, workspace, optimizer = ml.ModelConfig(V, H, L, E), ml.Workspace(), ml.Adam()
    params = ml.init_params(config, np.random.default_rng(0))
    inputs, targets = np.random.default_rng(1).integers(V, size=(2, T, B))

    def step() -> None:
        _, grads, _ = ml.loss_and_grads(params, config, inputs, targets, workspace=workspace)
        ml.clip_by_global_norm(grads, 1.0)
        optimizer.step(params, grads)

    return step


def processes(rounds: int) -> None:
    """Training steps and the benchmark's evaluation, with every batch in 1 or 2 processes."""
    chosen = workers.shares

    def with_processes(n: int, step: Variant) -> Variant:
        def cuts(params, B, numbers, worth):
            return [slice(k * B // n, (k + 1) * B // n) for k in range(n)]

        def run() -> None:
            model.shares = evaluation.shares = cuts
            step()
            model.shares = evaluation.shares = chosen

        return run

    config = ml.ModelConfig(65, 256, 2, embedding_size=64)
    params = ml.init_params(config, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(65, size=111_540)
    work = {name: training_step for name in MODELS if name != "hello"}
    for name in [*work, "evaluation"]:
        variants = {}
        for n in (1, 2):
            step = training_step(name) if name in work else (
                lambda: evaluation.evaluate(params, config, ids, streams=64))  # fmt: skip
            variants[f"{n} of them"] = with_processes(n, step)
        in_turn(name, variants, rounds, turn=0.3)


def limits(rounds: int) -> None:
    """Training steps in one process, the matrix products in one thread or in two."""
    chosen = workers.shares
    model.shares = lambda params, B, numbers, worth: [slice(0, B)]
    for name in MODELS:

        def limited(n: int, step: Variant) -> Variant:
            def run() -> None:
                with threadpool_limits(n, user_api="blas"):
                    step()

            return run

        in_turn(name, {f"{n} threads": limited(n, training_step(name)) for n in (1, 2)}, rounds,
                turn=0.3)  # fmt: skip
    model.shares = chosen


# --- the input


def one_hot(rounds: int) -> None:
    """z = x W_x of one-hot x: the rows multiplied, or looked up."""
    for name, (H, B, T) in SHAPES.items():
        V = {"wiki-chars": 283, "wiki-words": 28_782}.get(name, 65)
        W_x, ids = random(V, 4 * H), np.random.default_rng(0).integers(V, size=T * B)
        x, out = embedding.one_hot(ids, V, np.float32), np.empty((T * B, 4 * H), np.float32)
        variants = {
            "make x and multiply": lambda: np.matmul(embedding.one_hot(ids, V, "f4"), W_x, out=out),
            "multiply": lambda: np.matmul(x, W_x, out=out),
            "W_x[ids]": lambda: W_x[ids],
            "take into an array": lambda: np.take(W_x, ids, axis=0, out=out),
            "the same, mode clip": lambda: np.take(W_x, ids, axis=0, out=out, mode="clip"),
        }
        in_turn(name, variants, rounds)


def scatter(rounds: int) -> None:
    """The gradient of a table whose rows were looked up: the sum of dx over each row's places."""
    for V, E, N in ((65, 512, 1600), (65, 2048, 32_768), (283, 512, 6400), (1014, 512, 6400),
                    (28_782, 400, 700)):  # fmt: skip
        ids, dx = np.random.default_rng(0).integers(V, size=N), random(N, E)
        dW = np.empty((V, E), np.float32)

        def product(ids=ids, dx=dx, dW=dW, V=V) -> None:
            np.matmul(embedding.one_hot(ids, V, np.float32).T, dx, out=dW)

        def add_at(ids=ids, dx=dx, dW=dW) -> None:
            dW[...] = 0
            np.add.at(dW, ids, dx)

        def sorted_sums(ids=ids, dx=dx, dW=dW) -> None:
            order = np.argsort(ids, kind="stable")
            rows, first = np.unique(ids[order], return_index=True)
            dW[...] = 0
            dW[rows] = np.add.reduceat(dx[order], first, axis=0)

        variants = {"add.at": add_at, "sorted, reduceat": sorted_sums}
        if V < 2000:
            variants["one-hot product"] = product
        in_turn(f"{V}x{E}, {N}", variants, rounds)


def sparse(rounds: int) -> None:
    """wiki-words' embedding: its gradient as (V, E), nearly all of it zero, or as the rows read.

    Adam's moments of rows that were not read decay all the same, and move them: an Adam of the rows
    read alone is another algorithm (PyTorch's SparseAdam). It stands here for what it would save.
    """
    V, E, N = 28_782, 400, 700
    ids, dx = np.random.default_rng(0).integers(V, size=N), random(N, E)
    read, place = np.unique(ids, return_inverse=True)
    dW, few = np.zeros((V, E), np.float32), np.zeros((len(read), E), np.float32)
    whole, of_rows = {"W": random(V, E)}, {"W": random(len(read), E)}
    both = ml.Adam(), ml.Adam()

    def collect(dW, ids):
        dW[...] = 0
        np.add.at(dW, ids, dx)

    in_turn("collect", {"all": lambda: collect(dW, ids), "read": lambda: collect(few, place)},
            rounds)  # fmt: skip
    in_turn("norm", {"all": lambda: np.vdot(dW, dW), "read": lambda: np.vdot(few, few)}, rounds)
    in_turn("Adam", {"all": lambda: both[0].step(whole, {"W": dW}),
                     "read": lambda: both[1].step(of_rows, {"W": few})}, rounds)  # fmt: skip


def flat(rounds: int) -> None:
    """Clipping and Adam over a dict of arrays, or over one vector that they are views of."""
    for name, ((V, E, L, H), _) in MODELS.items():
        params = ml.init_params(ml.ModelConfig(V, H, L, E), np.random.default_rng(0))
        vector = {"all": np.concatenate([p.reshape(-1) for p in params.values()])}
        variants = {}
        for key, tree in {"dict": params, "vector": vector}.items():
            grads, optimizer = {k: 0.01 * p for k, p in tree.items()}, ml.Adam()

            def update(tree=tree, grads=grads, optimizer=optimizer) -> None:
                ml.clip_by_global_norm(grads, 1e9)
                optimizer.step(tree, grads)

            variants[key] = update
        in_turn(name, variants, rounds)


def lookup(rounds: int) -> None:
    """One layer over an embedding of 65 rows, forward and backward."""
    for name, (H, B, T) in SHAPES.items():
        E = H
        W, W_x, W_h, b = random(65, E), random(E, 4 * H), random(H, 4 * H), random(4 * H)
        ids, zero = np.random.default_rng(0).integers(65, size=(T, B)), np.zeros((B, H), np.float32)
        workspace = Workspace()

        def run(x, W_x=W_x, W_h=W_h, b=b, zero=zero, workspace=workspace):
            hs, _, cache = lstm_fast.lstm_forward(x(), (zero, zero), W_x, W_h, b, workspace, "l")
            lstm_fast.lstm_backward(hs, (zero, zero), cache)

        variants = {
            "x W_x": lambda: run(lambda: embedding_forward(ids, W)),
            "(W W_x)[ids]": lambda: run(lambda: lstm_fast.Lookup(ids, W)),
        }
        in_turn(name, variants, rounds)


# --- the loss, and Adam


def loss(rounds: int) -> None:
    for name, (V, H, N) in {
        "windows": (65, 512, 32_768),
        "wiki-chars": (283, 1024, 6400),
        "wiki-words": (28_782, 400, 700),
    }.items():
        hs, W, b = random(N, 1, H), random(H, V), random(V)
        targets = np.random.default_rng(0).integers(V, size=(N, 1))
        standard = loss_module.CACHED

        def run(rows, cached, hs=hs, W=W, b=b, targets=targets):
            loss_module.CACHED = cached
            loss_module.linear_cross_entropy(hs, W, b, targets, rows)

        variants = {f"2^{n} logits": lambda n=n, V=V: run(max(1, 2**n // V), standard)
                    for n in (20, 22, 23, 24, 25)}  # fmt: skip
        variants |= {f"2^25, 2^{n} in the cache": lambda n=n, V=V: run(2**25 // V, 2**n)
                     for n in (16, 20, 30)}  # fmt: skip
        in_turn(name, variants, rounds)
        loss_module.CACHED = standard


def adam(rounds: int) -> None:
    for name, shapes in {
        "hello": [(65, 512), (128, 512), (512,), (128, 65), (65,)],
        "wiki-words": [(28_782, 400), (800, 1600), (400, 28_782)],
    }.items():
        params = {str(n): random(*shape) for n, shape in enumerate(shapes)}
        grads = {key: p.copy() for key, p in params.items()}
        standard = optim.BLOCK
        optimizers = {n: ml.Adam() for n in (12, 14, 15, 16, 18, 30)}

        def run(n, params=params, grads=grads, optimizers=optimizers):
            optim.BLOCK = 2**n
            optimizers[n].step(params, grads)

        in_turn(name, {f"2^{n}": lambda n=n: run(n) for n in optimizers}, rounds)
        optim.BLOCK = standard


# --- how the cost grows


def growth(rounds: int) -> None:
    """A training step against T and against B, an evaluation against its tokens, with the straight
    line through each that is nearest in proportion; all of batches that are shared out alike."""
    config = ml.ModelConfig(65, 256, 1, embedding_size=64)
    params = ml.init_params(config, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(65, size=800_001)

    def training(T: int, B: int) -> Variant:
        workspace, inputs = ml.Workspace(), ids[: T * B].reshape(T, B)
        return lambda: ml.loss_and_grads(params, config, inputs, inputs, workspace=workspace)

    sizes = {
        "steps T, with B = 32": {T: training(T, 32) for T in (16, 32, 64, 128, 256, 512)},
        "sequences B, with T = 64": {B: training(64, B) for B in (8, 16, 32, 64, 128, 256)},
        "tokens of an evaluation": {
            N: lambda N=N: evaluation.evaluate(params, config, ids[: N + 1], streams=64)
            for N in (50_000, 100_000, 200_000, 400_000, 800_000)
        },
    }
    axes = plots.new_axes("ABC", width=11, height=3.6)
    for ax, (what, variants) in zip(axes, sizes.items(), strict=True):
        named = {str(n): step for n, step in variants.items()}
        times = np.array(in_turn(what, named, rounds, turn=0.3))
        n = np.array(list(variants), dtype=float)
        # Least squares of relative errors: else the largest size alone would decide.
        slope, start = np.polyfit(n, times, 1, w=1 / times)
        off = np.abs((start + slope * n) / times - 1).max()
        exponent = np.polyfit(np.log(n[2:]), np.log(times[2:]), 1)[0]
        line = f"{start:.2f} ms + {slope:.2g} ms · n"
        print(f"{'':12} {line}, at most {off:.0%} off; from the third on as n^{exponent:.2f}")
        ax.plot(n, times, "o", color="C0", label="the least")
        ax.plot(n, start + slope * n, color="0.3", linewidth=1, label=line)
        ax.set(xlabel=what, ylabel="milliseconds", ylim=(0, None), xlim=(0, None))
        ax.legend(frameon=False, loc="upper left")
    print(plots.save(axes[0], "docs/growth.png"))


# --- the machine


def products(rounds: int) -> None:
    sizes = [(2048, 2048, 2048), (32, 128, 512), (32, 512, 128), (64, 256, 1024),
             (64, 1024, 256), (128, 512, 2048), (64, 1024, 4096), (20, 400, 1600)]  # fmt: skip
    for m, k, n in sizes:
        a, b, bT, out = random(m, k), random(k, n), random(n, k).T, np.empty((m, n), np.float32)
        times = max(1, int(1e9 / (2 * m * k * n)))

        def run(b, n_threads, a=a, out=out, times=times):
            with threadpool_limits(n_threads, user_api="blas"):
                for _ in range(times):
                    np.matmul(a, b, out=out)

        print(f"{2 * m * k * n * times / 1e9:.2f} GFLOP of", end=" ")
        variants = {
            "1 thread": lambda: run(b, 1),
            "2 threads": lambda: run(b, 2),
            "transposed, 2": lambda: run(bT, 2),
        }
        in_turn(f"{m}x{k}x{n}", variants, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    all_of_them = (layout, alignment, blocks, threads, processes, limits, neighbour, lookup,
                   one_hot, scatter, sparse, flat, loss, adam, growth, products)  # fmt: skip
    experiments = {f.__name__: f for f in all_of_them}
    parser.add_argument("experiment", choices=experiments)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    experiments[args.experiment](args.rounds)
