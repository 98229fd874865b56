"""Every setting of a training run by one flat name, from presets, files and flags.

A later source wins: defaults, then the preset, then the TOML file, then `--set` and flags. Names
are those of the fields of DataConfig, ModelConfig, TrainConfig and SampleConfig, without
`vocab_size`, which the text decides. In a TOML file they stand in the tables [data], [model],
[train] and [sample], for the eye; "none" spells None, which TOML lacks.
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from minilstm.errors import InputError, check_positive_int, quote
from minilstm.model import ModelConfig
from minilstm.train_config import TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how it becomes tokens. See `minilstm.text.corpora.load_corpus`.

    Attributes:
        data: a corpus's name or a file. val_data: a file that validates; None: data's own part.
        level: "char" or "word". tokenizer, min_count: of words.
        lower, collapse_whitespace, keep: normalisation before anything else.
        unknown: of characters; the symbol that stands for all others, or None.
    """

    data: str
    val_data: str | None = None
    level: str = "char"
    tokenizer: str = "basic_english"
    min_count: int = 1
    lower: bool = False
    collapse_whitespace: bool = False
    keep: str | None = None
    unknown: str | None = None

    def __post_init__(self) -> None:
        check_positive_int("min_count", self.min_count)
        if self.level not in ("char", "word"):
            raise InputError(f"level must be char or word, got {quote(self.level)}")


@dataclass(frozen=True)
class SampleConfig:
    """How the run's model is sampled unless the command line says otherwise."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


TABLES: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "sample": SampleConfig,
}
_HOW_LONG = {"steps", "epochs", "minutes"}  # one of them replaces the others


def setting_types() -> dict[str, tuple[str, Any]]:
    """Every setting's name -> (its table, its type), in the order of the tables."""
    return {
        field.name: (table, typing.get_type_hints(kind)[field.name])
        for table, kind in TABLES.items()
        for field in fields(kind)
        if field.name != "vocab_size"
    }


def default_of(name: str) -> Any:
    """The setting's default; None where it has none and must be given."""
    kind = TABLES[setting_types()[name][0]]
    (field,) = (field for field in fields(kind) if field.name == name)
    return None if field.default is MISSING else field.default


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("minilstm") / "presets"
    files = [file.name for file in folder.iterdir()]
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def read_preset(name: str) -> dict[str, Any]:
    """A preset's settings. Raises InputError for an unknown name, with the nearest one."""
    if name not in preset_names():
        raise InputError(f"unknown preset {name!r}{_suggest(name, preset_names())}")
    text = (resources.files("minilstm") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return _settings_of_toml(text, f"preset {name}")


def read_toml(path: str) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        InputError: there is no such file, it is no TOML, or a table, name or type is wrong; with
            the nearest name where one was mistyped.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the config {path!r}: {error}") from None
    return _settings_of_toml(text, repr(path))


def _settings_of_toml(text: str, source: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is no TOML: {error}") from None
    settings: dict[str, Any] = {}
    for table, entries in tables.items():
        if table not in TABLES or not isinstance(entries, dict):
            wanted = f"the tables {', '.join(f'[{t}]' for t in TABLES)}"
            raise InputError(f"{source} must have {wanted}, got {table!r}{_suggest(table, TABLES)}")
        for name, value in entries.items():
            of_table = [n for n, (t, _) in setting_types().items() if t == table]
            if name not in of_table:
                raise InputError(
                    f"{source}: unknown setting {name!r} in [{table}]{_suggest(name, of_table)}"
                )
            settings[name] = check_type(name, value)
    return settings


def parse(name: str, text: str) -> Any:
    """The value that a flag or `--set` spells.

    Raises:
        InputError: the name is unknown, or the text is no value of its type.

    >>> parse("hidden_size", "128"), parse("clip", "none"), parse("tie_weights", "true")
    (128, None, True)
    """
    known = setting_types()
    if name not in known:
        raise InputError(f"unknown setting {name!r}{_suggest(name, known)}")
    choices = _choices(known[name][1])
    if types.NoneType in choices and text.lower() == "none":
        return None
    if bool in choices:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"{name} must be true or false, got {quote(text)}")
    for kind in (int, float, str):
        if kind in choices:
            try:
                return kind(text)
            except ValueError:
                continue
    raise InputError(f"{name} must be {_spell(choices)}, got {quote(text)}")


def check_type(name: str, value: Any) -> Any:
    """A TOML value for a setting, None for "none"; InputError if its type is another."""
    choices = _choices(setting_types()[name][1])
    if value == "none" and types.NoneType in choices:
        return None
    if type(value) in choices:
        return value
    if type(value) is int and float in choices:
        return float(value)
    raise InputError(f"{name} must be {_spell(choices)}, got {quote(value)}")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One dict of settings, later layers over earlier ones.

    >>> merge({"steps": 500, "lr": 0.1}, {"epochs": 2.0})
    {'lr': 0.1, 'epochs': 2.0}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        if any(layer.get(name) is not None for name in _HOW_LONG):
            merged = {k: v for k, v in merged.items() if k not in _HOW_LONG}
        merged |= layer
    return merged


def of_table(table: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that belong to one table."""
    known = setting_types()
    return {name: value for name, value in settings.items() if known[name][0] == table}


def _choices(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) or (kind,)


def _spell(choices: Iterable[Any]) -> str:
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false",
             types.NoneType: "none"}  # fmt: skip
    return " or ".join(words[choice] for choice in choices)


def _suggest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?", or all there is where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
