"""``nodules.csv`` for people and tables, ``nodules.json`` for programs: units in every header.

The CSV states each position twice, in LPS and in RAS mm. The JSON has a versioned schema and is
read back with all identities. Both are written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..geometry import flip_lps_ras
from ..volume import replace_whole
from .nodules import Point
from .records import SCHEMA, Tracking, TrackRow

#: Columns of one measurement: its name in the header, and the attribute.
_MEASURES = {
    "volume_mm3": "volume_mm3",
    "long_diameter_mm": "long_diameter_mm",
    "short_diameter_mm": "short_diameter_mm",
    "mean_diameter_mm": "mean_diameter_mm",
    "equivalent_diameter_mm": "equivalent_diameter_mm",
    "mean_hu": "mean_hu",
    "mass_mg": "mass_mg",
    "slice_thickness_mm": "slice_thickness_mm",
}
#: In the place of a doubling time: the volume does not double within any time.
_NEVER = "never"
#: What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t")


def tracking_json(tracking: Tracking) -> str:
    """The content of ``nodules.json``."""
    return json.dumps(tracking.to_dict(), indent=2, allow_nan=False) + "\n"


def tracking_csv(tracking: Tracking, pictures: Sequence[str] | None = None) -> str:
    """The content of ``nodules.csv``: one row per nodule, empty cells for what is not known.

    ``pictures`` are file names, one per row ("" for none). "prior" is the moving, "current" the
    fixed image.
    """
    from ..result import NOTICE

    names = list(pictures or [""] * len(tracking))
    rows = [
        {**_cells(row), "picture": name, "notice": NOTICE}
        for row, name in zip(tracking, names, strict=True)
    ]
    stream = io.StringIO()
    header = list(rows[0]) if rows else [*_cells(_EMPTY), "picture", "notice"]
    writer = csv.DictWriter(stream, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def write_tracking(path: str | Path, tracking: Tracking) -> None:
    """Writes ``.csv`` or ``.json`` by the ending. Raises :class:`OutputError` when it cannot."""
    path = Path(path)
    as_text = tracking_csv if path.suffix.lower() == ".csv" else tracking_json
    text = as_text(tracking)
    replace_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_tracking(path: str | Path) -> Tracking:
    """Reads a ``nodules.json``. Raises :class:`InputError` when it is missing, damaged or of
    another schema."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"The list of nodules '{path}' does not exist; check the path.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is no list of nodules ({error}).") from error
    try:
        return Tracking.from_dict(data)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def is_tracking_file(path: str | Path) -> bool:
    """Whether a JSON file is a ``nodules.json`` of any version."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    family = SCHEMA.rsplit("-", 1)[0]
    return isinstance(data, dict) and str(data.get("schema", "")).startswith(family)


_EMPTY = TrackRow("", "", "predicted")


def _cells(row: TrackRow) -> dict[str, object]:
    """The cells of one nodule by the header of their column."""
    cells: dict[str, object] = {
        "nodule": _text(row.name),
        "state": row.state,
        "decision": row.decision,
        "distance_mm": _number(row.distance_mm),
        "uncertainty_mm": _number(row.uncertainty_mm),
        "candidates": row.candidates,
    }
    for name, point in (
        ("prior", row.moving_center),
        ("current", row.fixed_center),
        ("predicted_by_field_in_current", row.field_position),
        ("predicted_in_current", row.predicted_position),
        ("predicted_in_prior", row.moving_predicted),
    ):
        cells.update(_position(name, point))
    found = row.refinement
    cells["refinement_accepted"] = "" if found is None else ("yes" if found.accepted else "no")
    cells["refinement_correlation"] = "" if found is None else _number(found.score, 4)
    for side, measured, method in (
        ("prior", row.moving_measurement, row.moving_method),
        ("current", row.fixed_measurement, row.fixed_method),
    ):
        cells[f"{side}_measured_by"] = method
        for name, attribute in _MEASURES.items():
            cells[f"{side}_{name}"] = _number(getattr(measured, attribute, None))
    cells.update(_growth_cells(row))
    cells["remarks"] = _text(" ".join(row.remarks))
    for name in ("identifier", "moving_identifier", "fixed_identifier"):
        header = {"identifier": "track", "moving_identifier": "prior"}.get(name, "current")
        cells[f"{header}_uuid"] = getattr(row, name) or ""
    return cells


def _growth_cells(row: TrackRow) -> dict[str, object]:
    change = row.growth
    ends = (change and change.doubling_time_range_days) or ()
    # No end of the range is known without days; one that is known may be "never".
    shortest, longest = [_number(days) or _NEVER for days in ends] or ("", "")
    return {
        "days_between": _number(change and change.days),
        "volume_change_percent": _number(change and change.volume_change_percent),
        "mean_diameter_change_mm": _number(change and change.mean_diameter_change_mm),
        "volume_doubling_time_days": _number(change and change.doubling_time_days),
        "volume_doubling_time_shortest_days": shortest,
        "volume_doubling_time_longest_days": longest,
        "read_with_reserve_because": "; ".join(change.greyed) if change else "",
        "reference_thresholds_reached": _flags(row),
    }


def _flags(row: TrackRow) -> str:
    if row.growth is None or not row.growth.flags:
        return ""
    said = {True: "reached", False: "not reached", None: "does not apply"}
    return "; ".join(f"{f.name} ({f.text}): {said[f.reached]}" for f in row.growth.flags)


def _position(name: str, point: Point | None) -> dict[str, object]:
    frames = {"lps": point, "ras": None if point is None else tuple(flip_lps_ras(point))}
    return {
        f"{name}_{axis}_{frame}_mm": "" if values is None else _number(values[k])
        for frame, values in frames.items()
        for k, axis in enumerate("xyz")
    }


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    text = f"{float(value):.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _text(value: str) -> str:
    """A text on one line that no spreadsheet takes for a formula."""
    line = " ".join(value.split())
    return "'" + line if line.startswith(_FORMULA) else line
