"""From the worker's files to new nodes, all of them or none."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from ..nodes import CreatedNodes, activeListKept, isInScene
from .files import readPoints
from .request import CollectedPropagation, PropagateRequest

#: Marks nodes that were carried, and says how: JSON.
ATTRIBUTE = "GlideReg.Propagated"
SOURCE_ROLE = "GlideRegPropagatedFrom"
TRANSFORM_ROLE = "GlideRegPropagatedThrough"


@dataclass
class PropagatedFiles:
    """The worker's output by file name (images and points), and its ``propagation.json``."""

    carried: dict
    report: dict


@dataclass
class PropagatedNodes:
    """What a finished propagation put into the scene: ``nodes`` in the order of the request,
    ``notes`` for the user, and everything that was ``created`` (also display nodes)."""

    nodes: list
    notes: list[str] = field(default_factory=list)
    report: dict = field(default_factory=dict)
    created: list = field(default_factory=list)

    def undo(self) -> None:
        """Takes everything out of the scene again that is still there."""
        for node in reversed(self.created):
            if isInScene(node):
                node.GetScene().RemoveNode(node)


def readPropagation(folder: Path) -> PropagatedFiles:
    """Reads what the worker wrote, in any thread. Raises OSError, RuntimeError or ValueError."""
    report = json.loads((folder / "propagation.json").read_text(encoding="utf-8"))
    carried = {path.name: sitk.ReadImage(str(path)) for path in folder.glob("*.mha")}
    carried.update({path.name: readPoints(path) for path in folder.glob("*.ply")})
    return PropagatedFiles(carried, report)


def importPropagation(
    request: PropagateRequest, files: PropagatedFiles, inputs: CollectedPropagation
) -> PropagatedNodes:
    """New nodes beside the target volume. Raises InputError when a node was removed meanwhile."""
    from GlideRegLib.errors import InputError

    if not all(isInScene(node) for node in (request.target, *request.nodes)):
        raise InputError("A node was removed during the run; nothing was carried.")
    scene = request.target.GetScene()
    result = PropagatedNodes([], report=files.report)
    entries = _entriesByFile(inputs, files.report)
    with CreatedNodes(scene) as created, activeListKept(scene):
        for item in inputs.items:
            name = f"{item.node.GetName()} on {request.target.GetName()}"
            new = created.add(item.node.GetClassName(), name, unique=True)
            item.build(new, [files.carried[file.name] for file in item.files], request)
            mine = [entries[file.name] for file in item.files]
            _mark(new, item.node, request, files.report, mine)
            created.moveBeside(request.target, new)
            result.nodes.append(new)
            result.notes += item.notes(mine, request)
        result.notes += _notes(inputs, files.report)
        result.created = list(created.nodes)
    return result


def _notes(inputs: CollectedPropagation, report: dict) -> list[str]:
    """What the user has to know about the transform."""
    found = [inputs.note] if inputs.note else []
    inverse = report["transform"]["inverse_error_mm"]
    if inverse is not None and inverse["beyond"]:
        share = 100 * inverse["beyond"] / inverse["n"]
        found.append(
            f"The inverse that voxels go through is off by more than 0.1 mm at {share:.2g} % of "
            f"the places that were tested, by {inverse['max']:.1f} mm at most."
        )
    return found


def _entriesByFile(inputs: CollectedPropagation, report: dict) -> dict[str, dict]:
    """What the report says about each file: it counts them by their kind."""
    found, counts = {}, {}
    by_number = {(entry["kind"], entry["number"]): entry for entry in report["items"]}
    for item in inputs.items:
        for file in item.files:
            counts[file.kind] = counts.get(file.kind, 0) + 1
            found[file.name] = by_number[file.kind, counts[file.kind]]
    return found


def _mark(new, node, request: PropagateRequest, report: dict, entries: list[dict]) -> None:
    """Where a node comes from, and how: it stays with the scene."""
    own = entries or [{}]  # points say for themselves what voxels share
    inverse = own[0].get("inverse_error_mm", report["transform"]["inverse_error_mm"])
    said = {"direction": report["direction"], "versions": report["versions"]}
    said["smooth"] = request.smooth
    said["inverse_error_mm"] = inverse
    new.SetAttribute(ATTRIBUTE, json.dumps(said))
    new.SetNodeReferenceID(SOURCE_ROLE, node.GetID())
    new.SetNodeReferenceID(TRANSFORM_ROLE, request.transform.GetID())
    new.SetDescription("Carried over by a registration. Research use only.")
