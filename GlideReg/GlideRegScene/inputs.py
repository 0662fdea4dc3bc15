"""From nodes to files: what the worker reads. Nodes are never changed.

Everything is written as the user sees it, in world coordinates: a parent transform of a volume, a
segmentation or a markups list counts. File names are neutral; they name no patient.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

from .nodes import onlyTemporarily


@dataclass
class Request:
    """One registration as the scene describes it. ``settings`` are the library's, as plain values.

    ``fixedMask``/``movingMask``: a segmentation (with the ID or name of a segment, "" for all) or a
    label map. ``useLandmarks``: the landmarks guide the registration, beside measuring it.
    ``initialTransform``: linear, as one would put the moving volume under it.
    """

    fixedVolume: object
    movingVolume: object
    settings: dict = field(default_factory=dict)
    fixedLandmarks: object = None
    movingLandmarks: object = None
    useLandmarks: bool = False
    initialTransform: object = None
    fixedMask: object = None
    fixedSegment: str = ""
    movingMask: object = None
    movingSegment: str = ""
    warpedVolume: object = None
    transform: object = None

    def problem(self) -> str:
        """What is missing or contradictory, as one sentence; "" when it can be run."""
        if self.fixedVolume is None or self.movingVolume is None:
            lacking = "fixed" if self.fixedVolume is None else "moving"
            return f"Choose a {lacking} volume."
        if self.fixedVolume is self.movingVolume:
            return "The fixed and the moving volume are the same; choose two volumes."
        for role, node in (("fixed", self.fixedVolume), ("moving", self.movingVolume)):
            if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
                return f"The {role} volume is empty; load or choose one with voxels."
            if node.GetImageData().GetNumberOfScalarComponents() != 1:
                return f"The {role} volume has several values per voxel; choose a scalar volume."
        if (self.fixedLandmarks is None) != (self.movingLandmarks is None):
            lacking = "fixed" if self.fixedLandmarks is None else "moving"
            return f"Choose the {lacking} landmarks too, or none."
        if self.useLandmarks and self.fixedLandmarks is None:
            return "Choose the landmarks that are to guide the registration, or switch that off."
        if self.warpedVolume is not None and self.warpedVolume in (
            self.fixedVolume,
            self.movingVolume,
        ):
            return "The warped volume would overwrite an input; choose another output volume."
        return self._transformProblem()

    def _transformProblem(self) -> str:
        start = self.initialTransform
        if start is not None and not start.IsTransformToWorldLinear():
            return "The initial transform is not linear; choose a linear one, or harden it."
        parents = parentsOf(self.fixedVolume) + parentsOf(self.movingVolume)
        if start is not None and start in parentsOf(self.movingVolume):
            return (
                "The moving volume is already under the initial transform, which counts anyway; "
                "leave Initial transform empty."
            )
        if self.transform is not None and self.transform in (*parents, start):
            return (
                "An input volume is under the output transform; choose Create new as the output, "
                "or take the volume out from under it."
            )
        return ""


@dataclass
class CollectedInputs:
    """What the worker will read: taken from the scene at once, written later, in any thread.

    ``job`` are the job file's values. ``fixedMatrix`` is where the fixed voxels were (index to
    world RAS); None when its grid could not be kept and a resampled copy is registered.
    """

    job: dict
    fixedMatrix: np.ndarray | None
    _writers: list[Callable[[], None]] = field(default_factory=list)

    def write(self, goOn: Callable[[], bool] = lambda: True) -> None:
        """Writes all files, as long as ``goOn``. No node is touched: voxels are read as arrays."""
        for writer in self._writers:
            if goOn():
                writer()


def collectInputs(request: Request, folder: Path) -> CollectedInputs:
    """Volumes (.mha), masks, landmarks and the start, to be written into ``folder``.

    Raises the library's InputError with one sentence when a node cannot be used.
    """
    job: dict = {"settings": dict(request.settings), "outputs": "images"}
    collected = CollectedInputs(job, None)
    for role, node in (("fixed", request.fixedVolume), ("moving", request.movingVolume)):
        job[role] = str(folder / f"{role}.mha")
        source, resampled = worldSource(node)
        collected._writers.append(partial(_writeImage, source, job[role]))
        if role == "fixed" and not resampled:
            collected.fixedMatrix = worldMatrix(node)
    masks = (
        ("fixed", request.fixedMask, request.fixedSegment, request.fixedVolume),
        ("moving", request.movingMask, request.movingSegment, request.movingVolume),
    )
    for role, node, segment, volume in masks:
        if node is not None:
            job[f"{role}_mask"] = str(folder / f"{role}-mask.mha")
            mask = maskImage(node, segment, volume)
            collected._writers.append(partial(sitk.WriteImage, mask, job[f"{role}_mask"], True))
    if request.fixedLandmarks is not None:
        from GlideRegLib.landmarks import write_landmarks

        pairs = landmarkPairs(request.fixedLandmarks, request.movingLandmarks)
        for role, points in (("fixed", pairs.fixed), ("moving", pairs.moving)):
            path = folder / f"{role}-landmarks.csv"
            collected._writers.append(partial(write_landmarks, path, points))
            job[f"{role}_landmarks"] = [str(path)]
            if request.useLandmarks:
                job[f"{role}_constraints"] = [str(path)]
    if request.initialTransform is not None:
        job["settings"]["initial"] = str(folder / "initial.tfm")
        start = startTransform(request.initialTransform)
        collected._writers.append(partial(sitk.WriteTransform, start, job["settings"]["initial"]))
    return collected


def _writeImage(source: Callable[[], sitk.Image], path: str) -> None:
    sitk.WriteImage(source(), path)


# --- volumes --------------------------------------------------------------------------------------


def worldImage(node) -> tuple[sitk.Image, bool]:
    """A volume node as a SimpleITK image in world LPS mm, and whether it had to be resampled."""
    source, resampled = worldSource(node)
    return source(), resampled


def worldSource(node) -> tuple[Callable[[], sitk.Image], bool]:
    """A function that makes the image of a volume node in world LPS mm, in any thread, and whether
    it has to be resampled.

    A linear parent transform without shear only moves the grid. Under a warp or a shear no regular
    grid has the same voxels: a copy is hardened or resampled onto one that covers it.
    """
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        image = _hardenedImage(node)
        return (lambda: image), True
    array, matrix = slicer.util.arrayFromVolume(node), worldMatrix(node)
    if not isSheared(matrix):
        return (lambda: imageOf(array, matrix)), False
    labels = isinstance(node, slicer.vtkMRMLLabelMapVolumeNode)
    return (lambda: straightened(imageOf(array, matrix), labels)), True


def worldMatrix(node) -> np.ndarray:
    """4x4 from voxel index (i, j, k) to world RAS mm of a volume under linear transforms."""
    ijkToRas, toWorld = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijkToRas)
    parent = node.GetParentTransformNode()
    if parent is not None:
        parent.GetMatrixTransformToWorld(toWorld)
    return slicer.util.arrayFromVTKMatrix(toWorld) @ slicer.util.arrayFromVTKMatrix(ijkToRas)


def imageOf(array: np.ndarray, matrix: np.ndarray) -> sitk.Image:
    """Voxels (K, J, I) and 4x4 from index to RAS mm as an image in LPS mm."""
    from GlideRegLib.geometry import flip_lps_ras

    image = sitk.GetImageFromArray(array)
    columns = flip_lps_ras(matrix[:3, :3].T).T
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin(flip_lps_ras(matrix[:3, 3]).tolist())
    return image


def _hardenedImage(node) -> sitk.Image:
    """A copy of the volume with its nonlinear parent applied to the voxels."""
    scene = node.GetScene()
    with onlyTemporarily(scene):
        copy = slicer.vtkSlicerVolumesLogic.CloneVolume(scene, node, "glidereg-hardened")
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        return imageOf(slicer.util.arrayFromVolume(copy), worldMatrix(copy))


def isSheared(matrix: np.ndarray) -> bool:
    """Whether the axes (columns of a 3x3 or 4x4 matrix) are not at right angles."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() >= 1e-4)


def straightened(image: sitk.Image, labels: bool) -> sitk.Image:
    """A sheared image on the LPS-aligned box that covers it; background: its smallest value.

    One on orthogonal axes stays as it is.
    """
    if not isSheared(np.reshape(image.GetDirection(), (3, 3))):
        return image
    size = image.GetSize()
    corners = [
        image.TransformIndexToPhysicalPoint((i, j, k))
        for i in (0, size[0] - 1)
        for j in (0, size[1] - 1)
        for k in (0, size[2] - 1)
    ]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    spacing = min(image.GetSpacing())
    box = [int(np.ceil(length / spacing)) + 1 for length in high - low]
    background = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(
        image,
        box,
        sitk.Transform(),
        sitk.sitkNearestNeighbor if labels else sitk.sitkLinear,
        low.tolist(),
        [spacing] * 3,
        np.eye(3).ravel().tolist(),
        0.0 if labels else background,
    )


def maskImage(node, segment: str, volume) -> sitk.Image:
    """1 inside the segment (or label map) and 0 outside, in world LPS mm.

    A segmentation is sampled on the voxels of ``volume``; raises InputError for an unknown segment
    or an empty mask.
    """
    from GlideRegLib.errors import InputError

    if not isinstance(node, slicer.vtkMRMLSegmentationNode):
        image, _ = worldImage(node)
    else:
        image = segmentImage(node, segmentIds(node, segment), volume)
    mask = image > 0
    if not sitk.GetArrayViewFromImage(mask).any():
        raise InputError("The mask is empty: no voxel is inside; draw it or leave it out.")
    return mask


def segmentIds(node, segment: str) -> list[str]:
    """The IDs of one segment, by ID or name, or of all of them for "". Raises InputError."""
    from GlideRegLib.errors import InputError

    segmentation = node.GetSegmentation()
    known = list(segmentation.GetSegmentIDs())
    if not segment and known:
        return known
    if segment in known:
        return [segment]
    byName = segmentation.GetSegmentIdBySegmentName(segment) if segment else ""
    if byName:
        return [byName]
    wanted = f"no segment '{segment}'" if segment else "no segments"
    raise InputError(f"The segmentation of the mask has {wanted}; choose another mask.")


def segmentImage(node, ids: list[str], volume) -> sitk.Image:
    """The segments on the voxels of ``volume``, from a copy: Slicer would add a binary
    representation to the user's own segmentation (of a structure set, for instance)."""
    scene = node.GetScene()
    with onlyTemporarily(scene):
        copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "glidereg-mask")
        source, target = node.GetSegmentation(), copy.GetSegmentation()
        target.SetSourceRepresentationName(source.GetSourceRepresentationName())
        for identifier in ids:
            target.CopySegmentFromSegmentation(source, identifier)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "glidereg-mask")
        extent = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
        slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(
            copy, ids, labels, volume, extent
        )
        return worldImage(labels)[0]


# --- points and transforms ------------------------------------------------------------------------


@dataclass
class LandmarkPairs:
    """Corresponding points (N, 3), world LPS mm, and their labels in the fixed list."""

    fixed: np.ndarray
    moving: np.ndarray
    labels: list[str]


def landmarkPairs(fixedNode, movingNode) -> LandmarkPairs:
    """Pairs two markups lists row by row; rows with an unplaced point are left out.

    Raises InputError when the counts differ or nothing is left.
    """
    from GlideRegLib.errors import InputError
    from GlideRegLib.geometry import flip_lps_ras

    counts = fixedNode.GetNumberOfControlPoints(), movingNode.GetNumberOfControlPoints()
    if counts[0] != counts[1]:
        raise InputError(
            f"There are {counts[0]} fixed and {counts[1]} moving landmarks; row k of one list must "
            "belong to row k of the other."
        )
    placed = slicer.vtkMRMLMarkupsNode.PositionDefined
    rows = [
        k
        for k in range(counts[0])
        if fixedNode.GetNthControlPointPositionStatus(k) == placed
        and movingNode.GetNthControlPointPositionStatus(k) == placed
    ]
    if not rows:
        raise InputError(
            "The landmark lists hold no pair of placed points; place some or choose no lists."
        )
    fixed, moving = (
        flip_lps_ras([node.GetNthControlPointPositionWorld(k) for k in rows])
        for node in (fixedNode, movingNode)
    )
    return LandmarkPairs(fixed, moving, [fixedNode.GetNthControlPointLabel(k) for k in rows])


def startTransform(node) -> sitk.AffineTransform:
    """A linear node, as one would put the moving volume under it, as fixed to moving, LPS mm."""
    from GlideRegLib.geometry import flip_lps_ras_matrix

    toWorld = vtk.vtkMatrix4x4()
    node.GetMatrixTransformToWorld(toWorld)
    # Under a node a volume goes the way of the points: moving to fixed. Resampling asks back.
    matrix = flip_lps_ras_matrix(np.linalg.inv(slicer.util.arrayFromVTKMatrix(toWorld)))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def parentsOf(node) -> list:
    """All transform nodes that a node is under."""
    found, parent = [], node.GetParentTransformNode() if node is not None else None
    while parent is not None:
        found.append(parent)
        parent = parent.GetParentTransformNode()
    return found
