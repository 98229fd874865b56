"""The checks of arrays at the public boundary: shapes, dtypes and ids, quoted when they are off."""

from typing import Any

from minilstm.backend import Array, is_on_host
from minilstm.errors import InputError, quote, require

State = tuple[Array, Array]


def check_shape(name: str, array: Any, shape: tuple[int, ...], letters: str) -> None:
    """InputError unless array is one, of this shape; letters spell it, such as "(T, B, V)"."""
    got = tuple(array.shape) if hasattr(array, "shape") else type(array).__name__
    require(got == shape, f"{name} must have shape {letters} = {shape}", got)


def check_token_ids(name: str, ids: Any, V: int, shape: tuple[int, ...] | None = None) -> None:
    """InputError unless ids is an array (T, B) of integers from 0 to V - 1.

    Ids on a GPU are not looked at, since that would wait for the device.

    Args:
        name: of the array, for the message. V: the vocabulary's size.
        shape: which shape exactly; None: any (T, B), both at least 1.
    """
    got = getattr(ids, "dtype", None)
    if getattr(got, "kind", None) not in ("i", "u"):
        kind = type(ids).__name__ if got is None else got
        raise InputError(f"{name} must be an array of integer ids, got {kind}")
    if shape is not None:
        check_shape(name, ids, shape, "(T, B)")
    fits = ids.ndim == 2 and 0 not in ids.shape
    require(fits, f"{name} must have shape (T, B), both at least 1", tuple(ids.shape))
    if is_on_host(ids):
        for id in (ids.min(), ids.max()):
            require(0 <= id < V, f"{name} must hold ids from 0 to {V - 1}", id)


def check_state(name: str, state: Any, shape: tuple[int, int, int], reference: Array) -> State:
    """Return state; InputError unless it is a pair h, c of arrays (L, B, H) = shape, in the
    precision of reference."""
    if not isinstance(state, tuple | list) or len(state) != 2:  # only then: quoting would wait
        raise InputError(f"{name} must be a pair (h, c) of arrays, got {quote(state)}")
    for part, array in zip(("h", "c"), state, strict=True):
        check_shape(f"{name} {part}", array, shape, "(L, B, H)")
        check_precision(f"{name} {part}", array, reference)
    return state[0], state[1]


def check_precision(name: str, array: Array, reference: Array) -> None:
    """InputError unless both arrays have one precision: one in double would make all double. A
    complex number has that of its parts, so that the complex step may perturb one array alone."""
    if array.real.dtype != reference.real.dtype:  # only then: the name of a dtype takes a while
        raise InputError(f"{name} must be {reference.dtype}, got {array.dtype}")
