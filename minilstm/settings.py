"""Every setting of a training run by one flat name, from presets, files and flags.

A later source wins: defaults, then the preset, then the TOML file, then `--set` and flags. Names
are those of the fields of DataConfig, ModelConfig, TrainConfig, RunConfig and SampleConfig, without
`vocab_size`, which the text decides. In a TOML file they stand in the tables [data], [model],
[train], [run] and [sample], for the eye; "none" spells None, which TOML lacks.
"""

import argparse
import contextlib
import difflib
import functools
import inspect
import json
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

import minilstm as ml
from minilstm.errors import InputError, quote, require
from minilstm.text.vocabulary import Vocabulary


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

    def load(self, vocab: Vocabulary | None = None) -> ml.Corpus:
        """The text; numbered by `vocab`, if there is one already. Raises as `load_corpus`."""
        normalisation = ml.Normalisation(self.lower, self.collapse_whitespace, self.keep)
        return ml.load_corpus(self.data, self.level, val_path=self.val_data, vocab=vocab,
                              tokenizer=self.tokenizer, min_count=self.min_count,
                              normalisation=normalisation, unknown=self.unknown)


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
        fits = self.dtype in ("float32", "float64")
        require(fits, "dtype must be float32 or float64", quote(self.dtype))


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


TABLES: dict[str, type] = {"data": DataConfig, "model": ml.ModelConfig, "train": ml.TrainConfig,
                           "run": RunConfig, "sample": SampleConfig}  # fmt: skip
PRESETS = Path(__file__).parent / "presets"
_HOW_LONG = {"steps", "epochs", "minutes"}  # one of them replaces the others

# A value's type -> what a message calls it, and how a text is read as it, tried in this order
_KINDS: dict[type, tuple[str, Callable[[str], Any]]] = {
    NoneType: ("none", lambda text: {"none": None}[text.lower()]),
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    int: ("an integer", int), float: ("a number", float), str: ("a text", str)}


@functools.cache
def setting_types() -> dict[str, tuple[str, tuple[type, ...]]]:
    """Every setting's name -> (its table, the types it may have), in the order of the tables."""
    return {name: (table, typing.get_args(kind) or (kind,)) for table, config in TABLES.items()
            for name, kind in typing.get_type_hints(config).items() if name != "vocab_size"}


@functools.cache
def helps() -> dict[str, str]:
    """Every setting's help: what the docstring of its config says of it."""
    docs = "\n".join(inspect.getdoc(config) or "" for config in TABLES.values())
    names = "|".join(setting_types())
    entries = re.findall(rf"^    ({names}): (.+(?:\n {{8}}.+)*)", docs, re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in entries}


def defaults() -> dict[str, Any]:
    """Every setting's default; `data` has none, and must be given."""
    every = (field for config in TABLES.values() for field in fields(config))
    return {field.name: field.default for field in every if field.default is not MISSING}


def of_table(table: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that belong to one table."""
    return {name: v for name, v in settings.items() if setting_types()[name][0] == table}


# --- TOML


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(name: str) -> dict[str, Any]:
    """A preset's settings. Raises InputError for an unknown name, with the nearest one."""
    _check_known("preset", name, preset_names())
    return read_toml(str(PRESETS / f"{name}.toml"))


def read_toml(path: str) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        InputError: there is no such file, it is no TOML, or a table, name or type is wrong; with
            the nearest name where one was mistyped.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that can be none
        why = getattr(error, "strerror", error)
        raise InputError(f"cannot read the config {path!r}: {why}") from None
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
        _check_known("table", table, TABLES, where=f"{source}: ")
        require(isinstance(entries, dict), f"{source}: {table} must be a table", quote(entries))
        known = of_table(table, setting_types())
        for name, value in entries.items():
            _check_known("setting", name, known, where=f"{source}: ", place=f" in [{table}]")
            settings[name] = _check_type(source, name, value)
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
    text = ""
    for table in TABLES:
        if own := of_table(table, settings):
            text += f"\n[{table}]\n"
        for name, value in own.items():
            value = "none" if value is None else value
            text += f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
    return text.strip().replace("\x7f", "\\u007f")  # JSON writes as it is what TOML must escape


def check_recorded(settings: object, where: object) -> dict[str, Any]:
    """All settings as a run's config.json has recorded them; InputError if they cannot be."""
    if not isinstance(settings, dict) or settings.keys() != setting_types().keys():
        raise InputError(f"{where}: settings must be those of a run, got {quote(settings)}")
    return {name: _check_type(where, name, value) for name, value in settings.items()}


def _check_type(where: object, name: str, value: Any) -> Any:
    """A value from TOML or JSON for a setting, None for "none"; InputError if it is no such."""
    _, kinds = setting_types()[name]
    if value == "none" and NoneType in kinds:
        return None
    if type(value) is int and float in kinds and abs(value) < 1 << 63:
        return float(value)
    require(type(value) in kinds, f"{where}: {name} must be {_wanted(name)}", quote(value))
    return value


# --- flags


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
    _check_known("setting", name, setting_types())
    for kind, (_, read) in _KINDS.items():
        if kind in setting_types()[name][1]:
            with contextlib.suppress(ValueError, KeyError):
                return read(text)
    raise InputError(f"{name} must be {_wanted(name)}, got {quote(text)}")


def add_flag(parser: Any, name: str, otherwise: str | None = None) -> None:
    """Add the flag of one setting, which is not in the namespace unless it is given."""
    _, kinds = setting_types()[name]
    how: dict[str, Any] = {"metavar": "X" if float in kinds else "N" if int in kinds else "TEXT"}
    if bool in kinds:
        how = {"action": argparse.BooleanOptionalAction}
    otherwise = otherwise or spell(defaults().get(name, "must be given"))
    help = f"{helps()[name]} ({otherwise})".replace("%", "%%")
    flag = f"--{name.replace('_', '-')}"
    parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, help=help, **how)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add --preset, --config, --set and one flag for each setting."""
    presets = ", ".join(preset_names())
    parser.add_argument("--preset", metavar="P", help=f"settings to start from: {presets}")
    parser.add_argument("--config", metavar="FILE", help="TOML; over the preset's settings")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
                        help="settings, like the flags below over preset and file")  # fmt: skip
    for table in TABLES:
        group = parser.add_argument_group(f"[{table}]")
        for name in of_table(table, setting_types()):
            add_flag(group, name)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """What preset, file, --set and flags say, in this order; nothing of what they leave open.

    Raises:
        InputError: a name or value is wrong, or a flag and --set say different things.
    """
    pairs = [pair.partition("=") for pair in args.set]
    flags = [(name, "=", spell(v)) for name, v in vars(args).items() if name in setting_types()]
    said: dict[str, Any] = {}
    for name, equals, text in (*pairs, *flags):
        require(equals, "--set must be like hidden_size=128", quote(name))
        value = parse(name, text)
        first, second = spell(said.setdefault(name, value)), spell(value)
        require(first == second, f"{name} must be said once", f"{first} and {second}")
    preset = read_preset(args.preset) if args.preset is not None else {}
    config = read_toml(args.config) if args.config is not None else {}
    return merge(preset, config, said)


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
        raise InputError("data must be given: a file or corpus, or a preset or config that has one")
    merged = merge(defaults(), settings)
    return {name: merged.get(name) for name in setting_types()}


def check_same(recorded: Mapping[str, Any], given: Mapping[str, Any], owner: str,
               hint: str = "") -> None:  # fmt: skip
    """Raise an InputError if a setting is given that differs from the recorded one."""
    for name, value in given.items():
        if name in recorded and (was := recorded[name]) != value:
            raise InputError(f"{name}: {owner} has {spell(was)}, got {spell(value)}{hint}")


def _wanted(name: str) -> str:
    return " or ".join(_KINDS[kind][0] for kind in setting_types()[name][1])


def _check_known(what: str, name: str, known: Iterable[str], where: str = "",
                 place: str = "") -> None:
    """InputError unless the name is known, with its table, the nearest name, or all there are."""
    if name in known:
        return
    settings = {} if what == "preset" else setting_types()  # one of them may stand elsewhere
    if near := difflib.get_close_matches(name, [*known, *settings], n=1):
        its_place = "" if near[0] in known else f" in [{settings[near[0]][0]}]"
        hint = f"did you mean {near[0]!r}{its_place}?"
    else:
        hint = f"there are {', '.join(known)}"
    raise InputError(f"{where}unknown {what} {quote(name)}{place}; {hint}")
