"""What the views show now, read back from their nodes; and table and plot in a layout."""

import slicer

from . import results
from .display import DEFORMATION_MODES, compositeNodes
from .nodes import isInScene

BEFORE, AFTER, JACOBIAN = "before", "after", "jacobian"


def overlay(transformNode) -> str:
    """What lies over the fixed volume: BEFORE, AFTER, JACOBIAN, or "" for something else."""
    views = compositeNodes(transformNode.GetScene())
    if not views:
        return ""
    fixed = transformNode.GetNodeReferenceID(transformNode.GetFixedNodeReferenceRole())
    if fixed is None or views[0].GetBackgroundVolumeID() != fixed:
        return ""
    foreground = views[0].GetForegroundVolumeID()
    roles = (
        (results.WARPED_ROLE, AFTER),
        (transformNode.GetMovingNodeReferenceRole(), BEFORE),
        (results.JACOBIAN_ROLE, JACOBIAN),
    )
    for role, name in roles:
        if foreground and foreground == transformNode.GetNodeReferenceID(role):
            return name
    return ""


def opacity(scene) -> float:
    """Opacity of the foreground, 0 to 1, in the first slice view."""
    views = compositeNodes(scene)
    return views[0].GetForegroundOpacity() if views else 0.5


def deformation(transformNode) -> tuple[str, bool, bool]:
    """How the deformation is drawn ("grid", "arrows", "contours"), and whether in 2-D and 3-D."""
    display = transformNode.GetDisplayNode()
    if display is None:
        return "grid", False, False
    modes = {number: name for name, number in DEFORMATION_MODES.items()}
    visible = bool(display.GetVisibility())
    return (
        modes.get(display.GetVisualizationMode(), "grid"),
        visible and bool(display.GetVisibility2D()),
        visible and bool(display.GetVisibility3D()),
    )


def showTableAndPlot(transformNode) -> bool:
    """Brings the landmark table and plot of a result into view; False when there is none."""
    table = transformNode.GetNodeReference(results.TABLE_ROLE)
    plot = transformNode.GetNodeReference(results.PLOT_ROLE)
    if not isInScene(table):
        return False
    application = slicer.app.applicationLogic()
    selection = application.GetSelectionNode() if application is not None else None
    layouts = slicer.app.layoutManager()
    if layouts is not None:
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView)
    if selection is not None:
        selection.SetActiveTableID(table.GetID())
        if isInScene(plot):
            selection.SetActivePlotChartID(plot.GetID())
        # Plot and table views listen to the selection only when it is propagated.
        application.PropagateTableSelection()
        application.PropagatePlotChartSelection()
    return True
