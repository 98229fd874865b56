"""Symbols and ids: the round trip, the unknown symbol, and what is refused."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text.tokens import Normalisation, basic_english, split
from minilstm.text.vocabulary import CharVocabulary, WordVocabulary, vocabulary_from_dict

any_character = st.characters()  # emoji and control characters too, half surrogate pairs too
texts = st.text(any_character, min_size=1, max_size=60)
lines = st.lists(  # words, of which some look like marks, and white space of several kinds
    st.sampled_from(["a", "B", "cd", "<unk>", "it's", "x.", "<eos>", " ", "  ", "\n", "\u2028\t"]),
    max_size=20,
).map(" ".join)
tokenizers = st.sampled_from(["basic_english", "split"])
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
@given(text=texts, unknown=st.none() | st.just("<unk>"), lower=st.booleans())
def test_a_vocabulary_of_characters_survives_json(text, unknown, lower):
    vocab = CharVocabulary.from_text(text, unknown, Normalisation(lower))
    again = vocabulary_from_dict(json.loads(json.dumps(vocab.to_dict())))
    assert again == vocab
    assert again.encode(text).tolist() == vocab.encode(text).tolist()


@reproducible
@given(text=lines, tokenizer=tokenizers, keep=st.sampled_from([None, "ab \n"]))
def test_a_vocabulary_of_words_survives_json(text, tokenizer, keep):
    normalisation = Normalisation(keep=keep)
    vocab = WordVocabulary.from_text("a " + text, tokenizer, 1, normalisation)
    again = vocabulary_from_dict(json.loads(json.dumps(vocab.to_dict())))
    assert again == vocab
    assert again.encode(text).tolist() == vocab.encode(text).tolist()


@reproducible
@given(text=texts, other=texts)
def test_a_vocabulary_normalises_all_that_it_encodes(text, other):
    normalisation = Normalisation(lower=True, collapse_whitespace=True)
    vocab = CharVocabulary.from_text(text, "<unk>", normalisation)
    assert set(vocab.symbols) == {*normalisation(text), "<unk>"}
    plain = CharVocabulary(vocab.symbols, "<unk>")
    assert vocab.encode(other).tolist() == plain.encode(normalisation(other)).tolist()


def test_the_unknown_symbol_itself_encodes_to_its_id():
    vocab = CharVocabulary.from_text("ab", unknown="\ufffd")
    assert vocab.encode("a\ufffd?").tolist() == [0, 2, 2]


def test_symbols_keep_the_order_they_are_given_in():
    vocab = CharVocabulary(("b", "<unk>", "a"), unknown="<unk>")
    assert vocab.encode("abc").tolist() == [2, 0, 1]
    assert vocabulary_from_dict(vocab.to_dict()) == vocab


def test_a_vocabulary_of_words_normalises_all_that_it_encodes():
    normalisation = Normalisation(lower=True, keep="abc \n")
    vocab = WordVocabulary.from_text("A, B!\na", "split", 1, normalisation)
    assert vocab.normalisation == normalisation
    assert vocab.symbols == ("<unk>", "a", "<eos>", "b")
    assert vocab.encode("B? xA\nC").tolist() == [3, 1, 2, 0]


@reproducible
@given(text=texts, cuts=st.lists(st.integers(0, 60), max_size=4).map(sorted))
def test_characters_in_pieces_are_numbered_and_encoded_as_the_whole(text, cuts):
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    vocab = CharVocabulary.from_text(pieces)
    assert vocab == CharVocabulary.from_text(text)
    assert vocab.encode_pieces(iter(pieces)).tolist() == vocab.encode(text).tolist()


@reproducible
@given(text=lines, tokenizer=tokenizers, cuts=st.lists(st.integers(0, 80), max_size=4).map(sorted))
def test_words_in_pieces_are_numbered_and_encoded_as_the_whole(text, tokenizer, cuts):
    text = "a" + text
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    vocab = WordVocabulary.from_text(pieces, tokenizer)
    assert vocab == WordVocabulary.from_text(text, tokenizer)
    assert vocab.encode_pieces(iter(pieces)).tolist() == vocab.encode(text).tolist()


@pytest.mark.parametrize(
    ("V", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)],
)
def test_pieces_are_encoded_in_the_smallest_unsigned_dtype(V, dtype):
    symbols = tuple(chr(i) for i in range(V))  # half surrogate pairs among them
    ids = CharVocabulary(symbols).encode_pieces([symbols[-1], "", symbols[0], symbols[V // 2]])
    assert ids.dtype == dtype
    assert ids.tolist() == [V - 1, 0, V // 2]
    ids[:] = 0  # they are the caller's


def test_no_pieces_encode_to_no_ids():
    ids = CharVocabulary(("a",)).encode_pieces([])
    assert (ids.dtype, ids.shape) == (np.uint8, (0,))


TALE = 'The cat saw the <unk>; "the <unk>" saw a cat.\n\nA dog (Rex) did not.\n'


def test_basic_english_words_of_a_small_text_counted_by_hand():
    vocab = WordVocabulary.from_text(TALE)  # basic_english
    # three times "the", twice ". a cat saw", once the others; <unk> twice, but it is first anyway
    assert " ".join(vocab.symbols) == "<unk> the . a cat saw ( ) did dog not rex"
    assert len(vocab.encode(TALE)) == 19
    assert vocab.encode("the cat saw <unk> the fox").tolist() == [1, 4, 5, 0, 1, 0]
    assert vocab.decode([0, 1, 9, 2]) == "<unk> the dog ."


def test_words_between_spaces_of_a_small_text_counted_by_hand():
    vocab = WordVocabulary.from_text(TALE, "split")
    # three times <eos>, twice "saw", once the others; <unk> stands nowhere alone
    symbols = '<unk> <eos> saw "the (Rex) <unk>" <unk>; A The a cat cat. did dog not. the'
    assert " ".join(vocab.symbols) == symbols
    assert len(vocab.encode(TALE)) == 18
    assert vocab.encode("The dog\n saw\n\n").tolist() == [8, 13, 1, 2, 1, 1]
    assert vocab.decode([8, 13, 1, 2, 1, 1, 13]) == "The dog\nsaw\n\ndog"


@reproducible
@given(text=lines, tokenizer=tokenizers)
def test_word_ids_are_ranks_by_falling_count_then_code_points(text, tokenizer):
    text = "a " + text
    vocab = WordVocabulary.from_text(text, tokenizer)
    counts = Counter({"basic_english": basic_english, "split": split}[tokenizer](text))
    del counts["<unk>"]
    assert vocab.symbols[0] == vocab.unknown == "<unk>"
    assert vocab.unknown_id == 0
    assert list(vocab.symbols[1:]) == sorted(counts, key=lambda word: (-counts[word], word))


@reproducible
@given(text=lines, tokenizer=tokenizers, min_count=st.integers(2, 3))
def test_a_larger_min_count_cuts_the_same_numbering_short(text, tokenizer, min_count):
    text = "a " * min_count + text
    every = WordVocabulary.from_text(text, tokenizer)
    some = WordVocabulary.from_text(text, tokenizer, min_count)
    ids = every.encode(text)
    counts = np.bincount(ids, minlength=len(every))
    assert len(some) == 1 + np.count_nonzero(counts[1:] >= min_count)
    assert some.symbols == every.symbols[: len(some)]
    assert some.encode(text).tolist() == np.where(ids < len(some), ids, 0).tolist()


@reproducible
@given(prompt=lines, tokenizer=tokenizers, data=st.data())
def test_pieces_of_text_after_a_prompt_make_what_their_ids_say(prompt, tokenizer, data):
    vocab = WordVocabulary.from_text("a \n" + prompt, tokenizer)
    ids = data.draw(st.lists(st.integers(0, len(vocab) - 1), max_size=12))
    text = prompt
    for id in ids:
        text += vocab.decode([id], text)
    assert text == prompt + vocab.decode(ids, prompt)
    assert vocab.encode(text).tolist() == [*vocab.encode(prompt), *ids]
    text = ""
    for id in ids:
        text += vocab.decode([id], text[-1:])  # its end is all that matters
    assert text == vocab.decode(ids)


@pytest.mark.parametrize(
    ("before", "word", "newline"),
    [("", "a", "\n"), ("b", " a", "\n"), ("b\n", "a", "\n"), ("b ", "a", "\n"), (".", " a", "\n")],
)
def test_a_word_stands_off_from_what_is_before_it_by_one_space(before, word, newline):
    vocab = WordVocabulary.from_text("a a \n", "split")
    assert vocab.symbols == ("<unk>", "a", "<eos>")
    assert (vocab.decode([1], before), vocab.decode([2], before)) == (word, newline)


def test_eos_is_a_word_like_any_other_to_basic_english():
    vocab = WordVocabulary.from_text("a <eos>\n")
    assert vocab.decode(vocab.encode("a\n<eos> a")) == "a <eos> a"
    assert vocab.decode([1], "a") == " <eos>"


def test_pieces_of_characters_are_the_characters():
    vocab = CharVocabulary.from_text("a b")
    assert [vocab.decode([id], "a") for id in (0, 1, 2)] == [" ", "a", "b"]


def test_vocabularies_differ_by_order_and_by_unknown_symbol():
    vocab = CharVocabulary(("a", "b"))
    assert vocab == CharVocabulary.from_text("abba")
    assert hash(vocab) == hash(CharVocabulary.from_text("abba"))
    assert vocab != CharVocabulary(("b", "a"))
    assert vocab != CharVocabulary(("a", "b"), unknown="b")
    assert vocab != CharVocabulary(("a", "b"), normalisation=Normalisation(lower=True))
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
    assert repr(many) == "CharVocabulary(27 symbols: 'a', 'b', 'c', 'd', 'e', 'f', ...)"


HELLO = CharVocabulary.from_text("hello")
WORDS = WordVocabulary.from_text("a b a")
OUTSIDE = "text has symbols outside CharVocabulary(4 symbols: 'e', 'h', 'l', 'o'): "
RANGE = "ids must lie in 0..3 (V = 4), got "
NO_ROW = "ids must be a 1-D array of integers, got "
NO_CHARS = "a vocabulary must be a dict with kind 'char' and the keys symbols, unknown, "
NO_KIND = "a vocabulary must be a dict whose kind is 'char' or 'word', got "
NO_TEXT = "text must be a str, got "
UNKNOWN = "unknown must be no character of the text nor empty, got "
TOKENIZER = "tokenizer must be 'basic_english' or 'split', got "


def refusal(call, *args, **kwargs):
    """The message, which is one line."""
    with pytest.raises(InputError) as refused:
        call(*args, **kwargs)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "text must have at least one character, got ''"),
        ([b"hello"], {}, NO_TEXT + "bytes"),
        ("hello", {"unknown": "l"}, UNKNOWN + "'l'"),
        ("a\nb\n", {"unknown": "\n"}, UNKNOWN + r"'\n'"),
        ("hello", {"unknown": ""}, UNKNOWN + "''"),
        ("hello", {"unknown": 0}, "symbols must be distinct chars, got 0 at index 4"),
    ],
)
def test_characters_that_cannot_be_numbered(text, options, message):
    assert refusal(CharVocabulary.from_text, text, **options) == message


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (" \n", {}, "text must have a word with a count of 1 or more, got none"),
        ("<unk> <unk> b a", {"min_count": 2},
         "text must have a word with a count of 2 or more, got none"),
        ("a", {"min_count": 0}, "min_count must be a positive integer, got 0"),
        ("a", {"tokenizer": "char"}, TOKENIZER + "'char'"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_numbered(text, options, message):
    assert refusal(WordVocabulary.from_text, text, **options) == message


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([None], NO_TEXT + "NoneType"),
        (["o", b"hell"], NO_TEXT + "bytes"),
        (["help"], OUTSIDE + "'p' at index 3"),
        (["p\0p\x1b"], OUTSIDE + r"'p' at index 0, '\x00' at index 1, '\x1b' at index 3"),
        (["\ud800\u2028"], OUTSIDE + r"'\ud800' at index 0, '\u2028' at index 1"),
        (["abcdefgh" * 2], OUTSIDE + "'a' at index 0, 'b' at index 1, 'c' at index 2, "
                           "'d' at index 3, 'f' at index 5, and 1 more"),
        (["hell", "o\np"], OUTSIDE + r"'\n' at index 5, 'p' at index 6"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_encoded(pieces, message):
    assert refusal(HELLO.encode_pieces, pieces) == message
    if len(pieces) == 1:
        assert refusal(HELLO.encode, pieces[0]) == message


def test_a_word_outside_a_vocabulary_without_an_unknown_symbol_is_refused():
    message = "text has symbols outside WordVocabulary(2 symbols: 'a', 'b'): 'c' at index 1"
    assert refusal(WordVocabulary(("a", "b"), None).encode, "a c b") == message


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 4], RANGE + "4 at index 1"),
        ([3, -1, 9, 3], RANGE + "-1 at index 1"),
        (np.array([0, 255], np.uint8), RANGE + "255 at index 1"),
        (np.array([2**64 - 1], np.uint64), RANGE + "18446744073709551615 at index 0"),
        ([0.0], NO_ROW + "1-D float64"),
        ([True], NO_ROW + "1-D bool"),
        ([[0, 1]], NO_ROW + "2-D int64"),
        (2, NO_ROW + "0-D int64"),
        ("hello", NO_ROW + "0-D <U5"),
    ],
)
def test_ids_that_cannot_be_decoded(ids, message):
    assert refusal(HELLO.decode, ids) == message


def test_an_id_out_of_range_is_refused_after_a_text_too():
    assert refusal(WORDS.decode, [3], "a") == "ids must lie in 0..2 (V = 3), got 3 at index 0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "bpe"}, NO_KIND),
        ({"kind": ["char"]}, NO_KIND),
        ({"tokenizer": "split"}, NO_CHARS),
        ({"normalisation": None},
         "normalisation must be a dict with the keys lower, collapse_whitespace and keep, got "),
        ({"symbols": "ab"}, "symbols must be a non-empty list, got 'ab'"),
        ({"symbols": []}, "symbols must be a non-empty list, got []"),
        ({"symbols": ["a", 1]}, "symbols must be distinct chars, got 1 at index 1"),
        ({"symbols": ["a", []]}, "symbols must be distinct chars, got [] at index 1"),
        ({"symbols": ["", "a"]}, "symbols must be distinct chars, got '' at index 0"),
        ({"symbols": [""], "unknown": ""}, "symbols must be distinct chars, got '' at index 0"),
        ({"symbols": ["a", "\n", "\n"]}, r"symbols must be distinct chars, got '\n' at index 2"),
        ({"symbols": ["a", "bc"]}, "symbols must be distinct chars, got 'bc' at index 1"),
        ({"unknown": "<unk>"}, "unknown must be None or one of the symbols, got '<unk>'"),
        ({"unknown": ["a"]}, "unknown must be None or one of the symbols, got ['a']"),
    ],
)  # fmt: skip
def test_a_saved_vocabulary_of_characters_that_cannot_be_loaded(changes, message):
    data = CharVocabulary(("a", "b")).to_dict() | changes
    assert refusal(vocabulary_from_dict, data).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": None}, TOKENIZER + "None"),
        ({"symbols": ["<unk>", "a b"]}, "symbols must be distinct words, got 'a b' at index 1"),
    ],
)
def test_a_saved_vocabulary_of_words_that_cannot_be_loaded(changes, message):
    assert refusal(vocabulary_from_dict, WORDS.to_dict() | changes) == message


def test_what_is_no_saved_vocabulary_is_refused():
    assert refusal(vocabulary_from_dict, None) == NO_KIND + "None"
    assert refusal(vocabulary_from_dict, {"kind": "char"}).startswith(NO_CHARS)
    assert refusal(vocabulary_from_dict, WORDS.to_dict() | {"kind": "char"}).startswith(NO_CHARS)
