"""Which current nodule belongs to which row: one to one, also after a person has changed it.

A row's *current nodule* is what it has of the fixed image: place, identity, and measurement with
its voxels. A rejected row keeps its own to be read, and holds it back from nobody. Nothing here
changes a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .growth import growth
from .measuring import MeasureSettings
from .nodules import Point
from .records import TrackRow

#: Two places that are no farther apart mean the same nodule, mm.
SAME_MM = 3.0
_CURRENT = "Current: "
_UNDECIDED = "Current: no growth is given before the ambiguous match is decided."
_GIVEN = "Its current nodule was given to"
_MIXED = "Current: one side was marked and the other segmented here."


def distance(one: Point | None, other: Point | None) -> float | None:
    """Millimeters between two points; None where one is missing."""
    if one is None or other is None:
        return None
    return float(np.linalg.norm(np.subtract(one, other)))


def reach_mm(row: TrackRow) -> float:
    """How far from its center a place still means the row's current nodule: inside it, or near."""
    known = row.fixed_measurement
    return SAME_MM if known is None else max(SAME_MM, known.equivalent_diameter_mm / 2)


def holder_at(rows: Sequence[TrackRow], place: Point) -> TrackRow | None:
    """The row whose current nodule is meant by a place (LPS mm), the nearest one; a rejected row
    only where there is no other. None where no nodule is known."""
    near = []
    for k, row in enumerate(rows):
        away = distance(row.fixed_center, place)
        if away is not None and away <= reach_mm(row):
            near.append((row.decision == "rejected", away, k))
    return rows[min(near)[2]] if near else None


def holder_of(rows: Sequence[TrackRow], row: TrackRow) -> TrackRow | None:
    """Another row, not rejected, that has the same current nodule; None where there is none."""
    if row.fixed_identifier is None:
        return None
    for other in rows:
        same = other.fixed_identifier == row.fixed_identifier
        if same and other.identifier != row.identifier and other.decision != "rejected":
            return other
    return None


def with_nodule(row: TrackRow, source: TrackRow | None, settings: MeasureSettings) -> TrackRow:
    """The row with the current nodule of another one (None: with none), and its growth anew."""
    other = source or TrackRow("", "", "predicted")
    remarks = [remark for remark in row.remarks if not remark.startswith((_CURRENT, _GIVEN))]
    remarks += [remark for remark in other.remarks if remark.startswith(_CURRENT)]
    changed = replace(
        row,
        fixed_center=other.fixed_center,
        fixed_identifier=other.fixed_identifier,
        fixed_measurement=other.fixed_measurement,
        fixed_method=other.fixed_method,
        fixed_mask=other.fixed_mask,
        distance_mm=distance(row.predicted_position, other.fixed_center),
        remarks=tuple(remarks),
    )
    return with_growth(changed, settings)


def with_growth(row: TrackRow, settings: MeasureSettings) -> TrackRow:
    """The row with the change between its two measurements; none where one is missing, or an
    ambiguous match is not decided."""
    remarks = [remark for remark in row.remarks if remark not in (_UNDECIDED, _MIXED)]
    pair, change = (row.moving_measurement, row.fixed_measurement), None
    if None not in pair:
        if row.state == "ambiguous" and row.decision == "open":
            remarks.append(_UNDECIDED)
        else:
            change = growth(*pair, settings.days, settings.reference_thresholds)
        if row.moving_method != row.fixed_method:
            remarks.append(_MIXED)
    return replace(row, growth=change, remarks=tuple(remarks))


def given(
    rows: Sequence[TrackRow], changed: TrackRow, source: TrackRow, settings: MeasureSettings
) -> list[TrackRow]:
    """The rows with ``changed``, which has the current nodule of the row ``source`` now.

    A row of that nodule alone goes. A prior nodule that had it is left without, open, to be looked
    at; unless one of both rows is rejected. What ``changed`` had before becomes a new row.
    """
    before = next(row for row in rows if row.identifier == changed.identifier)
    result = []
    for row in rows:
        if row.identifier == changed.identifier:
            result.append(changed)
        elif row.identifier != source.identifier:
            result.append(row)
        elif row.moving_center is not None:
            kept = "rejected" in (row.decision, changed.decision)
            result.append(row if kept else _left(row, changed.name, settings))
    return with_released(result, before)


def _left(row: TrackRow, taker: str, settings: MeasureSettings) -> TrackRow:
    """A row whose current nodule was given to another one."""
    alone = with_nodule(row, None, settings)
    said = f"{_GIVEN} '{taker}': look again."
    return replace(alone, state="review", decision="open", remarks=(*alone.remarks, said))


def with_released(rows: Sequence[TrackRow], before: TrackRow) -> list[TrackRow]:
    """The rows, with a *new* one for the marked current nodule that a row had ``before``, if no
    row has it now. A place that a person gave to the row belongs to it alone and is not kept."""
    marked = before.fixed_identifier not in (None, before.identifier)
    held = any(
        row.fixed_identifier == before.fixed_identifier and row.decision != "rejected"
        for row in rows
    )
    if before.fixed_center is None or not marked or held:
        return list(rows)
    return [*rows, alone(rows, before, before.fixed_identifier or "")]


def alone(rows: Sequence[TrackRow], row: TrackRow, identifier: str) -> TrackRow:
    """A *new* row for the current nodule of another row, with a name that is free."""
    names = {other.name for other in rows}
    choices = (f"{row.name} (current{'' if k == 1 else f' {k}'})" for k in range(1, len(rows) + 2))
    return TrackRow(
        identifier,
        next(name for name in choices if name not in names),
        "new",
        fixed_center=row.fixed_center,
        fixed_identifier=identifier,
        fixed_measurement=row.fixed_measurement,
        fixed_method=row.fixed_method,
        fixed_mask=row.fixed_mask,
        remarks=tuple(r for r in row.remarks if r.startswith(_CURRENT) and r not in _BETWEEN),
    )


#: Remarks on both measurements of a pair.
_BETWEEN = (_UNDECIDED, _MIXED)
