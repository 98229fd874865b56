"""The language model: the pieces of nn/ composed, forward and backward. The only file that does so.

    ids (T, B) -> x (T, B, D) -> hs (T, B, H), once per layer -> logits (T, B, V) -> loss
                  dx          <- dhs                          <- dlogits          <-

Parameters are a flat dict[str, Array]; gradients are a dict with the same keys:

    embedding.W   (V, E)     absent with one-hot input
    lstm{k}.W_x   (D, 4H)    D = E (or V, one-hot) in layer 0, H above
    lstm{k}.W_h   (H, 4H)
    lstm{k}.b     (4H,)      gates in the order i, f, g, o
    fc.W          (H, V)     absent when tied: embedding.Wᵀ serves
    fc.b          (V,)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minilstm.backend import Array, get_array_module, is_on_host
from minilstm.errors import InputError, check_positive_int
from minilstm.nn import initializers
from minilstm.nn.embedding import embedding_backward, embedding_forward, one_hot
from minilstm.nn.linear import linear_backward, linear_forward
from minilstm.nn.loss import linear_cross_entropy
from minilstm.nn.lstm import LSTMCache, lstm_backward, lstm_forward

Params = dict[str, Array]
State = tuple[Array, Array]  # h and c, each (L, B, H)


@dataclass(frozen=True)
class ModelConfig:
    """The model's shape.

    vocab_size: V. hidden_size: H. num_layers: L.
    embedding_size: E, or None for one-hot input (D = V).
    tie_weights: the embedding serves as output matrix too (Press & Wolf 2017); needs E = H.
    init: "pytorch" draws every matrix and bias from U(±1/√H), the embedding from N(0, 1), as
        PyTorch's modules do; "xavier" and "orthogonal" draw the LSTM's matrices so, the output
        matrix xavier, biases zero.
    forget_bias: if not None, the forget gate's biases start at this value; 1 lets a new model
        remember (Jozefowicz et al. 2015).

    Raises InputError for sizes that are no positive integers and for settings that do not fit
    each other.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int = 1
    embedding_size: int | None = None
    tie_weights: bool = False
    init: str = "pytorch"
    forget_bias: float | None = None

    def __post_init__(self) -> None:
        check_positive_int("vocab_size", self.vocab_size)
        check_positive_int("hidden_size", self.hidden_size)
        check_positive_int("num_layers", self.num_layers)
        if self.embedding_size is not None:
            check_positive_int("embedding_size", self.embedding_size)
        if self.tie_weights and self.embedding_size != self.hidden_size:
            raise InputError(
                f"tie_weights needs embedding_size = hidden_size = {self.hidden_size}, "
                f"got embedding_size {self.embedding_size}"
            )
        if self.init not in ("pytorch", "xavier", "orthogonal"):
            raise InputError(f"init must be pytorch, xavier or orthogonal, got {self.init!r}")
        if self.forget_bias is not None and not math.isfinite(self.forget_bias):
            raise InputError(f"forget_bias must be a finite number, got {self.forget_bias}")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, in the order in which the model uses them."""
        V, H, E = self.vocab_size, self.hidden_size, self.embedding_size
        shapes: dict[str, tuple[int, ...]] = {}
        if E is not None:
            shapes["embedding.W"] = (V, E)
        for k in range(self.num_layers):
            D = H if k > 0 else V if E is None else E
            shapes[f"lstm{k}.W_x"] = (D, 4 * H)
            shapes[f"lstm{k}.W_h"] = (H, 4 * H)
            shapes[f"lstm{k}.b"] = (4 * H,)
        if not self.tie_weights:
            shapes["fc.W"] = (H, V)
        shapes["fc.b"] = (V,)
        return shapes


def init_params(config: ModelConfig, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
    """Draw all parameters, on the host, in `parameter_shapes` order. See ModelConfig.init.

    dtype: float32, or float64 for the gradient checks. The draws are the same for both.
    """
    H = config.hidden_size
    draw: dict[str, Callable[..., np.ndarray]] = {
        "xavier": initializers.xavier_uniform,
        "orthogonal": initializers.orthogonal,
    }
    params: Params = {}
    for name, shape in config.parameter_shapes().items():
        if name == "embedding.W":
            # A tied embedding is an output matrix as well: N(0, 1) there would make the first
            # logits √H large, far from the uniform guess.
            scale = 1 / math.sqrt(H) if config.tie_weights else 1.0
            value = scale * rng.standard_normal(shape)
        elif config.init == "pytorch":
            value = initializers.uniform(rng, shape, 1 / math.sqrt(H))
        elif len(shape) == 1:
            value = np.zeros(shape)
        else:
            value = draw["xavier" if name == "fc.W" else config.init](rng, shape)
        if name.startswith("lstm") and name.endswith(".b") and config.forget_bias is not None:
            value[H : 2 * H] = config.forget_bias
        params[name] = np.ascontiguousarray(value, dtype=dtype)
    return params


def init_state(
    config: ModelConfig, batch_size: int, dtype: Any = np.float32, xp: Any = np
) -> State:
    """The state before the first token: h and c, zeros, each (L, B, H).

    xp: the array module to make them with; NumPy, or CuPy for a model on the GPU.
    """
    check_positive_int("batch_size", batch_size)
    shape = (config.num_layers, batch_size, config.hidden_size)
    return xp.zeros(shape, dtype=dtype), xp.zeros(shape, dtype=dtype)


class ModelCache(NamedTuple):
    """What `backward` needs of one `forward_with_cache`."""

    config: ModelConfig
    inputs: Array  # (T, B)
    layers: tuple[LSTMCache, ...]  # from the bottom up
    hs: Array  # (T, B, H) of the top layer
    W_out: Array  # (H, V)


def forward(
    params: Params, config: ModelConfig, inputs: Array, state: State | None = None
) -> tuple[Array, State]:
    """Logits of the next token at every step, and the state after the last.

    inputs (T, B) integer ids, T steps of B sequences. state: h and c, each (L, B, H); None is
    zeros. Returns logits (T, B, V) and the new state; the one passed in is left as it was.

    Raises InputError where a shape, a dtype or an id does not fit. Ids on a GPU are not looked
    at, since that would wait for the device: check them before they go there.
    """
    logits, state, _ = forward_with_cache(params, config, inputs, state)
    return logits, state


def forward_with_cache(
    params: Params, config: ModelConfig, inputs: Array, state: State | None = None
) -> tuple[Array, State, ModelCache]:
    """As `forward`, and with what `backward` needs."""
    hs, state, layers = _lstm_stack_forward(params, config, inputs, state)
    W_out = _output_matrix(params, config)
    logits = linear_forward(hs, W_out, params["fc.b"])  # (T, B, V)
    return logits, state, ModelCache(config, inputs, layers, hs, W_out)


def backward(
    dlogits: Array, cache: ModelCache, dstate: State | None = None
) -> tuple[Params, State]:
    """Gradients of everything, from the gradient of the logits.

    dlogits (T, B, V). dstate: ∂loss/∂(h_T, c_T), each (L, B, H), if something read the final
    state; None is zeros, which truncates backpropagation at this chunk's end.
    Returns grads, with the keys of params, and the gradient of the initial state.
    """
    dhs, dW_out, db = linear_backward(dlogits, cache.hs, cache.W_out)
    return _lstm_stack_backward(dhs, dW_out, db, cache, dstate)


def loss_and_grads(
    params: Params,
    config: ModelConfig,
    inputs: Array,
    targets: Array,
    state: State | None = None,
) -> tuple[Array, Params, State]:
    """One training step's loss, gradients and next state: forward, loss and backward in one.

    The same as forward_with_cache, softmax_cross_entropy and backward, but for the output layer:
    its logits exist in chunks of rows only (`linear_cross_entropy`).

    inputs, targets (T, B) integer ids. state: h and c, each (L, B, H); None is zeros.
    Returns the loss (mean nats per target, a 0-d array on the device), grads with the keys of
    params, and the state to carry into the next chunk. No gradient flows in through that state:
    this is truncated BPTT (Williams & Peng 1990).

    Raises InputError where a shape, a dtype or an id does not fit; see `forward`.
    """
    _check_ids("targets", targets, config, like_shape=tuple(inputs.shape))
    hs, state, layers = _lstm_stack_forward(params, config, inputs, state)
    W_out = _output_matrix(params, config)
    loss, dhs, dW_out, db = linear_cross_entropy(hs, W_out, params["fc.b"], targets)
    cache = ModelCache(config, inputs, layers, hs, W_out)
    grads, _ = _lstm_stack_backward(dhs, dW_out, db, cache, None)
    return loss, grads, state


def _lstm_stack_forward(
    params: Params, config: ModelConfig, inputs: Array, state: State | None
) -> tuple[Array, State, tuple[LSTMCache, ...]]:
    """ids (T, B) -> the top layer's hs (T, B, H), the new state, one cache per layer."""
    _check_ids("inputs", inputs, config)
    dtype = params["fc.b"].dtype
    xp = get_array_module(params["fc.b"])
    B = inputs.shape[1]
    if state is None:
        state = init_state(config, B, dtype, xp)
    _check_state("state", state, config, B)

    if config.embedding_size is None:
        x = one_hot(inputs, config.vocab_size, dtype)  # (T, B, V)
    else:
        x = embedding_forward(inputs, params["embedding.W"])  # (T, B, E)
    h_T, c_T, caches = [], [], []
    for k in range(config.num_layers):
        x, (h, c), cache = lstm_forward(
            x,
            (state[0][k], state[1][k]),
            params[f"lstm{k}.W_x"],
            params[f"lstm{k}.W_h"],
            params[f"lstm{k}.b"],
        )  # x is now this layer's hs (T, B, H), the input of the next
        h_T.append(h)
        c_T.append(c)
        caches.append(cache)
    return x, (xp.stack(h_T), xp.stack(c_T)), tuple(caches)


def _lstm_stack_backward(
    dhs: Array, dW_out: Array, db: Array, cache: ModelCache, dstate: State | None
) -> tuple[Params, State]:
    """_lstm_stack_forward read bottom-up, and the gradients put under their names."""
    config, xp = cache.config, get_array_module(dhs)
    if dstate is None:
        dstate = init_state(config, dhs.shape[1], dhs.dtype, xp)
    _check_state("dstate", dstate, config, dhs.shape[1])

    grads: Params = dict.fromkeys(config.parameter_shapes())
    grads["fc.b"] = db
    dh_0, dc_0 = [], []
    dx = dhs
    for k in reversed(range(config.num_layers)):
        dx, (dh, dc), layer = lstm_backward(dx, (dstate[0][k], dstate[1][k]), cache.layers[k])
        for name, gradient in layer._asdict().items():
            grads[f"lstm{k}.{name}"] = gradient
        dh_0.append(dh)
        dc_0.append(dc)
    if config.embedding_size is not None:
        grads["embedding.W"] = embedding_backward(dx, cache.inputs, config.vocab_size)
    if config.tie_weights:
        # One matrix, read twice: as rows at the bottom, as columns at the top. Gradients add.
        grads["embedding.W"] = grads["embedding.W"] + dW_out.T
    else:
        grads["fc.W"] = dW_out
    return grads, (xp.stack(dh_0[::-1]), xp.stack(dc_0[::-1]))


def _output_matrix(params: Params, config: ModelConfig) -> Array:
    """(H, V)."""
    return params["embedding.W"].T if config.tie_weights else params["fc.W"]


def _check_ids(
    name: str, ids: Array, config: ModelConfig, like_shape: tuple[int, ...] | None = None
) -> None:
    if not hasattr(ids, "dtype") or ids.dtype.kind not in "iu":
        got = getattr(ids, "dtype", type(ids).__name__)
        raise InputError(f"{name} must be an array of integer ids, got {got}")
    shape = tuple(ids.shape)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{name} must have shape (T, B), both at least 1, got {shape}")
    if like_shape is not None and shape != like_shape:
        raise InputError(f"{name} must have the shape of inputs, {like_shape}, got {shape}")
    if is_on_host(ids):
        for id in (ids.min(), ids.max()):
            if not 0 <= id < config.vocab_size:
                highest = config.vocab_size - 1
                raise InputError(f"{name} must hold ids from 0 to {highest}, got {id}")


def _check_state(name: str, state: State, config: ModelConfig, B: int) -> None:
    shape = (config.num_layers, B, config.hidden_size)
    for part, array in zip(("h", "c"), state, strict=True):
        if tuple(array.shape) != shape:
            raise InputError(
                f"{name} {part} must have shape (L, B, H) = {shape}, got {tuple(array.shape)}"
            )
