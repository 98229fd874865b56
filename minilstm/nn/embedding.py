"""One-hot input and embedding lookup: two readings of the same product.

A one-hot row e_k has a single 1, in column k, so e_k W is row k of W: the product with a one-hot
matrix *is* the lookup W[ids]. Forward may therefore look up where the mathematics multiplies, and
backward of the lookup is backward of that product: dW = one_hot(ids)ᵀ dx.
"""

from collections.abc import Callable
from typing import Any

from minilstm.backend import Array, get_array_module

# Up to this many rows the product with a one-hot matrix is faster than the scatter, and on a GPU
# it adds in a fixed order, so that it is deterministic there too.
_LARGEST_ONE_HOT = 1024


def one_hot(ids: Array, V: int, dtype: Any, out: Array | None = None) -> Array:
    """Rows e_id: all zeros but a 1 in column id.

    Args:
        ids: (…) integers in [0, V).
        V: length of a row.
        dtype: of the rows.
        out: where to, (…, V), contiguous; None makes an array.
    Returns:
        (…, V).

    >>> import numpy as np
    >>> one_hot(np.array([2, 0]), 3, np.float32)
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    xp = get_array_module(ids)
    out = xp.empty((*ids.shape, V), dtype) if out is None else out
    out[...] = 0
    rows = out.reshape(-1, V)
    rows[xp.arange(len(rows)), ids.reshape(-1)] = 1
    return out


def embedding_forward(ids: Array, W: Array) -> Array:
    """x = one_hot(ids) W, by looking the rows up.  (E1)

    Args:
        ids: (T, B) integers.
        W: (V, E).
    Returns:
        x (T, B, E).
    """
    return W[ids]  # (E1)


def embedding_backward(dx: Array, ids: Array, V: int,
                       array: Callable[..., Array] | None = None) -> Array:  # fmt: skip
    """dW = one_hot(ids)ᵀ dx: each row of W collects dx from every place that looked it up.

    Args:
        dx: (T, B, E).
        ids: (T, B) integers.
        V: rows of W.
        array: array(name, *shape) is one to use; None makes new ones.
    Returns:
        dW (V, E).

    >>> import numpy as np
    >>> embedding_backward(np.array([[[0.5]], [[0.25]]]), np.array([[1], [1]]), V=3)
    array([[0.  ],
           [0.75],
           [0.  ]])
    """
    xp = get_array_module(dx)
    E = dx.shape[-1]
    dx_rows, id_rows = dx.reshape(-1, E), ids.reshape(-1)  # (T·B, E), (T·B,)
    array = array or (lambda name, *shape: xp.empty(shape, dx.dtype))
    dW = array("dW", V, E)
    if V <= _LARGEST_ONE_HOT:
        rows = one_hot(id_rows, V, dx.dtype, out=array("one_hot", len(id_rows), V))
        return xp.matmul(rows.T, dx_rows, out=dW)  # (E2)
    dW[...] = 0
    xp.add.at(dW, id_rows, dx_rows)  # not dW[ids] += dx: that keeps one of several equal ids
    return dW
