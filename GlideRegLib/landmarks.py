"""Landmark files: reading and writing lists of points, always LPS mm inside the library.

Row k of a fixed list belongs to row k of a moving list. What a file says about its frame is
honored; what it leaves open is taken as LPS mm and noted. Layouts:

* ``.mrk.json``: 3D Slicer markups (schema 1.x), LPS or RAS, mm or um;
* ``.fcsv``: Slicer's older list; a header without a frame, or with 0, means RAS;
* ``.csv``: a header with ``x_lps,y_lps,z_lps`` or ``x_ras,y_ras,z_ras`` (or Slicer's exported
  ``label,r,a,s``) states the frame; ``x,y,z`` or three plain columns are LPS mm;
* ``.txt``, ``.pts``: elastix (``point`` or ``index``, the count, the rows), or three plain columns.
"""

from __future__ import annotations

import csv
import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import InputError, OutputError
from .geometry import Grid, flip_lps_ras
from .volume import replace_whole

#: What :func:`read_landmarks` understands, for messages and file dialogs.
EXTENSIONS = (".mrk.json", ".fcsv", ".csv", ".txt", ".pts")

# Slicer accepts any 1.x of this address; it is a name, not a place to fetch from.
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#"
)
_COLUMNS_OF_FRAME = {
    ("x_lps", "y_lps", "z_lps"): "LPS",
    ("x_ras", "y_ras", "z_ras"): "RAS",
    ("l", "p", "s"): "LPS",
    ("r", "a", "s"): "RAS",
    ("x", "y", "z"): "",
}
_LABEL_COLUMNS = ("label", "name", "id")
_MM_PER_UNIT = {"mm": 1.0, "um": 1e-3}


@dataclass(frozen=True)
class Landmarks:
    """Points (N, 3) float64 in LPS mm, a label each, and notes on what the file left open."""

    points: np.ndarray
    labels: list[str]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.points)


def read_landmarks(path: str | Path, grid: Grid | None = None) -> Landmarks:
    """Reads a landmark file as LPS mm.

    ``grid`` is that of the image which the points belong to; only elastix ``index`` files need it.
    Raises :class:`InputError` when the file is missing, empty, malformed (the line is named), holds
    NaN or infinite values, or is of an unknown format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"The landmark file '{path}' does not exist; check the path.")
    name = path.name.lower()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not a text file; landmark files are text.") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from error
    if not text.strip():
        raise InputError(f"The landmark file '{path}' is empty.")
    if name.endswith(".json"):
        landmarks = _read_markups_json(path, text)
    elif name.endswith(".fcsv"):
        landmarks = _read_fcsv(path, text)
    elif name.endswith(".csv"):
        landmarks = _read_csv(path, text)
    elif name.endswith((".txt", ".pts")):
        landmarks = _read_text(path, text, grid)
    else:
        raise InputError(
            f"'{path}' is no landmark format that is known here; use {', '.join(EXTENSIONS)}."
        )
    if len(landmarks) == 0:
        raise InputError(f"The landmark file '{path}' holds no points.")
    return landmarks


def read_landmark_pair(
    fixed: str | Path,
    moving: str | Path,
    fixed_grid: Grid | None = None,
    moving_grid: Grid | None = None,
) -> tuple[Landmarks, Landmarks]:
    """Reads two lists whose rows correspond; raises :class:`InputError` when the counts differ."""
    first = read_landmarks(fixed, fixed_grid)
    second = read_landmarks(moving, moving_grid)
    if len(first) != len(second):
        raise InputError(
            f"'{fixed}' holds {len(first)} landmarks but '{moving}' holds {len(second)}; "
            "row k of one must belong to row k of the other."
        )
    return first, second


def write_landmarks(
    path: str | Path, points: np.ndarray, labels: Sequence[str] | None = None
) -> None:
    """Writes points (N, 3) in LPS mm as .mrk.json, .fcsv, .csv or elastix .txt / .pts.

    The file appears whole or not at all. elastix files keep no labels. Raises :class:`InputError`
    for points or labels that do not fit, :class:`OutputError` for an unknown ending or a folder
    that cannot be written.
    """
    path = Path(path)
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"Landmarks must be finite points (N, 3) in mm, not {points.shape}.")
    labels = [str(n + 1) for n in range(len(points))] if labels is None else list(map(str, labels))
    if len(labels) != len(points):
        raise InputError(f"{len(points)} landmarks were given with {len(labels)} labels.")
    formats: dict[str, Callable[[np.ndarray, list[str]], str]] = {
        ".mrk.json": _format_markups_json,
        ".fcsv": _format_fcsv,
        ".csv": _format_csv,
        ".txt": _format_elastix,
        ".pts": _format_elastix,
    }
    for extension, as_text in formats.items():
        if path.name.lower().endswith(extension):
            content = as_text(points, labels).encode("utf-8")
            replace_whole(path, functools.partial(_write_bytes, content))
            return
    raise OutputError(f"Landmarks cannot be written as '{path}'; use {', '.join(EXTENSIONS)}.")


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


# --- Slicer markups ---------------------------------------------------------------------------


def _read_markups_json(path: Path, text: str) -> Landmarks:
    try:
        markups = json.loads(text)["markups"]
        markup = markups[0]
        control_points = markup.get("controlPoints") or []
        frame = str(markup.get("coordinateSystem", "LPS")).upper()
        unit = markup.get("coordinateUnits", "mm")
        unit = unit[0] if isinstance(unit, list) else unit
    except json.JSONDecodeError as error:
        raise InputError(
            f"'{path}' is not valid JSON (line {error.lineno}); it may be cut short."
        ) from error
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' holds no 3D Slicer markups.") from error
    notes = []
    if len(markups) > 1:
        notes.append(f"'{path.name}' holds {len(markups)} markups; the first one is used.")
    # Older files write numbers: 0 for RAS, 1 for LPS.
    frame = {"0": "RAS", "1": "LPS"}.get(frame, frame)
    if frame not in ("LPS", "RAS") or unit not in _MM_PER_UNIT:
        raise InputError(f"'{path}' states the frame '{frame}' in '{unit}'; LPS or RAS in mm fit.")
    points, labels = [], []
    for number, item in enumerate(control_points, start=1):
        # A point that was never placed cannot be skipped: the rows of a pair would shift.
        item = item if isinstance(item, dict) else {}
        position = item.get("position")
        if item.get("positionStatus", "defined") != "defined" or position is None:
            raise InputError(f"Control point {number} of '{path}' has no position; place it first.")
        points.append(_numbers(position, path, f"control point {number}"))
        labels.append(str(item.get("label") or number))
    return _landmarks(np.array(points) * _MM_PER_UNIT[unit], labels, frame, notes)


def _format_markups_json(points: np.ndarray, labels: list[str]) -> str:
    control_points = [
        {
            "id": str(number),
            "label": label,
            "description": "",
            "associatedNodeID": "",
            "position": [float(value) for value in point],
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, (point, label) in enumerate(zip(points, labels, strict=True), start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": control_points,
        "measurements": [],
    }
    return json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=2) + "\n"


def _read_fcsv(path: Path, text: str) -> Landmarks:
    frame, notes, points, labels = "", [], [], []
    for number, line in _lines(text):
        if line.startswith("#"):
            stated = re.match(r"#\s*coordinatesystem\s*=\s*(\w+)", line, re.IGNORECASE)
            if stated:
                frame = {"0": "RAS", "1": "LPS"}.get(stated[1], stated[1].upper())
            continue
        cells = next(csv.reader([line]))
        if len(cells) < 4:
            raise InputError(f"Line {number} of '{path}' is not 'id,x,y,z,...': '{line[:60]}'.")
        points.append(_numbers(cells[1:4], path, f"line {number}"))
        label = cells[11].strip() if len(cells) > 11 else ""
        labels.append(label or cells[0].strip() or str(len(points)))
    if not frame:
        frame = "RAS"
        notes.append(f"'{path.name}' states no frame; it is read as RAS mm, as Slicer does.")
    if frame not in ("LPS", "RAS"):
        raise InputError(f"'{path}' states the frame '{frame}'; LPS or RAS in mm fit.")
    return _landmarks(points, labels, frame, notes)


def _format_fcsv(points: np.ndarray, labels: list[str]) -> str:
    lines = [
        "# Markups fiducial file version = 5.0",
        "# CoordinateSystem = LPS",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    for number, (point, label) in enumerate(zip(points, labels, strict=True), start=1):
        position = ",".join(repr(float(value)) for value in point)
        lines.append(f"{number},{position},1,0,0,0,1,1,0,{_quoted(label)},,")
    return "\n".join(lines) + "\n"


# --- CSV --------------------------------------------------------------------------------------


def _read_csv(path: Path, text: str) -> Landmarks:
    rows, notes = _lines(text), []
    header = _CsvHeader()
    if not _starts_with_numbers(rows[0][1]):
        header = _read_csv_header(path, rows.pop(0)[1])
    if header.remark:
        notes.append(f"The header of '{path.name}' says: {header.remark}.")
    if not header.frame:
        notes.append(f"'{path.name}' does not state LPS or RAS; it is read as LPS mm.")
    points, labels = [], []
    for number, line in rows:
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        if not max(header.columns) < len(cells) <= header.width:
            raise InputError(
                f"Line {number} of '{path}' has {len(cells)} columns where x, y, z "
                f"(and a label) are expected: '{line[:60]}'."
            )
        points.append(_numbers([cells[c] for c in header.columns], path, f"line {number}"))
        label = cells[header.label] if header.label < len(cells) else ""
        labels.append(label or str(len(points)))
    return _landmarks(points, labels, header.frame or "LPS", notes)


@dataclass(frozen=True)
class _CsvHeader:
    """Where a CSV file keeps what; the defaults are those of a file without a header."""

    columns: tuple[int, ...] = (0, 1, 2)
    label: int = 3
    width: int = 4
    frame: str = ""
    remark: str = ""


def _read_csv_header(path: Path, line: str) -> _CsvHeader:
    # Remarks in parentheses may hold commas, so they leave before the line is split.
    remark = "; ".join(re.findall(r"\(([^)]*)\)?", line))
    cells = re.sub(r"\([^)]*\)?", "", line).lower().split(",")
    names = [cell.strip().strip('"') for cell in cells]
    for wanted, frame in _COLUMNS_OF_FRAME.items():
        if all(name in names for name in wanted):
            columns = tuple(names.index(name) for name in wanted)
            label = next((names.index(n) for n in _LABEL_COLUMNS if n in names), 3)
            return _CsvHeader(columns, label, max(len(names), 4), frame, remark)
    raise InputError(
        f"The header of '{path}' is '{line[:60]}'; x_lps,y_lps,z_lps or x_ras,y_ras,z_ras "
        "is expected, or rows of numbers alone."
    )


def _format_csv(points: np.ndarray, labels: list[str]) -> str:
    lines = ["x_lps,y_lps,z_lps,label"]
    for point, label in zip(points, labels, strict=True):
        lines.append(",".join(repr(float(value)) for value in point) + f",{_quoted(label)}")
    return "\n".join(lines) + "\n"


# --- elastix and plain columns ----------------------------------------------------------------


def _read_text(path: Path, text: str, grid: Grid | None) -> Landmarks:
    rows = _lines(text)
    kind = rows[0][1].lower()
    if kind in ("point", "index"):
        return _read_elastix(path, rows, kind, grid)
    points = []
    for number, line in rows:
        if not line.startswith("#"):
            points.append(_numbers(line.replace(",", " ").split(), path, f"line {number}"))
    note = f"'{path.name}' does not state LPS or RAS; it is read as LPS mm."
    return _landmarks(points, None, "LPS", [note])


def _read_elastix(
    path: Path, rows: list[tuple[int, str]], kind: str, grid: Grid | None
) -> Landmarks:
    if kind == "index" and grid is None:
        raise InputError(
            f"'{path}' holds voxel indices; they need the image that they belong to: "
            "give points in mm ('point') instead."
        )
    if len(rows) < 2 or not rows[1][1].isdigit():
        raise InputError(f"Line 2 of '{path}' must be the number of points, as elastix writes it.")
    count, body = int(rows[1][1]), rows[2:]
    if len(body) != count:
        raise InputError(f"'{path}' announces {count} points but holds {len(body)}.")
    points = [_numbers(line.split(), path, f"line {number}") for number, line in body]
    if kind == "index" and points:
        points = grid.to_physical(np.array(points))
    return _landmarks(points, None, "LPS", [])


def _format_elastix(points: np.ndarray, labels: list[str]) -> str:
    rows = [" ".join(repr(float(value)) for value in point) for point in points]
    return "\n".join(["point", str(len(points)), *rows]) + "\n"


# --- shared -----------------------------------------------------------------------------------


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1."""
    numbered = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in numbered if line.strip()]


def _starts_with_numbers(line: str) -> bool:
    """Whether a CSV line is a row rather than a header: any of its first cells is a number."""
    for cell in line.split(",")[:3]:
        try:
            float(cell)
        except ValueError:
            continue
        return True
    return False


def _numbers(values: object, path: Path, place: str) -> list[float]:
    """Three finite numbers, or the sentence that says where they are missing."""
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        found = len(values) if isinstance(values, (list, tuple)) else "no"
        raise InputError(f"'{path}', {place}: three coordinates are expected, {found} were found.")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise InputError(f"'{path}', {place}: {list(values)} are not numbers.") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"'{path}', {place}: {numbers} holds NaN or infinite values.")
    return numbers


def _landmarks(points: object, labels: list[str] | None, frame: str, notes: list[str]) -> Landmarks:
    array = np.asarray(points, dtype=float).reshape(-1, 3)
    if labels is None:
        labels = [str(n + 1) for n in range(len(array))]
    return Landmarks(flip_lps_ras(array) if frame == "RAS" else array, labels, notes)


def _quoted(label: str) -> str:
    """A label as one CSV cell, on one line."""
    label = " ".join(label.split())
    return '"' + label.replace('"', '""') + '"' if set(label) & set(',"') else label
