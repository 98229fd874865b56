"""What goes on inside a model that reads: how far gradients reach, and what single cells follow."""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minilstm.backend import Array, like, to_host
from minilstm.errors import quote, require
from minilstm.model import ModelCache, ModelConfig, Params, backward, forward_with_cache
from minilstm.nn.loss import softmax_cross_entropy


def gradient_norms(params: Params, config: ModelConfig, ids: ArrayLike) -> np.ndarray:
    """How far back one loss is felt: ‖∂loss/∂h_t‖ and ‖∂loss/∂c_t‖ of the top layer, for every t.

    The loss is that of the last token alone; so all of the gradient at h_t has come from step t+1,
    which is what `backward` returns of a step's initial state. c_t is read by its own tanh as well:
    dc_t = dc_next + dh_t * o * (1 - tanh² c_t), equation (L6).

    Args:
        params, config: the model.
        ids: T + 1 tokens, T ≥ 2: T are read, the last is to be predicted.
    Returns:
        dh and dc in one array (2, T-1): for the states after steps 0 … T-2.
    Raises:
        InputError: ids is no such text.
    """
    column, logits, caches = _step_by_step(params, config, ids, least=3)
    _, dlogits = softmax_cross_entropy(logits[-1], column[-1:])
    norms, dstate = [], None
    for t in reversed(range(len(caches) - 1)):
        _, dstate = backward(dlogits, caches[t + 1], dstate)
        (dh, dc_next), top = (d[-1] for d in dstate), caches[t].layers[-1]  # (1, H) each
        dc = dc_next + dh * top.o[0] * (1 - top.tanh_c[0] ** 2)
        norms.append([np.linalg.norm(to_host(d)) for d in (dh, dc)])
        dlogits = 0 * dlogits  # earlier predictions have no part in this loss
    return np.array(norms[::-1]).T


def gradient_reach(params: Params, config: ModelConfig, ids: ArrayLike) -> np.ndarray:
    """‖∂loss_t/∂h_s‖ for every prediction t and every earlier state s of the top layer.

    Args:
        params, config: the model.
        ids: T + 1 tokens, T ≥ 2.
    Returns:
        (T, T): row t is how the loss of step t's prediction depends on h_s, s < t; NaN elsewhere.
    Raises:
        InputError: ids is no such text.
    """
    ids = _one_text(ids, least=3)
    reach = np.full((len(ids) - 1, len(ids) - 1), np.nan)
    for t in range(1, len(reach)):
        reach[t, :t] = gradient_norms(params, config, ids[: t + 2])[0]
    return reach


def gradient_terms(params: Params, config: ModelConfig, ids: ArrayLike, name: str) -> np.ndarray:
    """What each step adds to a weight's gradient: their sum over t is what BPTT returns.

    Args:
        params, config: the model.
        ids: T + 1 tokens; the loss is the mean over the T predictions.
        name: whose gradient, such as "lstm0.W_h": its term of step t is h_{t-1}ᵀ dz_t.
    Returns:
        (T, *shape of the parameter).
    Raises:
        InputError: ids is no such text, or there is no such parameter.
    """
    require(name in params, f"name must be one of {', '.join(params)}", quote(name))
    column, logits, caches = _step_by_step(params, config, ids, least=2)
    terms, dstate = [], None
    for t in reversed(range(len(caches))):
        _, dlogits = softmax_cross_entropy(logits[t], column[t + 1 : t + 2])
        grads, dstate = backward(dlogits / len(caches), caches[t], dstate)
        terms.append(to_host(grads[name]))
    return np.array(terms[::-1])


def _one_text(ids: ArrayLike, least: int) -> np.ndarray:
    ids = np.asarray(ids)
    wanted = f"ids must be one text, (N,) with N ≥ {least}"
    require(ids.ndim == 1 and len(ids) >= least, wanted, f"shape {ids.shape}")
    return ids


def _step_by_step(
    params: Params, config: ModelConfig, ids: ArrayLike, least: int
) -> tuple[Array, list[Array], list[ModelCache]]:
    """The ids as a column, and the logits and the cache of each step as a pass of its own."""
    column = like(_one_text(ids, least)[:, None], params["fc.b"])
    logits, caches, state = [], [], None
    for t in range(len(column) - 1):
        its_logits, state, cache = forward_with_cache(params, config, column[t : t + 1], state)
        logits.append(its_logits)
        caches.append(cache)
    return column, logits, caches


def cell_states(params: Params, config: ModelConfig, ids: ArrayLike) -> np.ndarray:
    """tanh(c_t) of every cell while the model reads.

    Args:
        params, config: the model.
        ids: T tokens.
    Returns:
        (T, L, H), each between -1 and 1.
    Raises:
        InputError: ids is no such text.
    """
    column, state, states = like(_one_text(ids, 1)[:, None], params["fc.b"]), None, []
    for t in range(0, len(column), 256):
        _, state, cache = forward_with_cache(params, config, column[t : t + 256], state)
        states.append(np.stack([to_host(layer.tanh_c) for layer in cache.layers], axis=1))
    return np.concatenate(states)[:, :, 0]


def features(text: str) -> dict[str, np.ndarray]:
    """What a cell might follow, a number for each character read, that character included.

    Args:
        text: N characters.
    Returns:
        Each (N,): "quotes" and "brackets", 1 from the opening sign to the one before the closing;
        "line" and "word", characters since the last line's or word's end.

    >>> {name: values.tolist() for name, values in features('a (b)').items()}
    {'quotes': [0, 0, 0, 0, 0], 'brackets': [0, 0, 1, 1, 0],
     'line': [1, 2, 3, 4, 5], 'word': [1, 0, 1, 2, 3]}
    """
    signs = np.array(list(text), dtype=str)
    turns = (signs == "(").astype(int) - (signs == ")")
    depth = itertools.accumulate(turns, lambda depth, turn: max(0, depth + turn), initial=0)

    def since(ends: np.ndarray) -> np.ndarray:
        counts = itertools.accumulate(ends, lambda n, end: 0 if end else n + 1, initial=0)
        return np.array(list(counts)[1:])

    return {"quotes": np.cumsum(signs == '"') % 2, "brackets": np.minimum(list(depth)[1:], 1),
            "line": since(signs == "\n"), "word": since(np.char.isspace(signs))}  # fmt: skip


class Finding(NamedTuple):
    """A cell, and how well it follows a feature: r is the correlation of tanh(c) with it."""

    feature: str
    layer: int
    unit: int
    r: float


def search(states: np.ndarray, text: str) -> dict[str, list[Finding]]:
    """Every cell, for each feature of the text, the one that follows it best first.

    Args:
        states: (N, L, H) of `cell_states`.
        text: the N characters.
    Returns:
        Feature -> findings, by falling |r|; a feature that never changes is absent.
    """
    N, L, H = states.shape
    require(len(text) == N, "the states must be of the text's characters", (len(text), N))
    cells = states.reshape(N, L * H) - states.reshape(N, L * H).mean(axis=0)
    norms = np.linalg.norm(cells, axis=0) + 1e-12  # a cell that never moves follows nothing
    found = {}
    for name, values in features(text).items():
        deviation = values - values.mean()
        if deviation.any():
            r = deviation @ cells / (norms * np.linalg.norm(deviation))
            order = np.argsort(-np.abs(r))
            found[name] = [Finding(name, int(k) // H, int(k) % H, float(r[k])) for k in order]
    return found


def coloured(text: str, values: ArrayLike) -> str:
    """The text for a terminal, each character's background from black (-1) to white (1).

    Args:
        text: N characters, none of which steers a terminal.
        values: (N,), each between -1 and 1.
    Returns:
        Text with the escape sequences of 24 shades of grey.
    Raises:
        InputError: there is not one value for each character, or one is out of range.
    """
    values, pieces = np.asarray(values, float), []
    fits = values.shape == (len(text),) and bool((np.abs(values) <= 1).all())
    require(fits, f"need {len(text)} values between -1 and 1", quote(values))
    for sign, value in zip(text, values, strict=True):
        shade = 232 + round(23 * (value + 1) / 2)
        paint = f"\x1b[48;5;{shade};38;5;{15 if value < 0 else 16}m"
        pieces.append(f"{paint}↵\x1b[0m\n" if sign == "\n" else paint + sign)
    return "".join(pieces) + "\x1b[0m"
