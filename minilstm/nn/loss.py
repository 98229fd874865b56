"""Softmax cross-entropy: the loss, in nats per target, and its gradient."""

from minilstm.backend import Array, get_array_module
from minilstm.checks import check_token_ids


def softmax_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Mean cross-entropy of the softmax, and its gradient.

        loss = 1/N Σ_n (log Σ_v exp(logits_nv) - logits_n,target_n),   N = T·B targets
        ∂loss/∂logits_nv = (softmax(logits_n)_v - [v = target_n]) / N

    A uniform guess costs ln V nats.

    Args:
        logits: (T, B, V).
        targets: (T, B) integers in [0, V).
    Returns:
        The loss in nats per target, a 0-d array of at least double precision, and dlogits
        (T, B, V).

    >>> import numpy as np
    >>> loss, dlogits = softmax_cross_entropy(np.zeros((1, 1, 4)), np.array([[2]]))
    >>> print(f"{loss:.4f} = ln 4", dlogits)
    1.3863 = ln 4 [[[ 0.25  0.25 -0.75  0.25]]]
    """
    V, N = logits.shape[-1], targets.size
    check_token_ids("targets", targets, V, tuple(logits.shape[:-1]))
    loss_sum, dlogits = _summed(logits.reshape(N, V), targets.reshape(N))
    return loss_sum / N, (dlogits / N).reshape(logits.shape)


def linear_cross_entropy(
    hs: Array, W: Array, b: Array, targets: Array, chunk_rows: int | None = None
) -> tuple[Array, Array, Array, Array]:
    """softmax_cross_entropy of linear_forward(hs, W, b), and all gradients, in chunks of rows.

    The T·B·V logits are the largest array of a word model. Here only `chunk_rows` of their T·B
    rows exist at a time; the loss and the weights' gradients are sums over chunks.

    Args:
        hs: (T, B, H).
        W: (H, V).
        b: (V,).
        targets: (T, B) integers in [0, V).
        chunk_rows: None keeps a chunk of logits within 4 million numbers (16 MB in float32).
    Returns:
        The loss (nats per target, 0-d), dhs (T, B, H), dW (H, V), db (V,).
    """
    xp = get_array_module(hs)
    H, V = W.shape
    N = targets.size
    if chunk_rows is None:
        chunk_rows = max(1, (1 << 22) // V)
    rows, target_rows = hs.reshape(N, H), targets.reshape(N)
    loss_sum: Array = 0.0
    dhs, dW, db = xp.empty_like(rows), xp.zeros_like(W), xp.zeros_like(b)
    for start in range(0, N, chunk_rows):
        chunk = slice(start, start + chunk_rows)
        x = rows[chunk]  # (rows of this chunk, H)
        nats, dlogits = _summed(x @ W + b, target_rows[chunk])
        dlogits /= N
        loss_sum = loss_sum + nats
        dhs[chunk] = dlogits @ W.T
        dW += x.T @ dlogits
        db += xp.ones(x.shape[0], dtype=x.dtype) @ dlogits
    return loss_sum / N, dhs.reshape(hs.shape), dW, db


def cross_entropy(logits: Array, targets: Array) -> Array:
    """softmax_cross_entropy's loss without its gradient, which an evaluation does not need.

    Args:
        logits: (T, B, V).
        targets: (T, B) integers in [0, V).
    Returns:
        The loss in nats per target, a 0-d array of at least double precision.
    """
    V, N = logits.shape[-1], targets.size
    return _nats(logits.reshape(N, V), targets.reshape(N))[0] / N


def _summed(logits: Array, targets: Array) -> tuple[Array, Array]:
    """The sum over N targets of the cross-entropy, and its gradient. (N, V), (N,) -> (), (N, V)."""
    nats, dlogits, sums = _nats(logits, targets)
    dlogits /= sums  # the softmax
    dlogits[get_array_module(logits).arange(targets.shape[0]), targets] -= 1
    return nats, dlogits


def _nats(logits: Array, targets: Array) -> tuple[Array, Array, Array]:
    """The sum of the nats (), the softmax's numerators (N, V), and its denominators (N, 1)."""
    xp = get_array_module(logits)
    # Subtracting a constant from a row changes no probability, and keeps exp from overflowing.
    # The real part, because the complex step needs everything else analytic.
    shifted = logits - logits.real.max(axis=1, keepdims=True)
    of_targets = shifted[xp.arange(targets.shape[0]), targets]
    exps = xp.exp(shifted, out=shifted)  # in place: the largest array that there is
    sums = exps.sum(axis=1, keepdims=True)
    nats = xp.log(sums[:, 0]) - of_targets
    return nats.sum(dtype=xp.result_type(nats.dtype, xp.float64)), exps, sums
