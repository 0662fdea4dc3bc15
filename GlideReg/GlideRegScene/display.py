"""How a result is shown: slice layers before and after, deformation, Jacobian, worst spot.

Everything goes through display and view nodes, so it is saved with the scene and works without a
window. What was shown before is remembered and can be brought back.
"""

from dataclasses import dataclass

import numpy as np
import slicer

from . import results
from .nodes import isInScene

#: What the layout names of the module's own slice views begin with.
OWN_VIEWS = "GlideReg"
#: Words of the panel -> visualization mode of Slicer's transform display.
DEFORMATION_MODES = {
    "grid": slicer.vtkMRMLTransformDisplayNode.VIS_MODE_GRID,
    "arrows": slicer.vtkMRMLTransformDisplayNode.VIS_MODE_GLYPH,
    "contours": slicer.vtkMRMLTransformDisplayNode.VIS_MODE_CONTOUR,
}


@dataclass
class _Layers:
    background: str | None
    foreground: str | None
    opacity: float


class ViewState:
    """The layers of all slice views at one moment, to be brought back later."""

    def __init__(self, scene) -> None:
        self._layers = {
            node.GetID(): _Layers(
                node.GetBackgroundVolumeID(),
                node.GetForegroundVolumeID(),
                node.GetForegroundOpacity(),
            )
            for node in compositeNodes(scene)
        }

    def restore(self, scene, names=None) -> None:
        """Puts the layers back, only in views of these layout names if they are given; views and
        volumes that are gone are left out."""
        for node in compositeNodes(scene):
            layers = self._layers.get(node.GetID())
            if layers is None or (names is not None and node.GetLayoutName() not in names):
                continue
            node.SetBackgroundVolumeID(_ifPresent(scene, layers.background))
            node.SetForegroundVolumeID(_ifPresent(scene, layers.foreground))
            node.SetForegroundOpacity(layers.opacity)


def isOwnView(node) -> bool:
    """Whether a slice view or its layers belong to a layout of this module (nodules)."""
    return node.GetLayoutName().startswith(OWN_VIEWS)


def compositeNodes(scene) -> list:
    """The layer choices of all slice views but those that a layout of this module fills."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene)
    return [node for node in nodes if not isOwnView(node)]


def _sliceNodes(scene) -> list:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode", scene)
    return [node for node in nodes if not isOwnView(node)]


def showLayers(scene, background, foreground, opacity: float) -> None:
    """Shows two volumes in all slice views; ``opacity`` 0 to 1 is that of the foreground."""
    for node in compositeNodes(scene):
        node.SetBackgroundVolumeID(background.GetID() if background is not None else None)
        node.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        node.SetForegroundOpacity(opacity)


def setOpacity(scene, opacity: float) -> None:
    """Fades the foreground of all slice views: 0 hides it, 1 hides the background."""
    for node in compositeNodes(scene):
        node.SetForegroundOpacity(opacity)


def showResult(transformNode, before: bool = False, opacity: float = 0.5) -> None:
    """The fixed volume behind the warped one, or (``before``) behind the moving one as it was."""
    scene = transformNode.GetScene()
    role = transformNode.GetMovingNodeReferenceRole() if before else results.WARPED_ROLE
    fixed = transformNode.GetNodeReference(transformNode.GetFixedNodeReferenceRole())
    showLayers(scene, fixed, transformNode.GetNodeReference(role), opacity)


def showJacobian(transformNode, visible: bool, opacity: float = 0.5) -> None:
    """The Jacobian determinant over the fixed volume, or the warped volume again."""
    if not visible:
        showResult(transformNode, opacity=opacity)
        return
    fixed = transformNode.GetNodeReference(transformNode.GetFixedNodeReferenceRole())
    jacobian = transformNode.GetNodeReference(results.JACOBIAN_ROLE)
    showLayers(transformNode.GetScene(), fixed, jacobian, opacity)


def deformationDisplay(transformNode):
    """The display node of a transform, made with readable defaults when there is none.

    Slicer draws where the moving image goes (the inverse of resampling), colored by the length of
    the displacement in 3-D.
    """
    display = transformNode.GetDisplayNode()
    if display is not None:
        return display
    transformNode.CreateDefaultDisplayNodes()
    display = transformNode.GetDisplayNode()
    with slicer.util.NodeModify(display):  # every single change would redraw all views
        display.SetGridSpacingMm(12.0)
        display.SetGridResolutionMm(4.0)  # a divisor of the spacing: subdivisions are rounded
        display.SetGridScalePercent(100)
        display.SetGridLineDiameterMm(1.5)
        display.SetGlyphSpacingMm(10.0)
        display.SetGlyphScalePercent(100)
        display.SetGlyphDiameterMm(2.0)
        display.SetContourResolutionMm(4.0)
        display.SetSliceIntersectionThickness(2)
        display.SetVisibility2D(False)
        display.SetVisibility3D(False)
        display.SetAndObserveRegionNode(_deformationRegion(transformNode))
        _fitColors(transformNode, display)
    return display


def _deformationRegion(transformNode):
    """Where the field is drawn in 3-D: a sheet that follows the coronal view, else the volume.

    A full cage of grid lines over the fixed volume would hide the anatomy.
    """
    scene = transformNode.GetScene()
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        if node.GetLayoutName() == "Green":
            return node
    return transformNode.GetNodeReference(transformNode.GetFixedNodeReferenceRole())


def _fitColors(transformNode, display) -> None:
    """Colors and contour levels over the range of this field; the default ends at 10 mm."""
    longest = _longestDisplacement(transformNode)
    if longest <= 0:
        return
    if display.GetColorNode() is None:
        display.SetDefaultColors()
    colors = display.GetColorNode()
    function = colors.GetColorTransferFunction()
    function.RemoveAllPoints()
    steps = (
        (0.0, 0.2, 0.3, 0.7),
        (0.35, 0.2, 0.75, 0.6),
        (0.7, 0.95, 0.85, 0.2),
        (1.0, 0.8, 0.1, 0.1),
    )
    for share, *rgb in steps:
        function.AddRGBPoint(share * longest, *rgb)
    levels = np.linspace(0, longest, 7)[1:-1]
    display.SetContourLevelsMmFromString(" ".join(f"{level:.1f}" for level in levels))


def _longestDisplacement(transformNode) -> float:
    """The longest vector of the field in mm, over its lattice; 0 for other transforms."""
    from .transforms import displacementLattice

    if transformNode.GetTransformFromParentAs("vtkOrientedGridTransform", False, True) is None:
        return 0.0
    vectors, _ = displacementLattice(transformNode)
    return float(np.sqrt((vectors**2).sum(axis=-1).max()))


def showDeformation(transformNode, mode: str, in2D: bool, in3D: bool) -> None:
    """Draws the displacement field as "grid", "arrows" or "contours" in slice and 3-D views."""
    display = deformationDisplay(transformNode)
    with slicer.util.NodeModify(display):
        display.SetVisualizationMode(DEFORMATION_MODES[mode])
        display.SetVisibility(in2D or in3D)
        display.SetVisibility2D(in2D)
        display.SetVisibility3D(in3D)


def restoreUnregistered(transformNode, state: ViewState | None) -> None:
    """Back to how it was before: views, and nothing under the result transform any more.

    Result nodes stay in the scene. Volumes, markups or models that were put under the transform are
    taken out from under it (to the transform above it, if there is one).
    """
    scene = transformNode.GetScene()
    if transformNode.GetDisplayNode() is not None:
        showDeformation(transformNode, "grid", False, False)
    above = transformNode.GetTransformNodeID()
    for node in slicer.util.getNodesByClass("vtkMRMLTransformableNode", scene):
        if node.GetTransformNodeID() == transformNode.GetID():
            node.SetAndObserveTransformNodeID(above)
    if state is not None:
        state.restore(scene)
        return
    showResult(transformNode, before=True)


def jumpTo(scene, position: np.ndarray) -> None:
    """Centers all slice views on a world position (RAS mm), keeping their field of view."""
    for node in _sliceNodes(scene):
        node.JumpSliceByCentering(*[float(v) for v in position])


def jumpToWorstLandmark(transformNode) -> tuple[str, float] | None:
    """Shows the worst landmark in all slice views; gives its label and error (mm), or None."""
    from .landmarks import worstLandmark

    table = transformNode.GetNodeReference(results.TABLE_ROLE)
    if not isInScene(table):
        return None
    label, position, error = worstLandmark(table)
    jumpTo(transformNode.GetScene(), position)
    return label, error


def bringIntoView(volume) -> None:
    """Moves every slice view that does not cut a volume to its center."""
    bounds = np.zeros(6)
    volume.GetSliceBounds(bounds, None)
    low, high = bounds[::2], bounds[1::2]
    for node in _sliceNodes(volume.GetScene()):
        middle = np.array([node.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)])
        if np.any(middle < low) or np.any(middle > high):
            node.JumpSliceByCentering(*((low + high) / 2).tolist())


def _ifPresent(scene, nodeId: str | None) -> str | None:
    return nodeId if nodeId and scene.GetNodeByID(nodeId) is not None else None
