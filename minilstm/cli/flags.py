"""The flags that several verbs share: every setting under its own name, and the run they act on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from minilstm import settings
from minilstm.errors import InputError, quote


def add_run(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add RUN, the folder of a run."""
    parser.add_argument("run", metavar="RUN", help="the folder of a run", **options)


def add_setting(parser: Any, name: str, otherwise: str | None = None) -> None:
    """Add the flag of one setting, which is not in the namespace unless it is given."""
    how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    kind = settings.setting_types()[name][1]
    if kind is bool:
        how["action"] = argparse.BooleanOptionalAction
    else:
        how["metavar"] = "X" if "float" in str(kind) else "N" if "int" in str(kind) else "TEXT"
    if otherwise is None:
        otherwise = settings.spell(settings.defaults().get(name, "must be given"))
    how["help"] = f"{settings.helps()[name]} ({otherwise})".replace("%", "%%")
    parser.add_argument(f"--{name.replace('_', '-')}", **how)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --preset, --config, --set and one flag for each setting."""
    presets = ", ".join(settings.preset_names())
    parser.add_argument("--preset", metavar="P", help=f"settings to start from: {presets}")
    parser.add_argument("--config", metavar="FILE", help="TOML; over the preset's settings")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
                        help="settings, like the flags below over preset and file")  # fmt: skip
    groups = {table: parser.add_argument_group(f"[{table}]") for table in settings.TABLES}
    for name, (table, _) in settings.setting_types().items():
        add_setting(groups[table], name)


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What preset, file, --set and flags say, in this order; nothing of what they leave open.

    Raises:
        InputError: a name or value is wrong, or a flag and --set say different things.
    """
    for pair in args.set:
        if "=" not in pair:
            raise InputError(f"--set must be like hidden_size=128, got {quote(pair)}")
    pairs = [pair.split("=", 1) for pair in args.set]
    flags = [(name, v) for name, v in vars(args).items() if name in settings.setting_types()]
    said: dict[str, Any] = {}
    for name, value in (*pairs, *flags):
        parsed = settings.parse(name, value) if isinstance(value, str) else value
        first, second = (settings.spell(v) for v in (said.setdefault(name, parsed), parsed))
        if first != second:
            raise InputError(f"{name} must be said once, got {first} and {second}")
    return settings.merge(
        settings.read_preset(args.preset) if args.preset is not None else {},
        settings.read_toml(args.config) if args.config is not None else {},
        said,
    )


def check_same(recorded: Mapping[str, Any], given: Mapping[str, Any], owner: str) -> None:
    """Raise an InputError if a setting is given that differs from the recorded one."""
    for name, value in given.items():
        if name in recorded and value != recorded[name]:
            was, got = settings.spell(recorded[name]), settings.spell(value)
            raise InputError(f"{name}: {owner} has {was}, got {got}")
