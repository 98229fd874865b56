"""LanguageModel: config, parameters and vocabulary in one hand; text in, text and figures out."""

import math
from collections.abc import Iterator
from os import PathLike
from typing import Self

import numpy as np

from minilstm.backend import to_device
from minilstm.checkpoint import load_model, save_model
from minilstm.errors import check_count, quote, require
from minilstm.evaluation import Evaluation, evaluate
from minilstm.generation import generate_ids
from minilstm.model import ModelConfig, Params
from minilstm.text.vocabulary import Vocabulary


class LanguageModel:
    """A model one can talk to.

    Args:
        config: the shape.
        params: as `init_params` makes them.
        vocab: len(vocab) = config.vocab_size.
    Raises:
        InputError: the three do not fit each other.

    >>> from minilstm import CharVocabulary, init_params
    >>> vocab = CharVocabulary.from_text("hello")
    >>> config = ModelConfig(vocab_size=len(vocab), hidden_size=8)
    >>> model = LanguageModel(config, init_params(config, np.random.default_rng(0)), vocab)
    >>> model.parameter_count, model.evaluate("hello").tokens, len(model.generate("he", length=3))
    (452, 4, 5)
    """

    def __init__(self, config: ModelConfig, params: Params, vocab: Vocabulary) -> None:
        came, due = len(vocab), config.vocab_size
        require(came == due, f"the vocabulary must have config.vocab_size = {due} symbols", came)
        shapes, wanted = {k: tuple(p.shape) for k, p in params.items()}, config.parameter_shapes()
        odd = sorted({name for name, _ in shapes.items() ^ wanted.items()})  # in one, or different
        one, other = ({name: table.get(name) for name in odd} for table in (wanted, shapes))
        require(not odd, f"params must have the config's shapes {one}", other)
        self.config, self.params, self.vocab = config, params, vocab

    def to(self, device: str) -> Self:
        """Move the parameters.

        Args:
            device: "cpu", "cuda", or "auto": the GPU if there is one.
        Returns:
            The model itself.
        Raises:
            InputError: as `choose_device` does.
        """
        self.params = to_device(self.params, device)
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model into a run folder of its own, weights alone.

        Raises:
            InputError: the folder holds another run.
            OSError: the system refused.
        """
        save_model(path, self.config, self.params, self.vocab)

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "cpu") -> Self:
        """Read the best checkpoint of a run folder, wherever it was trained.

        Args:
            path: the folder. device: where the parameters go: "cpu", "cuda" or "auto".
        Raises:
            InputError: a file is missing or damaged, or there is no such device.
        """
        return cls(*load_model(path)).to(device)

    @property
    def parameter_count(self) -> int:
        """Numbers that are learned; tied weights count once."""
        return sum(math.prod(shape) for shape in self.config.parameter_shapes().values())

    def generate(self, prompt: str, length: int, temperature: float = 1.0,
                 top_k: int | None = None, top_p: float | None = None, greedy: bool = False,
                 stop: str | None = None, seed: int | None = None) -> str:  # fmt: skip
        """The prompt and its continuation by `length` tokens; shorter if `stop` comes up.

        Args:
            prompt: at least one token, all of them in the vocabulary.
            length: tokens to add, ≥ 0.
            temperature, top_k, top_p: see `minilstm.generation.next_token_probabilities`.
            greedy: the likeliest token each time.
            stop: end right after this text first occurs in the continuation.
            seed: the same seed gives the same text; None draws from fresh entropy.
        Returns:
            The prompt and what follows it.
        Raises:
            InputError: the prompt is empty or has unknown symbols, or a setting is out of range.
        """
        pieces = self.stream(prompt, length, temperature, top_k, top_p, greedy, stop, seed)
        return prompt + "".join(pieces)

    def stream(self, prompt: str, length: int, temperature: float = 1.0,
               top_k: int | None = None, top_p: float | None = None, greedy: bool = False,
               stop: str | None = None, seed: int | None = None) -> Iterator[str]:  # fmt: skip
        """`generate` with the same arguments, but in pieces as they are made.

        Returns:
            An iterator over the continuation's tokens as text, without the prompt.
        Raises:
            InputError: as `generate`, and at the call, not at the first piece.
        """
        fits = stop is None or (isinstance(stop, str) and stop != "")
        require(fits, "stop must be a non-empty text or None", quote(stop))
        fits = isinstance(prompt, str) and prompt != ""
        require(fits, "the prompt must be a text of at least one token", quote(prompt))
        rng = np.random.default_rng(None if seed is None else check_count("seed", seed))
        ids = generate_ids(self.params, self.config, self.vocab.encode(prompt), length, temperature,
                           top_k, top_p, greedy, self.vocab.unknown_id, rng)  # fmt: skip
        return self._pieces(ids, prompt, stop)

    def _pieces(self, ids: Iterator[int], prompt: str, stop: str | None) -> Iterator[str]:
        before, text = prompt, ""
        for id in ids:
            piece = self.vocab.decode([id], before)
            before, text = piece or before, text + piece
            yield piece
            if stop is not None and stop in text[-len(stop) - len(piece) :]:
                return

    def evaluate(self, text: str, streams: int = 1, window: int | None = None) -> Evaluation:
        """Score every token of the text but the first, given all that came before it.

        Every one of the N - 1 targets is scored, whatever `streams` is; the sum is in float64.

        Args:
            text: N ≥ 2 tokens.
            streams: 1 reads the text from end to end in one pass, the state carried: the honest
                figure. More streams read as many pieces side by side, faster, each from a zero
                state.
            window: None carries the state. A number cuts the text into windows of so many tokens,
                each from a zero state ("cold"), which is how models without a carried state are
                often scored; `streams` then only says how many run side by side.
        Returns:
            Mean nats per target, accuracy, and the number of targets.
        Raises:
            InputError: the text has fewer than two tokens or unknown symbols, or streams or window
                is no positive integer.
        """
        return evaluate(self.params, self.config, self.vocab.encode(text), streams, window)
