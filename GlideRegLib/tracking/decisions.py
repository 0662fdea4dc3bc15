"""What a clinician decides about a tracked nodule.

Registration proposes; a row is confirmed, corrected, taken apart, rejected, or added. The functions
on rows come first, then those on the whole list, which keep prior and current nodules one to one.
Every function gives new rows and changes none. Measurements stay those of the native images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .measuring import MeasureSettings, measured_row
from .nodules import Nodule, as_point, new_identifier
from .partners import (
    alone,
    distance,
    given,
    holder_at,
    holder_of,
    with_growth,
    with_nodule,
    with_released,
)
from .records import Decision, Tracking, TrackRow


def measure_settings(tracking: Tracking) -> MeasureSettings:
    """The settings with which a tracking was measured, for rows that change later."""
    known = tracking.settings.get("measure") or {}
    names = MeasureSettings.__dataclass_fields__
    return MeasureSettings(**{name: known[name] for name in names if name in known})


# --- one row --------------------------------------------------------------------------------------


def decided_as(row: TrackRow) -> Decision:
    """The decision about a row, of a rejected one that before its rejection."""
    return row.rejected_from if row.decision == "rejected" else row.decision


def confirmed(row: TrackRow, settings: MeasureSettings) -> TrackRow:
    """The row as a clinician agrees with it; an ambiguous one gets its growth now. A corrected row
    stays corrected: that says more."""
    if decided_as(row) == "corrected":
        return replace(row, decision="corrected", rejected_from="open")
    return with_growth(replace(row, decision="confirmed", rejected_from="open"), settings)


def rejected(row: TrackRow) -> TrackRow:
    """The row as a clinician refuses it. It stays in the list, and is left out of the next one."""
    if row.decision == "rejected":
        return row
    return replace(row, decision="rejected", rejected_from=row.decision)


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
    identifier = row.fixed_identifier or row.identifier
    moved = replace(
        row,
        state=row.state if row.moving_center is None else "matched",
        fixed_center=place,
        fixed_identifier=identifier,
        distance_mm=distance(row.predicted_position, place),
        decision="corrected",
        rejected_from="open",
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
        by_hand=True,
    )
    return measured_row(row, current, Nodule(name, place, identifier=identifier), settings)


# --- the whole list -------------------------------------------------------------------------------


def confirm(tracking: Tracking, identifier: str) -> Tracking:
    """The list with a row confirmed. Raises KeyError for an unknown row, :class:`InputError` when
    it was rejected and its current nodule belongs to another row since."""
    row = confirmed(tracking.by_identifier(identifier), measure_settings(tracking))
    return _with_free(tracking, row)


def reject(tracking: Tracking, identifier: str) -> Tracking:
    """The list with a row rejected. Raises KeyError for an unknown row."""
    return tracking.with_row(rejected(tracking.by_identifier(identifier)))


def correct(
    tracking: Tracking, identifier: str, center: Sequence[float], current: Volume
) -> Tracking:
    """The list with a row's nodule where a clinician put it in the current image (LPS mm, HU).

    On another nodule of the list (within 3 mm of its center, or inside it) the row takes that
    nodule with its identity and its measurement; a prior nodule that had it is open again. A marked
    nodule that the row leaves becomes a *new* row. Raises KeyError for an unknown row,
    :class:`InputError` for a place outside or a nodule that was confirmed for another one.
    """
    settings, row = measure_settings(tracking), tracking.by_identifier(identifier)
    holder = holder_at(tracking.rows, as_point(center))
    if holder is None and row.moving_center is not None:
        empty = with_nodule(row, None, settings)
        rows = tracking.with_row(corrected(empty, center, current, settings)).rows
        return replace(tracking, rows=tuple(with_released(rows, row)))
    if holder is None or holder.identifier == identifier:
        return tracking.with_row(corrected(row, center, current, settings))
    if row.moving_center is None:
        raise InputError(f"That nodule has a row already, '{holder.name}'; reject this one.")
    if holder.moving_center is not None and holder.decision in ("confirmed", "corrected"):
        raise InputError(f"That nodule is {holder.decision} as '{holder.name}'; take that back.")
    taken = replace(row, state="matched", decision="corrected", rejected_from="open")
    taken = with_nodule(taken, holder, settings)
    return replace(tracking, rows=tuple(given(tracking.rows, taken, holder, settings)))


def separate(tracking: Tracking, identifier: str) -> Tracking:
    """The list with a pair taken apart: the prior nodule is *resolved*, the current one *new*.

    Raises KeyError for an unknown row, :class:`InputError` for a row that is no pair.
    """
    row = tracking.by_identifier(identifier)
    if row.moving_center is None or row.fixed_center is None:
        raise InputError("Only a row with a prior and a current nodule can be taken apart.")
    others = [other.identifier for other in tracking]
    rows = with_released(tracking.with_row(_resolved(row, tracking)).rows, row)
    if row.fixed_identifier == row.identifier:  # a person had put it there
        rows.append(replace(alone(rows, row, new_identifier()), by_hand=True))
    rows = [r if r.identifier in others else replace(r, decision="confirmed") for r in rows]
    return replace(tracking, rows=tuple(rows))


def _resolved(row: TrackRow, tracking: Tracking) -> TrackRow:
    lonely = with_nodule(row, None, measure_settings(tracking))
    return replace(lonely, state="resolved", decision="corrected", rejected_from="open")


def add(
    tracking: Tracking,
    name: str,
    center: Sequence[float],
    moving_predicted: Sequence[float] | None,
    current: Volume,
) -> tuple[Tracking, str]:
    """The list with a nodule that a clinician marks in the current image, and its identifier.

    See :func:`added`. The nodule of a rejected pair is taken as it was marked. One that has a row
    of its own already is not added again: that row's identifier is returned.
    """
    settings = measure_settings(tracking)
    holder = holder_at(tracking.rows, as_point(center))
    refused = holder is not None and holder.decision == "rejected"
    if holder is not None and holder.moving_center is None and not refused:
        return tracking, holder.identifier
    row = added(name, center, moving_predicted, current, settings)
    if holder is not None and refused and holder.moving_center is not None:
        row = with_nodule(row, holder, settings)
    elif holder is not None and not refused:
        row = replace(row, remarks=(*row.remarks, same_place(holder)))
    return replace(tracking, rows=(*tracking.rows, row)), row.identifier


def same_place(holder: TrackRow) -> str:
    """The remark at a row that marks the nodule of another one again."""
    return f"It lies where the current nodule of '{holder.name}' is."


def reopen(tracking: Tracking, proposal: Tracking, identifier: str) -> Tracking:
    """The list with the last decision about a row taken back.

    A rejected row is again what it was before; another one is as ``proposal`` has it (the list as
    the run left it), with the current nodules that it had given away. A row that was added by hand
    stays where it is. Raises KeyError for an unknown row, :class:`InputError` when the current
    nodule of a rejected row belongs to another row since.
    """
    from .carrying import carried_over

    row = tracking.by_identifier(identifier)
    if row.decision == "rejected":
        return _with_free(tracking, replace(row, decision=row.rejected_from, rejected_from="open"))
    opened = tracking.with_row(replace(row, decision="open"))
    proposed = {other.identifier: other for other in proposal}.get(identifier)
    if proposed is None:  # added by hand, or given away by another row
        return opened
    back = proposed.fixed_identifier if proposed.moving_center is not None else None
    kept = [
        other
        for other in opened
        if other.by_hand or other.moving_center is not None or other.fixed_identifier != back
    ]
    return carried_over(proposal, replace(opened, rows=tuple(kept)))


def _with_free(tracking: Tracking, row: TrackRow) -> Tracking:
    """The list with a row, whose current nodule no other row may have."""
    other = holder_of(tracking.rows, row)
    if other is not None:
        raise InputError(
            f"Its current nodule belongs to '{other.name}' now; reject that row first."
        )
    return tracking.with_row(row)
