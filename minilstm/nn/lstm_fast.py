"""The LSTM of lstm.py, in place: the same equations in arrays that are used again and again.

Read lstm.py first; the tags (L1)…(L9) are its own, and the tests hold the two forms equal. What is
done differently here, for a whole layer:

- x by lookup: where x[t, b] is a row of a table, W_x meets each row of the table once, and the
  products are looked up. A one-hot x is the rows of W_x themselves.
- The input's product leaves the loop in chunks of steps that stay in the cache.

And step by step: lstm_steps.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minilstm.backend import Array, get_array_module
from minilstm.nn.embedding import embedding_backward
from minilstm.nn.lstm import LSTMGrads
from minilstm.nn.lstm_steps import (
    SMALL,
    Buffers,
    as_blocks,
    as_rows,
    backward_kernel,
    for_one_tanh,
    forward_in_place,
    forward_kernel,
    four,
    steps_backward,
)
from minilstm.workspace import Workspace


class Lookup(NamedTuple):
    """x (T, B, D) before it is looked up: x[t, b] = W[ids[t, b]], or e_id where W is None."""

    ids: Array  # (T, B)
    W: Array | None  # (V, D)


class Cache(NamedTuple):
    """What lstm_backward needs of one lstm_forward."""

    x: Array | Lookup  # (T, B, D)
    W_x: Array  # (D, 4H)
    W_h: Array  # (H, 4H)
    buffers: Buffers
    array: Callable[..., Array]  # (name, shape): one that the workspace keeps


def lstm_forward(
    x: Array | Lookup, state: tuple[Array, Array], W_x: Array, W_h: Array, b: Array,
    workspace: Workspace, name: str, keep: bool = True,
) -> tuple[Array, tuple[Array, Array], Cache]:  # fmt: skip
    """As lstm.lstm_forward, in the arrays that the workspace keeps for the layer of that name.

    Args:
        x: (T, B, D), or where its rows are to be looked up.
        state, W_x, W_h, b: as there.
        workspace, name: whose arrays.
        keep: whether to keep what lstm_backward needs.
    Returns:
        hs (T, B, H), the state after the last step, and the cache for lstm_backward: all of it
        valid until the next call with this workspace and name.
    """
    xp = get_array_module(W_h)
    T, B = x.ids.shape if isinstance(x, Lookup) else x.shape[:2]
    H = W_h.shape[0]
    source = x.W if isinstance(x, Lookup) else x
    dtype = xp.result_type(*{a.dtype for a in (source, W_x, W_h, b, *state) if a is not None})
    buffers = workspace.keep(name, (xp, T, B, H, dtype, keep), Buffers)
    cache = Cache(x, W_x, W_h, buffers,
                  lambda what, *shape: workspace.empty(f"{name}.{what}", xp, shape, dtype))
    n, product, b_in_table = buffers.n, buffers.product, False
    # The input's product by blocks as well, where the layer's are and OpenBLAS packs neither.
    small = buffers.by_blocks and B * len(W_x) * H // n <= SMALL
    x_by_blocks = small and not isinstance(x, Lookup)
    buffers.h[0] = state[0]
    buffers.c[0] = as_blocks(state[1], n, 1)[0] if xp is np else state[1]
    if buffers.copies:
        to = buffers.W_h if buffers.by_blocks else as_blocks(buffers.W_h, n)
        for_one_tanh(as_blocks(W_h, n), out=to)
        W_h, m = buffers.W_h, n if x_by_blocks else 1
        own = cache.array("W_x_b", len(W_x) + 1, 4 * H)
        to = own.reshape(4, m, len(own), -1) if x_by_blocks else as_blocks(own, 1)
        for_one_tanh(as_blocks(W_x, m), out=to[:, :, :-1])
        for_one_tanh(as_blocks(b[None], m), out=to[:, :, -1:])
        W_x, b = (to[:, :, :-1], to[:, :, -1:]) if x_by_blocks else (own[:-1], own[-1])
    if isinstance(x, Lookup):
        table = W_x if x.W is None else x.W @ W_x  # (V, 4H)  (L8)
        b_in_table = len(table) <= T * B  # it is added to the fewer rows
        table = table + b if b_in_table else table

    for first in range(0, T, len(buffers.zs)):
        chunk = slice(first, first + len(buffers.zs))
        zs, zs_blocks = buffers.zs[: T - first], buffers.zs_blocks  # (steps, B, 4H)
        if isinstance(x, Lookup):
            # NumPy would look for ids beyond the table, and buffer; CuPy knows no mode.
            xp.take(table, x.ids[chunk], axis=0, out=zs, **({"mode": "clip"} if xp is np else {}))
        elif x_by_blocks:
            zs = zs_blocks = zs.reshape(-1, *product.shape)  # (steps, 4, n, B, w)
            np.matmul(x[chunk, None, None], W_x, out=zs)  # (L8)
        else:
            rows = x[chunk].reshape(-1, W_x.shape[0])
            xp.matmul(rows, W_x, out=zs.reshape(len(rows), 4 * H))  # (L8)
        if not b_in_table:
            zs += b
        for k, step in enumerate(buffers.steps[chunk]):
            xp.matmul(step.h_prev, W_h, out=product)  # (L9)
            if xp is np:
                product += zs_blocks[k]
                forward_in_place(step, buffers)
            else:
                forward_kernel(*four(zs[k]), *four(product), *step.each,
                                step.c_prev, step.c, step.h)  # fmt: skip
    c_T = buffers.steps[-1].c
    return buffers.h[1:], (buffers.h[T], as_rows(c_T) if xp is np else c_T), cache


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
        one-hot; the gradient of the initial state, and the weights' gradients. The arrays are the
        workspace's.
    """
    x, W_x, W_h, buffers, array = cache
    xp, dzs = get_array_module(dhs), buffers.dzs
    T, B, H = dhs.shape
    dh, dc = (d.astype(dzs.dtype) for d in dstate)  # copies, which the steps change
    W_hT = W_h.T  # (4H, H)
    if B > 1:  # products with a copy are faster
        buffers.W_hT[...] = W_hT.reshape(4, H, buffers.n, -1).transpose(0, 2, 1, 3)
        W_hT = buffers.W_hT if buffers.by_blocks else buffers.W_hT.reshape(4 * H, H)
    if xp is np:
        dh, dc = steps_backward(dhs, dh, dc, W_hT, buffers)
    else:
        for t in reversed(range(T)):
            step = buffers.steps[t]
            backward_kernel(dhs[t], dh, dc, *step.each, step.c_prev, step.c)
            xp.matmul(step.dz, W_hT, out=dh)  # (L9)

    def product(what: str, a: Array, b: Array) -> Array:
        return xp.matmul(a, b, out=array(what, len(a), b.shape[1]))

    dz_rows = dzs.reshape(T * B, 4 * H)
    dW_h = product("dW_h", buffers.h[:T].reshape(T * B, H).T, dz_rows)  # (H, 4H)  (L9)
    if isinstance(x, Lookup):
        # The table's gradient is one_hotᵀ dz; the rest as for any product of two matrices.
        V = len(W_x if x.W is None else x.W)
        dtable = embedding_backward(dzs, x.ids, V, array)  # (V, 4H)
        db = xp.ones(V, dtype=dtable.dtype) @ dtable  # (4H,)  (L8)
        if x.W is None:
            return None, (dh, dc), LSTMGrads(dtable, dW_h, db)
        dW_x = product("dW_x", x.W.T, dtable)  # (D, 4H)  (L8)
        return dtable @ W_x.T, (dh, dc), LSTMGrads(dW_x, dW_h, db)  # dW (V, D)  (L8)
    db = xp.ones(T * B, dtype=dz_rows.dtype) @ dz_rows  # (4H,)  (L8)
    dW_x = product("dW_x", x.reshape(T * B, -1).T, dz_rows)  # (D, 4H)  (L8)
    dx = product("dx", dz_rows, W_x.T).reshape(x.shape)  # (T, B, D)  (L8)
    return dx, (dh, dc), LSTMGrads(dW_x, dW_h, db)
