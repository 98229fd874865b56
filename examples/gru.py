"""A GRU forward and backward in the style of minilstm/nn/lstm.py, and its gradient check.

The worked solution of the last exercise of docs/proving.md: try it yourself first. Sizes and names
are those of lstm.py; a is the argument of a gate's σ or tanh. Source: Cho et al. 2014, with the
candidate's reset after the product, as PyTorch and cuDNN have it: two biases, since b_h's last
block stands inside the bracket that r multiplies.
"""

from typing import Any, NamedTuple

import numpy as np

from minilstm import cli
from minilstm.gradcheck import central_differences, complex_step
from minilstm.nn.lstm import sigmoid

Array = Any
T, B, D, H = 5, 3, 4, 6  # all different, T > 1: a transpose or a forgotten step cannot hide


# fmt: off
def cell_forward(x_r: Array, x_u: Array, x_n: Array, h_r: Array, h_u: Array, h_n: Array,
                 h_prev: Array) -> tuple[Array, Array, Array, Array]:
    """x_· and h_·: the parts of the pre-activations that come from x_t and from h_{t-1}, (B, H)."""
    r = sigmoid(x_r + h_r)                    # reset gate: how much of h_n to read       (G1)
    u = sigmoid(x_u + h_u)                    # update gate: how much of h_prev to keep   (G2)
    n = np.tanh(x_n + r * h_n)                # candidate                                 (G3)
    h_t = (1 - u) * n + u * h_prev            # hidden state                              (G4)
    return h_t, r, u, n


def cell_backward(dh_t: Array, r: Array, u: Array, n: Array, h_n: Array,
                  h_prev: Array) -> tuple[Array, Array, Array, Array, Array]:
    """cell_forward read bottom-up: same tags, reverse order."""
    dn, dh_prev = dh_t * (1 - u), dh_t * u    #                                           (G4)
    du = dh_t * (h_prev - n)                  # u is read twice: two terms                (G4)
    da_n = dn * (1 - n * n)                   # tanh'                                     (G3)
    dr, dh_n = da_n * h_n, da_n * r           # r * h_n                                   (G3)
    da_u = du * u * (1 - u)                   # σ'                                        (G2)
    da_r = dr * r * (1 - r)                   # σ'                                        (G1)
    return da_r, da_u, da_n, dh_n, dh_prev
# fmt: on


class Cache(NamedTuple):
    """What gru_backward needs of one gru_forward."""

    x: Array  # (T, B, D)
    W_x: Array  # (D, 3H), gates r, u, n
    W_h: Array  # (H, 3H)
    h_prevs: Array  # (T, B, H)
    kept: list[tuple[Array, ...]]  # r, u, n, h_n of each step


def gru_forward(x: Array, h_0: Array, W_x: Array, W_h: Array, b_x: Array,
                b_h: Array) -> tuple[Array, Cache]:
    """hs (T, B, H) of x (T, B, D), from h_0 (B, H); b_x and b_h are (3H,)."""
    steps, rows, H = len(x), x.shape[1], W_h.shape[0]
    xs = x @ W_x + b_x  # (T, B, 3H): known at once  (G5)
    h = np.empty((steps + 1, rows, H), dtype=np.result_type(xs, W_h, h_0))
    h[0], kept = h_0, []
    for t in range(steps):
        hz = h[t] @ W_h + b_h  # (B, 3H)  (G6)
        (x_r, x_u, x_n), (h_r, h_u, h_n) = (np.split(z, 3, axis=1) for z in (xs[t], hz))
        h[t + 1], *gates = cell_forward(x_r, x_u, x_n, h_r, h_u, h_n, h[t])
        kept.append((*gates, h_n))
    return h[1:], Cache(x, W_x, W_h, h[:-1], kept)


def gru_backward(dhs: Array, dh_T: Array,
                 cache: Cache) -> tuple[Array, Array, dict[str, Array]]:
    """dx (T, B, D), dh_0 (B, H) and the weights' gradients, from dhs (T, B, H) and dh_T (B, H)."""
    dxs, dhzs, dh_next = [], [], dh_T
    for t in reversed(range(len(dhs))):
        r, u, n, h_n = cache.kept[t]
        dh = dhs[t] + dh_next  # h_t is read by the layer above and by step t+1
        da_r, da_u, da_n, dh_n, dh_prev = cell_backward(dh, r, u, n, h_n, cache.h_prevs[t])
        dxs.append(np.concatenate([da_r, da_u, da_n], axis=1))  # (B, 3H)
        dhzs.append(np.concatenate([da_r, da_u, dh_n], axis=1))  # (B, 3H): n's block differs
        # h_{t-1} is read by (G4) itself and by all three blocks of the product.
        dh_next = dh_prev + dhzs[-1] @ cache.W_h.T  # (G6)
    dx_rows, dhz_rows = np.concatenate(dxs[::-1]), np.concatenate(dhzs[::-1])  # (T·B, 3H)
    x_rows = cache.x.reshape(len(dx_rows), -1)
    h_rows = cache.h_prevs.reshape(len(dx_rows), -1)
    grads = {
        "W_x": x_rows.T @ dx_rows,  # (G5): a sum over T·B rows
        "W_h": h_rows.T @ dhz_rows,  # (G6)
        "b_x": dx_rows.sum(axis=0),
        "b_h": dhz_rows.sum(axis=0),
    }
    return (dx_rows @ cache.W_x.T).reshape(cache.x.shape), dh_next, grads


def main() -> None:
    cli.Parser(__doc__).parse_args()
    rng = np.random.default_rng(0)
    shapes = {"x": (T, B, D), "h_0": (B, H), "W_x": (D, 3 * H), "W_h": (H, 3 * H),
              "b_x": (3 * H,), "b_h": (3 * H,)}  # fmt: skip
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    # The slopes of a loss that reads every hidden state, and the last one once more.
    dhs, dh_T = rng.normal(size=(T, B, H)), rng.normal(size=(B, H))

    def loss(arrays: dict[str, Array]) -> Any:
        hs, _ = gru_forward(**arrays)
        return (hs * dhs).sum() + (hs[-1] * dh_T).sum()

    _, cache = gru_forward(**arrays)
    dx, dh_0, grads = gru_backward(dhs, dh_T, cache)
    grads |= {"x": dx, "h_0": dh_0}
    exact = complex_step(loss, arrays, grads)
    quotient = central_differences(loss, arrays, grads)
    print("largest error   complex step   central differences")
    for name in arrays:
        errors = exact.tensors[name].max_error, quotient.tensors[name].max_error
        print(f"d{name:14} {errors[0]:12.1e} {errors[1]:21.1e}")
    print("every gradient is right")


if __name__ == "__main__":
    cli.run(main)
