"""Segments of both segmentations, paired by their names, as label maps for the worker.

Segments may overlap (a tumor in a lung), voxels of a label map cannot: what overlaps in one of both
segmentations goes into a map of its own.
"""

import csv
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer

from ..inputs import worldImage
from ..nodes import onlyTemporarily

_BINARY = "Binary labelmap"


def names(segmentation) -> list[str]:
    """The names of the segments of a segmentation node, in their order, each once."""
    if segmentation is None:
        return []
    own = segmentation.GetSegmentation()
    return list(dict.fromkeys(own.GetSegment(i).GetName() for i in own.GetSegmentIDs()))


@dataclass
class LabelFiles:
    """The job's values for structures, and what writes the files."""

    job: dict
    writers: list[Callable[[], None]] = field(default_factory=list)


def labelFiles(
    fixedNode, movingNode, chosen: list[str], volumes: tuple, folder: Path
) -> LabelFiles:
    """The chosen structures of the fixed segmentation and those of the same name in the moving one
    (which may be None: then only what needs no second contour is measured). Raises the library's
    InputError for one without voxels in the fixed volume.

    ``volumes`` are the fixed and the moving volume, on whose voxels they are drawn. Structure k of
    ``chosen`` gets the label k + 1. Nodes are not changed.
    """
    labels = {name: k for k, name in enumerate(chosen, start=1)}
    with (
        _copied(fixedNode, labels, volumes[0]) as fixed,
        _copied(movingNode, labels, volumes[1]) as moving,
    ):
        groups: dict[tuple, list[str]] = {}
        for name in chosen:
            groups.setdefault((fixed.layer(name), moving.layer(name)), []).append(name)
        pairs = [
            (fixed.image(group, labels), moving.image(group, labels)) for group in groups.values()
        ]
    _refuseEmpty(chosen, labels, [fixedImage for fixedImage, _ in pairs])
    job: dict = {"names": str(folder / "structures.csv")}
    result = LabelFiles(job, [partial(_writeNames, labels, job["names"])])
    for k, pair in enumerate(pairs):
        for role, image in zip(("fixed", "moving"), pair, strict=True):
            path = str(folder / f"{role}-structures-{k + 1}.nrrd") if image is not None else ""
            if path:
                result.writers.append(partial(sitk.WriteImage, image, path, True))
            if k == 0:
                job[f"{role}_labels"] = path or None
            else:
                job.setdefault(f"more_{role}_labels", []).append(path)
    return result


def _refuseEmpty(chosen: list[str], labels: dict[str, int], images: list) -> None:
    """A structure without voxels would be missing from the results without a word."""
    from GlideRegLib.errors import InputError

    arrays = (sitk.GetArrayViewFromImage(image) for image in images if image is not None)
    drawn = set().union(*(np.unique(array).tolist() for array in arrays))
    for name in chosen:
        if labels[name] not in drawn:
            raise InputError(
                f"The structure '{name}' has no voxel in the fixed volume; leave it out."
            )


def _writeNames(labels: dict[str, int], path: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "name"))
        writer.writerows((label, name) for name, label in labels.items())


class _Copy:
    """A copy of the chosen segments, in as few layers that do not overlap as there are."""

    def __init__(self, node, ids: dict[str, str], volume) -> None:
        self._node, self._ids, self._volume = node, ids, volume

    def layer(self, name: str) -> int:
        """In which layer a structure lies; -1 when the segmentation lacks it."""
        if name not in self._ids:
            return -1
        return self._node.GetSegmentation().GetLayerIndex(self._ids[name], _BINARY)

    def image(self, group: list[str], labels: dict[str, int]) -> sitk.Image | None:
        """A label map of structures that do not overlap, on the voxels of the volume; None when it
        would be empty."""
        present = [name for name in group if name in self._ids]
        if not present:
            return None
        target = self._node.GetScene().AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "glidereg")
        slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(
            self._node,
            [self._ids[name] for name in present],
            target,
            self._volume,
            slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY,
        )
        image, _ = worldImage(target)
        wanted = np.array([0, *(labels[name] for name in present)], np.uint16)
        mapped = sitk.GetImageFromArray(wanted[sitk.GetArrayViewFromImage(image)])
        mapped.CopyInformation(image)
        return mapped if sitk.GetArrayViewFromImage(mapped).any() else None


@contextmanager
def _copied(node, labels: dict[str, int], volume):
    """From a copy: Slicer would add a binary representation to the user's own segmentation."""
    if node is None:
        yield _Copy(None, {}, volume)
        return
    scene, source = node.GetScene(), node.GetSegmentation()
    with onlyTemporarily(scene):
        copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "glidereg-structures")
        target, ids = copy.GetSegmentation(), {}
        target.SetSourceRepresentationName(source.GetSourceRepresentationName())
        for identifier in source.GetSegmentIDs():
            name = source.GetSegment(identifier).GetName()
            if name in labels and name not in ids:
                target.CopySegmentFromSegmentation(source, identifier)
                ids[name] = identifier
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        target.CreateRepresentation(_BINARY)
        target.CollapseBinaryLabelmaps(False)
        yield _Copy(copy, ids, volume)
