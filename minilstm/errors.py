"""The one error of the public boundary, and the checks that several modules share."""

import math
import re
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]


class InputError(ValueError):
    """What came does not fit what was wanted; the message is one line that quotes both."""


def quote(value: object) -> str:
    """The value as it goes into a message: its repr, cut short, on one line.

    >>> quote(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    return " ".join(reprlib.repr(value).splitlines())


def printable(text: str) -> str:
    """The text as it may reach a terminal: control characters but newline and tab are spelled out.

    A text that was trained on, or a file's name, could otherwise move the cursor, change colours
    or retitle the window.

    >>> print(printable("a\\x1b[31mb"))
    a\\x1b[31mb
    """
    return re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f]", lambda c: f"\\x{ord(c[0]):02x}", text)


def require(fits: object, wanted: str, got: object) -> None:
    """Do nothing where it fits; else raise the error that says what was wanted and what came.

    Both are made whether it fits or not, so they must cost next to nothing: no repr of an array.

    >>> require(0 < 1.5 <= 1, "top_p must be above 0 and at most 1", 1.5)
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: top_p must be above 0 and at most 1, got 1.5
    """
    if not fits:
        raise InputError(f"{wanted}, got {got}")


def check_positive_int(name: str, value: object) -> int:
    """Return value as an int; an InputError unless it is an integer (NumPy's too) above zero.

    >>> check_positive_int("seq_len", np.int32(50))
    50
    >>> check_positive_int("seq_len", 0)
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: seq_len must be a positive integer, got 0
    """
    return check_count(name, value, least=1)


def check_count(name: str, value: object, least: int = 0) -> int:
    """Return value as an int; an InputError unless it is an integer of at least `least`.

    >>> check_count("seed", -1)
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: seed must be an integer from 0 up, got -1
    """
    # True is an int to Python, and seq_len=True is a mistake all the same.
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer from {least} up"
        raise InputError(f"{name} must be {wanted}, got {quote(value)}")
    return int(value)


def check_number(name: str, value: object, wanted: str = "",
                 fits: Callable[[float], bool] = lambda x: True) -> float:  # fmt: skip
    """Return value as a float; an InputError unless it is a finite number that fits.

    >>> check_number("dropout", 1.5, "in [0, 1)", lambda p: 0 <= p < 1)
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: dropout must be a finite number in [0, 1), got 1.5
    """
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and fits(number):
            return number
    raise InputError(f"{name} must be {f'a finite number {wanted}'.rstrip()}, got {quote(value)}")


def check_ids(ids: object) -> IntArray:
    """Return ids as a NumPy array, without a copy where it is one already.

    Args:
        ids: (N,) array or list of integers, of any integer dtype.
    Raises:
        InputError: ids is not one-dimensional, or not of integers.

    >>> check_ids([0.5])
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: ids must be a 1-D array of integers, got 1-D float64
    """
    array = np.asarray(ids)
    # [] has no dtype of its own; NumPy takes float64.
    fits = array.ndim == 1 and (array.size == 0 or np.issubdtype(array.dtype, np.integer))
    require(fits, "ids must be a 1-D array of integers", f"{array.ndim}-D {array.dtype}")
    return array
