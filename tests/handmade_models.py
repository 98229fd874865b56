"""Models whose weights are drawn or set by hand, so that what they must do is known.

They are written down as PyTorch's tensors, which do not depend on how minilstm lays its own out.
"""

import numpy as np

from minilstm import CharVocabulary, LanguageModel, ModelConfig, from_torch_state_dict
from minilstm.torch_weights import torch_shapes

ALPHABET = "abcdefgh"
V = len(ALPHABET)


def random_model(dtype=np.float64, **config):
    """A model with opinions, whose greedy text does not settle on one letter."""
    config = ModelConfig(**{"vocab_size": V, "hidden_size": 5, "num_layers": 2} | config)
    rng = np.random.default_rng(6)
    tensors = {
        name: rng.normal(scale=2, size=shape).astype(dtype)
        for name, shape in torch_shapes(config).items()
    }
    vocab = CharVocabulary.from_text(ALPHABET)
    return LanguageModel(config, from_torch_state_dict(tensors, config), vocab)


def unigram(logits, vocab=None):
    """A model that gives these logits after every text."""
    vocab = vocab or CharVocabulary.from_text(ALPHABET[: len(logits)])
    config = ModelConfig(vocab_size=len(vocab), hidden_size=2)
    tensors = {name: np.zeros(shape) for name, shape in torch_shapes(config).items()}
    tensors["fc.bias"][:] = logits
    return LanguageModel(config, from_torch_state_dict(tensors, config), vocab)


def chain(letters):
    """A model to which the letters are a circle: after each it says the next, and is sure of it.

    Its input and output gates are open, its forget gate is shut. So h_t is tanh(1) in the unit of
    the letter just read and 0 in the others, and the output matrix looks up the letter after it.
    """
    config = ModelConfig(vocab_size=len(letters), hidden_size=len(letters))
    tensors = {name: np.zeros(shape) for name, shape in torch_shapes(config).items()}
    unit = np.eye(len(letters))
    i, f, g, o = np.split(tensors["lstm.weight_ih_l0"], 4)  # views, (H, V) each
    i[:], f[:], g[:], o[:] = 50, -50, 50 * unit, 50  # columns: one letter is 1, the others 0
    tensors["fc.weight"][:] = 100 * np.roll(unit, 1, axis=0)  # row of the letter to be said
    vocab = CharVocabulary.from_text(letters)
    return LanguageModel(config, from_torch_state_dict(tensors, config), vocab)
