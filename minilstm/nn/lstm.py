"""The LSTM: forward, and backpropagation through time, by hand. Start reading here.

Sizes: T time steps, B sequences side by side, D inputs, H hidden units.
Layout: time first. x is (T, B, D), so x[t] is one step of all sequences, contiguous, and
(T, B, ·) flattens to T·B rows without a copy.
Gates: PyTorch's order i, f, g, o; the 4H columns of W_x, W_h and b are four blocks of H.
Names: dX is ∂loss/∂X and has X's shape. `_prev` belongs to step t-1, `_next` came from t+1.

The cell is elementwise and knows nothing of time; @fuse makes it one kernel on a GPU, and changes
nothing on a CPU. The sequence owns the matrix products and the loop. The tags (L1)…(L9) number the
forward's equations; backward carries them in reverse order, and docs/ (forward, backward,
through_time) derives each.
Source: Hochreiter & Schmidhuber 1997; with the forget gate of Gers, Schmidhuber & Cummins 2000;
one bias per layer.
"""

from typing import NamedTuple

from minilstm.backend import Array, fuse, get_array_module


def sigmoid(z: Array) -> Array:
    """σ(z) = 1 / (1 + e^-z), written as ½·tanh(z/2) + ½: no overflow, and analytic in z."""
    return 0.5 * get_array_module(z).tanh(0.5 * z) + 0.5


# fmt: off
@fuse
def cell_forward(
    z_i: Array, z_f: Array, z_g: Array, z_o: Array, c_prev: Array
) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
    """One step of all sequences, elementwise; on a GPU one kernel.

    Args:
        z_i, z_f, z_g, z_o: (B, H), the gates' pre-activations.
        c_prev: (B, H), the last cell state.
    Returns:
        h_t, c_t and what backward will need: i, f, g, o, tanh_c; each (B, H).
    """
    tanh = get_array_module(z_i).tanh
    i = sigmoid(z_i)                          # input gate: how much of g to write        (L1)
    f = sigmoid(z_f)                          # forget gate: how much of c_prev to keep   (L2)
    g = tanh(z_g)                             # candidate: what to write                  (L3)
    o = sigmoid(z_o)                          # output gate: how much to show             (L4)
    c_t = f * c_prev + i * g                  # cell state                                (L5)
    tanh_c = tanh(c_t)                        #                                           (L6)
    h_t = o * tanh_c                          # hidden state                              (L7)
    return h_t, c_t, i, f, g, o, tanh_c


@fuse
def cell_backward(
    dh_t: Array, dc_next: Array,
    i: Array, f: Array, g: Array, o: Array, c_prev: Array, tanh_c: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """cell_forward read bottom-up: same tags, reverse order.

    Activated gates come in, so σ' = σ(1 - σ) and tanh' = 1 - tanh² cost one product each.

    Args:
        dh_t: (B, H), the whole gradient of h_t.
        dc_next: (B, H), the part of c_t's gradient that arrives from step t+1.
        i, f, g, o, c_prev, tanh_c: (B, H), as in cell_forward.
    Returns:
        dz_i, dz_f, dz_g, dz_o and dc_prev, each (B, H).
    """
    do, dtanh_c = dh_t * tanh_c, dh_t * o     #                                           (L7)
    # c_t is read twice: by tanh_c in this step and by step t+1. A value read twice gets the sum
    # of both gradients. Other codes write it "dc +="; with "=" the future would be forgotten.
    dc_t = dc_next + dtanh_c * (1 - tanh_c * tanh_c)  #                                   (L6)
    df, dc_prev = dc_t * c_prev, dc_t * f     # f * c_prev                                (L5)
    di, dg = dc_t * g, dc_t * i               # i * g                                     (L5)
    dz_o = do * o * (1 - o)                   # σ'                                        (L4)
    dz_g = dg * (1 - g * g)                   # tanh'                                     (L3)
    dz_f = df * f * (1 - f)                   # σ'                                        (L2)
    dz_i = di * i * (1 - i)                   # σ'                                        (L1)
    return dz_i, dz_f, dz_g, dz_o, dc_prev
# fmt: on


class LSTMCache(NamedTuple):
    """What lstm_backward needs of one lstm_forward. Lists have one (B, H) array per step.

    It refers to the arrays it was made from and to hs: do not change them before lstm_backward.
    """

    x: Array  # (T, B, D)
    W_x: Array  # (D, 4H)
    W_h: Array  # (H, 4H)
    h_prevs: Array  # (T, B, H): h_prevs[t] is the state that step t started from
    c_prevs: list[Array]
    i: list[Array]
    f: list[Array]
    g: list[Array]
    o: list[Array]
    tanh_c: list[Array]


class LSTMGrads(NamedTuple):
    """Gradients of one layer's weights, each in its weight's shape."""

    W_x: Array  # (D, 4H)
    W_h: Array  # (H, 4H)
    b: Array  # (4H,)


def lstm_forward(
    x: Array, state: tuple[Array, Array], W_x: Array, W_h: Array, b: Array
) -> tuple[Array, tuple[Array, Array], LSTMCache]:
    """Run the cell over a sequence.

        z_t = x_t W_x + h_{t-1} W_h + b,   h_t, c_t = cell(z_t, c_{t-1}),   t = 1 … T

    h_0, c_0 is `state`; Python's row t-1 of x and hs holds step t.

    The state passes through unchanged: two calls of T/2 steps equal one call of T.

    Args:
        x: (T, B, D).
        state: h and c before the first step, each (B, H).
        W_x: (D, 4H).
        W_h: (H, 4H).
        b: (4H,).
    Returns:
        hs (T, B, H), the state after the last step, and the cache for lstm_backward.
    """
    xp = get_array_module(x)
    T, B, D = x.shape
    H = W_h.shape[0]

    # The inputs are all known: their product leaves the loop, one large one instead of T small.
    zs = (x.reshape(T * B, D) @ W_x + b).reshape(T, B, 4 * H)  # (T, B, 4H)  (L8)

    dtype = xp.result_type(zs.dtype, W_h.dtype, state[0].dtype, state[1].dtype)
    h = xp.empty((T + 1, B, H), dtype=dtype)  # row t goes into a step, row t+1 comes out
    h[0], c_prev = state
    cells = []
    for t in range(T):
        z = zs[t] + h[t] @ W_h  # (B, 4H): h[t] must be known first, so this one stays  (L9)
        z_i, z_f, z_g, z_o = z[:, :H], z[:, H : 2 * H], z[:, 2 * H : 3 * H], z[:, 3 * H :]
        h_t, c_t, *kept = cell_forward(z_i, z_f, z_g, z_o, c_prev)
        cells.append((c_prev, *kept))
        h[t + 1], c_prev = h_t, c_t

    c_prevs, i, f, g, o, tanh_c = map(list, zip(*cells, strict=True))
    cache = LSTMCache(x, W_x, W_h, h[:T], c_prevs, i, f, g, o, tanh_c)
    return h[1:], (h_t, c_t), cache


def lstm_backward(
    dhs: Array, dstate: tuple[Array, Array], cache: LSTMCache
) -> tuple[Array, tuple[Array, Array], LSTMGrads]:
    """Backpropagation through time: lstm_forward from the last step to the first.

    Args:
        dhs: (T, B, H), ∂loss/∂hs from the layer above.
        dstate: ∂loss/∂(h_T, c_T) through whatever read the final state, each (B, H); zeros where
            nothing did (truncated BPTT cuts here).
        cache: of the lstm_forward to go back through.
    Returns:
        dx (T, B, D), the gradient of the initial state, and the weights' gradients.
    """
    x, W_x, W_h, h_prevs = cache.x, cache.W_x, cache.W_h, cache.h_prevs
    xp = get_array_module(x)
    T, B, D = x.shape
    H = W_h.shape[0]

    dzs = xp.empty((T, B, 4 * H), dtype=dhs.dtype)
    dh_next, dc_next = dstate
    for t in reversed(range(T)):
        # h_t is read twice: by the layer above, and by step t+1. So its gradients add.
        dh = dhs[t] + dh_next  # (B, H)
        # The gradient of c_{t-1} leaves as dc_prev; one step earlier it is the part from the next.
        *dz, dc_next = cell_backward(
            dh, dc_next,
            cache.i[t], cache.f[t], cache.g[t], cache.o[t], cache.c_prevs[t], cache.tanh_c[t],
        )  # fmt: skip
        xp.concatenate(dz, axis=1, out=dzs[t])  # (B, 4H): joined as forward split z
        # All four gates read h_{t-1}: the product's inner sum, over 4H columns, adds them.
        dh_next = dzs[t] @ W_h.T  # (B, H): on to step t-1  (L9)

    # Every step read the same weights, so their gradients are sums over t. With time and batch
    # as the T·B rows of one matrix, the product's inner sum is that sum: Σ_t h_{t-1}ᵀ dz_t.
    dz_rows = dzs.reshape(T * B, 4 * H)
    dW_h = h_prevs.reshape(T * B, H).T @ dz_rows  # (H, 4H)  (L9)
    dW_x = x.reshape(T * B, D).T @ dz_rows  # (D, 4H)  (L8)
    db = xp.ones(T * B, dtype=dzs.dtype) @ dz_rows  # (4H,): 1ᵀ dz, 5 times faster than a sum  (L8)
    dx = (dz_rows @ W_x.T).reshape(T, B, D)  # (T, B, D)  (L8)
    return dx, (dh_next, dc_next), LSTMGrads(dW_x, dW_h, db)
