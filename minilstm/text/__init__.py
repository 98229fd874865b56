"""Text to integers and back; read vocabulary.py, then batching.py, then corpora.py."""

from minilstm.text.batching import (
    ContiguousStreams,
    ShuffledWindows,
    contiguous_streams,
    random_windows,
    shuffled_windows,
)
from minilstm.text.corpora import read_text, train_validation_split
from minilstm.text.vocabulary import CharVocabulary, Vocabulary

__all__ = [
    "CharVocabulary",
    "ContiguousStreams",
    "ShuffledWindows",
    "Vocabulary",
    "contiguous_streams",
    "random_windows",
    "read_text",
    "shuffled_windows",
    "train_validation_split",
]
