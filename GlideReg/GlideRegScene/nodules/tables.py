"""The table node of a tracking: one row per nodule to read, and everything else as an attribute.

The attribute holds the library's ``Tracking`` as JSON; the columns are made from it. Both are saved
with the scene, and so are the decisions.
"""

import json
from typing import TYPE_CHECKING

import slicer
import vtk

from ..nodes import isInScene

if TYPE_CHECKING:
    from GlideRegLib.tracking.growth import Growth
    from GlideRegLib.tracking.measures import Measurement
    from GlideRegLib.tracking.records import Tracking, TrackRow

#: Attributes of the table node: the rows as they are, as they were proposed, and which point of
#: the user's lists each nodule was ({"prior": {point ID: identifier}, "current": ...}).
ATTRIBUTE = "GlideReg.Nodules"
PROPOSED = "GlideReg.ProposedNodules"
POINTS = "GlideReg.NodulePoints"
PRIOR_VOLUME, CURRENT_VOLUME = "GlideRegPriorVolume", "GlideRegCurrentVolume"
PRIOR_NODULES, CURRENT_NODULES = "GlideRegPriorNodules", "GlideRegCurrentNodules"
TRANSFORM = "GlideRegTransform"
NOTICE = "Nodules of two scans. Research use only. Not a medical device."


def isNoduleTable(node) -> bool:
    """Whether a node is the table of a tracking of this module."""
    return node is not None and node.GetAttribute(ATTRIBUTE) is not None


def trackingOf(table) -> "Tracking":
    """The rows of a table node as the library's Tracking.

    Raises the library's InputError when it is no such table, or a damaged one.
    """
    return _read(table, ATTRIBUTE)


def proposalOf(table) -> "Tracking":
    """The rows as the last run proposed them, before anybody decided."""
    return _read(table, PROPOSED)


def _read(table, attribute: str) -> "Tracking":
    from GlideRegLib.errors import InputError
    from GlideRegLib.tracking.records import Tracking

    text = table.GetAttribute(attribute) if table is not None else None
    if text is None:
        raise InputError("This table holds no tracked nodules; choose one that Track has made.")
    try:
        return Tracking.from_dict(json.loads(text))
    except ValueError as error:
        raise InputError("The table of nodules is damaged; track the nodules again.") from error


def store(table, tracking: "Tracking") -> None:
    """Writes the rows into the table node: the attribute and the columns."""
    with slicer.util.NodeModify(table):
        table.SetAttribute(ATTRIBUTE, json.dumps(tracking.to_dict()))
        table.SetAndObserveTable(_columns(tracking))
        table.SetLocked(True)
        table.SetDescription(NOTICE)
        table.Modified()


def storeProposal(table, tracking: "Tracking", points: dict[str, dict[str, str]]) -> None:
    """Keeps what the run proposed, and which point each nodule was."""
    table.SetAttribute(PROPOSED, json.dumps(tracking.to_dict()))
    table.SetAttribute(POINTS, json.dumps(points))


def volumesOf(table) -> tuple:
    """The prior and the current volume node of a table; None for one that was removed."""
    nodes = (table.GetNodeReference(role) for role in (PRIOR_VOLUME, CURRENT_VOLUME))
    return tuple(node if isInScene(node) else None for node in nodes)


def reusable(table, prior, current):
    """The table when it is about these two volumes, in these roles, else None."""
    ours = isInScene(table) and isNoduleTable(table)
    return table if ours and volumesOf(table) == (prior, current) else None


def knownNodules(table, when: str, node, places: list[tuple[str, tuple]] | None) -> list[list]:
    """Identifier and present place (LPS mm) of the nodules of a list ("prior" or "current") that
    an earlier run of the same two volumes has seen (see :func:`reusable`).

    ``places`` are the points that are there now; a point keeps its identity wherever it was moved.
    Voxels are known by where they were.
    """
    role = PRIOR_NODULES if when == "prior" else CURRENT_NODULES
    if places is not None and table.GetNodeReference(role) is node:
        ids = json.loads(table.GetAttribute(POINTS) or "{}").get(when, {})
        return [[ids[key], list(place)] for key, place in places if key in ids]
    side = "moving" if when == "prior" else "fixed"
    rows = ((getattr(r, f"{side}_identifier"), getattr(r, f"{side}_center")) for r in _seen(table))
    return [[key, list(place)] for key, place in rows if key and place is not None]


def nodulesAfter(table, prior) -> list[list]:
    """Track and place (LPS mm) of the nodules that a table of earlier scans leaves in ``prior``,
    which was its current volume: so identities go on. Empty for a table of other volumes."""
    if not (isInScene(table) and isNoduleTable(table)) or prior is not volumesOf(table)[1]:
        return []
    left = trackingOf(table).current_nodules()
    return [[nodule.identifier, list(nodule.center)] for nodule in left if nodule.located]


def _seen(table) -> "Tracking":
    from GlideRegLib.errors import InputError

    try:
        return proposalOf(table)
    except InputError:
        return trackingOf(table)


# --- columns --------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """A number as it stands in the tables; "" for one that is not known."""
    if value is None:
        return ""
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _columns(tracking: "Tracking") -> vtk.vtkTable:
    table = vtk.vtkTable()
    cells = [_cells(row, tracking.days) for row in tracking]
    for title in _cells(None, None):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for row in cells:
            column.InsertNextValue(row[title])
        table.AddColumn(column)
    return table


def _cells(row: "TrackRow | None", days: float | None) -> dict[str, str]:
    """The cells of one row by the titles of their columns; positions are RAS mm, as in Slicer.

    A doubling time that is to be read with reserve stands in brackets.
    """
    prior, current = row and row.moving_measurement, row and row.fixed_measurement
    change = row and row.growth
    cells = {
        "Nodule": (row and row.name) or "(no name)",
        "State": row and row.state,
        "Decision": row and row.decision,
        "Distance (mm)": number(row and row.distance_mm),
        "Expected error (mm)": number(row and row.uncertainty_mm),
        "Prior diameter (mm)": number(prior and prior.mean_diameter_mm),
        "Current diameter (mm)": number(current and current.mean_diameter_mm),
        **_measures("Prior", prior),
        **_measures("Current", current),
        "Days apart": number(row and days, 0),
        "Volume change (%)": change and change.volume_change_text,
        "Doubling time (days)": _doublingTime(change),
        "Doubling time range (days)": doublingRange(change),
        "Read with reserve": "; ".join(change.greyed) if change else "",
        "Prior position (RAS mm)": _ras(row and row.moving_position),
        "Current position (RAS mm)": _ras(row and row.fixed_position),
        "Remarks": row and " ".join(row.remarks),
        "Track": row and row.identifier,
    }
    return {title: text or "" for title, text in cells.items()}


def _measures(time: str, found: "Measurement | None") -> dict[str, str]:
    return {
        f"{time} long diameter (mm)": number(found and found.long_diameter_mm),
        f"{time} short diameter (mm)": number(found and found.short_diameter_mm),
        f"{time} volume (mm3)": number(found and found.volume_mm3, 0),
        f"{time} mean HU": number(found and found.mean_hu, 0),
        f"{time} mass (mg)": number(found and found.mass_mg, 0),
    }


def _doublingTime(change: "Growth | None") -> str:
    text = number(change and change.doubling_time_days, 0)
    return f"({text})" if text and change.greyed else text


def doublingRange(change: "Growth | None") -> str:
    """The shortest and the longest doubling time that ±25 % volume error allows, in words."""
    if change is None or change.doubling_time_range_days is None:
        return ""
    words = [number(days, 0) or "no doubling" for days in change.doubling_time_range_days]
    return words[0] if words[0] == words[1] else " to ".join(words)


def _ras(point) -> str:
    from GlideRegLib.geometry import flip_lps_ras

    return "" if point is None else " ".join(f"{v:.1f}" for v in flip_lps_ras(point))
