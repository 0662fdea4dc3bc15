"""A prior and a current scan with nodules in the scene, registered: truth known, tracked quickly.

The scans are those of ``Testing/library/nodule_scene.py``; the transform looks like the result of a
registration (it is the true translation).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

_LIBRARY_TESTS = str(Path(__file__).resolve().parents[1] / "library")
if _LIBRARY_TESTS not in sys.path:
    sys.path.append(_LIBRARY_TESTS)

from nodule_scene import SHIFT, at, scene  # noqa: E402

#: Places in the current scan, LPS mm: in both scans, grown, in the prior alone, in the current.
STAYS, GROWS, GONE, FRESH = at(25, 28, 30), at(55, 30, 34), at(30, 55, 40), at(58, 58, 48)


@dataclass
class NodulePair:
    """Nodes: current is the fixed, prior the moving volume of ``transform``."""

    current: object
    prior: object
    transform: object
    priorPoints: object
    currentPoints: object


def make_nodule_pair() -> NodulePair:
    """Adds everything to ``slicer.mrmlScene``."""
    current = _volume(scene({STAYS: 4.0, GROWS: 5.0, FRESH: 3.5}, np.zeros(3)), "Current CT")
    prior = _volume(scene({STAYS: 4.0, GROWS: 4.0, GONE: 4.0}, SHIFT), "Prior CT")
    before = np.array([STAYS, GROWS, GONE]) + SHIFT
    return NodulePair(
        current,
        prior,
        _transform(current, prior),
        point_list("Prior nodules", before, ["stays", "grows", "gone"]),
        point_list("Current nodules", np.array([FRESH, GROWS, STAYS]), ["c1", "c2", "c3"]),
    )


def point_list(name: str, points: np.ndarray, labels: list[str]):
    """A markups list of LPS points."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for (x, y, z), label in zip(points, labels, strict=True):
        node.AddControlPoint(vtk.vtkVector3d(-x, -y, z), label)
    return node


def ras(point) -> list[float]:
    """LPS to RAS, as plain numbers."""
    x, y, z = (float(v) for v in point)
    return [-x, -y, z]


def _volume(volume, name: str):
    from GlideRegScene.transforms import rasMatrix

    image = volume.to_sitk()
    node = slicer.util.addVolumeFromArray(
        np.round(sitk.GetArrayFromImage(image)).astype(np.int16), name=name
    )
    node.SetIJKToRASMatrix(rasMatrix(image))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(1400, -500)
    return node


def _transform(current, prior):
    """The true translation as a grid transform with what a registration leaves at it."""
    from GlideRegScene.results import WARPED_ROLE
    from GlideRegScene.transforms import ATTRIBUTE, gridTransform

    vectors = np.tile(SHIFT.astype(np.float32), (12, 12, 12, 1))
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.SetSpacing((10.0, 10.0, 10.0))
    field.SetOrigin(at(-15, -15, -15))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Prior CT to Current CT")
    node.SetAndObserveTransformFromParent(gridTransform(field))
    node.SetNodeReferenceID(node.GetFixedNodeReferenceRole(), current.GetID())
    node.SetNodeReferenceID(node.GetMovingNodeReferenceRole(), prior.GetID())
    node.SetAttribute(ATTRIBUTE, json.dumps({"quality": {}}))
    warped = _volume(scene({STAYS: 4.0, GROWS: 4.0, GONE: 4.0}, np.zeros(3)), "Prior warped")
    node.SetNodeReferenceID(WARPED_ROLE, warped.GetID())
    return node
