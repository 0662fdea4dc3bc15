"""Two scans in the scene with structures and landmarks, and transforms with known answers.

The moving scan is the fixed one, shifted by ``SHIFT``: a transform that shifts by as much is right.
Structures overlap (a tumor in a lung), and the heart is drawn 6 mm off in the moving scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

SIZE, SPACING = (36, 32, 28), 4.0
ORIGIN = (-70.0, -62.0, 200.0)
#: From a fixed point to its moving one, LPS mm: to the left, to the front, to the head.
SHIFT = np.array([4.0, -8.0, 12.0])
#: Error of the heart's contour in the moving scan, LPS mm.
HEART_OFF = np.array([0.0, 0.0, 8.0])
#: Name -> center and radius, LPS mm, in the fixed scan.
STRUCTURES = {
    "Lung": ((-26.0, 0.0, 252.0), 18.0),
    "Tumor": ((-28.0, 2.0, 252.0), 9.0),
    "Heart": ((22.0, -14.0, 252.0), 18.0),
}
LANDMARKS = np.array(
    [(-30, 0, 252), (-20, 14, 240), (22, -14, 252), (10, 20, 262), (-5, -20, 236), (30, 10, 256)],
    dtype=float,
)


@dataclass
class QualityPair:
    """Nodes; ``transform`` is the true shift as a linear transform of other software."""

    fixed: object
    moving: object
    transform: object
    fixedLandmarks: object
    movingLandmarks: object
    fixedStructures: object
    movingStructures: object


def make_quality_pair() -> QualityPair:
    """Adds everything to ``slicer.mrmlScene``."""
    fixed = volume_node(_scan(np.zeros(3)), "Planning CT")
    moving = volume_node(_scan(SHIFT), "Repeat CT")
    return QualityPair(
        fixed,
        moving,
        shift_node(SHIFT),
        point_list("Planning points", LANDMARKS),
        point_list("Repeat points", LANDMARKS + SHIFT),
        segmentation("Planning structures", fixed, {}),
        segmentation("Repeat structures", moving, {name: SHIFT for name in STRUCTURES}),
    )


def centers() -> np.ndarray:
    """LPS mm of all voxel centers (Z, Y, X, 3)."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in SIZE[::-1]], indexing="ij")
    return np.stack((i, j, k), axis=-1) * SPACING + ORIGIN


def ball(center, radius: float, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """True within a ball, bool (Z, Y, X)."""
    return np.linalg.norm(centers() - center - np.asarray(shift), axis=-1) <= radius


def volume_node(array: np.ndarray, name: str):
    """An array (Z, Y, X) as a volume on the voxels of the scans."""
    node = slicer.util.addVolumeFromArray(array.astype(np.int16), name=name)
    matrix = np.diag([-SPACING, -SPACING, SPACING, 1.0])
    matrix[:3, 3] = (-ORIGIN[0], -ORIGIN[1], ORIGIN[2])
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(1400, -400)
    return node


def point_list(name: str, points: np.ndarray):
    """A markups list of LPS points."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for k, (x, y, z) in enumerate(points, start=1):
        node.AddControlPoint(vtk.vtkVector3d(-x, -y, z), str(k))
    return node


def segmentation(name: str, volume, shifts: dict):
    """The structures as segments that overlap, each drawn at its shift (LPS mm)."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for structure, (center, radius) in STRUCTURES.items():
        shift = np.asarray(shifts.get(structure, np.zeros(3)))
        if structure == "Heart" and shift.any():
            shift = shift + HEART_OFF
        identifier = node.GetSegmentation().AddEmptySegment(structure, structure)
        array = ball(center, radius, shift).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, identifier, volume)
    return node


def shift_node(shift: np.ndarray, name: str = "Shift"):
    """A linear transform node as other software leaves it: fixed to moving is ``shift`` LPS mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    matrix = np.eye(4)
    matrix[:3, 3] = (shift[0], shift[1], -shift[2])  # to parent: moving to fixed, RAS
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def grid_node(vectors: np.ndarray, name: str, cubic: bool = False, spacing: float = SPACING):
    """A grid transform as Slicer has it after loading: ``vectors`` (Z, Y, X, 3) LPS mm from fixed
    to moving, on a lattice that begins at the first voxel of the scans."""
    from GlideRegScene.transforms import gridTransform

    field = sitk.GetImageFromArray(vectors.astype(np.float32), isVector=True)
    field.SetSpacing((spacing,) * 3)
    field.SetOrigin(ORIGIN)
    transform = gridTransform(field)
    if cubic:
        transform.SetInterpolationModeToCubic()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetAndObserveTransformFromParent(transform)
    return node


def folded_vectors(center_index=(16, 15, 13), width: int = 3) -> np.ndarray:
    """The true shift with a fold: around an index (i, j, k) voxels change places along x."""
    vectors = np.tile(SHIFT, (*SIZE[::-1], 1))
    i, j, k = center_index
    near = (slice(k - width, k + width), slice(j - width, j + width))
    vectors[(*near, slice(i - 2, i), 0)] += 1.2 * SPACING
    vectors[(*near, slice(i, i + 2), 0)] -= 1.2 * SPACING
    return vectors


def _scan(shift: np.ndarray) -> np.ndarray:
    """A body of soft tissue with texture, a lung with a tumor, and a heart; moved by ``shift``."""
    place = centers() - shift
    body = np.linalg.norm((place - (0.0, 0.0, 254.0)) / (56.0, 48.0, 70.0), axis=-1) <= 1
    texture = 25 * np.sin(place[..., 0] / 6) * np.cos(place[..., 1] / 7) * np.sin(place[..., 2] / 5)
    values = np.where(body, 40 + texture, -1000.0)
    for name, hu in (("Lung", -800), ("Tumor", 30), ("Heart", 120)):
        center, radius = STRUCTURES[name]
        values[np.linalg.norm(place - center, axis=-1) <= radius] = hu
    return np.round(values)
