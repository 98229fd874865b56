"""LanguageModel: config, parameters and vocabulary in one hand; text in, text and figures out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minilstm.backend import like, to_device, to_host
from minilstm.errors import InputError, check_positive_int
from minilstm.generation import generate_ids
from minilstm.model import ModelConfig, Params, forward
from minilstm.nn.loss import softmax_cross_entropy
from minilstm.text.batching import contiguous_streams
from minilstm.text.vocabulary import Vocabulary

_EVALUATION_CHUNK = 1 << 22  # logits held at a time while evaluating


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text.

    loss: mean nats per target, the negative log-likelihood. tokens: the targets scored.
    accuracy: the share of targets that were the likeliest token.
    """

    loss: float
    accuracy: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """e^loss: the model is as unsure as between this many equally likely tokens."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_token(self) -> float:
        """loss / ln 2: what the model would need to write one token down."""
        return self.loss / math.log(2)


class LanguageModel:
    """A model one can talk to.

    config: the shape; params: as `init_params` makes them; vocab: len(vocab) = config.vocab_size.
    Raises InputError where the three do not fit each other.
    """

    def __init__(self, config: ModelConfig, params: Params, vocab: Vocabulary) -> None:
        if len(vocab) != config.vocab_size:
            raise InputError(
                f"the vocabulary must have config.vocab_size = {config.vocab_size} symbols, "
                f"got {len(vocab)}"
            )
        shapes = {name: tuple(p.shape) for name, p in params.items()}
        wanted = config.parameter_shapes()
        if shapes != wanted:
            odd = sorted(k for k in shapes.keys() | wanted.keys() if shapes.get(k) != wanted.get(k))
            raise InputError(
                "params must have the config's shapes "
                f"{ {k: wanted.get(k) for k in odd} }, got { {k: shapes.get(k) for k in odd} }"
            )
        self.config = config
        self.params = params
        self.vocab = vocab

    def to(self, device: str) -> LanguageModel:
        """Move the parameters to "cpu" or "cuda" ("auto": the GPU if there is one); return self."""
        self.params = to_device(self.params, device)
        return self

    @property
    def parameter_count(self) -> int:
        """Numbers that are learned; tied weights count once."""
        return sum(math.prod(shape) for shape in self.config.parameter_shapes().values())

    def generate(
        self,
        prompt: str,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        greedy: bool = False,
        stop: str | None = None,
        seed: int | None = None,
    ) -> str:
        """The prompt and its continuation by `length` tokens; shorter if `stop` comes up.

        prompt: at least one token, all of them in the vocabulary. temperature, top_k, top_p: see
        `minilstm.generation.next_token_probabilities`. greedy: the likeliest token each time.
        stop: end right after this text first occurs in the continuation. seed: the same seed
        gives the same text; None draws from fresh entropy.

        Raises InputError for a prompt that is empty or has unknown symbols, and for settings out
        of range.
        """
        pieces = self.stream(prompt, length, temperature, top_k, top_p, greedy, stop, seed)
        return prompt + "".join(pieces)

    def stream(
        self,
        prompt: str,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        greedy: bool = False,
        stop: str | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """As `generate`, but yields the continuation (not the prompt) in pieces as it is made.

        Bad input raises at the call, not at the first piece.
        """
        if stop == "":
            raise InputError("stop must be a non-empty text or None, got ''")
        if not isinstance(prompt, str) or not prompt:
            raise InputError(f"the prompt must be a text of at least one token, got {prompt!r}")
        ids = generate_ids(
            self.params,
            self.config,
            self.vocab.encode(prompt),
            length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            greedy=greedy,
            forbidden=self.vocab.unknown_id,
            rng=np.random.default_rng(seed),
        )
        return self._pieces(ids, stop)

    def _pieces(self, ids: Iterator[int], stop: str | None) -> Iterator[str]:
        text = ""
        for id in ids:
            piece = self.vocab.decode([id])
            text += piece
            yield piece
            if stop is not None and stop in text:
                return

    def evaluate(self, text: str, streams: int = 1, window: int | None = None) -> Evaluation:
        """Score every token of the text but the first, given all that came before it.

        streams: 1 reads the text from end to end in one pass, the state carried: the honest
            figure. More streams read as many pieces side by side, faster, each from a zero state.
        window: None carries the state. A number cuts the text into windows of so many tokens,
            each from a zero state ("cold"), which is how models without a carried state are
            often scored; `streams` then only says how many run side by side.

        Every one of the N - 1 targets is scored, whatever `streams` is; the sum is in float64.
        Raises InputError for a text under two tokens or with unknown symbols.
        """
        check_positive_int("streams", streams)
        if window is not None:
            check_positive_int("window", window)
        ids = self.vocab.encode(text)
        if len(ids) < 2:
            raise InputError(f"need a text of at least 2 tokens to score one, got {len(ids)}")
        pairs = len(ids) - 1
        totals = np.zeros(3)  # nats, hits, targets
        # Pieces of the text, each read as B rows of equal length; and the few pairs that do not
        # fill a row, read as one short row of their own.
        row = window if window is not None else max(1, pairs // streams)
        whole = row * (pairs // row) if window is not None else row * min(streams, pairs)
        for first in range(0, whole, row * streams):
            last = min(first + row * streams, whole)
            self._score(ids[first : last + 1], (last - first) // row, totals)
        if whole < pairs:
            self._score(ids[whole:], 1, totals)
        nats, hits, targets = totals
        return Evaluation(float(nats / targets), float(hits / targets), int(targets))

    def _score(self, ids: np.ndarray, B: int, totals: np.ndarray) -> None:
        """Add nats, hits and targets of B streams, read from a zero state with it carried."""
        reference = self.params["fc.b"]
        T = max(1, min(_EVALUATION_CHUNK // (B * self.config.vocab_size), 512))
        T = min(T, (len(ids) - 1) // B)
        state = None
        for inputs, targets, _ in contiguous_streams(ids, B, T):
            logits, state = forward(self.params, self.config, like(inputs, reference), state)
            there = like(targets, reference)
            loss, _ = softmax_cross_entropy(logits, there)
            hits = (logits.argmax(axis=-1) == there).sum()
            N = targets.size
            totals += float(to_host(loss)) * N, int(to_host(hits)), N
