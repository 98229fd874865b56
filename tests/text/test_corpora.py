"""Corpora: which text trains and which validates, the vocabulary, the unknown symbol, memory."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text import corpora
from minilstm.text.corpora import _hold_out, load_corpus
from minilstm.text.downloads import CORPORA, DataFile
from minilstm.text.tokens import Normalisation
from minilstm.text.vocabulary import CharVocabulary, WordVocabulary

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
NOTHING_HELD_OUT = "too short to hold anything out: training on all of it, validating on nothing"


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "text.txt") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def publish(write, tmp_path, monkeypatch):
    """publish(name, train=…, …): these texts are the files of the named corpus."""

    def publish(name: str, **parts: str) -> None:
        monkeypatch.setenv("MINILSTM_DATA", str(tmp_path))
        registry = {}
        for part, text in parts.items():
            path = write(text, f"{name}/{part}.txt")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            registry[part] = DataFile(f"{name}/{part}.txt", len(text), digest, ("https://nowhere",))
        monkeypatch.setitem(CORPORA, name, registry)

    return publish


def parts(corpus):
    """The texts of a corpus, as its vocabulary reads them."""
    return {
        part: corpus.vocab.decode(corpus.split(part))
        for part in ("train", "valid", "test")
        if getattr(corpus, part) is not None
    }


TWENTY = "abcdefghij" + "abcdefgh" + "ba"


def test_the_last_tenth_of_a_file_validates(write):
    corpus = load_corpus(write(TWENTY))
    assert parts(corpus) == {"train": "abcdefghijabcdefgh", "valid": "ba"}
    assert corpus.vocab == CharVocabulary(tuple("abcdefghij"))
    assert (corpus.name, corpus.notes) == (str(write(TWENTY)), ())
    assert corpus.train.dtype == corpus.valid.dtype == np.uint8


@pytest.mark.parametrize("block", [1, 5, 16, corpora.BLOCK])
def test_nine_tenths_of_the_characters_train_and_the_tail_validates(write, monkeypatch, block):
    monkeypatch.setattr(corpora, "BLOCK", block)
    text = "né\n☃ \U0001f600, or \r\n not?" * 3
    corpus, read = load_corpus(write(text)), text.replace("\r\n", "\n")
    n = int(0.9 * len(read))
    assert parts(corpus) == {"train": read[:n], "valid": read[n:]}


@pytest.mark.parametrize(
    ("text", "train", "valid"),
    [  # 30 characters each: the cut would fall after 27
        ("one two three four five a b cd", "one two three four five a b ", "cd"),  # n in "b "
        ("one two three four fives a b c", "one two three four fives a ", "b c"),  # n at "b"
        ("one two three four fivesix a b", "one two three four fivesix ", "a b"),
        ("one two three four x sixteen\na b", "one two three four x sixteen\n", "a b"),  # in a word
    ],
)
def test_a_text_of_words_is_cut_where_a_word_begins(text, train, valid):
    assert ["".join(part) for part in _hold_out([text], "word").values()] == [train, valid]


@reproducible
@given(
    text=st.text("abc \n", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=3).map(sorted),
)
def test_no_word_is_cut_and_the_cut_is_as_early_as_can_be(text, cuts):
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    train, valid = ("".join(part) for part in _hold_out(pieces, "word").values())
    n = int(0.9 * len(text))
    assert train + valid == text
    assert len(train) >= n
    assert train.split() + valid.split() == text.split()
    assert not any(c.isspace() for c in train[max(0, n - 1) : -1])


def test_with_a_file_to_validate_on_all_of_the_first_trains(write):
    corpus = load_corpus(write(TWENTY), val_path=write("cab", "valid.txt"))
    assert parts(corpus) == {"train": TWENTY, "valid": "cab"}


@pytest.mark.parametrize(
    ("text", "level"), [("a", "char"), ("abcdefghij", "char"), ("a", "word"), ("a b c d e", "word")]
)
def test_where_fewer_than_two_tokens_would_validate_all_trains(write, text, level):
    corpus = load_corpus(write(text), level)
    assert parts(corpus) == {"train": text}
    assert corpus.valid is None
    assert corpus.notes == (NOTHING_HELD_OUT,)


def test_two_tokens_are_enough_to_validate(write):
    assert parts(load_corpus(write("abcdefghijk")))["valid"] == "<unk><unk>"
    assert parts(load_corpus(write("a b a b a b a b a b a b"), "word"))["valid"] == "a b"


def test_normalisation_may_leave_too_little_to_validate_on(write):
    text = "a" * 18 + "--"
    assert parts(load_corpus(write(text)))["valid"] == "<unk><unk>"
    corpus = load_corpus(write(text), normalisation=Normalisation(keep="a"))
    assert parts(corpus) == {"train": "a" * 18}
    assert corpus.notes == (NOTHING_HELD_OUT,)


def test_a_validation_file_of_one_token_is_not_used(write):
    corpus = load_corpus(write(TWENTY), val_path=write("a", "valid.txt"))
    assert parts(corpus) == {"train": TWENTY}
    why = "too little to validate on: training on all of it, validating on nothing"
    assert corpus.notes == (why,)


def test_hello_is_built_in():
    corpus = load_corpus("hello")
    assert corpus.train.tolist() == [1, 0, 2, 2, 3]
    assert (corpus.name, corpus.valid, corpus.test) == ("hello", None, None)
    assert corpus.notes == (NOTHING_HELD_OUT,)
    assert parts(load_corpus("hello", "word")) == {"train": "hello"}


def test_shakespeare_is_cut_as_a_file_is(publish):
    publish("shakespeare", train=TWENTY)
    assert parts(load_corpus("shakespeare")) == {"train": TWENTY[:18], "valid": "ba"}


@pytest.mark.parametrize("level", ["char", "word"])
def test_wikitext2_has_parts_of_its_own(publish, level):
    publish("wikitext2", train=" a <unk> b \n", valid=" b a \n", test=" a a \n")
    corpus = load_corpus("wikitext2", level, tokenizer="split")
    expected = {"train": " a <unk> b \n", "valid": " b a \n", "test": " a a \n"}
    if level == "word":
        expected = {part: text.strip(" \n") + "\n" for part, text in expected.items()}
    assert parts(corpus) == expected
    assert corpus.notes == ()
    assert (corpus.vocab.unknown is not None) == (level == "word")


def test_wikitext2_validates_on_another_file_where_one_is_given(publish, write):
    publish("wikitext2", train="abc", valid="ab", test="ba")
    corpus = load_corpus("wikitext2", val_path=write("cb"))
    assert parts(corpus) == {"train": "abc", "valid": "cb", "test": "ba"}


def test_raw_characters_always_have_an_unknown_symbol(publish):
    texts = {"train": "abc", "valid": "ab", "test": "ba"}
    publish("wikitext2-raw", **texts)
    assert load_corpus("wikitext2-raw").vocab.symbols == ("a", "b", "c", "<unk>")
    assert load_corpus("wikitext2-raw", unknown="?").vocab.symbols == ("a", "b", "c", "?")
    publish("wikitext2", **texts)
    assert load_corpus("wikitext2").vocab.symbols == ("a", "b", "c")


def test_characters_that_only_validation_has_add_the_unknown_symbol(publish):
    publish("wikitext2", train="abc", valid="éaxxé", test="abc")
    corpus = load_corpus("wikitext2")
    assert corpus.vocab == CharVocabulary(("a", "b", "c", "<unk>"), "<unk>")
    assert corpus.valid.tolist() == [3, 0, 3, 3, 3]
    assert corpus.notes == (
        "valid: outside the vocabulary are 'x', 'é'; 4 of 5 tokens are read as <unk>",
    )


def test_characters_that_only_test_has_add_it_too(publish):
    publish("wikitext2", train="abc", valid="abc", test="a1234567")
    corpus = load_corpus("wikitext2")
    assert parts(corpus)["test"] == "a" + 7 * "<unk>"
    assert corpus.notes == (
        "test: outside the vocabulary are '1', '2', '3', '4', '5' and 2 more; "
        "7 of 8 tokens are read as <unk>",
    )


def test_an_unknown_symbol_asked_for_is_there_and_says_nothing_unless_needed(write):
    corpus = load_corpus(write(TWENTY), unknown="?")
    assert corpus.vocab == CharVocabulary((*"abcdefghij", "?"), "?")
    assert corpus.notes == ()


def test_words_outside_the_vocabulary_are_noted_and_a_literal_unk_is_not(write):
    train = write("a b a b c <unk> \n")
    corpus = load_corpus(train, "word", min_count=2, val_path=write("d <unk> a", "valid.txt"))
    assert corpus.vocab.symbols == ("<unk>", "a", "b")
    assert corpus.train.tolist() == [1, 2, 1, 2, 0, 0]
    assert corpus.notes == (
        "train: outside the vocabulary are 'c'; 2 of 6 tokens are read as <unk>",
        "valid: outside the vocabulary are 'd'; 2 of 3 tokens are read as <unk>",
    )


def test_what_was_put_right_in_a_file_is_noted(write):
    train, valid = write(b"\xef\xbb\xbfab\r\n"), write(b"a\rb", "valid.txt")
    corpus = load_corpus(train, val_path=valid)
    assert parts(corpus) == {"train": "ab\n", "valid": "a\nb"}
    assert corpus.notes == (
        f"{str(train)!r}: the byte order mark was dropped",
        f"{str(train)!r}: line ends CR LF were read as LF",
        f"{str(valid)!r}: line ends CR were read as LF",
    )
    assert load_corpus(write(b"a\r\n" * 20)).notes == (  # also where a part is held out of it
        f"{str(train)!r}: line ends CR LF were read as LF",
    )


def test_normalisation_comes_before_the_vocabulary_and_stays_with_it(write):
    normalisation = Normalisation(lower=True, collapse_whitespace=True)
    corpus = load_corpus(write("Ab  \n B"), val_path=write("BA", "valid.txt"),
                         normalisation=normalisation)  # fmt: skip
    assert parts(corpus) == {"train": "ab b", "valid": "ba"}
    assert corpus.vocab.normalisation == normalisation
    assert corpus.vocab.encode("B\t").tolist() == corpus.vocab.encode("b ").tolist()


def test_the_options_for_words_reach_the_vocabulary(write):
    normalisation = Normalisation(lower=True)
    text = "A b. A b. c \n" * 3
    corpus = load_corpus(write(text), "word", tokenizer="split", min_count=4,
                         normalisation=normalisation)  # fmt: skip
    assert corpus.vocab == WordVocabulary(
        ("<unk>", "a", "b."), normalisation=normalisation, tokenizer="split"
    )


def test_a_vocabulary_that_is_given_is_used_as_it_is(write):
    vocab = WordVocabulary.from_text("A C", "split", normalisation=Normalisation(lower=True))
    corpus = load_corpus(write("a b"), val_path=write("C C", "valid.txt"), vocab=vocab)
    assert corpus.vocab is vocab
    assert corpus.vocab.kind == "word"
    assert (corpus.train.tolist(), corpus.valid.tolist()) == ([1, 0], [2, 2])
    assert corpus.notes == (
        "train: outside the vocabulary are 'b'; 1 of 2 tokens are read as <unk>",
    )


def test_a_given_vocabulary_says_what_a_token_is(write):
    vocab = WordVocabulary.from_text("a.", "split")  # one token; two to basic_english
    assert load_corpus(write("a. a."), val_path=write("a.", "valid.txt"), vocab=vocab).valid is None


def test_a_given_vocabulary_without_an_unknown_symbol_refuses_what_is_outside(write):
    vocab = CharVocabulary.from_text("ab")
    with pytest.raises(InputError, match=r"^text has symbols outside CharVoc.*: 'c' at index 2$"):
        load_corpus(write("abc"), vocab=vocab)


def test_a_name_comes_before_a_file_and_a_path_is_always_a_file(write, tmp_path, monkeypatch):
    write("none of it", "hello")
    monkeypatch.chdir(tmp_path)
    assert load_corpus("hello").train.tolist() == [1, 0, 2, 2, 3]
    assert parts(load_corpus("./hello"))["train"] == "none of it"
    assert parts(load_corpus(Path("hello")))["train"] == "none of it"


@reproducible
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_unigram_entropy_is_that_of_the_shares(counts):
    text = "".join(chr(97 + i) * n for i, n in enumerate(counts))
    vocab = CharVocabulary.from_text(text, unknown="<unk>")  # which does not occur: 0 ln 0 = 0
    corpus = load_corpus("hello")
    corpus = type(corpus)("text", vocab, vocab.encode(text), None, None)
    p = np.array(counts) / sum(counts)
    entropy = float(np.sum(p * np.log(1 / p)))
    assert corpus.unigram_entropy() == pytest.approx(entropy, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("level", "peak"), [("char", 1.9e6), ("word", 1.2e6)])
def test_a_long_text_is_never_in_memory_as_a_whole(tmp_path, monkeypatch, level, peak):
    # 1.2 MB on one line. The ids are 1.2 MB, a byte for each character, or 0.4 MB, one for each
    # word; with the text beside them, its words, or ids of 8 bytes, they are well over the peak.
    path = tmp_path / "long.txt"
    path.write_text("ab " * 400_000)
    monkeypatch.setattr(corpora, "BLOCK", 1 << 12)
    tracemalloc.start()
    try:
        corpus = load_corpus(path, level)
        assert tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()
    assert len(corpus.train) == (1_080_000 if level == "char" else 360_000)


NAMES = "a text file or one of the corpora hello, shakespeare, wikitext2, wikitext2-raw"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: load_corpus("shakespear"),
            f"want {NAMES}, got 'shakespear', which does not exist",
        ),
        (
            lambda: load_corpus(Path("no/file")),
            "want a UTF-8 text file, but 'no/file' does not exist",
        ),
        (lambda: load_corpus("."), "want a UTF-8 text file, but '.' is a folder"),
        (
            lambda: load_corpus("hello", val_path="no/file"),
            "want a UTF-8 text file, but 'no/file' does not exist",
        ),
        (lambda: load_corpus("hello", "byte"), "level must be char or word, got 'byte'"),
        (
            lambda: load_corpus("hello", "word", tokenizer="bpe"),
            "tokenizer must be 'basic_english' or 'split', got 'bpe'",
        ),
        (
            lambda: load_corpus("hello", "word", min_count=0),
            "min_count must be a positive integer, got 0",
        ),
        (
            lambda: load_corpus("hello", unknown=""),
            "unknown must be no character of the text nor empty, got ''",
        ),
        (lambda: load_corpus("hello").split("valid"), "hello has the parts train, got 'valid'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(InputError) as refused:
        call()
    assert str(refused.value) == message
