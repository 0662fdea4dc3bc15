"""What of a scene can be carried, and what of it clearly belongs to the source image."""

import slicer

from ..nodules.markers import TIME as NODULE_MARKERS
from ..results import JACOBIAN_ROLE, UNCERTAINTY_ROLE, WARPED_ROLE
from ..transforms import isOurs
from .request import PropagateRequest, nodeProblem
from .results import ATTRIBUTE
from .volumes import isDose

#: Kinds in the order in which they are listed.
_CLASSES = (
    "vtkMRMLSegmentationNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLModelNode",
    "vtkMRMLScalarVolumeNode",
)


def candidates(scene, request: PropagateRequest) -> list:
    """The nodes of a scene that can be carried: none that is hidden, empty, an image of the
    registration itself, its result, or was carried over to the same place already."""
    left_out = {request.fixedVolume, request.movingVolume, *_resultsOf(scene)}
    found = []
    for name in _CLASSES:
        nodes = slicer.util.getNodesByClass(name, scene)
        found += [
            node
            for node in nodes
            if node not in left_out
            and not node.GetHideFromEditors()
            and not node.IsA("vtkMRMLVectorVolumeNode")
            and node.GetAttribute(NODULE_MARKERS) is None
            and not nodeProblem(node)
        ]
    return found


def isSuggested(node, request: PropagateRequest) -> bool:
    """Whether a node clearly belongs to the source: a segmentation drawn on it, or something in
    the same study or folder. What was carried over is not suggested."""
    source = request.source
    if source is None or node.GetAttribute(ATTRIBUTE) is not None:
        return False
    if node.IsA("vtkMRMLSegmentationNode"):
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        drawnOn = node.GetNodeReference(role)
        if drawnOn is not None:
            return drawnOn is source
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    items = [hierarchy.GetItemByDataNode(n) for n in (node, source, request.target)]
    if not all(items[:2]):
        return False
    home, other, third = (hierarchy.GetItemParent(item) if item else 0 for item in items)
    return home == other != third and home != hierarchy.GetSceneItemID()


def kindOf(node, doses=()) -> str:
    """What a node is, as the panel says it."""
    if node.IsA("vtkMRMLSegmentationNode"):
        return "segmentation"
    if node.IsA("vtkMRMLMarkupsNode"):
        return "markups"
    if node.IsA("vtkMRMLModelNode"):
        return "model"
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return "labels"
    return "dose" if node in doses or isDose(node) else "image"


def _resultsOf(scene) -> set:
    """Warped volumes, Jacobians and expected errors of all registrations."""
    transforms = slicer.util.getNodesByClass("vtkMRMLTransformNode", scene)
    roles = (WARPED_ROLE, JACOBIAN_ROLE, UNCERTAINTY_ROLE)
    nodes = {t.GetNodeReference(role) for t in transforms if isOurs(t) for role in roles}
    return nodes - {None}
