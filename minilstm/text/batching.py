"""Ids (N,) -> batches (inputs, targets, starts): what the model reads, and the next token at each.

T steps, B sequences side by side. Inputs and targets are time-major, (T, B), and targets are one
step ahead of inputs in the text: a text of N tokens has N - 1 pairs (ids[n], ids[n + 1]), and the
last token is a target only. Nothing wraps round: no pair joins the end of the text to its start.
`starts` says that the sequences of a batch do not go on where those of the batch before stopped, so
that the state is to be reset.

    contiguous_streams    in order, the state carried from batch to batch: stateful truncated BPTT
    random_windows        drawn anew at each step, with replacement
    shuffled_windows      each window once per pass, in random order
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from minilstm.errors import IntArray, check_ids, check_positive_int, require

Batch = tuple[IntArray, IntArray, bool]  # inputs (T, B), targets (T, B), starts


@dataclass(frozen=True, eq=False)
class Passes:
    """A text in batches; each `for` loop over it is one pass, and `len` counts a pass's batches.

    Attributes:
        batch_size, seq_len: B and T as they are used, which a short text makes smaller.
        scored: targets scored by one pass.
        unscored: pairs left out at the end of the text.
        batches: begins a pass.
    """

    batch_size: int
    seq_len: int
    scored: int
    unscored: int
    batches: Callable[[], Iterator[Batch]]

    def __len__(self) -> int:
        return math.ceil(self.scored / (self.batch_size * self.seq_len))

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


def contiguous_streams(ids: ArrayLike, batch_size: int, seq_len: int) -> Passes:
    """Read the text as B streams side by side, T steps at a time.

    Stream b is the S = (N - 1) // B pairs from pair b S on. A pass, one epoch, is ceil(S / T)
    batches, the last of them shorter where T does not divide S; it scores B S targets, each once,
    and leaves out the (N - 1) - B S < B pairs at the end of the text. `starts` is True for the
    first batch of a pass alone.

    Where the text has fewer than B T pairs, fewer streams are made, B = max(1, (N - 1) // T), and
    one stream of T = N - 1 where not even one has T pairs; a warning says so.

    Args:
        ids: (N,) integers, N >= 2.
        batch_size: streams B.
        seq_len: steps T of a batch, through which gradients flow back.
    Returns:
        An iterable; each `for` loop over it is one pass.
    Raises:
        InputError: ids are not a row of at least 2 integers, or a size is no positive integer.

    >>> for inputs, targets, starts in contiguous_streams(range(8), batch_size=2, seq_len=2):
    ...     print(inputs.tolist(), targets.tolist(), starts)
    [[0, 3], [1, 4]] [[1, 4], [2, 5]] True
    [[2, 5]] [[3, 6]] False
    """
    tokens, B, T = _fit(ids, batch_size, seq_len, fewer=True)
    S = (len(tokens) - 1) // B

    def batches() -> Iterator[Batch]:
        inputs = tokens[: B * S].reshape(B, S).T  # (S, B), a view of ids: column b is stream b
        targets = tokens[1 : B * S + 1].reshape(B, S).T  # (S, B), the same, one token on
        for t in range(0, S, T):
            yield inputs[t : t + T].copy(), targets[t : t + T].copy(), t == 0

    return Passes(B, T, B * S, len(tokens) - 1 - B * S, batches)


def random_windows(ids: ArrayLike, batch_size: int, seq_len: int, steps: int,
                   rng: Generator) -> Iterator[Batch]:  # fmt: skip
    """Draw the B windows of each batch anywhere in the text, independently of one another.

    A window of T pairs begins at any of the N - T tokens 0 .. N - T - 1, all equally likely. A
    run scores B T targets per step, some of the text more than once and some perhaps never.
    `starts` is always True. Where the text has fewer than T pairs, T = N - 1; a warning says so.

    Args:
        ids: (N,) integers, N >= 2.
        batch_size: windows B of a batch.
        seq_len: steps T of a window.
        steps: number of batches.
        rng: draws B starts per batch, when the batch is asked for.
    Returns:
        An iterator over `steps` batches.
    Raises:
        InputError: ids are not a row of at least 2 integers, or a size is no positive integer.

    >>> rng = np.random.default_rng(0)
    >>> for inputs, targets, starts in random_windows(range(100), 2, 3, steps=1, rng=rng):
    ...     print(inputs.tolist(), targets.tolist(), starts)
    [[82, 61], [83, 62], [84, 63]] [[83, 62], [84, 63], [85, 64]] True
    """
    steps = check_positive_int("steps", steps)
    tokens, B, T = _fit(ids, batch_size, seq_len)
    return (_windows(tokens, rng.integers(len(tokens) - T, size=B), T) for _ in range(steps))


def shuffled_windows(ids: ArrayLike, batch_size: int, seq_len: int, rng: Generator) -> Passes:
    """Cut the text into W = (N - 1) // T windows, end to end, and read them in random order.

    A pass, one epoch, is ceil(W / B) batches of B windows, the last of them with fewer where B does
    not divide W; it scores W T targets, each once, and leaves out the (N - 1) - W T < T pairs at
    the end of the text. Each pass has an order of its own. `starts` is always True. Where the text
    has fewer than T pairs, T = N - 1, and a warning says so.

    Args:
        ids: (N,) integers, N >= 2.
        batch_size: windows B of a batch.
        seq_len: steps T of a window.
        rng: draws one permutation at the start of each pass.
    Returns:
        An iterable; each `for` loop over it is one pass.
    Raises:
        InputError: ids are not a row of at least 2 integers, or a size is no positive integer.

    >>> rng = np.random.default_rng(0)
    >>> for inputs, targets, starts in shuffled_windows(range(8), 2, 2, rng):
    ...     print(inputs.tolist(), targets.tolist(), starts)
    [[4, 0], [5, 1]] [[5, 1], [6, 2]] True
    [[2], [3]] [[3], [4]] True
    """
    tokens, B, T = _fit(ids, batch_size, seq_len)
    W = (len(tokens) - 1) // T

    def batches() -> Iterator[Batch]:
        first = rng.permutation(W) * T  # (W,), the first token of each window
        for w in range(0, W, B):
            yield _windows(tokens, first[w : w + B], T)

    return Passes(B, T, W * T, len(tokens) - 1 - W * T, batches)


def _windows(ids: IntArray, first: IntArray, T: int) -> Batch:
    """The windows of T pairs that begin at the tokens first (B,), side by side."""
    n = np.arange(T)[:, np.newaxis] + first  # (T, B), places in the text
    return ids[n], ids[n + 1], True


def _fit(ids: ArrayLike, B: int, T: int, fewer: bool = False) -> tuple[IntArray, int, int]:
    """The ids as an array, and B and T: as asked, or what a short text has enough for.

    fewer: make B smaller before T.
    """
    B, T = check_positive_int("batch_size", B), check_positive_int("seq_len", T)
    tokens = check_ids(ids)
    asked, N = (B, T), len(tokens)
    require(N >= 2, "need at least 2 tokens to have one (input, target) pair", N)
    B, T = min(B, max(1, (N - 1) // T)) if fewer else B, min(T, N - 1)
    if (B, T) != asked:
        sizes = "batch_size=%d, seq_len=%d"
        message = f"%d tokens are too few for {sizes}: using {sizes}"
        logging.getLogger("minilstm").warning(message, N, *asked, B, T)
    return tokens, B, T
