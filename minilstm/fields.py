"""What the fields of the configs may hold: an annotation brings its check along."""

from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

from minilstm.errors import check_count, check_number, check_positive_int, quote, require

Check = Callable[[str, object], object]  # of a field's name and value


def check_fields(config: Any) -> None:
    """An InputError unless each field of a dataclass holds what its annotation allows.

    None passes where it may stand; a field whose annotation brings no check holds anything.
    """
    for name, kind in get_type_hints(type(config), include_extras=True).items():
        value, parts = getattr(config, name), get_args(kind)
        optional = NoneType in parts
        if value is not None or not optional:
            for check in getattr(parts[0] if optional else kind, "__metadata__", ()):
                check(name, value)


def number(wanted: str, fits: Callable[[float], bool]) -> Check:
    """The check that a field is a finite number that fits; see `check_number`."""
    return partial(check_number, wanted=wanted, fits=fits)


def one_of(*choices: str) -> Check:
    """The check that a field is one of the choices.

    >>> one_of("adam", "sgd")("optimizer", "lion")
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: optimizer must be one of adam, sgd, got 'lion'
    """
    wanted = f"must be one of {', '.join(choices)}"
    return lambda name, value: require(value in choices, f"{name} {wanted}", quote(value))


PositiveInt = Annotated[int, check_positive_int]
Count = Annotated[int, check_count]
Share = Annotated[float, number("in [0, 1)", lambda p: 0 <= p < 1)]
NotNegative = Annotated[float, number("from 0 up", lambda x: x >= 0)]
