"""The linear layer: y = x W + b, over the last axis."""

from minilstm.backend import Array, get_array_module


def linear_forward(x: Array, W: Array, b: Array) -> Array:
    """y = x W + b.

    Args:
        x: (…, D).
        W: (D, V).
        b: (V,).
    Returns:
        y (…, V).
    """
    D, V = W.shape
    y = x.reshape(-1, D) @ W
    y = get_array_module(y).add(y, b, out=y if y.dtype == b.dtype else None)  # one array for both
    return y.reshape(*x.shape[:-1], V)


def linear_backward(dy: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """dx = dy Wᵀ, dW = xᵀ dy, db = 1ᵀ dy, with all leading axes flattened to rows.

    Args:
        dy: (…, V).
        x: (…, D).
        W: (D, V).
    Returns:
        dx (…, D), dW (D, V), db (V,).
    """
    xp = get_array_module(x)
    D, V = W.shape
    x_rows, dy_rows = x.reshape(-1, D), dy.reshape(-1, V)
    dx = (dy_rows @ W.T).reshape(x.shape)
    dW = x_rows.T @ dy_rows
    db = xp.ones(dy_rows.shape[0], dtype=dy.dtype) @ dy_rows
    return dx, dW, db
