"""The flags that several verbs share: every setting under its own name, and the run they act on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from minilstm import settings
from minilstm.errors import InputError, quote


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --preset, --config, --set and one flag for each setting."""
    names = ", ".join(settings.preset_names())
    parser.add_argument("--preset", metavar="P", help=f"start from these settings: {names}")
    parser.add_argument("--config", metavar="FILE", help="TOML; over the preset's settings")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="any setting by its name; like the flags below, over the preset's and the file's",
    )  # fmt: skip
    groups = {table: parser.add_argument_group(f"[{table}]") for table in settings.TABLES}
    for name, (table, kind) in settings.setting_types().items():
        default = settings.spell(settings.defaults()[name]) if name != "data" else "must be given"
        how: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,  # what is not given leaves no trace
            "help": f"{settings.HELP[name]} ({default})",
        }
        if kind is bool:
            how |= {"action": argparse.BooleanOptionalAction}
        else:
            how |= {"metavar": "X" if "float" in str(kind) else "N" if "int" in str(kind) else "…"}
        groups[table].add_argument(flag_of(name), **how)


def flag_of(name: str) -> str:
    """
    >>> flag_of("hidden_size")
    '--hidden-size'
    """
    return f"--{name.replace('_', '-')}"


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What preset, file, --set and flags say, in this order; nothing of what they leave open.

    Raises:
        InputError: a name or value is wrong, or a flag and --set say different things.
    """
    said: dict[str, Any] = {}
    for pair in args.set:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--set must be like hidden_size=128, got {quote(pair)}")
        _say(said, name, settings.parse(name, text))
    for name, value in vars(args).items():
        if name in settings.setting_types():
            _say(said, name, settings.parse(name, value) if isinstance(value, str) else value)
    return settings.merge(
        settings.read_preset(args.preset) if args.preset is not None else {},
        settings.read_toml(args.config) if args.config is not None else {},
        said,
    )


def _say(said: dict[str, Any], name: str, value: Any) -> None:
    first, second = settings.spell(said.setdefault(name, value)), settings.spell(value)
    if first != second:
        raise InputError(f"{name} must be said once, got {first} and {second}")


def check_same(recorded: Mapping[str, Any], given: Mapping[str, Any], owner: str) -> None:
    """Raise an InputError if a setting is given that differs from the recorded one."""
    for name, value in given.items():
        if name in recorded and value != recorded[name]:
            was, got = settings.spell(recorded[name]), settings.spell(value)
            raise InputError(f"{name}: {owner} has {was}, got {got}")


def add_run(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add RUN, the folder of a run."""
    parser.add_argument("run", metavar="RUN", help="the folder of a run", **options)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", help="auto, cpu or cuda; default: MINILSTM_DEVICE, or auto")
