"""The one error of the public boundary, and the checks that several modules share."""

import reprlib
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


def check_positive_int(name: str, value: object) -> int:
    """Return value as an int; an InputError unless it is an integer (NumPy's too) above zero.

    >>> check_positive_int("seq_len", np.int32(50))
    50
    >>> check_positive_int("seq_len", 0)
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: seq_len must be a positive integer, got 0
    """
    # True is an int to Python, and seq_len=True is a mistake all the same.
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a positive integer, got {quote(value)}")
    return int(value)


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
    wanted = "ids must be a 1-D array of integers"
    try:
        array = np.asarray(ids)
    except (TypeError, ValueError):  # a ragged list, or an array that lives on a GPU
        got = f"{type(ids).__module__}.{type(ids).__qualname__}"
        raise InputError(f"{wanted}, got a {got} that NumPy cannot read") from None
    if isinstance(ids, list | tuple) and array.shape == (0,):
        array = array.astype(np.int64)  # [] has no dtype of its own; NumPy takes float64
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{wanted}, got {array.ndim}-D {array.dtype}")
    return array
