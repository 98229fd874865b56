"""What makes the LSTM fast on a CPU: the measurements behind docs/log.md's "The faster form".

    python tests/campaigns/fast_form.py layout      how the gates lie in memory, and what is kept
    python tests/campaigns/fast_form.py alignment   arrays that begin a line of the cache, or do not
    python tests/campaigns/fast_form.py blocks      products with W_h some columns at a time
    python tests/campaigns/fast_form.py threads     halves of a batch in two threads of Python
    python tests/campaigns/fast_form.py neighbour   beside a process that keeps a core busy
    python tests/campaigns/fast_form.py lookup      the input's product, or its rows looked up
    python tests/campaigns/fast_form.py loss        logits in chunks of rows
    python tests/campaigns/fast_form.py adam        parameters in blocks
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
from minilstm import optim
from minilstm.nn import loss as loss_module
from minilstm.nn import lstm_fast
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


def in_turn(name: str, variants: dict[str, Variant], rounds: int) -> None:
    """Time the variants one after the other, again and again, and print a line."""
    times: dict[str, list[float]] = {key: [] for key in variants}
    for variant in variants.values():
        variant()
    for _ in range(rounds):
        for key, variant in variants.items():
            time.sleep(0.02)
            started = time.perf_counter()
            variant()
            times[key].append(1e3 * (time.perf_counter() - started))
    cells = (f"{key} {statistics.median(t):.2f} ({min(t):.2f})" for key, t in times.items())
    print(f"{name:12}", " | ".join(cells), flush=True)


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


# --- the input


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
                    for n in (18, 20, 22, 23, 25)}  # fmt: skip
        variants |= {f"2^23, 2^{n} in the cache": lambda n=n, V=V: run(2**23 // V, 2**n)
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
    all_of_them = (layout, alignment, blocks, threads, neighbour, lookup, loss, adam, products)
    experiments = {f.__name__: f for f in all_of_them}
    parser.add_argument("experiment", choices=experiments)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    experiments[args.experiment](args.rounds)
