"""What a clinician decides about a row, in the scene: table and markers follow, inputs stay."""

from typing import TYPE_CHECKING

import numpy as np

from ..inputs import imageOf, worldMatrix
from . import markers, segments, tables

if TYPE_CHECKING:
    from GlideRegLib.tracking.records import Tracking
    from GlideRegLib.volume import Volume

#: Around a place, mm: what is cut out of the volume to be measured.
_REACH_MM = 60.0


def confirm(table, identifier: str) -> None:
    """The row is right. Raises KeyError for an unknown nodule, the library's InputError for a
    rejected one whose current nodule belongs to another row since."""
    from GlideRegLib.tracking.decisions import confirm as decide

    _keep(table, decide(tables.trackingOf(table), identifier))


def reject(table, identifier: str) -> None:
    """The row is wrong: it stays in the list, and its markers are hidden."""
    from GlideRegLib.tracking.decisions import reject as decide

    _keep(table, decide(tables.trackingOf(table), identifier))


def separate(table, identifier: str) -> None:
    """The pair is none: its prior nodule is resolved, and its current one is new.

    Raises the library's InputError for a row that is no pair, KeyError for an unknown nodule.
    """
    from GlideRegLib.tracking.decisions import separate as decide

    _keep(table, decide(tables.trackingOf(table), identifier))


def reopen(table, identifier: str) -> None:
    """Takes the last decision back: a rejected row is as it was before, another one as proposed.

    Raises as :func:`confirm` does.
    """
    from GlideRegLib.tracking.decisions import reopen as decide

    _keep(table, decide(tables.trackingOf(table), tables.proposalOf(table), identifier))


def correct(table, identifier: str, position) -> None:
    """The nodule lies there in the current scan (world RAS mm); it is measured anew. On another
    nodule of the table the row takes that one.

    Raises the library's InputError for a place outside the scan or a nodule that was confirmed for
    another row, KeyError for an unknown nodule.
    """
    from GlideRegLib.tracking.decisions import correct as decide

    place, volume = _placeAndVolume(table, position)
    _keep(table, decide(tables.trackingOf(table), identifier, place, volume))


def add(table, position, name: str = "") -> str:
    """A new nodule at a place of the current scan (world RAS mm); returns its identifier, or that
    of the row of its own that it has already.

    Raises the library's InputError for a place outside the scan.
    """
    from GlideRegLib.tracking.decisions import add as decide

    tracking = tables.trackingOf(table)
    place, volume = _placeAndVolume(table, position)
    names = {row.name for row in tracking}
    free = (f"New {k}" for k in range(1, len(tracking) + 2))
    name = name or next(candidate for candidate in free if candidate not in names)
    changed, identifier = decide(tracking, name, place, None, volume)
    _keep(table, changed)
    return identifier


def takeFromMarker(table, identifier: str) -> None:
    """Corrects a row to where its marker in the current scan is now."""
    found = markers.markerOf(table, identifier)
    if found is not None:
        node, k = found
        correct(table, identifier, node.GetNthControlPointPositionWorld(k))


def _keep(table, tracking: "Tracking") -> None:
    tables.store(table, withPlacesInPrior(table, tracking))
    segments.refresh(table, tracking)
    markers.refresh(table)


def withPlacesInPrior(table, tracking: "Tracking") -> "Tracking":
    """The rows; those that are in the current scan alone know their place in the prior, too."""
    from dataclasses import replace

    for row in tracking:
        if row.moving_position is None and row.fixed_center is not None:
            place = _placeInPrior(table, np.asarray(row.fixed_center))
            tracking = tracking.with_row(replace(row, moving_predicted=place))
    return tracking


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
