"""Symbols and ids: the round trip, the unknown symbol, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text import CharVocabulary

any_character = st.characters()  # emoji and control characters too, half surrogate pairs too
texts = st.text(any_character, min_size=1, max_size=60)
reproducible = settings(derandomize=True, deadline=None, max_examples=200)


@reproducible
@given(text=texts)
@example("hello")
@example("\U0001f600 e\u0301\r\n\0\u2028\U0010ffff")
@example("\ud83d\ude00 \U0001f600")  # two halves in a str are two characters, not the whole
def test_decoding_the_encoded_text_returns_it(text):
    vocab = CharVocabulary.from_text(text)
    ids = vocab.encode(text)
    assert (ids.dtype, ids.shape) == (np.int64, (len(text),))
    assert vocab.decode(ids) == text


@reproducible
@given(text=texts)
def test_ids_number_the_distinct_characters_in_sorted_order(text):
    vocab = CharVocabulary.from_text(text)
    assert vocab.symbols == tuple(sorted(set(text)))
    assert vocab.encode("".join(vocab.symbols)).tolist() == list(range(len(vocab)))


@reproducible
@given(text=texts, other=st.text(any_character, max_size=60))
def test_each_character_outside_becomes_the_unknown_symbol(text, other):
    vocab = CharVocabulary.from_text(text, unknown="<unk>")
    assert vocab.symbols[-1] == "<unk>"
    assert vocab.unknown_id == len(vocab) - 1 == len(set(text))
    expected = "".join(c if c in text else "<unk>" for c in other)
    assert vocab.decode(vocab.encode(other)) == expected


@reproducible
@given(text=texts, unknown=st.none() | st.just("<unk>"))
def test_a_vocabulary_survives_json(text, unknown):
    vocab = CharVocabulary.from_text(text, unknown)
    again = CharVocabulary.from_dict(json.loads(json.dumps(vocab.to_dict())))
    assert again == vocab
    assert again.encode(text).tolist() == vocab.encode(text).tolist()


def test_the_unknown_symbol_itself_encodes_to_its_id():
    vocab = CharVocabulary.from_text("ab", unknown="\ufffd")
    assert vocab.encode("a\ufffd?").tolist() == [0, 2, 2]


def test_symbols_keep_the_order_they_are_given_in():
    vocab = CharVocabulary(("b", "<unk>", "a"), unknown="<unk>")
    assert vocab.encode("abc").tolist() == [2, 0, 1]
    assert CharVocabulary.from_dict(vocab.to_dict()) == vocab


def test_vocabularies_differ_by_order_and_by_unknown_symbol():
    vocab = CharVocabulary(("a", "b"))
    assert vocab == CharVocabulary.from_text("abba")
    assert hash(vocab) == hash(CharVocabulary.from_text("abba"))
    assert vocab != CharVocabulary(("b", "a"))
    assert vocab != CharVocabulary(("a", "b"), unknown="b")
    assert vocab != ("a", "b")


def test_a_vocabulary_contains_its_symbols_and_no_others():
    vocab = CharVocabulary.from_text("hello", unknown="<unk>")
    assert all(symbol in vocab for symbol in ("h", "o", "<unk>"))
    assert not any(symbol in vocab for symbol in ("x", "he", "", 0, None))


def test_nothing_encodes_to_nothing_and_back():
    vocab = CharVocabulary.from_text("hello")
    assert (vocab.encode("").dtype, vocab.encode("").shape) == (np.int64, (0,))
    assert vocab.decode([]) == vocab.decode(np.empty(0, np.uint8)) == ""


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, None])
def test_ids_of_any_integer_dtype_decode(dtype):
    ids = [1, 0, 2, 2, 3]
    vocab = CharVocabulary.from_text("hello")
    assert vocab.decode(ids if dtype is None else np.array(ids, dtype)) == "hello"


def test_encoding_returns_an_array_of_its_own():
    vocab = CharVocabulary.from_text("hello")
    vocab.encode("hello")[:] = 0
    assert vocab.encode("hello").tolist() == [1, 0, 2, 2, 3]


def test_repr_is_short():
    assert repr(CharVocabulary.from_text("a\n")) == r"CharVocabulary(2 symbols: '\n', 'a')"
    many = CharVocabulary.from_text("".join(map(chr, range(97, 123))), unknown="?")
    assert repr(many) == "CharVocabulary(27 symbols: 'a', 'b', 'c', ..., '?', unknown='?')"


HELLO = CharVocabulary.from_text("hello")
OUTSIDE = "text has symbols outside CharVocabulary(4 symbols: 'e', 'h', 'l', 'o'): "
RANGE = "ids must lie in 0..3 (V = 4), got "
NO_ROW = "ids must be a 1-D array of integers, got "
NO_DICT = "a vocabulary must be a dict with the keys kind, symbols and unknown, got "


def saved(**changes):
    return {"kind": "char", "symbols": ["a", "b"], "unknown": None} | changes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # a text to number
        (lambda: CharVocabulary.from_text(""), "text must have at least one character, got ''"),
        (lambda: CharVocabulary.from_text(b"hello"), "text must be a str, got bytes"),
        (lambda: CharVocabulary.from_text(None), "text must be a str, got NoneType"),
        (
            lambda: CharVocabulary.from_text("hello", unknown="l"),
            "unknown must not be a character of the text, got 'l' at index 2",
        ),
        (
            lambda: CharVocabulary.from_text("a\nb\n", unknown="\n"),
            r"unknown must not be a character of the text, got '\n' at index 1",
        ),
        (
            lambda: CharVocabulary.from_text("hello", unknown=""),
            "unknown must be None or a non-empty str, got ''",
        ),
        (
            lambda: CharVocabulary.from_text("hello", unknown=0),
            "unknown must be None or a non-empty str, got 0",
        ),
        # a text to encode
        (lambda: HELLO.encode(None), "text must be a str, got NoneType"),
        (lambda: HELLO.encode("help"), OUTSIDE + "'p' at index 3"),
        (
            lambda: HELLO.encode("p\0p\x1b"),
            OUTSIDE + r"'p' at index 0, '\x00' at index 1, '\x1b' at index 3",
        ),
        (
            lambda: HELLO.encode("\ud800\u2028"),
            OUTSIDE + r"'\ud800' at index 0, '\u2028' at index 1",
        ),
        (
            lambda: HELLO.encode("he\nllx"),
            OUTSIDE + r"'\n' at index 2, 'x' at index 5 (line 2, column 3)",
        ),
        (
            lambda: HELLO.encode("abcdefgh" * 2),
            OUTSIDE + "'a' at index 0, 'b' at index 1, 'c' at index 2, 'd' at index 3, "
            "'f' at index 5, and 1 more",
        ),
        # ids to decode
        (lambda: HELLO.decode([0, 4]), RANGE + "4 at index 1"),
        (lambda: HELLO.decode([4, -1, 9, 3]), RANGE + "9 at index 2"),
        (lambda: HELLO.decode([4, -9, 9, 3]), RANGE + "-9 at index 1"),
        (lambda: HELLO.decode(np.array([0, 255], np.uint8)), RANGE + "255 at index 1"),
        (
            lambda: HELLO.decode(np.array([2**64 - 1], np.uint64)),
            RANGE + "18446744073709551615 at index 0",
        ),
        (lambda: HELLO.decode([0.0]), NO_ROW + "1-D float64"),
        (lambda: HELLO.decode([True]), NO_ROW + "1-D bool"),
        (lambda: HELLO.decode([[0, 1]]), NO_ROW + "2-D int64"),
        (lambda: HELLO.decode(2), NO_ROW + "0-D int64"),
        (lambda: HELLO.decode("hello"), NO_ROW + "0-D <U5"),
        (lambda: HELLO.decode([[0], [1, 2]]), NO_ROW + "a builtins.list that NumPy cannot read"),
        # a vocabulary to load
        (lambda: CharVocabulary.from_dict(None), NO_DICT + "None"),
        (lambda: CharVocabulary.from_dict({"kind": "char"}), NO_DICT + "{'kind': 'char'}"),
        (lambda: CharVocabulary.from_dict(saved(kind="word")), "kind must be 'char', got 'word'"),
        (
            lambda: CharVocabulary.from_dict(saved(symbols="ab")),
            "symbols must be a non-empty list, got 'ab'",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(symbols=[])),
            "symbols must be a non-empty list, got []",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(symbols=["a", 1])),
            "symbols must be non-empty strings, got 1 at index 1",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(symbols=["", "a"])),
            "symbols must be non-empty strings, got '' at index 0",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(symbols=["a", "\n", "\n"])),
            r"symbols must be distinct, got '\n' again at index 2",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(symbols=["a", "bc"])),
            "symbols other than unknown must be single characters, got 'bc' at index 1",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(unknown="<unk>")),
            "unknown must be None or one of the symbols, got '<unk>'",
        ),
        (
            lambda: CharVocabulary.from_dict(saved(unknown=["a"])),
            "unknown must be None or one of the symbols, got ['a']",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(InputError) as refused:
        call()
    assert str(refused.value) == message
    assert len(message.splitlines()) == 1
