"""Softmax cross-entropy: the loss, in nats per target, and its gradient."""

from functools import partial

from minilstm.backend import Array, get_array_module, is_on_host
from minilstm.checks import check_token_ids
from minilstm.threads import in_threads
from minilstm.workspace import Workspace

CHUNK = 1 << 25  # logits that exist at a time
CACHED = 1 << 18  # numbers that the cache holds


def softmax_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Mean cross-entropy of the softmax, and its gradient.

        loss = 1/N Σ_n (log Σ_v exp(logits_nv) - logits_n,target_n),   N = T·B targets        (S1)
        ∂loss/∂logits_nv = (softmax(logits_n)_v - [v = target_n]) / N                         (S2)

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
    loss_sum, dlogits = _summed(logits.reshape(N, V), targets.reshape(N), N)
    return loss_sum / N, dlogits.reshape(logits.shape)


def linear_cross_entropy(
    hs: Array, W: Array, b: Array, targets: Array, chunk_rows: int | None = None,
    workspace: Workspace | None = None, of: int | None = None,
) -> tuple[Array, Array, Array, Array]:
    """softmax_cross_entropy of linear_forward(hs, W, b), and all gradients, in chunks of rows.

    The T·B·V logits are the largest array of a word model. Here only `chunk_rows` of their T·B
    rows exist at a time; the loss and the weights' gradients are sums over chunks.

    Args:
        hs: (T, B, H).
        W: (H, V).
        b: (V,).
        targets: (T, B) integers in [0, V).
        chunk_rows: None keeps a chunk of logits within 2^25 numbers (134 MB in float32).
        workspace: whose arrays to use; None makes new ones.
        of: how many targets the loss is the mean of, where these are some of them; None: these.
    Returns:
        The loss (nats per target, 0-d), dhs (T, B, H), dW (H, V), db (V,).
    """
    xp = get_array_module(hs)
    H, V = W.shape
    N = targets.size
    of = of or N
    if chunk_rows is None:
        chunk_rows = max(1, CHUNK // V)
    rows, target_rows = hs.reshape(N, H), targets.reshape(N)
    loss_sum: Array = 0.0
    dtype = xp.result_type(hs.dtype, W.dtype, b.dtype)
    array = partial((workspace or Workspace()).empty, xp=xp, dtype=dtype)
    chunk_logits = array("loss.logits", shape=(min(chunk_rows, N), V))
    dhs, dW, db = array("loss.dhs", shape=(N, H)), array("loss.dW", shape=(H, V)), 0
    for start in range(0, N, chunk_rows):
        chunk = slice(start, start + chunk_rows)
        x = rows[chunk]  # (rows of this chunk, H)
        logits = xp.matmul(x, W, out=chunk_logits[: len(x)])
        work = partial(_biased_and_summed, logits, b, target_rows[chunk], of)
        loss_sum = sum(in_threads(work, _few_rows(logits)), start=loss_sum)
        dlogits = logits  # which they have become
        xp.matmul(dlogits, W.T, out=dhs[chunk])
        part = xp.matmul(x.T, dlogits, out=array("loss.dW_part", shape=(H, V)) if start else dW)
        if start > 0:
            dW += part
        db = db + xp.ones(x.shape[0], dtype=x.dtype) @ dlogits
    return loss_sum / of, dhs.reshape(hs.shape), dW, db


def nats_and_hits(logits: Array, targets: Array) -> tuple[Array, Array]:
    """What an evaluation needs: no gradient, but how often the target was the likeliest token.

    Args:
        logits: (T, B, V); they are overwritten.
        targets: (T, B) integers in [0, V).
    Returns:
        The sum over all targets of the cross-entropy, of at least double precision, and the number
        of hits, both 0-d.
    """
    rows, target_rows = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)

    def work(part: slice) -> tuple[Array, Array]:
        hits = (rows[part].argmax(axis=1) == target_rows[part]).sum()
        return _nats(rows[part], target_rows[part], out=rows[part])[0], hits

    nats, hits = zip(*in_threads(work, _few_rows(rows)), strict=True)
    return sum(nats), sum(hits)


def _few_rows(rows: Array) -> list[slice]:
    """Of (N, V) a few at a time, which stay in the cache from one operation to the next; on a GPU
    all at once."""
    N, V = rows.shape
    few = max(1, CACHED // V) if is_on_host(rows) else N
    return [slice(n, n + few) for n in range(0, N, few)]


def _biased_and_summed(logits: Array, b: Array, targets: Array, N: int, part: slice) -> Array:
    """_summed of these rows and b, in place."""
    logits[part] += b
    return _summed(logits[part], targets[part], N, out=logits[part])[0]


def _summed(
    logits: Array, targets: Array, N: int, out: Array | None = None
) -> tuple[Array, Array]:
    """The sum of these targets' cross-entropies, and the gradient of it over N: (), (rows, V)."""
    nats, dlogits, sums = _nats(logits, targets, out)
    dlogits /= sums * N  # the softmax over N  (S2)
    dlogits[get_array_module(logits).arange(targets.shape[0]), targets] -= 1 / N  # (S2)
    return nats, dlogits


def _nats(logits: Array, targets: Array, out: Array | None = None) -> tuple[Array, Array, Array]:
    """The sum of the nats (), the softmax's numerators (rows, V), into `out` if there is one, and
    its denominators (rows, 1)."""
    xp = get_array_module(logits)
    # Subtracting a constant from a row changes no probability, and keeps exp from overflowing.
    # The real part, because the complex step needs everything else analytic.
    shifted = xp.subtract(logits, logits.real.max(axis=1, keepdims=True), out=out)
    of_targets = shifted[xp.arange(targets.shape[0]), targets]
    exps = xp.exp(shifted, out=shifted)  # in place: the largest array that there is
    sums = exps.sum(axis=1, keepdims=True)
    nats = xp.log(sums[:, 0]) - of_targets  # (S1)
    return nats.sum(dtype=xp.result_type(nats.dtype, xp.float64)), exps, sums
