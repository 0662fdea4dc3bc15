"""Markers of tracked nodules: one point list per scan and state, in the color of the state.

Each point carries the nodule's identity as its description, and its volume as associated node.
They follow the table: whatever is decided there, is drawn here. The user's own lists stay as they
are.
"""

from typing import TYPE_CHECKING

import slicer
import vtk

from ..nodes import CreatedNodes, activeListKept, isInScene
from ..results import FOLDER
from . import tables, views

if TYPE_CHECKING:
    from GlideRegLib.tracking.records import TrackRow

#: State -> color of its markers, of its name in the panel, and of nothing else.
COLORS = {
    "matched": (0.20, 0.75, 0.35),
    "review": (0.95, 0.75, 0.10),
    "ambiguous": (0.98, 0.50, 0.10),
    "new": (0.15, 0.65, 0.95),
    "resolved": (0.72, 0.45, 0.90),
    "outside field of view": (0.60, 0.62, 0.66),
    "predicted": (0.40, 0.85, 0.85),
}
TIMES = ("prior", "current")
_ROLE = "GlideRegMarkers"
_SIZE_MM = 7.0
TIME, STATE = "GlideReg.NoduleTime", "GlideReg.NoduleState"


def refresh(table) -> None:
    """Draws the rows of a table anew: nodes are filled, made or removed as states need them."""
    tracking, scene = tables.trackingOf(table), table.GetScene()
    volumes = dict(zip(TIMES, tables.volumesOf(table), strict=True))
    with CreatedNodes(scene) as created, activeListKept(scene):
        views.ensureViews(scene)
        for time in TIMES:
            for state in COLORS:
                rows = [r for r in tracking if r.state == state and _place(r, time) is not None]
                node = markersOf(table, time, state)
                if not rows:
                    if node is not None:
                        _remove(node)
                    continue
                if node is None:
                    node = _made(table, time, state, created)
                _fill(node, rows, time, volumes[time])
    views.assignViews(table)


def markersOf(table, time: str, state: str):
    """The list of markers of one scan ("prior", "current") and state, or None."""
    node = table.GetNodeReference(_role(time, state))
    return node if isInScene(node) else None


def allMarkers(table, time: str) -> list:
    """Every list of markers of one scan."""
    found = (markersOf(table, time, state) for state in COLORS)
    return [node for node in found if node is not None]


def markerOf(table, identifier: str, time: str = "current") -> tuple[object, int] | None:
    """The list and the index of the marker of a nodule, or None."""
    for node in allMarkers(table, time):
        for k in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointDescription(k) == identifier:
                return node, k
    return None


def unlock(table, identifier: str | None) -> None:
    """Lets the marker of one nodule be moved in the current scan, and no other (None: none)."""
    for time in TIMES:
        for node in allMarkers(table, time):
            for k in range(node.GetNumberOfControlPoints()):
                free = time == "current" and node.GetNthControlPointDescription(k) == identifier
                node.SetNthControlPointLocked(k, not free)


def _place(row: "TrackRow", time: str):
    return row.moving_position if time == "prior" else row.fixed_position


def _role(time: str, state: str) -> str:
    return f"{_ROLE}{time.capitalize()}{state.title().replace(' ', '')}"


def _made(table, time: str, state: str, created: CreatedNodes):
    """A new list in the folder of the table."""
    node = created.add("vtkMRMLMarkupsFiducialNode", f"{state.capitalize()}, {time} nodules")
    node.SetAttribute(TIME, time)
    node.SetAttribute(STATE, state)
    node.SetDescription(tables.NOTICE)
    _addDisplays(node, COLORS[state], created)
    table.SetNodeReferenceID(_role(time, state), node.GetID())
    folder = created.folderOf(table, FOLDER)
    if folder:
        created.moveInto(folder, node)
    return node


def _addDisplays(node, color: tuple, created: CreatedNodes) -> None:
    """A cross with an open center in slices, where it must not hide the nodule; a ball in 3-D."""
    node.CreateDefaultDisplayNodes()  # the logic may have made it already
    second = created.add("vtkMRMLMarkupsFiducialDisplayNode", f"{node.GetName()}, 3-D display")
    node.AddAndObserveDisplayNodeID(second.GetID())
    for in3D, display in ((False, node.GetDisplayNode()), (True, second)):
        display.SetSelectedColor(*color)
        display.SetColor(*color)
        display.SetActiveColor(*color)
        display.SetGlyphTypeFromString("Sphere3D" if in3D else "CrossDot2D")
        display.SetUseGlyphScale(False)
        display.SetGlyphSize(_SIZE_MM)
        display.SetTextScale(3.0)
        display.SetPointLabelsVisibility(True)
        display.SetVisibility2D(not in3D)
        display.SetVisibility3D(in3D)
        display.SetOccludedVisibility(in3D)
        display.SetOccludedOpacity(0.5)


def _remove(node) -> None:
    """A list with its display nodes, which nobody else has."""
    scene = node.GetScene()
    for display in [node.GetNthDisplayNode(k) for k in range(node.GetNumberOfDisplayNodes())]:
        scene.RemoveNode(display)
    scene.RemoveNode(node)


def _fill(node, rows: list["TrackRow"], time: str, volume) -> None:
    """The points of a list: rejected nodules are kept, and not drawn."""
    from GlideRegLib.geometry import flip_lps_ras

    with slicer.util.NodeModify(node):
        node.RemoveAllControlPoints()
        for row in rows:
            place = flip_lps_ras(_place(row, time)).tolist()
            k = node.AddControlPointWorld(vtk.vtkVector3d(*place), row.name)
            node.SetNthControlPointDescription(k, row.identifier)
            node.SetNthControlPointLocked(k, True)
            node.SetNthControlPointVisibility(k, row.decision != "rejected")
            if volume is not None:
                node.SetNthControlPointAssociatedNodeID(k, volume.GetID())
