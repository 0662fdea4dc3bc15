"""Label maps, dose and images: their voxels are pulled onto the target's grid."""

from functools import partial
from pathlib import Path

import SimpleITK as sitk
import slicer

from ..inputs import worldSource
from ..transforms import rasMatrix
from .files import ItemFile, copyLooks

#: What SlicerRT marks dose volumes with.
DOSE_ATTRIBUTE = "DicomRtImport.DoseVolume"


def isDose(node) -> bool:
    """Whether SlicerRT marked a volume as dose."""
    return node.GetAttribute(DOSE_ATTRIBUTE) is not None


class VolumeItem:
    """A scalar volume; label maps nearest or smooth, dose with 0 outside."""

    def __init__(self, node, name: str, request) -> None:
        self.node = node
        kind = "images"
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            kind = "labels"
        elif node in request.doses or isDose(node):
            kind = "dose"
        source, _resampled = worldSource(node)
        self.files = [ItemFile(kind, f"{name}.mha", partial(_write, source))]

    @staticmethod
    def problem(node) -> str:
        image = node.GetImageData()
        if image is None or image.GetNumberOfPoints() == 0:
            return f"The volume '{node.GetName()}' is empty."
        if image.GetNumberOfScalarComponents() != 1:
            return f"The volume '{node.GetName()}' has several values per voxel; it is not carried."
        return ""

    def build(self, new, carried: list, request) -> None:
        """Fills a new node with the carried voxels; window, colors and unit stay."""
        image = carried[0]
        slicer.util.updateVolumeFromArray(new, sitk.GetArrayViewFromImage(image))
        new.SetIJKToRASMatrix(rasMatrix(image))
        units, quantity = self.node.GetVoxelValueUnits(), self.node.GetVoxelValueQuantity()
        if units is not None:
            new.SetVoxelValueUnits(units)
        if quantity is not None:
            new.SetVoxelValueQuantity(quantity)
        if isDose(self.node):
            new.SetAttribute(DOSE_ATTRIBUTE, self.node.GetAttribute(DOSE_ATTRIBUTE))
        copyLooks(self.node, new)

    def notes(self, entries: list[dict], request) -> list[str]:
        """What the user has to know about this node."""
        values = entries[0].get("labels", ())
        lost = [str(row["label"]) for row in values if row["target_mm3"] == 0]
        if not lost:
            return []
        return [
            f"Labels {', '.join(lost[:10])} of '{self.node.GetName()}' left no voxel in "
            f"'{request.target.GetName()}': outside of it, or too thin for its voxels."
        ]


def _write(source, path: Path) -> None:
    sitk.WriteImage(source(), str(path))
