"""A segmentation as label maps, a file for each layer, and back as segments that share them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ..inputs import imageOf, straightened
from ..nodes import onlyTemporarily
from ..transforms import rasMatrix
from .files import ItemFile, copyLooks

_BINARY = "Binary labelmap"
_SURFACE = "Closed surface"
#: Surfaces are made at once up to so many voxels to look at (segments times voxels of their layer):
#: more would hold up the application for seconds.
_MOST_FOR_SURFACES = 2e7
#: Empty voxels around a label map: the distance to a surface needs them.
_MARGIN = 3


@dataclass
class _Layer:
    """Segments that do not overlap: their label values, and voxels (K, J, I) with index to RAS."""

    values: dict[str, int]
    voxels: np.ndarray
    matrix: np.ndarray


class SegmentationItem:
    """Segments that share a layer go as one label map, so that a hundred cost as much as one."""

    def __init__(self, node, name: str, request) -> None:
        self.node = node
        self._withoutSurfaces = False
        self._layers = [layer for layer in _layersOf(node) if layer.voxels.any()]
        self.files = [
            ItemFile("labels", f"{name}-{number}.mha", partial(_write, layer))
            for number, layer in enumerate(self._layers, start=1)
        ]

    @staticmethod
    def problem(node) -> str:
        if node.GetSegmentation().GetNumberOfSegments() == 0:
            return f"The segmentation '{node.GetName()}' has no segments."
        return ""

    def build(self, new, carried: list, request) -> None:
        """Fills a new node with the carried layers; names, colors and tags of segments stay."""
        source, target = self.node.GetSegmentation(), new.GetSegmentation()
        target.SetSourceRepresentationName(_BINARY)
        new.SetReferenceImageGeometryParameterFromVolumeNode(request.target)
        homes, cost = {}, 0
        for layer, image in zip(self._layers, carried, strict=True):
            shared = orientedImage(image)
            cost += len(layer.values) * shared.GetNumberOfPoints()
            homes.update({key: (shared, value) for key, value in layer.values.items()})
        for identifier in source.GetSegmentIDs():
            segment = slicer.vtkSegment()
            segment.DeepCopyMetadata(source.GetSegment(identifier))
            voxels, value = homes.get(identifier, (slicer.vtkOrientedImageData(), 1))
            segment.SetLabelValue(value)
            segment.AddRepresentation(_BINARY, voxels)
            target.AddSegment(segment, identifier)
        if source.ContainsRepresentation(_SURFACE):  # it was seen in 3-D
            self._withoutSurfaces = cost > _MOST_FOR_SURFACES
            if not self._withoutSurfaces:
                new.CreateClosedSurfaceRepresentation()
        copyLooks(self.node, new)

    def notes(self, entries: list[dict], request) -> list[str]:
        """What the user has to know about this node."""
        lost = []
        for layer, entry in zip(self._layers, entries, strict=True):
            gone = {row["label"] for row in entry["labels"] if row["target_mm3"] == 0}
            lost += [self._segmentName(k) for k, value in layer.values.items() if value in gone]
        found = []
        if self._withoutSurfaces:
            found.append(
                f"'{self.node.GetName()}' is large: press Show 3D in the module Segmentations to "
                "see it in 3-D."
            )
        if not lost:
            return found
        names = ", ".join(f"'{name}'" for name in lost[:5]) + (" ..." if len(lost) > 5 else "")
        return [
            *found,
            f"{names} of '{self.node.GetName()}' left no voxel in '{request.target.GetName()}': "
            "outside of it, or too thin for its voxels.",
        ]

    def _segmentName(self, identifier: str) -> str:
        segment = self.node.GetSegmentation().GetSegment(identifier)
        return segment.GetName() if segment is not None else identifier


def _layersOf(node) -> list[_Layer]:
    """The layers of a copy, in the world; Slicer would change the user's own segmentation."""
    scene, layers = node.GetScene(), []
    with onlyTemporarily(scene):
        copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "glidereg-segments")
        copy.GetSegmentation().DeepCopy(node.GetSegmentation())
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        if not copy.CreateBinaryLabelmapRepresentation():
            from GlideRegLib.errors import InputError

            raise InputError(
                f"The segmentation '{node.GetName()}' cannot be turned into voxels; choose another."
            )
        copy.HardenTransform()
        segmentation = copy.GetSegmentation()
        for number in range(segmentation.GetNumberOfLayers(_BINARY)):
            values = {
                identifier: segmentation.GetSegment(identifier).GetLabelValue()
                for identifier in segmentation.GetSegmentIDsForLayer(number, _BINARY)
            }
            data = segmentation.GetLayerDataObject(number, _BINARY)
            layers.append(_layer(values, data))
    return layers


def _layer(values: dict[str, int], oriented) -> _Layer:
    size = oriented.GetDimensions()
    matrix = vtk.vtkMatrix4x4()
    oriented.GetImageToWorldMatrix(matrix)
    matrix = slicer.util.arrayFromVTKMatrix(matrix)
    if min(size) <= 0:
        return _Layer(values, np.zeros((1, 1, 1), np.uint8), matrix)
    # The first stored voxel need not be the voxel 0, 0, 0.
    matrix[:3, 3] += matrix[:3, :3] @ np.asarray(oriented.GetExtent()[::2], float)
    voxels = vtk_to_numpy(oriented.GetPointData().GetScalars()).reshape(size[::-1])
    if len(values) == 1:
        # Alone it is whatever is not 0, as for Slicer.
        voxels = np.where(voxels > 0, next(iter(values.values())), 0)
    else:
        voxels = np.where(np.isin(voxels, list(values.values())), voxels, 0)
    return _Layer(values, voxels.astype(_kindFor(voxels)), matrix)


def _kindFor(labels: np.ndarray) -> type:
    """The smallest type of voxels that Slicer and ITK have for labels."""
    largest = labels.max()
    return np.uint8 if largest < 256 else np.int16 if largest < 32768 else np.int32


def _write(layer: _Layer, path: Path) -> None:
    image = imageOf(layer.voxels, layer.matrix)
    image = sitk.ConstantPad(image, [_MARGIN] * 3, [_MARGIN] * 3, 0)
    sitk.WriteImage(straightened(image, labels=True), str(path))


def orientedImage(image: sitk.Image):
    """A label map as Slicer's oriented image data, cut to what is labeled."""
    oriented = slicer.vtkOrientedImageData()
    voxels = sitk.GetArrayViewFromImage(image)
    filled = [np.flatnonzero(voxels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(filled[0]):
        return oriented
    box = tuple(slice(rows[0], rows[-1] + 1) for rows in filled)
    first = [int(axis.start) for axis in box[::-1]]
    part = voxels[box]
    oriented.SetDimensions(part.shape[::-1])
    values = numpy_to_vtk(np.ascontiguousarray(part, _kindFor(part)).ravel(), deep=True)
    oriented.GetPointData().SetScalars(values)
    # Slicer's extents count from the first voxel of the reference image.
    extent = [v for k, n in zip(first, part.shape[::-1], strict=True) for v in (k, k + n - 1)]
    oriented.SetExtent(extent)
    oriented.SetImageToWorldMatrix(rasMatrix(image))
    return oriented
