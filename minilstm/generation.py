"""Sampling: from the logits of one step to the next token, and on.

The state is warmed up on the prompt in one pass, then every new token costs one step with B = 1.
Tokens are drawn on the host with NumPy, so a seed gives the same text on CPU and GPU wherever
their logits agree.
"""

from collections.abc import Iterator

import numpy as np

from minilstm.backend import like, to_host
from minilstm.checks import check_token_ids
from minilstm.errors import check_count, check_positive_int, require
from minilstm.model import ModelConfig, Params, forward
from minilstm.workspace import Workspace


def next_token_probabilities(logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None,
                             top_p: float | None = None) -> np.ndarray:  # fmt: skip
    """softmax(logits / temperature), restricted to the likeliest tokens, in float64.

    Args:
        logits: (V,); -inf is a token that cannot come.
        temperature: above 0; below 1 sharpens, above 1 flattens.
        top_k: only the k likeliest tokens stay (Fan et al. 2018).
        top_p: of what top_k left, only the smallest set of likeliest tokens whose probability
            reaches p (Holtzman et al. 2020); the likeliest always stays.
    Returns:
        (V,) probabilities that sum to 1, whatever the logits' dtype.
    Raises:
        InputError: temperature ≤ 0 or not finite, top_k outside 1 … V, top_p outside (0, 1], or
            logits that are NaN, +inf or all -inf.

    >>> next_token_probabilities(np.log([0.5, 0.3, 0.2]), top_k=2).round(3).tolist()
    [0.625, 0.375, 0.0]
    """
    check_sampling(temperature, top_k, top_p, V=len(logits))
    scores: np.ndarray = np.asarray(logits, dtype=np.float64)
    largest = _check_logits(scores)
    # The largest score first becomes 0: dividing by a tiny temperature then cannot overflow to nan.
    with np.errstate(over="ignore", under="ignore"):
        p: np.ndarray = np.exp((scores - largest) / temperature)
    p /= p.sum()
    if top_k is None and top_p is None:
        return p
    order = np.argsort(-p, kind="stable")  # likeliest first, ties by id
    if top_k is not None:
        p[order[top_k:]] = 0.0
        p /= p.sum()
    if top_p is not None and top_p < 1:  # at 1 all stay; a rounded sum may get there too early
        before = np.cumsum(p[order])[:-1]  # for each token but the first: all likelier ones
        p[order[1:][before >= top_p]] = 0.0
        p /= p.sum()
    return p


def generate_ids(params: Params, config: ModelConfig, prompt: np.ndarray, length: int,
                 temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
                 greedy: bool = False, forbidden: int | None = None,
                 rng: np.random.Generator | None = None) -> Iterator[int]:  # fmt: skip
    """Yield `length` token ids that continue `prompt`, each as soon as it is known.

    Dropout is never active here.

    Args:
        params, config: the model, as for `forward`.
        prompt: (N,) ids, N ≥ 1, each below V.
        length: number of tokens to make, ≥ 0.
        temperature, top_k, top_p: as for `next_token_probabilities`.
        greedy: always the likeliest token; the other settings have no say.
        forbidden: an id that is never produced, the unknown symbol's for one.
        rng: draws each token; None draws from fresh entropy.
    Returns:
        An iterator over `length` ids.
    Raises:
        InputError: a setting is out of range, the prompt is empty or length is negative; all of
            them at the call, before the first id is asked for. Logits that are NaN, as a diverged
            model makes them, raise it where they come up.
    """
    require(len(prompt) > 0, "the prompt must have at least one token", "none")
    check_token_ids("the prompt", np.asarray(prompt)[None], config.vocab_size)
    check_count("length", length)
    check_sampling(temperature, top_k, top_p, config.vocab_size)
    rng = rng or np.random.default_rng()

    def ids() -> Iterator[int]:
        inputs, state = np.asarray(prompt).reshape(-1, 1), None  # (T, 1): the prompt in one pass
        workspace = Workspace()
        for _ in range(length):
            there = like(inputs, params["fc.b"])
            logits, state = forward(params, config, there, state, workspace=workspace)
            last = to_host(logits[-1, 0].copy())  # (V,): all that leaves the device
            if forbidden is not None:
                last[forbidden] = -np.inf
            if greedy:
                _check_logits(last)
                token = int(last.argmax())
            else:
                p = next_token_probabilities(last, temperature, top_k, top_p)
                sums = p.cumsum()  # a draw as Generator.choice makes it, without its checks
                token = int((sums / sums[-1]).searchsorted(rng.random(), side="right"))
            yield token
            inputs = np.array([[token]])

    return ids()


def _check_logits(logits: np.ndarray) -> np.floating:
    """The largest of them; InputError unless that is finite."""
    largest: np.floating = logits.max()  # a NaN is the maximum wherever it stands
    require(np.isfinite(largest), "the largest logit must be finite", largest)
    return largest


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, V: int) -> None:
    """Do nothing if the sampling settings fit a vocabulary of V.

    Args:
        temperature, top_k, top_p: as for `next_token_probabilities`.
        V: size of the vocabulary.
    Raises:
        InputError: one of them is out of its range.
    """
    got = f"{temperature}; greedy (--greedy) takes the likeliest token"
    require(0 < temperature < np.inf, "temperature must be a finite number above 0", got)
    if top_k is not None:
        check_positive_int("top_k", top_k)
        require(top_k <= V, f"top_k must be at most the vocabulary's {V}", top_k)
    require(top_p is None or 0 < top_p <= 1, "top_p must be above 0 and at most 1", top_p)
