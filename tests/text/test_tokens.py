"""Text to tokens: both tokenizers, normalisation, and that it does not matter where text is cut."""

import json
from dataclasses import asdict
from itertools import chain, count, islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text.tokens import TOKENIZERS, Normalisation, basic_english, split, words

reproducible = settings(derandomize=True, deadline=None, max_examples=200)

# What tokenizers and normalisation look at, and what could go wrong at a cut: the parts of
# "<br />", white space of several kinds, letters whose small form is longer or looks around.
snippets = [
    *("<br />", "<br", " />", '<br" />', "'", '"', *".,()!?;:<>/", "<unk>", "a", "B", "br", "9"),
    *(" ", "  ", "\n", "\t", "\x1c", "\u2028", "\xa0", "é", "Σ", "ΑΣ", "İ", "\ud800"),
]
texts = st.lists(st.sampled_from(snippets) | st.characters(), max_size=25).map("".join)


@st.composite
def texts_in_pieces(draw):
    """A text, and the same one cut in up to 6 pieces, some of them perhaps empty."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


normalisations = st.builds(
    Normalisation,
    lower=st.booleans(),
    collapse_whitespace=st.booleans(),
    keep=st.none() | st.sampled_from(["ab ]^-\\", "σς\n\t ", "AaΑΣi\u0307<br />"]),
)


@reproducible
@given(text=texts)
@example('x<br" />y <BR /> <br. />')
def test_basic_english_is_what_its_definition_says(text):
    plain = text.lower()
    for mark in ("'", '"', ".", "<br />", *",()!?;:"):  # in torchtext's order
        gone = {'"': "", "<br />": " ", ";": " ", ":": " "}
        plain = plain.replace(mark, gone.get(mark, f" {mark} "))
    assert basic_english(text) == plain.split()


def test_basic_english_on_a_sentence():
    text = "O'Neil's \"Mr. X\" (ca. 1,000; 3:2) <unk><br />ran!?\n <unk> @-@ Ω\n"
    expected = "o ' neil ' s mr . x ( ca . 1 , 000 3 2 ) <unk> ran ! ? <unk> @-@ ω"
    assert basic_english(text) == expected.split()


def test_split_makes_one_eos_of_each_newline_and_of_nothing_else():
    assert split("a  B.\n\n\u2028c\td") == ["a", "B.", "<eos>", "<eos>", "c", "d"]
    assert split("a<eos> <eos>") == ["a<eos>", "<eos>"]
    assert split("") == split(" \t") == []


@reproducible
@given(text_in_pieces=texts_in_pieces(), tokenizer=st.sampled_from(sorted(TOKENIZERS)))
@example(("a<br />b", ["a<br", " ", "/>b"]), "basic_english")
@example(("a<br />b", ["a<br ", "/>b"]), "basic_english")
@example(("a ΑΣ b", ["a ΑΣ", " b"]), "basic_english")
@example(("ab c", ["a", "b", " ", "c"]), "split")
def test_the_words_of_the_pieces_are_the_words_of_the_text(text_in_pieces, tokenizer):
    text, pieces = text_in_pieces
    assert list(chain(*words(pieces, tokenizer))) == TOKENIZERS[tokenizer](text)


@reproducible
@given(text_in_pieces=texts_in_pieces(), normalisation=normalisations)
@example(("a  b", ["a ", " b"]), Normalisation(collapse_whitespace=True))
@example(("a x b", ["a ", "x", " b"]), Normalisation(False, True, "ab "))
@example(("ΑΣ", ["ΑΣ", ""]), Normalisation(lower=True))
@example(("ΑΣΑ", ["ΑΣ", "Α"]), Normalisation(lower=True))
def test_the_normalised_pieces_are_the_normalised_text(text_in_pieces, normalisation):
    text, pieces = text_in_pieces
    assert "".join(normalisation.pieces(pieces)) == normalisation(text)


@reproducible
@given(text=texts, normalisation=normalisations)
def test_normalising_twice_changes_nothing_more(text, normalisation):
    once = normalisation(text)
    assert normalisation(once) == once


@pytest.mark.parametrize("tokenizer", sorted(TOKENIZERS))
def test_a_text_without_end_on_one_line_is_read_as_it_comes(tokenizer):
    some = islice(chain.from_iterable(words((f"w{n} x" for n in count()), tokenizer)), 4)
    assert list(some) == ["w0", "xw1", "xw2", "xw3"]


@pytest.mark.parametrize(
    ("normalisation", "text", "expected"),
    [
        (Normalisation(), "A \n b", "A \n b"),
        (Normalisation(lower=True), "ÀΣ İ", "àσ i\u0307"),
        (Normalisation(collapse_whitespace=True), " a\r\n\tb\xa0 ", " a b "),
        (Normalisation(keep="a-c^]\\"), "abc-^]\\[d", "ac-^]\\"),  # no range, no class: characters
        (Normalisation(lower=True, keep="abc"), "ABCd", "abc"),
        (Normalisation(collapse_whitespace=True, keep="a "), "a , a", "a a"),
    ],
)
def test_normalisation_does_what_is_asked_and_no_more(normalisation, text, expected):
    assert normalisation(text) == expected


@reproducible
@given(normalisation=normalisations)
def test_a_normalisation_survives_json(normalisation):
    data = json.loads(json.dumps(asdict(normalisation)))
    assert Normalisation.from_dict(data) == normalisation


NO_DICT = "normalisation must be a dict with the keys lower, collapse_whitespace and keep, got "


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Normalisation(lower=1), "lower must be True or False, got 1"),
        (
            lambda: Normalisation(collapse_whitespace="no"),
            "collapse_whitespace must be True or False, got 'no'",
        ),
        (lambda: Normalisation(keep=""), "keep must be None or a non-empty str, got ''"),
        (lambda: Normalisation(keep=["a"]), "keep must be None or a non-empty str, got ['a']"),
        (lambda: Normalisation()(b"hello"), "text must be a str, got bytes"),
        (lambda: list(Normalisation().pieces(["a", 1])), "text must be a str, got int"),
        (lambda: Normalisation.from_dict(None), NO_DICT + "None"),
        (lambda: Normalisation.from_dict({"lower": True}), NO_DICT + "{'lower': True}"),
        (
            lambda: list(words(["a"], "bpe")),
            "tokenizer must be 'basic_english' or 'split', got 'bpe'",
        ),
        (
            lambda: list(words(["a"], None)),
            "tokenizer must be 'basic_english' or 'split', got None",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(InputError) as refused:
        call()
    assert str(refused.value) == message
