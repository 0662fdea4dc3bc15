"""How decisions outlive the next run: each only as long as it is about the same thing.

A decision is carried over by the identity of its row, if the row still says what was decided: the
same prior nodule at its place, the same current one at its place, the same state. Otherwise the row
is open, and a remark says what was decided before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .decisions import confirmed, decided_as, measure_settings, rejected, same_place
from .measuring import MeasureSettings
from .partners import (
    SAME_MM,
    distance,
    given,
    holder_at,
    reach_mm,
    with_nodule,
    with_released,
)
from .records import Tracking, TrackRow

#: A nodule was taken as it is marked when its place is that of the mark, up to rounding, mm.
_EXACT_MM = 0.01
_WAS_NEW = "Before this run its current nodule was confirmed as new: look again."


def carried_over(fresh: Tracking, earlier: Tracking) -> Tracking:
    """A new run of the same pair with the decisions of an earlier list, by identity.

    Corrections are set first, because they change which row has which current nodule. Nodules that
    were added by hand stay. Where one is marked now, it keeps its identity and its decision.
    """
    settings = measure_settings(fresh)
    before = {row.identifier: row for row in earlier}
    rows = list(fresh.rows)
    # Rejected rows hold their nodule back from nobody, so they come after all others.
    for old in sorted(earlier, key=lambda row: row.decision == "rejected"):
        if decided_as(old) == "corrected":
            rows = _with_correction(rows, old, earlier, settings)
    rows = [_decided(row, before.get(row.identifier), settings) for row in rows]
    return replace(fresh, rows=tuple(_with_added(rows, earlier)))


# --- corrections ----------------------------------------------------------------------------------


def _with_correction(
    rows: list[TrackRow], old: TrackRow, earlier: Tracking, settings: MeasureSettings
) -> list[TrackRow]:
    """The rows with one that was corrected before, and what that does to the others."""
    row = next((row for row in rows if row.identifier == old.identifier), None)
    if row is None:
        return rows
    if not _same_prior(row, old) or not _foreseen(row, old, earlier):
        return [_asked_again(row, old) if other is row else other for other in rows]
    target = None
    if old.fixed_center is not None and row.moving_center is not None:
        target = _target(rows, old)
    source = old if target is None or _moved(old, target) else target
    if target is not None:
        source = replace(source, fixed_identifier=target.fixed_identifier)
    done = replace(row, state=old.state, decision=old.decision, rejected_from=old.rejected_from)
    done = with_nodule(done, source, settings)
    if target is not None and target is not row:
        return given(rows, done, target, settings)
    replaced = [done if other is row else other for other in rows]
    own = target is row or row.moving_center is None
    return replaced if own else with_released(replaced, row)


def _target(rows: Sequence[TrackRow], old: TrackRow) -> TrackRow | None:
    """The row of the marked nodule onto which a row was corrected; None for a free place."""
    for row in rows:
        marked = row.fixed_identifier == old.fixed_identifier != old.identifier
        away = distance(row.fixed_center, old.fixed_center)
        if marked and away is not None and away <= reach_mm(row):
            return row
    return holder_at(rows, old.fixed_center)


def _moved(old: TrackRow, target: TrackRow) -> bool:
    """Whether a person had put the row beside the mark, and not onto it."""
    away = distance(old.fixed_center, target.fixed_center)
    return old.fixed_method != "marked" and away is not None and away > _EXACT_MM


def _foreseen(row: TrackRow, old: TrackRow, earlier: Tracking) -> bool:
    """Whether the nodule that is proposed for a corrected row was known when it was corrected."""
    if row.fixed_center is None or row.moving_center is None:
        return True
    away = distance(old.fixed_center, row.fixed_center)
    if away is not None and away <= reach_mm(row):
        return True
    return any(
        other.fixed_identifier == row.fixed_identifier
        or _near(other.fixed_center, row.fixed_center)
        for other in earlier
        if other.fixed_center is not None
    )


# --- confirmations and rejections -----------------------------------------------------------------


def _decided(row: TrackRow, old: TrackRow | None, settings: MeasureSettings) -> TrackRow:
    """A row of the new run, open, with what was decided about it before."""
    if old is None or old.decision == "open" or decided_as(old) == "corrected":
        return row
    if not _agrees(row, old):
        return _asked_again(row, old)
    if decided_as(old) == "confirmed":
        row = confirmed(row, settings)
    return rejected(row) if old.decision == "rejected" else row


def _agrees(row: TrackRow, old: TrackRow) -> bool:
    """Whether a row still says what was decided about it.

    A decision about a pair is one about two nodules, however far the field places them apart;
    unless there is a second candidate now, which nobody has seen.
    """
    same_partner = row.fixed_identifier == old.fixed_identifier
    places = (row.fixed_center, old.fixed_center)
    if row.state == "predicted":
        places = (row.predicted_position, old.predicted_position)
    pair = None not in (row.moving_center, row.fixed_center)
    same_state = row.state == old.state or (pair and row.state != "ambiguous")
    return same_partner and same_state and _same_prior(row, old) and _near(*places)


def _same_prior(row: TrackRow, old: TrackRow) -> bool:
    """Whether the row's place in the prior is the one it was: as marked, else as predicted."""
    places = (row.moving_position, old.moving_position)
    return None in places or _near(*places)


def _near(one: tuple | None, other: tuple | None) -> bool:
    """Whether two places mean the same nodule; two that are missing do."""
    away = distance(one, other)
    return one is other is None if away is None else away <= SAME_MM


def _asked_again(row: TrackRow, old: TrackRow) -> TrackRow:
    """The row, open, with a remark on what was decided before."""
    was = f"Before this run it was {old.decision}"
    if decided_as(old) == "corrected" and old.fixed_center is not None:
        was += " to LPS ({:.1f}, {:.1f}, {:.1f}) mm".format(*old.fixed_center)
    if not _same_prior(row, old):
        was += ", but its place in the prior is another one now"
    elif None not in (row.fixed_center, old.fixed_center):
        was += " with another current nodule"
    else:
        was += f" as '{old.state}'"
    return replace(row, remarks=(*row.remarks, f"{was}: look again."))


# --- rows of the current image alone --------------------------------------------------------------


def _with_added(rows: list[TrackRow], earlier: Tracking) -> list[TrackRow]:
    """The rows with those that were added by hand or confirmed as new, and are in no row now."""
    rows = list(rows)
    for old in earlier:
        lone = old.moving_center is None and old.fixed_center is not None
        kept = old.by_hand or old.decision in ("confirmed", "corrected")
        if not (lone and kept) or any(row.identifier == old.identifier for row in rows):
            continue
        holder = _holder(rows, old)
        if holder is None or "rejected" in (holder.decision, old.decision):
            rows.append(old)
        elif holder.moving_center is None and holder.decision == "open":
            same = {"identifier": old.identifier, "name": old.name, "by_hand": old.by_hand}
            merged = replace(holder, decision=old.decision, **same)
            rows = [merged if row is holder else row for row in rows]
        elif old.by_hand:
            others = [remark for remark in old.remarks if remark != same_place(holder)]
            rows.append(replace(old, remarks=(*others, same_place(holder))))
        else:
            said = replace(holder, remarks=(*holder.remarks, _WAS_NEW))
            rows = [said if row is holder else row for row in rows]
    return rows


def _holder(rows: Sequence[TrackRow], old: TrackRow) -> TrackRow | None:
    """The row that has the nodule of a row of the current image alone."""
    for row in rows:
        if row.fixed_identifier == old.fixed_identifier and row.decision != "rejected":
            return row
    return holder_at(rows, old.fixed_center)
