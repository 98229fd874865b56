"""Text -> tokens: its characters, or its words; before that, normalisation.

A text comes in pieces, str after str, so that it need never be in memory as a whole; the tokens of
the pieces, one after the other, are the tokens of the whole text wherever the pieces were cut.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from minilstm.errors import quote, require

UNKNOWN = "<unk>"  # stands for every symbol outside the vocabulary
EOS = "<eos>"  # what "split" makes of a newline; the name, end of sentence, is WikiText's


@dataclass(frozen=True)
class Normalisation:
    """What is done to a text before it falls into tokens: by default nothing.

    Args:
        lower: small letters for capitals.
        collapse_whitespace: one space for each run of white space, newlines included.
        keep: the characters to keep, all others are dropped; None: keep all. It is looked at after
            `lower` and before `collapse_whitespace`.
    Raises:
        InputError: lower or collapse_whitespace is no bool, keep is an empty str or none.

    >>> Normalisation(lower=True, keep="abcdefghijklmnopqrstuvwxyz ")("Oh, 1 naïve\\nCat!")
    'oh  navecat'
    >>> Normalisation(collapse_whitespace=True)("one\\n\\ntwo ")
    'one two '
    """

    lower: bool = False
    collapse_whitespace: bool = False
    keep: str | None = None

    def __post_init__(self) -> None:
        for name in ("lower", "collapse_whitespace"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name} must be True or False", quote(value))
        fits = isinstance(self.keep, str | None) and self.keep != ""
        require(fits, "keep must be None or a non-empty str", quote(self.keep))

    def __call__(self, text: str) -> str:
        """Return the text normalised; doing it twice changes nothing more."""
        require(isinstance(text, str), "text must be a str", type(text).__name__)
        if self.lower:
            # Sigma is the one letter whose small form depends on its neighbours: σ, or ς where a
            # word ends. Here it is σ everywhere, and a text may be cut anywhere.
            text = text.replace("Σ", "σ").lower()
        if self.keep is not None:
            text = re.sub(f"[^{re.escape(self.keep)}]+", "", text)
        if self.collapse_whitespace:
            text = re.sub(r"\s+", " ", text)
        return text

    def pieces(self, text: str | Iterable[str]) -> Iterator[str]:
        """Yield the pieces of a text normalised: together, what `self(text)` is; a str is one."""
        last = ""
        for piece in map(self, [text] if isinstance(text, str) else text):
            if self.collapse_whitespace and last.endswith(" "):
                piece = piece.removeprefix(" ")  # the run of white space was cut in two
            if piece:
                yield piece
                last = piece

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the normalisation of such an `asdict`; an InputError where it can be none."""
        fits = isinstance(data, dict) and data.keys() == asdict(AS_IT_IS).keys()
        wanted = "normalisation must be a dict with the keys lower, collapse_whitespace and keep"
        require(fits, wanted, quote(data))
        return cls(**data)


AS_IT_IS = Normalisation()


def basic_english(text: str) -> list[str]:
    """The words of a text as torchtext's tokenizer "basic_english" cuts them.

    Small letters; ' . , ( ) ! ? stand alone; " is deleted, as are ; and : and <br />, which part
    words; everything else between two white spaces is one word, <unk> too.

    >>> basic_english('He said: "It\\'s 3.5" (or <unk>)!')
    ['he', 'said', 'it', "'", 's', '3', '.', '5', '(', 'or', '<unk>', ')', '!']
    """
    text = text.lower().replace('"', "").replace("<br />", " ")
    return re.findall(r"['.,()!?]|[^\s'.,()!?;:]+", text)


def split(text: str) -> list[str]:
    """The words between white space, and <eos> for each newline: WikiText's own reading.

    >>> split(" = Title = \\n\\n A line\\n")
    ['=', 'Title', '=', '<eos>', '<eos>', 'A', 'line', '<eos>']
    """
    return text.replace("\n", f" {EOS} ").split()


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"basic_english": basic_english, "split": split}


def check_tokenizer(name: object) -> None:
    """An InputError unless the name is one of TOKENIZERS."""
    fits = isinstance(name, str) and name in TOKENIZERS
    require(fits, "tokenizer must be 'basic_english' or 'split'", quote(name))


def words(pieces: Iterable[str], tokenizer: str) -> Iterator[list[str]]:
    """Yield the words of a text in pieces, list after list; together, those of the whole text.

    tokenizer: "basic_english" or "split".
    """
    check_tokenizer(tokenizer)
    rest = ""
    for piece in pieces:
        rest += piece
        # Cut anew: after white space, before a letter or a digit. Nothing that a tokenizer reads as
        # one goes on across such a place: no word, and no "<br />". A stretch without one, however
        # long, stays whole. The match is greedy: up to the last such place.
        if found := re.match(r".*\s(?=\w)", rest, re.DOTALL):
            yield TOKENIZERS[tokenizer](found[0])
            rest = rest[found.end() :]
    yield TOKENIZERS[tokenizer](rest)
