"""Text to integers and back; read tokens.py, vocabulary.py, batching.py, corpora.py.

corpora.py stands on files.py, which reads files, and downloads.py, which fetches them.
"""

from minilstm.text.batching import (
    ContiguousStreams,
    ShuffledWindows,
    contiguous_streams,
    random_windows,
    shuffled_windows,
)
from minilstm.text.corpora import Corpus, load_corpus, read_text, train_validation_split
from minilstm.text.downloads import corpus_files, data_folder, fetch, verify
from minilstm.text.files import TextFile
from minilstm.text.tokens import Normalisation
from minilstm.text.vocabulary import (
    CharVocabulary,
    Vocabulary,
    WordVocabulary,
    vocabulary_from_dict,
)

__all__ = [
    "CharVocabulary",
    "ContiguousStreams",
    "Corpus",
    "Normalisation",
    "ShuffledWindows",
    "TextFile",
    "Vocabulary",
    "WordVocabulary",
    "contiguous_streams",
    "corpus_files",
    "data_folder",
    "fetch",
    "load_corpus",
    "random_windows",
    "read_text",
    "shuffled_windows",
    "train_validation_split",
    "verify",
    "vocabulary_from_dict",
]
