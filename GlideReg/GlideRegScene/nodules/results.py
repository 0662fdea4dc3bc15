"""From the worker's nodules.json to nodes: table and markers, all of it or nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..nodes import CreatedNodes, isInScene
from ..results import FOLDER
from . import decisions, markers, segments, tables
from .request import CollectedNodules, TrackRequest

if TYPE_CHECKING:
    from GlideRegLib.tracking.records import Tracking

#: A row is that of a given point when its center is the point, up to rounding in files, mm.
_SAME_MM = 0.01


@dataclass
class NoduleNodes:
    """What a finished tracking put into the scene."""

    table: object
    tracking: "Tracking"
    created: list = field(default_factory=list)


def readNodules(folder: Path) -> "Tracking":
    """Reads what the worker wrote, in any thread: rows with the voxels that were measured.

    Raises the library's InputError.
    """
    from GlideRegLib.tracking.files import read_tracking
    from GlideRegLib.tracking.masks import with_masks

    return with_masks(read_tracking(folder / "nodules.json"), folder)


def importNodules(
    request: TrackRequest, tracking: "Tracking", inputs: CollectedNodules
) -> NoduleNodes:
    """Puts a finished tracking into the scene. An existing table of the same two volumes is filled
    anew, and what was decided in it stays. Raises InputError when an input was removed meanwhile.
    """
    from GlideRegLib.errors import InputError
    from GlideRegLib.tracking.carrying import carried_over

    prior, current = request.priorVolume, request.currentVolume
    if not isInScene(prior) or not isInScene(current):
        raise InputError("A volume was removed during the run; its nodules were dropped.")
    scene, rows = prior.GetScene(), tracking
    with CreatedNodes(scene) as created:
        table = tables.reusable(request.table, prior, current)
        if table is not None:
            rows = carried_over(tracking, tables.trackingOf(table))
        else:
            name = f"Nodules {prior.GetName()} to {current.GetName()}"
            table = created.add("vtkMRMLTableNode", name, unique=True)
            created.moveInto(_folder(request, table.GetName(), created), table)
        _setReferences(table, request)
        tables.storeProposal(table, tracking, _identities(tracking, inputs))
        rows = decisions.withPlacesInPrior(table, rows)
        tables.store(table, rows)
        segments.importSegments(table, tracking)
        markers.refresh(table)
        return NoduleNodes(table, rows, list(created.nodes))


def _folder(request: TrackRequest, name: str, created: CreatedNodes) -> int:
    """The folder of the registration, else one of our own beside the current volume."""
    folder = created.folderOf(request.transform, FOLDER)
    return folder or created.addFolder(f"{FOLDER}{name}", request.currentVolume)


def _setReferences(table, request: TrackRequest) -> None:
    references = (
        (tables.PRIOR_VOLUME, request.priorVolume),
        (tables.CURRENT_VOLUME, request.currentVolume),
        (tables.PRIOR_NODULES, request.priorNodules),
        (tables.CURRENT_NODULES, request.currentNodules),
        (tables.TRANSFORM, request.transform),
    )
    for role, node in references:
        table.SetNodeReferenceID(role, node.GetID() if isInScene(node) else None)


def _identities(tracking: "Tracking", inputs: CollectedNodules) -> dict[str, dict[str, str]]:
    """Which identifier each given point got: {"prior": {point ID: identifier}, "current": ...}."""
    found: dict[str, dict[str, str]] = {}
    for when, side in (("prior", "moving"), ("current", "fixed")):
        rows = [r for r in tracking if getattr(r, f"{side}_center") is not None]
        found[when] = {}
        for key, place in inputs.points.get(when, ()):
            for row in rows:
                if np.linalg.norm(np.subtract(getattr(row, f"{side}_center"), place)) < _SAME_MM:
                    found[when][key] = getattr(row, f"{side}_identifier")
    return found
