"""What a clinician decides about a row, in the scene: table and markers follow, inputs stay."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..inputs import imageOf, worldMatrix
from . import markers, tables

if TYPE_CHECKING:
    from GlideRegLib.tracking.records import TrackRow
    from GlideRegLib.volume import Volume

#: Around a place, mm: what is cut out of the volume to be measured.
_REACH_MM = 60.0


def confirm(table, identifier: str) -> None:
    """The row is right. Raises KeyError for an unknown nodule."""
    from GlideRegLib.tracking.decisions import confirmed, measure_settings

    settings = measure_settings(tables.trackingOf(table))
    _change(table, identifier, lambda row: confirmed(row, settings))


def reject(table, identifier: str) -> None:
    """The row is wrong: it stays in the list, and its markers are hidden."""
    from GlideRegLib.tracking.decisions import rejected

    _change(table, identifier, rejected)


def reopen(table, identifier: str) -> None:
    """Takes a decision back: the row is again as it was proposed."""
    from dataclasses import replace

    try:
        proposed = tables.proposalOf(table).by_identifier(identifier)
    except KeyError:  # it was added by hand
        proposed = tables.trackingOf(table).by_identifier(identifier)
    _change(table, identifier, lambda row: replace(proposed, decision="open"))


def correct(table, identifier: str, position) -> None:
    """The nodule lies there in the current scan (world RAS mm); it is measured anew.

    Raises the library's InputError for a place outside the scan, KeyError for an unknown nodule.
    """
    from GlideRegLib.tracking.decisions import corrected, measure_settings

    place, volume = _placeAndVolume(table, position)
    settings = measure_settings(tables.trackingOf(table))
    _change(table, identifier, lambda row: corrected(row, place, volume, settings))


def add(table, position, name: str = "") -> str:
    """A new nodule at a place of the current scan (world RAS mm); returns its identifier.

    Raises the library's InputError for a place outside the scan.
    """
    from dataclasses import replace

    from GlideRegLib.tracking.decisions import added, measure_settings

    tracking = tables.trackingOf(table)
    place, volume = _placeAndVolume(table, position)
    names = {row.name for row in tracking}
    free = (f"New {k}" for k in range(1, len(tracking) + 2))
    name = name or next(candidate for candidate in free if candidate not in names)
    row = added(name, place, _placeInPrior(table, place), volume, measure_settings(tracking))
    tables.store(table, replace(tracking, rows=(*tracking.rows, row)))
    markers.refresh(table)
    return row.identifier


def takeFromMarker(table, identifier: str) -> None:
    """Corrects a row to where its marker in the current scan is now."""
    found = markers.markerOf(table, identifier)
    if found is not None:
        node, k = found
        correct(table, identifier, node.GetNthControlPointPositionWorld(k))


def _change(table, identifier: str, decide: Callable[["TrackRow"], "TrackRow"]) -> None:
    tracking = tables.trackingOf(table)
    row = decide(tracking.by_identifier(identifier))
    tables.store(table, tracking.with_row(row))
    markers.refresh(table)


def _placeInPrior(table, place: np.ndarray):
    """Where the transform carries a place of the current scan (LPS mm), or None."""
    from ..transforms import fixedToMoving, movingToFixed

    transform = table.GetNodeReference(tables.TRANSFORM)
    if transform is None:
        return None
    fixed = transform.GetNodeReference(transform.GetFixedNodeReferenceRole())
    swapped = fixed is not None and fixed is tables.volumesOf(table)[0]
    carry = movingToFixed if swapped else fixedToMoving
    return tuple(carry(transform, place[None])[0].tolist())


def _placeAndVolume(table, position) -> tuple[np.ndarray, "Volume"]:
    """A world RAS position in LPS mm, and the current scan around it."""
    from GlideRegLib.errors import InputError
    from GlideRegLib.geometry import flip_lps_ras

    current = tables.volumesOf(table)[1]
    if current is None:
        raise InputError("The current volume is gone from the scene; load it again.")
    return flip_lps_ras(np.asarray(position, dtype=float)), nativeVolume(current, position)


def nativeVolume(node, position) -> "Volume":
    """The part of a volume node around a world RAS position, as the library takes it.

    Raises InputError when the position lies outside, or a deforming transform is above the volume.
    """
    import slicer

    from GlideRegLib.errors import InputError
    from GlideRegLib.volume import Volume

    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        raise InputError("The current volume is under a deforming transform; take it away first.")
    array, matrix = slicer.util.arrayFromVolume(node), worldMatrix(node)
    index = (np.linalg.inv(matrix) @ [*np.asarray(position, dtype=float), 1.0])[:3]
    size = np.asarray(array.shape[::-1])
    if (index < -0.5).any() or (index > size - 0.5).any():
        raise InputError("The place lies outside the current scan; choose one inside.")
    reach = np.ceil(_REACH_MM / np.linalg.norm(matrix[:3, :3], axis=0))
    low = np.clip(np.floor(index - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(index + reach) + 1, 1, size).astype(int)
    part = array[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]
    moved = matrix.copy()
    moved[:3, 3] = (matrix @ [*low, 1.0])[:3]
    volume = Volume.from_sitk(imageOf(np.ascontiguousarray(part), moved))
    return Volume(volume.array.astype(np.float32), volume.grid)
