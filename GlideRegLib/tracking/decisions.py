"""What a clinician decides about a tracked nodule, and how it outlives the next run.

Registration proposes; a row is confirmed, corrected, rejected, or added. Every function gives new
rows and changes none. Measurements stay those of the native images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .growth import growth
from .measuring import MeasureSettings, measured_row
from .nodules import Nodule, Point, as_point, new_identifier
from .records import Tracking, TrackRow

#: A nodule that was added by hand is the same as one that is marked within this distance, mm.
_SAME_MM = 3.0
_UNDECIDED = "Current: no growth is given before the ambiguous match is decided."
_OTHER_PARTNER = "Before this run it was confirmed with another current nodule: look again."


def measure_settings(tracking: Tracking) -> MeasureSettings:
    """The settings with which a tracking was measured, for rows that change later."""
    known = tracking.settings.get("measure") or {}
    names = MeasureSettings.__dataclass_fields__
    return MeasureSettings(**{name: known[name] for name in names if name in known})


def confirmed(row: TrackRow, settings: MeasureSettings) -> TrackRow:
    """The row as a clinician agrees with it; an ambiguous one gets its growth now. A corrected row
    stays corrected: that says more."""
    if row.decision == "corrected":
        return row
    return _with_growth(replace(row, decision="confirmed"), settings)


def rejected(row: TrackRow) -> TrackRow:
    """The row as a clinician refuses it. It stays in the list, and is left out of the next one."""
    return replace(row, decision="rejected")


def corrected(
    row: TrackRow, center: Sequence[float], current: Volume, settings: MeasureSettings
) -> TrackRow:
    """The row with the nodule where a clinician put it in the current image (LPS mm, HU).

    It is measured there anew; marked voxels do not count any more, they belong to the old place.
    A nodule of the prior is *matched* then. Raises :class:`InputError` for a place outside.
    """
    place = as_point(center)
    if not current.grid.contains(np.array([place]))[0]:
        raise InputError("The corrected position lies outside the current image; place it inside.")
    distance = _distance(row.predicted_position, place)
    state = row.state if row.moving_center is None else "matched"
    identifier = row.fixed_identifier or row.identifier
    moved = replace(
        row,
        state=state,
        fixed_center=place,
        fixed_identifier=identifier,
        distance_mm=distance,
        decision="corrected",
    )
    return measured_row(moved, current, Nodule(row.name, place, identifier=identifier), settings)


def added(
    name: str,
    center: Sequence[float],
    moving_predicted: Sequence[float] | None,
    current: Volume,
    settings: MeasureSettings,
) -> TrackRow:
    """A *new* row for a nodule that a clinician marks in the current image (LPS mm, HU).

    ``moving_predicted``: where the field carries it in the prior image. It counts as confirmed.
    Raises :class:`InputError` for a place outside.
    """
    place, identifier = as_point(center), new_identifier()
    if not current.grid.contains(np.array([place]))[0]:
        raise InputError("The new nodule lies outside the current image; place it inside.")
    row = TrackRow(
        identifier,
        name,
        "new",
        fixed_center=place,
        moving_predicted=None if moving_predicted is None else as_point(moving_predicted),
        fixed_identifier=identifier,
        decision="confirmed",
    )
    return measured_row(row, current, Nodule(name, place, identifier=identifier), settings)


def carried_over(fresh: Tracking, earlier: Tracking) -> Tracking:
    """A new run of the same pair with the decisions of an earlier one, by identity.

    Corrected places and rejections stay. A confirmation stays unless the partner is another one
    now; the row then says so. Nodules that were added by hand stay unless they are marked now.
    """
    settings = measure_settings(fresh)
    before = {row.identifier: row for row in earlier}
    rows = [_decided(row, before.get(row.identifier), settings) for row in fresh]
    places = [row.fixed_center for row in rows if row.fixed_center is not None]
    present = {row.identifier for row in rows}
    for row in earlier:
        by_hand = row.state == "new" and row.decision in ("confirmed", "corrected")
        near = [_distance(row.fixed_center, place) for place in places]
        if by_hand and row.identifier not in present and not any(d <= _SAME_MM for d in near):
            rows.append(row)
    return replace(fresh, rows=tuple(rows))


def _decided(row: TrackRow, before: TrackRow | None, settings: MeasureSettings) -> TrackRow:
    """A row of the new run with what was decided about it before."""
    if before is None or before.decision == "open":
        return row
    if before.decision == "corrected":
        kept = replace(
            row,
            state=before.state,
            fixed_center=before.fixed_center,
            fixed_identifier=before.fixed_identifier,
            distance_mm=_distance(row.predicted_position, before.fixed_center),
            fixed_measurement=before.fixed_measurement,
            fixed_method=before.fixed_method,
            decision="corrected",
        )
        return _with_growth(kept, settings)
    if before.decision == "confirmed":
        if before.fixed_identifier != row.fixed_identifier:
            return replace(row, remarks=(*row.remarks, _OTHER_PARTNER))
        return confirmed(row, settings)
    return rejected(row)


def _with_growth(row: TrackRow, settings: MeasureSettings) -> TrackRow:
    """The row with the change between its two measurements; none where one is missing."""
    remarks = tuple(remark for remark in row.remarks if remark != _UNDECIDED)
    pair, change = (row.moving_measurement, row.fixed_measurement), None
    if None not in pair:
        change = growth(*pair, settings.days, settings.reference_thresholds)
    return replace(row, growth=change, remarks=remarks)


def _distance(one: Point | None, other: Point | None) -> float | None:
    """Millimeters between two points; None where one is missing."""
    if one is None or other is None:
        return None
    return float(np.linalg.norm(np.subtract(one, other)))
