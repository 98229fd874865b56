"""Files to text: what is read, in pieces of what size, what is put right, and what is refused."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text import corpora
from minilstm.text.corpora import Passage, TextFile

reproducible = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.fixture
def file(tmp_path):
    def write(data: bytes) -> Path:
        path = tmp_path / "corpus.txt"
        path.write_bytes(data)
        return path

    return write


BLOCKS = [1, 2, 3, 7, corpora.BLOCK]  # so small that marks, line ends and characters are cut


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hello\n", "hello\n"),
        ("naïve ☃ \U0001f600".encode(), "naïve ☃ \U0001f600"),
        (b"\xef\xbb\xbfhello", "hello"),
        (b"\xef\xbb\xbf\xef\xbb\xbfhello", "\ufeffhello"),  # only the first is a mark
        ("a\ufeffb".encode(), "a\ufeffb"),  # further on it is a character like any other
        (b"a\r\nb\rc\nd\r\r\n\n", "a\nb\nc\nd\n\n\n"),
        (b" \n", " \n"),
        ("a\u2028b\x0bc\x85d".encode("utf-8"), "a\u2028b\x0bc\x85d"),  # no line ends of files
    ],
)
def test_a_file_is_read_as_utf8_with_plain_line_ends(file, monkeypatch, data, text, block):
    monkeypatch.setattr(corpora, "BLOCK", block)
    assert "".join(TextFile(file(data))) == text
    assert "".join(TextFile(str(file(data)))) == text


WANT = "want a UTF-8 text file, but {path!r} "


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"caf\xe9\n", "has byte 0xe9 at offset 3, which is not UTF-8"),
        (b"\xef\xbb\xbfcaf\xe9\n", "has byte 0xe9 at offset 6, which is not UTF-8"),
        (b"ab\xe2\x98", "has byte 0xe2 at offset 2, which is not UTF-8"),  # cut in a character
        (b"\xed\xa0\x80", "has byte 0xed at offset 0, which is not UTF-8"),  # half a surrogate pair
        ("hi".encode("utf-16"), "has byte 0xff at offset 0, which is not UTF-8"),
        ("\r\r\né☃😀".encode() + b"\xc3(", "has byte 0xc3 at offset 12, which is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "has byte 0x89 at offset 0, which is not UTF-8"),
        ("é\0".encode(), "has a NUL character, so it is binary"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(file, monkeypatch, data, reason, block):
    monkeypatch.setattr(corpora, "BLOCK", block)
    path = file(data)
    with pytest.raises(InputError) as refused:
        list(TextFile(path))
    assert str(refused.value) == WANT.format(path=str(path)) + reason


def test_a_path_that_is_no_file_is_refused_in_one_line(tmp_path):
    cases = {
        tmp_path: "is a folder",
        "": "is a folder",  # the one we are in
        tmp_path / "missing": "does not exist",
        tmp_path / "line\nbreak": "does not exist",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError) as refused:
            list(TextFile(path))
        assert str(refused.value) == WANT.format(path=os.fspath(path)) + reason
        assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_may_not_be_read_says_why(file, monkeypatch):
    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    path = file(b"hello")
    monkeypatch.setattr(Path, "open", refuse)  # a chmod would not stop root
    with pytest.raises(InputError) as refused:
        list(TextFile(path))
    assert str(refused.value) == WANT.format(path=str(path)) + "cannot be read: Permission denied"


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (b"hello\n", []),
        (b"\xef\xbb\xbfhello\n", ["the byte order mark was dropped"]),
        (b"a\r\nb\nc", ["line ends CR LF were read as LF"]),
        (b"a\rb", ["line ends CR were read as LF"]),
        (b"a\r", ["line ends CR were read as LF"]),
        (
            b"\xef\xbb\xbfa\r\n\rb",
            ["the byte order mark was dropped", "line ends CR LF and CR were read as LF"],
        ),
    ],
)
def test_what_was_put_right_is_noted(file, monkeypatch, data, notes, block):
    monkeypatch.setattr(corpora, "BLOCK", block)
    text = TextFile(file(data))
    assert text.notes == ()
    for _ in range(2):  # once, however often it is read
        "".join(text)
        assert text.notes == tuple(f"{str(text.path)!r}: {note}" for note in notes)


def test_a_file_is_read_in_pieces_and_anew_each_time(file, monkeypatch):
    monkeypatch.setattr(corpora, "BLOCK", 2)
    text = TextFile(file("ab\u2603\u2603c\n".encode()))
    assert list(text) == list(text) == ["ab", "\u2603\u2603", "c\n"]


@reproducible
@given(
    pieces=st.lists(st.text(max_size=5), max_size=6),
    start=st.integers(0, 40),
    length=st.integers(0, 40),
)
def test_a_passage_is_the_slice_of_the_whole(pieces, start, length):
    passage = Passage(pieces, start, start + length)
    assert "".join(passage) == "".join(passage) == "".join(pieces)[start : start + length]
    assert "" not in list(passage)


def test_a_passage_reads_no_further_than_it_must():
    def pieces():
        yield from ("ab", "cd")
        raise AssertionError("read on")

    assert "".join(Passage(pieces(), 1, 3)) == "bc"
