"""How well a model predicts a text: every target but none twice, in nats, bits and perplexity."""

import math
from dataclasses import dataclass

import numpy as np

from minilstm.backend import like, to_host
from minilstm.checks import check_token_ids
from minilstm.errors import IntArray, check_positive_int, require
from minilstm.model import ModelConfig, Params, forward
from minilstm.nn.loss import nats_and_hits
from minilstm.text.batching import contiguous_streams
from minilstm.workers import EVALUATION, shared_out, shares
from minilstm.workspace import Workspace

_NUMBERS = 1 << 24  # held at a time by each process: 64 MB in float32


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured.

    Attributes:
        loss: mean nats per target, the negative log-likelihood.
        accuracy: the share of targets that were the likeliest token.
        tokens: the number of targets scored.

    >>> coin = Evaluation(loss=math.log(2), accuracy=0.5, tokens=100)
    >>> print(f"{coin.perplexity:.1f} {coin.bits_per_token:.1f}")
    2.0 1.0
    """

    loss: float
    accuracy: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """e^loss: the model is as unsure as between this many equally likely tokens.

        Infinite where that is beyond the largest number there is.
        """
        return math.inf if self.loss > 700 else math.exp(self.loss)

    @property
    def bits_per_token(self) -> float:
        """loss / ln 2: what it would take to write one token down with the model's help."""
        return self.loss / math.log(2)

    def to_dict(self) -> dict[str, float | int]:
        """The five figures by name."""
        names = ("loss", "perplexity", "bits_per_token", "accuracy", "tokens")
        return {name: getattr(self, name) for name in names}


def evaluate(params: Params, config: ModelConfig, ids: IntArray, streams: int = 1,
             window: int | None = None) -> Evaluation:  # fmt: skip
    """Score every token of a text but the first, given all that came before it; dropout is off.

    Every one of the N - 1 targets is scored, whatever `streams` is; the sum is in float64.

    Args:
        params, config: the model.
        ids: (N,) integers, N ≥ 2.
        streams: 1 reads the text from end to end in one pass, the state carried: the honest
            figure. More streams read as many pieces side by side, faster, each from a zero
            state.
        window: None carries the state. A number cuts the text into windows of so many tokens,
            each from a zero state ("cold"), which is how models without a carried state are
            often scored; `streams` then only says how many run side by side.
    Returns:
        The figures over all targets.
    Raises:
        InputError: there are fewer than two tokens, or streams or window is no positive integer.
        ChildProcessError: a process that read some of the streams was killed (`workers.shares`).
    """
    check_positive_int("streams", streams)
    check_positive_int("window", 1 if window is None else window)
    require(len(ids) >= 2, "need a text of at least 2 tokens to score one", len(ids))
    check_token_ids("ids", ids[None], config.vocab_size)
    pairs = len(ids) - 1
    totals, workspace = np.zeros(3), Workspace()  # nats, hits, targets
    # Rows of equal length, at most `streams` of them side by side; and the few pairs that do not
    # fill a row, read as one short row of their own.
    row = window or max(1, pairs // streams)
    whole = row * (pairs // row if window else min(streams, pairs))
    for first in range(0, whole, row * streams):
        rows = min(streams, (whole - first) // row)
        numbers = rows * row * config.hidden_size * config.num_layers
        cuts = shares(params, rows, numbers, EVALUATION)
        parts = [(ids[first + cut.start * row : first + cut.stop * row + 1], cut.stop - cut.start)
                 for cut in cuts]  # fmt: skip
        results = shared_out(_score, params, [(config, *part) for part in parts], workspace)
        totals += sum(scores for scores, _ in results)
    if whole < pairs:
        totals += _score(params, config, ids[whole:], 1, workspace)[0]
    nats, hits, tokens = totals.tolist()
    return Evaluation(nats / tokens, hits / tokens, int(tokens))


def _score(params: Params, config: ModelConfig, ids: IntArray, B: int,
           workspace: Workspace | None) -> tuple[np.ndarray, Params]:  # fmt: skip
    """Nats, hits and targets of B streams, read from a zero state with it carried; no gradients."""
    reference = params["fc.b"]
    # Of each token forward keeps the logits and what the loss makes of them, and h.
    row = 2 * config.vocab_size + (config.num_layers + 1) * config.hidden_size
    T = max(1, min(_NUMBERS // (B * row), 128, (len(ids) - 1) // B))
    state, totals = None, np.zeros(3)
    for inputs, targets, _ in contiguous_streams(ids, B, T):
        xs, there, N = like(inputs, reference), like(targets, reference), targets.size
        logits, state = forward(params, config, xs, state, workspace=workspace)
        nats, hits = nats_and_hits(logits, there)
        totals += float(to_host(nats)), int(to_host(hits)), N
    return totals, {}
