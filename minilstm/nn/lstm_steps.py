"""The steps of lstm_fast.py: lstm.py's cell, forward and backward, in arrays made beforehand.

- One tanh for all four gates: σ(z) = ½ tanh(½ z) + ½. On a CPU each gate is a block of its own,
  (4, B, H). Where much is read, copies of the weights hold the inner ½, and the gates in the order
  o, i, f, g: the three σ in a row. Elsewhere g = 1 · tanh(1 · z) + 0 is done as the others are.
- What the gates' gradients are multiplied by needs no gradient: backward makes these slopes for
  several steps at a time, and the step itself is left with a handful of operations.
- The gates' arrays become those of their gradients, (B, 4H).
- Where matrices are small, a product takes a block of columns at a time: OpenBLAS then reads them
  as they lie, where it would first copy ("pack") them (docs/log.md).

On a GPU the elementwise part of a step is lstm.py's cell, one kernel each way.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minilstm.backend import Array, fuse, get_array_module
from minilstm.nn.lstm import cell_backward, cell_forward
from minilstm.workspace import empty

NUMBERS = 1 << 18  # of the input's product, made at a time: they stay in the cache
SLOPES = 1 << 14  # of each slope, made at a time
SMALL = 1_000_000  # multiplications up to which OpenBLAS takes matrices as they lie, not packed


class Step(NamedTuple):
    """What one step reads and writes: views, made once because making them takes time too."""

    h_prev: Array  # (B, H)
    h: Array  # (n, B, w); on a GPU this and all that follows (B, H)
    c_prev: Array
    c: Array
    gates: Array  # (4, n, B, w); on a GPU (B, 4H)
    each: tuple[Array, ...]  # i, f, g, o
    dz: Array  # (B, 4H), where the gates are; (4, 1, B, H) for products by blocks
    dz_blocks: tuple[Array, Array]  # of it i, f, g (3, n, B, w) and o (n, B, w)


class Buffers:
    """The arrays of one layer, for batches of one shape; where nobody will go back through them,
    the gates of a step take the last one's place."""

    def __init__(self, xp: Any, T: int, B: int, H: int, dtype: Any, keep: bool) -> None:
        array, on_host, w = partial(empty, xp, dtype=dtype), xp is np, columns_at_once(xp, B, H)
        self.by_blocks, self.n = w is not None, H // (w or H)
        self.copies = on_host and (B > 1 or T >= H)  # of the weights: for less they take too long
        blocks = (self.n, B, w or H) if on_host else (B, H)
        self.dzs = array((T if keep else 1, B, 4 * H))
        self.h = array((T + 1, B, H))  # [t] into step t, [t + 1] out
        self.c = array((T + 1 if keep else 2, *blocks))
        steps = min(T, max(1, NUMBERS // (B * 4 * H))) if on_host else T
        self.zs = self.zs_blocks = array((steps, B, 4 * H))
        self.product = self.z = array((4, *blocks) if self.by_blocks else (B, 4 * H))
        if self.by_blocks:
            self.zs_blocks = self.zs.reshape(-1, B, 4, self.n, w or H).transpose(0, 2, 3, 1, 4)
        elif on_host:
            self.z = as_blocks(self.product, self.n)
        if self.copies:  # by blocks the columns of one lie side by side
            self.W_h = array((4, self.n, H, w or H) if self.by_blocks else (H, 4 * H))
        if keep and B > 1:
            self.W_hT = array((4, self.n, H, w or H))
        if on_host:
            self.scratch = array((2, *blocks))
            each = np.repeat(np.array([0.5, 0.5, 1, 0.5], dtype), H)  # number of i, f, g, o
            self.half = 0.5 if self.copies else each.reshape(4, *blocks)
            self.rest = 1 - self.half  # σ(z) = half · tanh(half · z) + rest
            self.gates = self.dzs.reshape(-1, 4, *blocks).swapaxes(0, 1)  # (4, T, n, B, w)
        if on_host and keep:
            self.slopes = array((5, min(T, max(1, SLOPES // (B * H))), *blocks))
            self.slopes_at = [(s[:3], s[3], s[4]) for s in self.slopes.swapaxes(0, 1)]
        self.steps = [self._step(t, on_host) for t in range(T)]

    def _step(self, t: int, on_host: bool) -> Step:
        h_prev, h, dz = self.h[t], self.h[t + 1], self.dzs[t % len(self.dzs)]
        c_prev, c = (self.c[m % len(self.c)] for m in (t, t + 1))
        if not on_host:
            return Step(h_prev, h, c_prev, c, dz, four(dz), dz, (dz, dz))
        gates, blocks = self.gates[:, t % len(self.dzs)], as_blocks(dz, self.n)
        return Step(h_prev, as_blocks(h, self.n, 1)[0], c_prev, c, gates, self.each(gates),
                    as_blocks(dz, 1) if self.by_blocks else dz, (blocks[:3], blocks[3]))

    def each(self, gates: Array) -> tuple[Array, ...]:
        """i, f, g, o of (4, …)."""
        return (*gates[1:], gates[0]) if self.copies else tuple(gates)


def columns_at_once(xp: Any, B: int, H: int) -> int | None:
    """How many columns at a time make a product with W_h the fastest, where that is not all 4H."""
    w = H
    while B * H * w > SMALL and w % 32 == 0:  # whole lines of the cache
        w //= 2
    return w if xp is np and B > 1 and B * H * w <= SMALL and w >= 64 else None


# --- the steps on a CPU: blocks (4, n, B, w), of w = H/n columns of each gate


def as_blocks(rows: Array, n: int, gates: int = 4) -> Array:
    """(B, 4H) as (4, n, B, w): a view."""
    return rows.reshape(len(rows), gates, n, -1).transpose(1, 2, 0, 3)


def as_rows(blocks: Array) -> Array:
    """(n, B, w) as (B, H)."""
    return blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1)


def for_one_tanh(z: np.ndarray, out: np.ndarray) -> np.ndarray:
    """From (4, …) in the order i, f, g, o to that of o, i, f, g, the first three halved."""
    np.multiply(z[3], 0.5, out=out[0])
    np.multiply(z[:2], 0.5, out=out[1:3])
    out[3] = z[2]
    return out


def forward_in_place(step: Step, buffers: Buffers) -> None:
    """lstm.cell_forward of buffers.z (4, n, B, w) into the step's gates, c and h."""
    gates, c_t, tanh_c, half = step.gates, step.c, buffers.scratch[0], buffers.half
    np.tanh(buffers.z if buffers.copies else np.multiply(buffers.z, half, out=gates), out=gates)
    scaled = gates[:3] if buffers.copies else gates
    scaled *= half
    scaled += buffers.rest  # (L1)…(L4)
    i, f, g, o = step.each
    np.multiply(f, step.c_prev, out=c_t)
    c_t += np.multiply(i, g, out=tanh_c)  # (L5), in tanh_c's place for as long
    np.multiply(o, np.tanh(c_t, out=tanh_c), out=step.h)  # (L6), (L7)


def steps_backward(
    dhs: np.ndarray, dh: np.ndarray, dc: np.ndarray, W_hT: np.ndarray, buffers: Buffers
) -> tuple[np.ndarray, np.ndarray]:
    """All steps from the last to the first: the gates become dz, and dh, dc those of the start."""
    T, B, H = dhs.shape
    n, length, (product, dc_prev) = buffers.n, len(buffers.slopes_at), buffers.scratch
    dhs_blocks = dhs.reshape(T, B, n, -1).swapaxes(1, 2)  # (T, n, B, w)
    dh, dc = (np.ascontiguousarray(as_blocks(d, n, 1)[0]) for d in (dh, dc))
    out = buffers.product if buffers.by_blocks else dh.reshape(B, H)
    for first in reversed(range(0, T, length)):
        steps = buffers.steps[first : first + length]
        slopes_of(buffers, first, first + len(steps))
        for k, step in reversed(list(enumerate(steps))):
            (dz_ifg, dz_o), (d_ifg, d_o, d_c) = step.dz_blocks, buffers.slopes_at[k]
            dh += dhs_blocks[first + k]  # h_t is read by step t+1 and by the layer above
            dc += np.multiply(dh, d_c, out=product)  # (L6), (L7)
            np.multiply(dc, step.each[1], out=dc_prev)  # (L5): by f, before dz takes its place
            np.multiply(dc, d_ifg, out=dz_ifg)  # (L1)…(L3)
            np.multiply(dh, d_o, out=dz_o)  # (L4)
            dc, dc_prev = dc_prev, dc
            np.matmul(step.dz, W_hT, out=out)  # (L9)
            if buffers.by_blocks:
                np.add.reduce(out, axis=0, out=dh)  # one product for each gate
    return as_rows(dh), as_rows(dc)


def slopes_of(buffers: Buffers, first: int, last: int) -> None:
    """What dc_t and dh_t are multiplied by, of steps first … last - 1: functions of the forward
    pass alone, each (steps, n, B, w).

        dz_i = dc · g i(1-i),  dz_f = dc · c_prev f(1-f),  dz_g = dc · i (1-g²)
        dz_o = dh · tanh(c) o(1-o),  and dc += dh · o (1 - tanh²(c))
    """
    gates = buffers.gates[:, first:last]
    i, _, g, o = buffers.each(gates)
    i_and_f = gates[1:3] if buffers.copies else gates[:2]
    slopes = buffers.slopes[:, : last - first]
    d_i, d_f, d_g, d_o, d_c = slopes
    np.subtract(1, i_and_f, out=slopes[:2])
    slopes[:2] *= i_and_f  # σ'
    d_i *= g  # (L1), (L5)
    d_f *= buffers.c[first:last]  # (L2), (L5)
    np.multiply(g, g, out=d_g)
    np.subtract(1, d_g, out=d_g)  # tanh'
    d_g *= i  # (L3), (L5)
    tanh_c = np.tanh(buffers.c[first + 1 : last + 1], out=d_c)  # anew: no slower than to keep it
    np.subtract(1, o, out=d_o)
    d_o *= o
    d_o *= tanh_c  # (L4), (L7)
    d_c *= tanh_c
    np.subtract(1, d_c, out=d_c)
    d_c *= o  # (L6), (L7)


# --- a step on a GPU: lstm.py's cell, one kernel each way


def four(gates: Array) -> tuple[Array, Array, Array, Array]:
    """i, f, g, o of (B, 4H), each (B, H): views."""
    H = gates.shape[-1] // 4
    return gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H : 3 * H], gates[:, 3 * H :]


@fuse
def forward_kernel(
    x_i: Array, x_f: Array, x_g: Array, x_o: Array, h_i: Array, h_f: Array, h_g: Array, h_o: Array,
    i: Array, f: Array, g: Array, o: Array, c_prev: Array, c_t: Array, h_t: Array,
) -> None:  # fmt: skip
    """cell_forward of x's part and h's part, into the gates, c_t and h_t."""
    h_t[...], c_t[...], i[...], f[...], g[...], o[...], _ = cell_forward(
        x_i + h_i, x_f + h_f, x_g + h_g, x_o + h_o, c_prev
    )


@fuse
def backward_kernel(
    dh_t: Array, dh: Array, dc: Array, i: Array, f: Array, g: Array, o: Array,
    c_prev: Array, c_t: Array,
) -> None:  # fmt: skip
    """cell_backward of dh_t + dh, into the gates' own arrays and dc."""
    i[...], f[...], g[...], o[...], dc[...] = cell_backward(
        dh_t + dh, dc, i, f, g, o, c_prev, get_array_module(c_t).tanh(c_t)
    )
