"""Every setting of a training run by one flat name, from presets, files and flags.

A later source wins: defaults, then the preset, then the TOML file, then `--set` and flags. Names
are those of the fields of DataConfig, ModelConfig, TrainConfig, RunConfig and SampleConfig, without
`vocab_size`, which the text decides. In a TOML file they stand in the tables [data], [model],
[train], [run] and [sample], for the eye; "none" spells None, which TOML lacks.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
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
from minilstm.text.corpora import Corpus, load_corpus
from minilstm.text.tokens import Normalisation
from minilstm.text.vocabulary import Vocabulary
from minilstm.train_config import TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how it becomes tokens. See `minilstm.text.corpora.load_corpus`.

    Attributes:
        data: a corpus's name, such as shakespeare, or a UTF-8 text file.
        val_data: a file that validates; none: the text's own part for that, or its last tenth.
        level: what a token is, char or word.
        tokenizer: of words: basic_english or split.
        min_count: words that occur less often become <unk>.
        lower: whether capitals are read as small letters.
        collapse_whitespace: whether each run of white space is read as one space.
        keep: the only characters to keep; none: all.
        unknown: the symbol for characters that the training text lacks; none: as needed.
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

    def load(self, vocab: Vocabulary | None = None) -> Corpus:
        """The text; numbered by `vocab`, if there is one already. Raises as `load_corpus`."""
        return load_corpus(
            self.data,
            self.level,
            val_path=self.val_data,
            tokenizer=self.tokenizer,
            min_count=self.min_count,
            normalisation=Normalisation(self.lower, self.collapse_whitespace, self.keep),
            unknown=self.unknown,
            vocab=vocab,
        )


@dataclass(frozen=True)
class RunConfig:
    """What a run computes on and with.

    Attributes:
        device: auto, cpu or cuda; none: what MINILSTM_DEVICE says, or else auto.
        dtype: of the parameters: float32 or float64.
    """

    device: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be float32 or float64, got {quote(self.dtype)}")


@dataclass(frozen=True)
class SampleConfig:
    """How the run's model is sampled, unless `minilstm sample` is told otherwise.

    Attributes:
        temperature: below 1 is safer, above 1 bolder.
        top_k: only the k likeliest tokens; none: all.
        top_p: only the likeliest tokens, of this probability together; none: all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


TABLES: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "run": RunConfig,
    "sample": SampleConfig,
}
_HOW_LONG = {"steps", "epochs", "minutes"}  # one of them replaces the others


@functools.cache
def setting_types() -> dict[str, tuple[str, Any]]:
    """Every setting's name -> (its table, its type), in the order of the tables."""
    return {
        field.name: (table, typing.get_type_hints(kind)[field.name])
        for table, kind in TABLES.items()
        for field in fields(kind)
        if field.name != "vocab_size"
    }


@functools.cache
def helps() -> dict[str, str]:
    """Every setting's help: what the docstring of its config says of it."""
    found: dict[str, str] = {}
    for kind in TABLES.values():
        names = "|".join(field.name for field in fields(kind))
        entries = " ".join((kind.__doc__ or "").partition("Raises:")[0].split())
        _, *pairs = re.split(rf"(?<=[:.] )((?:(?:{names}), )*(?:{names})): ", entries)
        for group, text in zip(pairs[::2], pairs[1::2], strict=True):
            found |= dict.fromkeys(group.split(", "), text.strip().removesuffix("."))
    return found


@functools.cache
def defaults() -> Mapping[str, Any]:
    """Every setting's default; `data` has none, and must be given."""
    found = {
        field.name: field.default
        for kind in TABLES.values()
        for field in fields(kind)
        if field.default is not MISSING
    }
    return types.MappingProxyType(found)


def preset_names() -> list[str]:
    """The presets that come with the package."""
    files = [file.name for file in (resources.files("minilstm") / "presets").iterdir()]
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def read_preset(name: str) -> dict[str, Any]:
    """A preset's settings. Raises InputError for an unknown name, with the nearest one."""
    if name not in preset_names():
        raise InputError(f"unknown preset {quote(name)}{_suggest(name, preset_names())}")
    text = (resources.files("minilstm") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_toml(text, f"preset {name}")


def read_toml(path: str) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        InputError: there is no such file, it is no TOML, or a table, name or type is wrong; with
            the nearest name where one was mistyped.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the config {path!r}: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or a path that can be none
        raise InputError(f"cannot read the config {path!r}: {error}") from None
    return parse_toml(text, repr(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The settings in a TOML text; `source` is what the errors call it.

    >>> parse_toml("[model]\\nhiden_size = 8", "mine")
    Traceback (most recent call last):
        ...
    minilstm.errors.InputError: mine: unknown setting 'hiden_size' in [model]; did you mean
    'hidden_size'?
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source} is not TOML: {error}") from None
    settings: dict[str, Any] = {}
    for table, entries in tables.items():
        if table not in TABLES:
            hint = _suggest_table(table) or _suggest(table, TABLES)
            raise InputError(f"{source}: unknown table {quote(table)}{hint}")
        if not isinstance(entries, dict):
            raise InputError(f"{source}: {table} must be a table, got {quote(entries)}")
        of_table = [name for name, (t, _) in setting_types().items() if t == table]
        for name, value in entries.items():
            if name not in of_table:
                hint = _suggest_table(name) or _suggest(name, of_table)
                raise InputError(f"{source}: unknown setting {quote(name)} in [{table}]{hint}")
            settings[name] = _named(source, check_type, name, value)
    return settings


def to_toml(settings: Mapping[str, Any]) -> str:
    """The settings as a TOML file that `read_toml` takes back.

    >>> print(to_toml({"hidden_size": 8, "clip": None}))
    [model]
    hidden_size = 8
    <BLANKLINE>
    [train]
    clip = "none"
    """
    blocks = []
    for table in TABLES:
        if lines := [f"{name} = {_toml(v)}" for name, v in of_table(table, settings).items()]:
            blocks.append("\n".join([f"[{table}]", *lines]))
    return "\n\n".join(blocks)


def _toml(value: Any) -> str:
    if isinstance(value, str | None):
        # JSON's strings are TOML's, but for two of the control characters.
        return json.dumps(spell(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return spell(value)


def spell(value: Any) -> str:
    """A setting's value as a flag or `--set` would spell it.

    >>> spell(None), spell(True), spell(0.001)
    ('none', 'true', '0.001')
    """
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def parse(name: str, text: str) -> Any:
    """The value that a flag or `--set` spells.

    Raises:
        InputError: the name is unknown, or the text is no value of its type.

    >>> parse("hidden_size", "128"), parse("clip", "none"), parse("tie_weights", "true")
    (128, None, True)
    """
    known = setting_types()
    if name not in known:
        raise InputError(f"unknown setting {quote(name)}{_suggest(name, known)}")
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
    raise InputError(f"{name} must be {_spell_types(choices)}, got {quote(text)}")


def check_type(name: str, value: Any) -> Any:
    """A TOML value for a setting, None for "none"; InputError if its type is another."""
    choices = _choices(setting_types()[name][1])
    if value == "none" and types.NoneType in choices:
        return None
    if type(value) in choices:
        return value
    if type(value) is int and float in choices and abs(value) < 1 << 63:
        return float(value)
    raise InputError(f"{name} must be {_spell_types(choices)}, got {quote(value)}")


def check_recorded(settings: object, where: object) -> dict[str, Any]:
    """All settings as a run's config.json has recorded them; InputError if they cannot be."""
    if not isinstance(settings, dict) or settings.keys() != setting_types().keys():
        raise InputError(f"{where}: settings must be those of a run, got {quote(settings)}")
    return {name: _named(where, check_type, name, value) for name, value in settings.items()}


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


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, in the order of the tables: those given, and the defaults of the others."""
    if "data" not in settings:
        raise InputError(
            "data must be given: a text file or a corpus's name, a preset or a config that has one"
        )
    merged = merge(defaults(), settings)
    return {name: merged.get(name) for name in setting_types()}


def of_table(table: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that belong to one table."""
    known = setting_types()
    return {name: value for name, value in settings.items() if known[name][0] == table}


def _named(source: object, check: Any, name: str, value: Any) -> Any:
    """check(name, value), whose error then says where the value stands."""
    try:
        return check(name, value)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _choices(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) or (kind,)


def _spell_types(choices: Iterable[Any]) -> str:
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false",
             types.NoneType: "none"}  # fmt: skip
    return " or ".join(words[choice] for choice in choices)


def _suggest_table(name: str) -> str:
    """Where a setting belongs that stands elsewhere; "" if it is none."""
    known = setting_types()
    return f"; it belongs in [{known[name][0]}]" if name in known else ""


def _suggest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?", or all there is where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
