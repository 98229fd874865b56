"""The LSTM of lstm.py, in place: the same equations in arrays that are used again and again.

Read lstm.py first; the tags (L1)…(L9) are its own, and the tests hold the two forms equal. What is
done differently:

- x by lookup: where x[t, b] is a row of a table, W_x meets each row of the table once, and the
  products are looked up. A one-hot x is the rows of W_x themselves.
- The input's product leaves the loop in chunks of steps that stay in the cache.
- One tanh for all four gates: σ(z) = ½ tanh(½ z) + ½. On a CPU each gate is a block of its own,
  (4, B, H) in the order o, i, f, g: the three σ in a row.
- The array of the gates becomes that of their gradients, (B, 4H), in the order of the weights.

On a GPU the elementwise part of a step is lstm.py's cell, one kernel each way.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minilstm.backend import Array, fuse, get_array_module
from minilstm.nn.embedding import embedding_backward
from minilstm.nn.lstm import LSTMGrads, cell_backward, cell_forward
from minilstm.workspace import Workspace

ROWS = 1024  # of the input's product, made at a time


class Lookup(NamedTuple):
    """x (T, B, D) before it is looked up: x[t, b] = W[ids[t, b]], or e_id where W is None."""

    ids: Array  # (T, B)
    W: Array | None  # (V, D)


class Step(NamedTuple):
    """What one step reads and writes: views, made once because making them takes time too."""

    h_prev: Array  # (B, H)
    h: Array
    c_prev: Array
    c: Array
    sigmoids: Array  # (3, B, H) on a CPU: o, i, f
    gates: tuple[Array, ...]  # i, f, g, o, each (B, H)
    all_gates: Array  # (4, B, H) on a CPU, (B, 4H) on a GPU
    dz: Array  # (B, 4H), where the gates are: i, f, g, o
    dz_gates: tuple[Array, Array]  # i, f, g (3, B, H) and o (B, H) of it


class Buffers:
    """The arrays of one layer, for batches of one shape."""

    def __init__(self, xp: Any, T: int, B: int, H: int, dtype: Any) -> None:
        empty = partial(xp.empty, dtype=dtype)
        self.gates = empty((T, B, 4 * H))
        self.h, self.c = empty((T + 1, B, H)), empty((T + 1, B, H))  # [t] into step t, [t + 1] out
        self.product = empty((B, 4 * H))
        self.scratch = empty((9 if xp is np else 1, B, H))
        self.steps = [self._step(t, xp is np) for t in range(T)]

    def _step(self, t: int, on_host: bool) -> Step:
        h, c, dz = self.h, self.c, self.gates[t]
        gates, blocks = dz.reshape(4, *h.shape[1:]), _blocks(dz)
        o, i, f, g = (gates[k] for k in range(4))
        if not on_host:
            gates, (i, f, g, o) = dz, _four(dz)
        return Step(h[t], h[t + 1], c[t], c[t + 1], gates[:3], (i, f, g, o), gates, dz,
                    (blocks[:3], blocks[3]))  # fmt: skip


class Cache(NamedTuple):
    """What lstm_backward needs of one lstm_forward."""

    x: Array | Lookup  # (T, B, D)
    W_x: Array  # (D, 4H)
    W_h: Array  # (H, 4H)
    buffers: Buffers


def lstm_forward(
    x: Array | Lookup, state: tuple[Array, Array], W_x: Array, W_h: Array, b: Array,
    workspace: Workspace, name: str,
) -> tuple[Array, tuple[Array, Array], Cache]:  # fmt: skip
    """As lstm.lstm_forward, in the arrays that the workspace keeps for the layer of that name.

    Args:
        x: (T, B, D), or where its rows are to be looked up.
        state, W_x, W_h, b: as there.
        workspace, name: whose arrays.
    Returns:
        hs (T, B, H), the state after the last step, and the cache for lstm_backward: all of it
        valid until the next call with this workspace and name.
    """
    xp = get_array_module(W_h)
    T, B = x.ids.shape if isinstance(x, Lookup) else x.shape[:2]
    H = W_h.shape[0]
    source = x.W if isinstance(x, Lookup) else x
    dtype = xp.result_type(*(a.dtype for a in (source, W_x, W_h, b, *state) if a is not None))
    buffers = workspace.keep(name, (xp, T, B, H, dtype), Buffers)
    cache = Cache(x, W_x, W_h, buffers)
    buffers.h[0], buffers.c[0] = state
    product, tanh_c, b_in_table = buffers.product, buffers.scratch[0], False
    rows = B * T
    if xp is np:
        product_blocks, rows = _blocks(product), max(B, ROWS)
    if isinstance(x, Lookup):
        table = W_x if x.W is None else x.W @ W_x  # (V, 4H)  (L8)
        b_in_table = len(table) <= T * B  # it is added to the fewer rows
        table = table + b if b_in_table else table

    for first in range(0, T, rows // B):
        chunk = slice(first, first + rows // B)
        if isinstance(x, Lookup):
            zs = table[x.ids[chunk]]  # (steps, B, 4H)
        else:
            zs = (x[chunk].reshape(-1, W_x.shape[0]) @ W_x).reshape(-1, B, 4 * H)  # (L8)
        if not b_in_table:
            zs += b
        for n, step in enumerate(buffers.steps[chunk]):
            xp.matmul(step.h_prev, W_h, out=product)  # (L9)
            if xp is np:
                product += zs[n]
                _cell_forward(product_blocks, step, tanh_c)
            else:
                _forward_kernel(*_four(zs[n]), *_four(product), *step.gates,
                                step.c_prev, step.c, step.h)  # fmt: skip
    return buffers.h[1:], (buffers.h[T], buffers.c[T]), cache


def lstm_backward(
    dhs: Array, dstate: tuple[Array, Array], cache: Cache
) -> tuple[Array | None, tuple[Array, Array], LSTMGrads]:
    """As lstm.lstm_backward; the gates are overwritten by their gradients.

    Args:
        dhs: (T, B, H), ∂loss/∂hs from the layer above.
        dstate: ∂loss/∂(h_T, c_T), each (B, H).
        cache: of the lstm_forward to go back through, once.
    Returns:
        dx (T, B, D), or ∂loss/∂W (V, D) of the table that x was looked up in, None where that was
        one-hot; the gradient of the initial state, and the weights' gradients.
    """
    x, W_x, W_h, buffers = cache
    xp = get_array_module(dhs)
    T, B, H = dhs.shape
    dzs = buffers.gates
    dh, dc = (d.astype(dzs.dtype) for d in dstate)  # copies, which the steps change
    W_hT = xp.ascontiguousarray(W_h.T) if B > 1 else W_h.T  # products with it are faster so
    for t in reversed(range(T)):
        step = buffers.steps[t]
        if xp is np:
            _cell_backward(dhs[t], dh, dc, step, buffers.scratch)
        else:
            _backward_kernel(dhs[t], dh, dc, *step.gates, step.c_prev, step.c)
        xp.matmul(step.dz, W_hT, out=dh)  # (L9)

    dz_rows = dzs.reshape(T * B, 4 * H)
    dW_h = buffers.h[:T].reshape(T * B, H).T @ dz_rows  # (H, 4H)  (L9)
    if isinstance(x, Lookup):
        # The table's gradient is one_hotᵀ dz; the rest as for any product of two matrices.
        dtable = embedding_backward(dzs, x.ids, len(W_x if x.W is None else x.W))  # (V, 4H)
        db = xp.ones(len(dtable), dtype=dtable.dtype) @ dtable  # (4H,)  (L8)
        if x.W is None:
            return None, (dh, dc), LSTMGrads(dtable, dW_h, db)
        dW_x = x.W.T @ dtable  # (D, 4H)  (L8)
        return dtable @ W_x.T, (dh, dc), LSTMGrads(dW_x, dW_h, db)  # dW (V, D)  (L8)
    db = xp.ones(T * B, dtype=dz_rows.dtype) @ dz_rows  # (4H,)  (L8)
    dW_x = x.reshape(T * B, -1).T @ dz_rows  # (D, 4H)  (L8)
    dx = (dz_rows @ W_x.T).reshape(x.shape)  # (T, B, D)  (L8)
    return dx, (dh, dc), LSTMGrads(dW_x, dW_h, db)


# --- a step on a CPU


def _blocks(rows: Array) -> Array:
    """(B, 4H) as (4, B, H): a view."""
    return rows.reshape(len(rows), 4, -1).transpose(1, 0, 2)


def _cell_forward(z: np.ndarray, step: Step, tanh_c: np.ndarray) -> None:
    """lstm.cell_forward of z (4, B, H), in the order i, f, g, o, into gates, c and h."""
    gates, sigmoids = step.all_gates, step.sigmoids
    np.multiply(z[:2], 0.5, out=gates[1:3])
    np.multiply(z[3], 0.5, out=gates[0])
    gates[3] = z[2]
    np.tanh(gates, out=gates)
    sigmoids *= 0.5
    sigmoids += 0.5  # (L1)…(L4)
    i, f, g, o = step.gates
    c_t, h_t = step.c, step.h
    np.multiply(f, step.c_prev, out=c_t)
    c_t += np.multiply(i, g, out=h_t)  # (L5), in h_t's place for as long
    np.multiply(o, np.tanh(c_t, out=tanh_c), out=h_t)  # (L6), (L7)


def _cell_backward(
    dh_t: np.ndarray, dh: np.ndarray, dc: np.ndarray, step: Step, scratch: np.ndarray
) -> None:
    """lstm.cell_backward of dh_t + dh, into dz, which takes the gates' place, and dc."""
    do, di, df, dg, slope_o, _, _, slope_g, tanh_c = scratch
    i, f, g, o = step.gates
    dz_ifg, dz_o = step.dz_gates
    dh += dh_t  # h_t is read by step t+1 and by the layer above
    np.tanh(step.c, out=tanh_c)  # anew: it takes no longer than to keep it
    np.multiply(tanh_c, tanh_c, out=do)
    np.subtract(1, do, out=do)
    do *= o
    do *= dh
    dc += do  # (L6)
    np.multiply(dh, tanh_c, out=do)  # (L7)
    np.multiply(dc, step.c_prev, out=df)  # (L5)
    np.multiply(dc, g, out=di)
    np.multiply(dc, i, out=dg)
    dc *= f
    slopes = np.subtract(1, step.sigmoids, out=scratch[4:7])
    slopes *= step.sigmoids  # σ'
    np.multiply(g, g, out=slope_g)
    np.subtract(1, slope_g, out=slope_g)  # tanh'
    np.multiply(scratch[1:4], scratch[5:8], out=dz_ifg)  # (L1)…(L3)
    np.multiply(do, slope_o, out=dz_o)  # (L4)


# --- a step on a GPU: lstm.py's cell, one kernel each way


def _four(gates: Array) -> tuple[Array, Array, Array, Array]:
    """i, f, g, o of (B, 4H), each (B, H): views."""
    H = gates.shape[-1] // 4
    return gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H : 3 * H], gates[:, 3 * H :]


@fuse
def _forward_kernel(
    x_i: Array, x_f: Array, x_g: Array, x_o: Array, h_i: Array, h_f: Array, h_g: Array, h_o: Array,
    i: Array, f: Array, g: Array, o: Array, c_prev: Array, c_t: Array, h_t: Array,
) -> None:  # fmt: skip
    """cell_forward of x's part and h's part, into the gates, c_t and h_t."""
    h_t[...], c_t[...], i[...], f[...], g[...], o[...], _ = cell_forward(
        x_i + h_i, x_f + h_f, x_g + h_g, x_o + h_o, c_prev
    )


@fuse
def _backward_kernel(
    dh_t: Array, dh: Array, dc: Array, i: Array, f: Array, g: Array, o: Array,
    c_prev: Array, c_t: Array,
) -> None:  # fmt: skip
    """cell_backward of dh_t + dh, into the gates' own arrays and dc."""
    i[...], f[...], g[...], o[...], dc[...] = cell_backward(
        dh_t + dh, dc, i, f, g, o, c_prev, get_array_module(c_t).tanh(c_t)
    )
