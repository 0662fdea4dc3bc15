"""The Jacobian determinant over the fixed volume, with a legend; and what was shown before."""

import SimpleITK as sitk
import slicer

from .. import display
from ..colors import RANGE, jacobianColors
from ..nodes import CreatedNodes, isInScene
from ..results import WARPED_ROLE
from ..transforms import rasMatrix
from . import tables

_OPACITY = 0.5


def mapOf(table):
    """The volume with the determinant that belongs to an assessment, or None."""
    return tables.belonging(table, tables.JACOBIAN_ROLE)


def storeMap(table, image: sitk.Image, created: CreatedNodes) -> None:
    """Puts the determinant into the volume of the table, made where it is missing."""
    node = mapOf(table)
    if node is None:
        name = f"Jacobian, {table.GetName()}"
        node = created.add("vtkMRMLScalarVolumeNode", name, unique=True)
        table.SetNodeReferenceID(tables.JACOBIAN_ROLE, node.GetID())
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayFromImage(image))
    node.SetIJKToRASMatrix(rasMatrix(image))
    node.SetDescription(tables.NOTICE)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    shown = node.GetDisplayNode()
    if shown is not None:
        shown.SetAndObserveColorNodeID(jacobianColors(created.scene).GetID())
        shown.SetAutoWindowLevel(False)
        shown.SetWindowLevelMinMax(*RANGE)


def forgetMap(table) -> None:
    """Takes the volume of an earlier assessment out of the scene, with what shows it."""
    node = mapOf(table)
    if node is None:
        return
    scene = node.GetScene()
    shown = [node.GetNthDisplayNode(k) for k in range(node.GetNumberOfDisplayNodes())]
    legend = legendOf(node)
    for other in (*shown, legend, node.GetStorageNode(), node):
        if other is not None and isInScene(other):
            scene.RemoveNode(other)


def legendOf(volume):
    """The color legend of a volume, or None."""
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volume)


def isShown(table) -> bool:
    """Whether the first slice view shows the determinant."""
    node, views = mapOf(table), display.compositeNodes(table.GetScene())
    return bool(node is not None and views and views[0].GetForegroundVolumeID() == node.GetID())


def show(table, visible: bool, before: "display.ViewState | None" = None) -> None:
    """The determinant half transparent over the fixed volume, with its legend; or what was shown
    before (without that: the registered volume over the fixed one)."""
    node, scene = mapOf(table), table.GetScene()
    if node is None:
        return
    fixed = table.GetNodeReference("GlideRegFixedVolume")
    if visible:
        display.showLayers(scene, fixed if isInScene(fixed) else None, node, _OPACITY)
    elif before is not None:
        before.restore(scene)
    else:
        transform = table.GetNodeReference("GlideRegTransform")
        warped = transform.GetNodeReference(WARPED_ROLE) if isInScene(transform) else None
        layer = warped if isInScene(warped) else None
        display.showLayers(scene, fixed if isInScene(fixed) else None, layer, _OPACITY)
    _showLegend(node, visible)


def _showLegend(volume, visible: bool) -> None:
    legend = legendOf(volume)
    if legend is None and visible:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(volume)
    if legend is None:
        return
    with slicer.util.NodeModify(legend):
        legend.SetTitleText("Jacobian")
        legend.GetTitleTextProperty().SetFontSize(12)
        legend.GetLabelTextProperty().SetFontSize(11)
        legend.SetNumberOfLabels(7)
        legend.SetLabelFormat("%.1f")
        legend.SetVisibility(visible)
        legend.SetVisibility3D(False)
        legend.SetSize(0.1, 0.5)
