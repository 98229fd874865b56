"""Which way round should the matrices stand? The measurement behind docs/log.md's first entry.

One training step of an LSTM layer on one-hot input (input rows, T steps forward, T back, all
weight gradients; hs and dhs (T, B, H) in every form), float32, written four ways:

    rows             z = h W_h, activations (B, 4H): minilstm.nn.lstm as it is
    gate-major       z = W_h h, activations (4H, B), gates as contiguous blocks; else the same page
    rows, buffers    as rows, every operation in place in long-lived buffers
    gate-major, buffers

The forms are timed in turn, step by step, so that a noisy moment hits all of them; the figures
are medians. Run it alone on the machine:  python tests/campaigns/matrix_layout.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from minilstm.nn.embedding import one_hot
from minilstm.nn.lstm import cell_backward, cell_forward, lstm_backward, lstm_forward

SHAPES = [(65, 128, 1, 10), (65, 128, 32, 50), (65, 256, 64, 64), (65, 512, 128, 256)]  # V, H, B, T
Step = Callable[[], tuple[np.ndarray, ...]]  # -> hs, dW_x, dW_h, db


def rows_page(ids, dhs, W_x, W_h, b) -> Step:
    V, H, B = len(W_x), len(W_h), ids.shape[1]

    def step():
        zero = np.zeros((2, B, H), W_h.dtype)
        hs, _, cache = lstm_forward(one_hot(ids, V, W_x.dtype), (zero[0], zero[1]), W_x, W_h, b)
        _, _, grads = lstm_backward(dhs, (zero[0], zero[1]), cache)
        return hs, *grads

    return step


def gate_major_page(ids, dhs, W_x, W_h, b) -> Step:
    (T, B), V, H = ids.shape, len(W_x), len(W_h)
    W = np.ascontiguousarray(W_h.T)  # (4H, H)

    def step():
        zs = (W_x[ids] + b).swapaxes(1, 2)  # (T, 4H, B)
        h = c = np.zeros((H, B), W.dtype)
        hs, cells = np.empty((T + 1, B, H), W.dtype), []
        hs[0] = 0
        for t in range(T):
            z = zs[t] + W @ h
            h, c_next, *gates = cell_forward(*np.split(z, 4), c)
            cells.append((c, gates))
            hs[t + 1], c = h.T, c_next
        dzs = np.empty((T, B, 4 * H), W.dtype)
        dh = dc = np.zeros((H, B), W.dtype)
        for t in reversed(range(T)):
            c_prev, (i, f, g, o, tanh_c) = cells[t]
            *dz, dc = cell_backward(dhs[t].T + dh, dc, i, f, g, o, c_prev, tanh_c)
            dz = np.concatenate(dz)  # (4H, B)
            dzs[t] = dz.T
            dh = W.T @ dz
        rows = dzs.reshape(T * B, 4 * H)
        return (hs[1:], one_hot(ids.reshape(-1), V, W.dtype).T @ rows,
                hs[:T].reshape(T * B, H).T @ rows, np.ones(T * B, W.dtype) @ rows)  # fmt: skip

    return step


def buffered(ids, dhs, W_x, W_h, b, gate_major: bool) -> Step:
    """Both layouts in place. A (B, H) array is (H, B) if gate_major; W_h and b come halved for
    the sigmoid gates, so that one tanh serves all four: σ(z) = ½ tanh(z/2) + ½."""
    (T, B), V, H = ids.shape, len(W_x), len(W_h)
    dtype, flip = W_h.dtype, (lambda x: x.T) if gate_major else (lambda x: x)
    empty = lambda *shape: np.empty(shape[:-2] + shape[:-3:-1] if gate_major else shape, dtype)  # noqa: E731
    half = np.full(4 * H, 0.5, dtype)
    half[2 * H : 3 * H] = 1
    gates, tanh_c, c = empty(T, B, 4 * H), empty(T, B, H), empty(T + 1, B, H)
    h, dh, dc, dh_total, s, u, v = (empty(B, H) for _ in range(7))
    z_x, hs, dzs = np.empty((B, 4 * H), dtype), np.zeros((T + 1, B, H), dtype), None
    dzs = np.empty((T, B, 4 * H), dtype) if gate_major else gates
    product, X = empty(B, 4 * H), np.empty((T * B, V), dtype)
    blocks = [slice(k * H, (k + 1) * H) for k in range(4)]
    ones = np.ones(T * B, dtype)
    c[0] = 0

    def split(z):
        return [z[k] if gate_major else z[:, k] for k in blocks]

    def step():
        W, W_half = W_x * half + b * half, np.ascontiguousarray(flip(W_h * half))
        h.fill(0)
        for t in range(T):
            z, (i, f, g, o) = gates[t], split(gates[t])
            np.take(W, ids[t], axis=0, mode="clip", out=z_x)
            np.matmul(*((W_half, h) if gate_major else (h, W_half)), out=product)
            np.add(product, flip(z_x), out=z)
            np.tanh(z, out=z)
            for gate in (i, f, o):
                np.multiply(gate, 0.5, out=gate)
                np.add(gate, 0.5, out=gate)
            np.multiply(f, c[t], out=c[t + 1])
            np.multiply(i, g, out=s)
            np.add(c[t + 1], s, out=c[t + 1])
            np.tanh(c[t + 1], out=tanh_c[t])
            np.multiply(o, tanh_c[t], out=h)
            hs[t + 1] = flip(h)
        dh.fill(0)
        dc.fill(0)
        for t in reversed(range(T)):
            z, (i, f, g, o), tc = gates[t], split(gates[t]), tanh_c[t]
            np.add(dh, flip(dhs[t]), out=dh_total)
            for a, out in ((tc, s), (g, v)):  # 1 - tanh²
                np.multiply(a, a, out=out)
                np.subtract(1, out, out=out)
            np.multiply(s, o, out=s)
            np.multiply(s, dh_total, out=s)
            np.add(dc, s, out=dc)  # dc +=
            for a, da in ((o, (dh_total, tc)), (f, (dc, c[t])), (i, (dc, g))):
                np.multiply(*da, out=s)
                if a is f:
                    dc_prev = np.multiply(dc, f, out=u)  # before f is overwritten
                if a is i:
                    np.multiply(v, i, out=v)
                    np.multiply(v, dc, out=g)
                np.multiply(s, a, out=s)
                np.subtract(1, a, out=a)
                np.multiply(s, a, out=a)
            np.copyto(dc, dc_prev)
            np.matmul(*((W_h, z) if gate_major else (z, W_h.T)), out=dh)
            if gate_major:
                dzs[t] = z.T
        rows = dzs.reshape(T * B, 4 * H)
        X.fill(0)
        X[np.arange(T * B), ids.reshape(-1)] = 1
        return hs[1:], X.T @ rows, hs[:T].reshape(T * B, H).T @ rows, ones @ rows

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timings per form, in turn")
    parser.add_argument("--seconds", type=float, default=0.1, help="shortest single timing")
    args = parser.parse_args()
    names = ["rows", "gate-major", "rows, buffers", "gate-major, buffers"]
    print("ms per step".ljust(18) + "".join(name.rjust(21) for name in names))
    for V, H, B, T in SHAPES:
        rng = np.random.default_rng(0)
        ids = rng.integers(0, V, (T, B))
        dhs, W_x, W_h, b = (
            (0.1 * rng.standard_normal(shape)).astype(np.float32)
            for shape in ((T, B, H), (V, 4 * H), (H, 4 * H), (4 * H,))
        )
        data = ids, dhs, W_x, W_h, b
        steps = [rows_page(*data), gate_major_page(*data)]
        steps += [buffered(*data, gate_major=False), buffered(*data, gate_major=True)]
        reference = steps[0]()
        for name, step in zip(names, steps, strict=True):  # the same numbers, or no comparison
            for a, r in zip(step(), reference, strict=True):
                assert np.abs(a - r).max() <= 1e-3 * np.abs(r).max(), name
        started = time.perf_counter()
        steps[0]()
        repeat = max(1, int(args.seconds / (time.perf_counter() - started)))
        times: list[list[float]] = [[] for _ in steps]
        for _ in range(args.rounds):
            for step, seconds in zip(steps, times, strict=True):
                started = time.perf_counter()
                for _ in range(repeat):
                    step()
                seconds.append((time.perf_counter() - started) / repeat)
        medians = [1000 * statistics.median(seconds) for seconds in times]
        row = "".join(f"{ms:21.2f}" for ms in medians)
        print(f"{V}, {H}, {B}, {T}".ljust(18) + row, flush=True)


if __name__ == "__main__":
    main()
