"""Two scans at once: a click on a nodule moves every view to it, each in its own image.

The layout shows prior, warped prior and current side by side in three planes. Its nine views are
nodes of their own, so the usual slice views and what they show stay as they were.
"""

import numpy as np
import slicer

from ..display import OWN_VIEWS, compositeNodes, isOwnView
from ..nodes import isInScene
from ..results import WARPED_ROLE
from . import tables

COLUMNS = ("Prior", "Warped", "Current")
PLANES = ("Axial", "Coronal", "Sagittal")
#: The number under which Slicer keeps our layout; those of Slicer and its extensions are others.
LAYOUT = 50751
#: Width of what the nine views show, mm: a nodule and what is around it.
FIELD_OF_VIEW_MM = 110.0
_COLORS = {"Prior": "#8c6bb1", "Warped": "#5b8db8", "Current": "#41ab5d"}


def viewName(column: str, plane: str) -> str:
    """The layout name of one of the nine views."""
    return f"{OWN_VIEWS}{column}{plane}"


def layoutDescription() -> str:
    """The layout as Slicer reads it: rows of planes, columns prior, warped prior, current."""
    rows = ""
    for plane in PLANES:
        cells = ""
        for column in COLUMNS:
            properties = (
                ("orientation", plane),
                ("viewlabel", f"{column} {plane[0]}"),
                ("viewcolor", _COLORS[column]),
            )
            inside = "".join(
                f'<property name="{n}" action="default">{v}</property>' for n, v in properties
            )
            name = viewName(column, plane)
            cells += (
                f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">{inside}</view></item>'
            )
        rows += f'<item><layout type="horizontal" split="true">{cells}</layout></item>'
    return f'<layout type="vertical" split="true">{rows}</layout>'


def ensureViews(scene) -> None:
    """Adds the nodes of the nine views where they are missing."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    for column in COLUMNS:
        for plane in PLANES:
            name = viewName(column, plane)
            if scene.GetSingletonNode(name, "vtkMRMLSliceNode") is None:
                node = scene.CreateNodeByClass("vtkMRMLSliceNode")
                node.UnRegister(None)
                node.SetName(name)
                node.SetLayoutName(name)
                node.SetSingletonTag(name)
                scene.AddNode(node)
                node.SetOrientation(plane)
            if scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode") is None:
                composite = slicer.vtkMRMLSliceCompositeNode()
                composite.SetLayoutName(name)
                composite.SetSingletonTag(name)
                scene.AddNode(composite)


def showComparison(table) -> int | None:
    """Shows prior, warped prior and current side by side; the layout that was shown before.

    None where there is no layout (no desktop). The warped prior needs a transform that a
    registration of this module made; its column stays empty without.
    """
    scene = table.GetScene()
    ensureViews(scene)
    for column, volume in zip(COLUMNS, comparedVolumes(table), strict=True):
        for plane in PLANES:
            composite = scene.GetSingletonNode(viewName(column, plane), "vtkMRMLSliceCompositeNode")
            composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            _setFieldOfView(scene.GetSingletonNode(viewName(column, plane), "vtkMRMLSliceNode"))
    assignViews(table)
    return _arrange(scene, LAYOUT)


def showLayout(scene, layout: int) -> None:
    """Back to a layout by its number."""
    _arrange(scene, layout)


def comparisonShown(scene) -> bool:
    """Whether our layout is the one that is shown."""
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    return node is not None and node.GetViewArrangement() == LAYOUT


def _arrange(scene, layout: int) -> int | None:
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if node is None:
        return None
    if not node.IsLayoutDescription(LAYOUT):
        node.AddLayoutDescription(LAYOUT, layoutDescription())
    before = node.GetViewArrangement()
    node.SetViewArrangement(layout)
    return before


def comparedVolumes(table) -> tuple:
    """The volumes of the three columns; None for one that is not there."""
    prior, current = tables.volumesOf(table)
    transform = table.GetNodeReference(tables.TRANSFORM)
    warped = transform.GetNodeReference(WARPED_ROLE) if isInScene(transform) else None
    return prior, warped if isInScene(warped) else None, current


def _setFieldOfView(node) -> None:
    width, height, depth = node.GetFieldOfView()
    if width > 0:
        node.SetFieldOfView(FIELD_OF_VIEW_MM, FIELD_OF_VIEW_MM * height / width, depth)


# --- what each view shows -------------------------------------------------------------------------


def jumpTo(table, identifier: str) -> None:
    """Centers every slice view on a nodule: those of the prior scan on its place there, all others
    on its place in the current scan. Raises KeyError for an unknown nodule."""
    from GlideRegLib.geometry import flip_lps_ras

    row = tables.trackingOf(table).by_identifier(identifier)
    assignViews(table)
    for node, isPrior in _sliceViews(table):
        place = row.moving_position if isPrior else row.fixed_position
        if place is not None:
            node.JumpSliceByCentering(*(float(v) for v in flip_lps_ras(np.asarray(place))))


def assignViews(table) -> None:
    """Markers and measured voxels of the prior scan only in views that show it, those of the
    current one in all others, also in 3-D."""
    from .markers import allMarkers
    from .segments import segmentsOf

    shown = list(_sliceViews(table))
    prior = [node.GetID() for node, isPrior in shown if isPrior]
    others = [node.GetID() for node, isPrior in shown if not isPrior]
    others += [n.GetID() for n in slicer.util.getNodesByClass("vtkMRMLViewNode", table.GetScene())]
    for time, ids in (("prior", prior), ("current", others)):
        segments = segmentsOf(table, time)
        for node in [*allMarkers(table, time), *([] if segments is None else [segments])]:
            for k in range(node.GetNumberOfDisplayNodes()):
                display = node.GetNthDisplayNode(k)
                if list(display.GetViewNodeIDs() or ()) != ids:
                    display.SetViewNodeIDs(ids)


def _sliceViews(table):
    """Every slice view with whether it shows the prior scan as it is.

    Of the usual views those do whose background it is; the warped volume lies on the registration's
    fixed one, which usually is the current scan.
    """
    scene = table.GetScene()
    prior, warped, _current = comparedVolumes(table)
    onPrior = [volume.GetID() for volume in (prior,) if volume is not None]
    warpedOnPrior = _fixedVolume(table) is prior and prior is not None
    if warpedOnPrior and warped is not None:
        onPrior.append(warped.GetID())
    columns = [f"{OWN_VIEWS}Prior"] + ([f"{OWN_VIEWS}Warped"] if warpedOnPrior else [])
    layers = {node.GetLayoutName(): node.GetBackgroundVolumeID() for node in compositeNodes(scene)}
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        name = node.GetLayoutName()
        if isOwnView(node):
            yield node, name.startswith(tuple(columns))
        else:
            yield node, layers.get(name) in onPrior


def _fixedVolume(table):
    """The fixed volume of the registration, or None for a transform of other software."""
    transform = table.GetNodeReference(tables.TRANSFORM)
    if not isInScene(transform):
        return None
    return transform.GetNodeReference(transform.GetFixedNodeReferenceRole())
