"""Names of structures, from a table that tells them by label."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import InputError
from ..redaction import without_persons

_IDS = ("id", "value", "label_value", "labelvalue", "number", "label", "index")
_NAMES = ("name", "structure", "segment", "organ", "segment_name", "label_name", "label")


def read_names(path: str | Path) -> dict[int, str]:
    """Label -> name from a CSV file (comma, semicolon or tab) with a header.

    The column of labels is called id, value, number, label or index, that of names name, structure,
    segment, organ or label, whatever the case. Raises :class:`InputError` with one sentence.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The names '{path}' cannot be read as a text file.") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = list(csv.reader(text.splitlines(), delimiter=separator))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    table = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    if not table or any(len(row) < len(header) for row in table):
        raise InputError(f"The names '{path}' need a header and rows that are as long as it.")
    columns = {title: [row[k].strip() for row in table] for k, title in enumerate(header)}
    ids = next((c for c in _IDS if c in columns and all(map(_is_label, columns[c]))), None)
    names = next((c for c in _NAMES if c in columns and c != ids), None)
    if ids is None or names is None:
        raise InputError(
            f"The names '{path}' need a column 'id' with whole numbers and a column 'name'."
        )
    labels = [int(cell) for cell in columns[ids]]
    if len(labels) != len(set(labels)):
        raise InputError(f"The names '{path}' list a label twice.")
    return {
        label: without_persons(name) or f"label {label}"
        for label, name in zip(labels, columns[names], strict=True)
    }


def _is_label(cell: str) -> bool:
    return cell.isdecimal()
