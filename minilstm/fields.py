"""What the fields of the configs may hold: an annotation brings its check along."""

from functools import partial
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

from minilstm.errors import check_count, check_number, check_positive_int, quote, require

PositiveInt = Annotated[int, check_positive_int]
Count = Annotated[int, check_count]
Share = Annotated[float, partial(check_number, wanted="in [0, 1)", fits=lambda p: 0 <= p < 1)]
NotNegative = Annotated[float, partial(check_number, wanted="from 0 up", fits=lambda x: x >= 0)]


def check_choice(name: str, value: object, *, choices: tuple[str, ...]) -> None:
    """An InputError unless the value is one of the choices.

    >>> check_choice("optimizer", "lion", choices=("adam", "sgd"))
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: optimizer must be one of adam, sgd, got 'lion'
    """
    require(value in choices, f"{name} must be one of {', '.join(choices)}", quote(value))


def check_fields(config: Any) -> None:
    """An InputError unless each field of a dataclass holds what its annotation allows.

    The annotation brings the check along, as `PositiveInt` does; None passes where it may stand.
    """
    for name, kind in get_type_hints(type(config), include_extras=True).items():
        value, parts = getattr(config, name), get_args(kind)
        optional = NoneType in parts
        if value is not None or not optional:
            for check in getattr(parts[0] if optional else kind, "__metadata__", ()):
                check(name, value)
