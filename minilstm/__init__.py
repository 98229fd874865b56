"""minilstm: LSTM language models in explicit array code, forward and backward, on NumPy or CuPy.

Read the source in this order:

    nn/lstm.py          the LSTM, and backpropagation through time: the page to start with
    nn/embedding.py     one-hot input and row lookup, two readings of one product
    nn/linear.py        the output layer
    nn/loss.py          softmax cross-entropy
    model.py            the pieces composed: parameters in, loss and gradients out
    optim.py            clipping, SGD, Adam
    gradcheck.py        how to know that a gradient is right
    text/               characters and words to integers, integers to batches
    generation.py       sampling
    evaluation.py       nats, bits and perplexity of a text
    training.py         the loop: evaluation, checkpoints, exact resume
    workspace.py, nn/lstm_fast.py, nn/lstm_steps.py
                        the LSTM again, in place: what training runs
    workers.py          a batch shared out to processes; threads.py: long arrays, to threads
    backend.py          how one source serves NumPy and CuPy
"""

from minilstm import gradcheck
from minilstm.backend import choose_device, get_array_module, to_device, to_host
from minilstm.errors import InputError
from minilstm.evaluation import Evaluation
from minilstm.language_model import LanguageModel
from minilstm.model import ModelConfig, init_params, init_state
from minilstm.model import backward, forward, forward_with_cache, loss_and_grads
from minilstm.nn.loss import softmax_cross_entropy
from minilstm.optim import SGD, Adam, AdamW, clip_by_global_norm, warmup_cosine
from minilstm.text.batching import contiguous_streams, random_windows, shuffled_windows
from minilstm.text.corpora import Corpus, load_corpus
from minilstm.text.tokens import Normalisation
from minilstm.text.vocabulary import CharVocabulary, WordVocabulary
from minilstm.torch_weights import from_torch_state_dict, to_torch_state_dict
from minilstm.train_config import TrainConfig
from minilstm.training import TrainResult, train
from minilstm.workspace import Workspace

__version__ = "0.1.0"

__all__ = [
    "SGD", "Adam", "AdamW", "CharVocabulary", "Corpus", "Evaluation", "InputError", "LanguageModel",
    "ModelConfig", "Normalisation", "TrainConfig", "TrainResult", "WordVocabulary", "Workspace",
    "backward", "choose_device", "clip_by_global_norm", "contiguous_streams", "forward",
    "forward_with_cache", "from_torch_state_dict", "get_array_module", "gradcheck", "init_params",
    "init_state", "load_corpus", "loss_and_grads", "random_windows", "shuffled_windows",
    "softmax_cross_entropy", "to_device", "to_host", "to_torch_state_dict", "train",
    "warmup_cosine",
]  # fmt: skip
