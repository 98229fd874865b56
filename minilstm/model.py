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

import logging
import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from minilstm.backend import Array, get_array_module, like
from minilstm.checks import State, check_precision, check_shape, check_state, check_token_ids
from minilstm.errors import InputError, check_number, check_positive_int, quote, require
from minilstm.fields import PositiveInt, Share, check_fields, one_of
from minilstm.nn import lstm, lstm_fast
from minilstm.nn.dropout import dropout, dropout_mask
from minilstm.nn.embedding import embedding_backward, embedding_forward, one_hot
from minilstm.nn.initializers import orthogonal, xavier_uniform
from minilstm.nn.linear import linear_backward, linear_forward
from minilstm.nn.loss import linear_cross_entropy
from minilstm.workers import TRAINING, shared_out, shares
from minilstm.workspace import Workspace, empty

Params = dict[str, Array]
Rng = np.random.Generator | None  # draws the dropout masks; None: there is no dropout


@dataclass(frozen=True)
class ModelConfig:
    """The model's shape, dropout and initial weights.

    Args:
        vocab_size: V.
        hidden_size: H, units of each layer.
        num_layers: L, layers.
        embedding_size: E; none: one-hot input (D = V).
        dropout: probability in [0, 1) on what one layer passes to the next.
        embedding_dropout: the same on the embedding's x; needs an embedding.
        output_dropout: the same on the top layer's hs.
        locked_dropout: one mask for all T steps instead of one per step, in all three.
        weight_drop: probability in [0, 1) on W_h, with one mask for all T steps.
        tie_weights: the embedding serves as output matrix too (Press & Wolf 2017); needs E = H.
        init: "pytorch" draws every matrix and bias from U(±1/√H), the embedding from N(0, 1), as
            PyTorch's modules do, or from N(0, 1/H) where it is tied; "xavier" and "orthogonal"
            draw W_x and W_h so, "xavier_orthogonal" one each way, the embedding and the output
            matrix from U(±0.1), biases zero.
        forget_bias: where the forget gate's biases start; none: as init draws them; 1 lets a new
            model remember (Jozefowicz et al. 2015).
    Raises:
        InputError: a size is no positive integer, a probability or forget_bias is out of range,
            init is none of the four, or settings do not fit each other.
    """

    vocab_size: PositiveInt
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 1
    embedding_size: PositiveInt | None = None
    dropout: Share = 0.0
    embedding_dropout: Share = 0.0
    output_dropout: Share = 0.0
    locked_dropout: bool = False
    weight_drop: Share = 0.0
    tie_weights: bool = False
    init: Annotated[str, one_of("pytorch", "xavier", "orthogonal", "xavier_orthogonal")] = "pytorch"
    forget_bias: Annotated[float, check_number] | None = None

    def __post_init__(self) -> None:
        H, E = self.hidden_size, self.embedding_size
        check_fields(self)
        wanted = f"tie_weights needs embedding_size = hidden_size = {H}"
        require(E == H or not self.tie_weights, wanted, f"embedding_size {E}")
        wanted = f"embedding_dropout {self.embedding_dropout} needs an embedding"
        fits = E is not None or not self.embedding_dropout
        require(fits, wanted, "embedding_size None (one-hot input)")
        if self.dropout and self.num_layers == 1:
            what = f"dropout {self.dropout} acts between layers, and there is one layer"
            effect = "it has no effect (output_dropout acts after the last)"
            logging.getLogger("minilstm").warning("%s: %s", what, effect)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, in the order in which the model uses them.

        Returns:
            Name -> shape; the weights of what the config leaves out are absent.

        >>> ModelConfig(vocab_size=5, hidden_size=2).parameter_shapes()
        {'lstm0.W_x': (5, 8), 'lstm0.W_h': (2, 8), 'lstm0.b': (8,), 'fc.W': (2, 5), 'fc.b': (5,)}
        """
        V, H, E = self.vocab_size, self.hidden_size, self.embedding_size
        shapes: dict[str, tuple[int, ...]] = {} if E is None else {"embedding.W": (V, E)}
        for k in range(self.num_layers):
            D = H if k > 0 else E or V
            own = {"W_x": (D, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,)}
            shapes |= {f"lstm{k}.{name}": shape for name, shape in own.items()}
        if not self.tie_weights:
            shapes["fc.W"] = (H, V)
        return shapes | {"fc.b": (V,)}


def init_params(config: ModelConfig, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
    """Draw all parameters, on the host, in `parameter_shapes` order.

    Args:
        config: its `init` and `forget_bias` say from which distributions.
        rng: a seed means the same draws for both dtypes.
        dtype: float32, or float64 for the gradient checks.
    Returns:
        Name -> NumPy array, of the shapes of `parameter_shapes`.
    """
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, got {quote(rng)}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise InputError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    H = config.hidden_size
    params: Params = {}
    draws, kinds = {"xavier": xavier_uniform, "orthogonal": orthogonal}, config.init.split("_")
    for name, shape in config.parameter_shapes().items():
        if config.init == "pytorch" and name == "embedding.W":
            # A tied embedding is an output matrix as well: N(0, 1) there would make the first
            # logits √H large, far from the uniform guess.
            value = rng.standard_normal(shape) * (1 / math.sqrt(H) if config.tie_weights else 1.0)
        elif config.init == "pytorch":
            value = rng.uniform(-1 / math.sqrt(H), 1 / math.sqrt(H), shape)
        elif name.endswith(".b"):
            value = np.zeros(shape)
        elif not name.startswith("lstm"):
            value = rng.uniform(-0.1, 0.1, shape)
        else:
            # "xavier_orthogonal" names W_x's first and W_h's last; the others name one for both.
            value = draws[kinds[-1] if name.endswith("W_h") else kinds[0]](rng, shape)
        if name.startswith("lstm") and name.endswith(".b") and config.forget_bias is not None:
            value[H : 2 * H] = config.forget_bias
        params[name] = empty(np, shape, dtype)
        params[name][...] = value
    return params


def init_state(config: ModelConfig, batch_size: int, dtype: Any = np.float32,
               xp: Any = np) -> State:
    """The state before the first token: zeros.

    Args:
        config: gives L and H.
        batch_size: B.
        dtype: that of the parameters.
        xp: the array module to make them with; NumPy, or CuPy for a model on the GPU.
    Returns:
        h and c, each (L, B, H).
    Raises:
        InputError: batch_size is no positive integer.
    """
    check_positive_int("batch_size", batch_size)
    shape = (config.num_layers, batch_size, config.hidden_size)
    return xp.zeros(shape, dtype=dtype), xp.zeros(shape, dtype=dtype)


class Masks(NamedTuple):
    """The dropout masks of one pass; None where nothing is dropped."""

    inputs: list[Array | None]  # on each layer's input, (T, B, D) or (1, B, D) if locked
    weights: list[Array | None]  # on each layer's W_h, (H, 4H)
    output: Array | None  # on the top layer's hs


def draw_masks(config: ModelConfig, rng: Rng, T: int, B: int, reference: Array) -> Masks:
    """Draw all masks of one pass; they are a function of rng's state alone.

    Args:
        config: which values are dropped, and with what probability.
        rng: None drops nothing.
        T, B: steps and sequences of the pass.
        reference: an array of the parameters' dtype, on their device.
    Returns:
        The masks, on that device.
    """

    L, H, steps = config.num_layers, config.hidden_size, 1 if config.locked_dropout else T
    if rng is None:
        return Masks([None] * L, [None] * L, None)

    def mask(p: float, *shape: int) -> Array | None:
        return like(dropout_mask(rng, shape, p, reference.dtype), reference) if p else None

    inputs = [mask(config.embedding_dropout, steps, B, config.embedding_size or 0)]
    inputs += [mask(config.dropout, steps, B, H) for _ in range(L - 1)]
    weights = [mask(config.weight_drop, H, 4 * H) for _ in range(L)]
    return Masks(inputs, weights, mask(config.output_dropout, steps, B, H))


def _masks_of(masks: Masks, cut: slice) -> Masks:
    """Those of some of the sequences."""
    *inputs, output = (m if m is None else m[:, cut] for m in (*masks.inputs, masks.output))
    return Masks(inputs, masks.weights, output)


class ModelCache(NamedTuple):
    """What `backward` needs of one `forward_with_cache`."""

    config: ModelConfig
    inputs: Array  # (T, B)
    layers: list[Any]  # LSTMCache, or of the fast form Cache; from the bottom up
    masks: Masks
    hs: Array  # (T, B, H) of the top layer, after dropout
    W_out: Array  # (H, V)


def forward(params: Params, config: ModelConfig, inputs: Array, state: State | None = None, *,
            workspace: Workspace | None = None) -> tuple[Array, State]:
    """Logits of the next token at every step, and the state after the last.

    Args:
        params: as `init_params` makes them, on either device.
        config: the one they were made with.
        inputs: (T, B) integer ids, T steps of B sequences, on the device of params.
        state: h and c, each (L, B, H); None is zeros. It is left as it was.
        workspace: None runs the page, nn/lstm.py; else nn/lstm_fast.py runs in its arrays.
    Returns:
        Logits (T, B, V) and the new state.
    Raises:
        InputError: a shape, a dtype or an id does not fit. Ids on a GPU are not looked at, since
            that would wait for the device: check them before they go there.

    >>> config = ModelConfig(vocab_size=5, hidden_size=4, num_layers=2)
    >>> params = init_params(config, np.random.default_rng(0))
    >>> logits, (h, c) = forward(params, config, inputs=np.array([[0], [3], [1]]))
    >>> logits.shape, h.shape, c.shape
    ((3, 1, 5), (2, 1, 4), (2, 1, 4))
    """
    check_token_ids("inputs", inputs, config.vocab_size)
    masks = draw_masks(config, None, 1, 1, params["fc.b"])
    state, cache = _body_forward(params, config, inputs, state, masks, workspace, keep=False)
    return linear_forward(cache.hs, cache.W_out, params["fc.b"]), state


def forward_with_cache(params: Params, config: ModelConfig, inputs: Array,
                       state: State | None = None, *,
                       rng: Rng = None) -> tuple[Array, State, ModelCache]:
    """As `forward`, with what `backward` needs, and with dropout if there is an rng.

    Args:
        params, config, inputs, state: as in `forward`.
        rng: draws the dropout masks; None: no dropout, whatever the config says.
    Returns:
        logits (T, B, V), the state after the last step, and the cache.
    Raises:
        InputError: as `forward`.
    """
    check_token_ids("inputs", inputs, config.vocab_size)
    T, B = inputs.shape
    masks = draw_masks(config, rng, T, B, params["fc.b"])
    state, cache = _body_forward(params, config, inputs, state, masks)
    logits = linear_forward(cache.hs, cache.W_out, params["fc.b"])  # (T, B, V)
    return logits, state, cache


def backward(dlogits: Array, cache: ModelCache,
             dstate: State | None = None) -> tuple[Params, State]:
    """Gradients of everything, from the gradient of the logits.

    Args:
        dlogits: (T, B, V), ∂loss/∂logits.
        cache: of the `forward_with_cache` that made the logits.
        dstate: ∂loss/∂(h_T, c_T), each (L, B, H), if something read the final state; None is
            zeros, which truncates backpropagation at this chunk's end.
    Returns:
        Grads, with the keys of params, and the gradient of the initial state, each (L, B, H).
    Raises:
        InputError: dstate has another shape.
    """
    check_shape("dlogits", dlogits, (*cache.inputs.shape, cache.config.vocab_size), "(T, B, V)")
    check_precision("dlogits", dlogits, cache.hs)
    dhs, dW_out, db = linear_backward(dlogits, cache.hs, cache.W_out)
    grads, d_0 = _body_backward(dhs, dW_out, db, cache, dstate)
    dh_0, dc_0 = map(get_array_module(dhs).stack, zip(*reversed(d_0), strict=True))
    return grads, (dh_0, dc_0)


def loss_and_grads(params: Params, config: ModelConfig, inputs: Array, targets: Array,
                   state: State | None = None, *, rng: Rng = None,
                   workspace: Workspace | None = None) -> tuple[Array, Params, State]:
    """One training step's loss, gradients and next state: forward, loss and backward in one.

    The same as forward_with_cache, softmax_cross_entropy and backward, but for the output layer:
    its logits exist in chunks of rows only (`linear_cross_entropy`).

    Args:
        params, config: as for `forward`.
        inputs, targets: (T, B) integer ids.
        state: h and c, each (L, B, H); None is zeros.
        rng: draws the dropout masks; None: no dropout, whatever the config says.
        workspace: None runs the page, nn/lstm.py, and returns fresh arrays; else nn/lstm_fast.py
            runs in the workspace's arrays, and grads are valid until its next call. A larger batch
            is then shared out to processes (`workers.shares`), whose number decides the last bits.
    Returns:
        The loss (mean nats per target, a 0-d array on the device), grads with the keys of params,
        and the state to carry into the next chunk. No gradient flows in through that state: this
        is truncated BPTT.
    Raises:
        InputError: a shape, a dtype or an id does not fit; see `forward`.
        ChildProcessError: a process that had a share of the batch was killed.
    Source:
        Williams & Peng 1990.

    >>> config = ModelConfig(vocab_size=5, hidden_size=4)
    >>> params = init_params(config, np.random.default_rng(0))
    >>> ids = np.array([[0], [3], [1], [4]])
    >>> loss, grads, state = loss_and_grads(params, config, inputs=ids[:-1], targets=ids[1:])
    >>> {name: g.shape for name, g in grads.items()} == config.parameter_shapes()
    True
    """
    check_token_ids("inputs", inputs, config.vocab_size)
    check_token_ids("targets", targets, config.vocab_size, tuple(inputs.shape))
    reference, (T, B) = params["fc.b"], inputs.shape
    if state is not None:
        check_state("state", state, (config.num_layers, B, config.hidden_size), reference)
    masks, cuts = draw_masks(config, rng, T, B, reference), [slice(None)]
    if workspace is not None:
        cuts = shares(params, B, T * B * config.hidden_size * config.num_layers, TRAINING)
    results = shared_out(_of_sequences, params, [
        (config, inputs[:, cut], targets[:, cut], state and (state[0][:, cut], state[1][:, cut]),
         _masks_of(masks, cut), targets.size) for cut in cuts], workspace)  # fmt: skip
    (loss, (h, c)), grads = results[0]
    for (its_loss, (its_h, its_c)), its_grads in results[1:]:
        h, c = np.concatenate((h, its_h), axis=1), np.concatenate((c, its_c), axis=1)
        loss = loss + its_loss
        for name, g in grads.items():
            g += its_grads[name]
    return loss, grads, (h, c)


def _of_sequences(params: Params, config: ModelConfig, inputs: Array, targets: Array,
                  state: State | None, masks: Masks, of: int,
                  workspace: Workspace | None) -> tuple[tuple[Array, State], Params]:
    """Loss and next state, and gradients, of some of a batch's sequences; the loss is the mean of
    so many targets as the whole batch has."""
    after, cache = _body_forward(params, config, inputs, state, masks, workspace)
    loss, dhs, dW_out, db = linear_cross_entropy(
        cache.hs, cache.W_out, params["fc.b"], targets, workspace=workspace, of=of)
    return (loss, after), _body_backward(dhs, dW_out, db, cache, None)[0]


def _body_forward(params: Params, config: ModelConfig, inputs: Array, state: State | None,
                  masks: Masks, workspace: Workspace | None = None,
                  keep: bool = True) -> tuple[State, ModelCache]:
    """Everything below the output layer: ids (T, B) -> hs (T, B, H), which the cache holds."""
    L, B, H = config.num_layers, inputs.shape[1], config.hidden_size
    reference, xp = params["fc.b"], get_array_module(params["fc.b"])
    state = (init_state(config, B, reference.dtype, xp) if state is None
             else check_state("state", state, (L, B, H), reference))  # fmt: skip

    W = params.get("embedding.W")  # (V, E)
    x: Any  # (T, B, D)
    if workspace is not None and masks.inputs[0] is None and (W is None or len(W) <= inputs.size):
        x = lstm_fast.Lookup(inputs, W)
    elif W is None:
        x = one_hot(inputs, config.vocab_size, reference.dtype)
    else:
        x = embedding_forward(inputs, W)
    states, layers = [], []
    layer: Any
    for k in range(L):
        W_x, W_h, b = (params[f"lstm{k}.{name}"] for name in ("W_x", "W_h", "b"))
        x, W_h = dropout(x, masks.inputs[k]), dropout(W_h, masks.weights[k])
        # The hs (T, B, H) of this layer are the x of the next.
        layer_state = state[0][k], state[1][k]
        if workspace is None:
            x, last_state, layer = lstm.lstm_forward(x, layer_state, W_x, W_h, b)
        else:
            x, last_state, layer = lstm_fast.lstm_forward(
                x, layer_state, W_x, W_h, b, workspace, f"lstm{k}", keep)
        states.append(last_state)
        layers.append(layer)
    # np.stack would take longer than a step
    h_T, c_T = (xp.empty((L, B, H), states[-1][0].dtype) for _ in "hc")
    for k, (h, c) in enumerate(states):
        h_T[k], c_T[k] = h, c
    hs = dropout(x, masks.output)
    W_out = params["embedding.W"].T if config.tie_weights else params["fc.W"]  # (H, V)
    return (h_T, c_T), ModelCache(config, inputs, layers, masks, hs, W_out)


def _body_backward(dhs: Array, dW_out: Array, db: Array, cache: ModelCache,
                   dstate: State | None) -> tuple[Params, list[State]]:
    """_body_forward read bottom-up, all gradients put under their names; and those of the initial
    states, each (B, H), from the top layer down."""
    config, masks, d_0 = cache.config, cache.masks, []
    L, B, H = config.num_layers, dhs.shape[1], config.hidden_size
    dstate = (init_state(config, B, dhs.dtype, get_array_module(dhs)) if dstate is None
              else check_state("dstate", dstate, (L, B, H), dhs))  # fmt: skip

    grads: Params = {"fc.b": db} if config.tie_weights else {"fc.b": db, "fc.W": dW_out}
    dx = dropout(dhs, masks.output)
    for k in reversed(range(L)):
        layer = cache.layers[k]
        form: Any = lstm if isinstance(layer, lstm.LSTMCache) else lstm_fast
        dx, its_d_0, weights = form.lstm_backward(dx, (dstate[0][k], dstate[1][k]), layer)
        dx = dropout(dx, masks.inputs[k])
        grads[f"lstm{k}.b"] = weights.b
        grads[f"lstm{k}.W_h"] = dropout(weights.W_h, masks.weights[k])
        grads[f"lstm{k}.W_x"] = weights.W_x
        d_0.append(its_d_0)
    if config.embedding_size is not None:
        looked_up = isinstance(layer.x, lstm_fast.Lookup)  # then dx is the table's already
        array = getattr(layer, "array", None)  # of the fast form
        grads["embedding.W"] = (
            dx if looked_up else embedding_backward(dx, cache.inputs, config.vocab_size, array))
    if config.tie_weights:
        # One matrix, read twice: as rows at the bottom, as columns at the top. Gradients add.
        grads["embedding.W"] = grads["embedding.W"] + dW_out.T
    return dict(reversed(grads.items())), d_0  # in the order of params
