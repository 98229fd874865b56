"""metrics.csv: one row per interval of training, for any program that reads tables."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilstm.errors import InputError

COLUMNS = ("step", "tokens", "lr", "train_loss", "valid_loss", "gradient_norm", "seconds")


def append_row(path: Path, values: Sequence[Any]) -> None:
    """Append one row, in the order of COLUMNS, to a table that is begun with its header where
    there is none; None is an empty field."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, values] if new else [values])


def read_rows(path: Path) -> list[dict[str, float]]:
    """The table as one dict of numbers per row; empty fields are left out.

    Raises:
        InputError: it is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != COLUMNS:
                raise ValueError(f"its columns must be {', '.join(COLUMNS)}")
            return [{k: float(v) for k, v in row.items() if v} for row in table]
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is not as it was written: {error}") from None


def keep_rows(path: Path, last_step: int) -> None:
    """Drop the rows after last_step, which a resumed run will write again."""
    if path.exists():
        rows = csv.reader(path.read_text(encoding="utf-8", errors="replace").splitlines())
        whole = [row for row in rows if len(row) == len(COLUMNS) and row[0].isdecimal()]
        temporary = path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            kept = (row for row in whole if int(row[0]) <= last_step)
            csv.writer(file).writerows([COLUMNS, *kept])
        os.replace(temporary, path)
