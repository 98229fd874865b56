"""Files to text, text to its two parts."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text import read_text, train_validation_split

reproducible = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.fixture
def file(tmp_path):
    def write(data: bytes) -> Path:
        path = tmp_path / "corpus.txt"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hello\n", "hello\n"),
        ("naïve ☃ \U0001f600".encode(), "naïve ☃ \U0001f600"),
        (b"\xef\xbb\xbfhello", "hello"),
        (b"\xef\xbb\xbf\xef\xbb\xbfhello", "\ufeffhello"),  # only the first is a mark
        (b"a\r\nb\rc\nd\r\r\n\n", "a\nb\nc\nd\n\n\n"),
        (b" \n", " \n"),
        ("a\u2028b\x0bc\x85d".encode("utf-8"), "a\u2028b\x0bc\x85d"),  # no line ends of files
    ],
)
def test_a_file_is_read_as_utf8_with_plain_line_ends(file, data, text):
    assert read_text(file(data)) == text
    assert read_text(str(file(data))) == text


WANT = "want a UTF-8 text file, but {path!r} "


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
        (b"\x89PNG\r\n\x1a\n", "has byte 0x89 at offset 0, which is not UTF-8"),
        ("é\0".encode(), "has a NUL byte at offset 2, so it is binary"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(file, data, reason):
    path = file(data)
    with pytest.raises(InputError) as refused:
        read_text(path)
    assert str(refused.value) == WANT.format(path=str(path)) + reason


def test_a_path_that_is_no_file_is_refused_in_one_line(tmp_path):
    cases = {
        tmp_path: "is a folder",
        "": "is a folder",  # the one we are in
        tmp_path / "missing": "does not exist",
        tmp_path / "line\nbreak": "does not exist",
        "nul\0": "is no path",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError) as refused:
            read_text(path)
        assert str(refused.value) == WANT.format(path=os.fspath(path)) + reason
        assert len(str(refused.value).splitlines()) == 1


def test_a_path_that_is_no_path_is_refused():
    with pytest.raises(InputError, match=r"^path must be a str or a Path, got 3$"):
        read_text(3)  # to open() a number is a file that is open already


def test_a_file_that_may_not_be_read_says_why(file, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    path = file(b"hello")
    monkeypatch.setattr(Path, "read_bytes", refuse)  # a chmod would not stop root
    with pytest.raises(InputError) as refused:
        read_text(path)
    assert str(refused.value) == WANT.format(path=str(path)) + "cannot be read: Permission denied"


@reproducible
@given(text=st.text(max_size=50), fraction=st.floats(0, 1, exclude_min=True))
def test_the_two_parts_make_up_the_text(text, fraction):
    train, validation = train_validation_split(text, fraction)
    assert train + validation == text
    assert len(train) == int(fraction * len(text))


def test_nine_tenths_train_and_the_tail_validates():
    assert train_validation_split("0123456789" * 2) == ("0123456789" + "01234567", "89")


@pytest.mark.parametrize(
    "fraction", [0, -0.5, 1.01, float("nan"), float("inf"), "0.9", None, True, 1j]
)
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError) as refused:
        train_validation_split("hello", fraction)
    assert str(refused.value) == f"fraction must be a number in (0, 1], got {fraction!r}"


def test_a_split_of_anything_but_text_is_refused():
    with pytest.raises(InputError, match=r"^text must be a str, got list$"):
        train_validation_split(["hello"])
