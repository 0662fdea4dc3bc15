"""Paired regions as two segmentations: a region has the same name and color in both images."""

import colorsys
import csv
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
import slicer

from .nodes import CreatedNodes
from .propagation.segmentations import orientedImage

FIXED_ROLE = "GlideRegFixedRegions"
MOVING_ROLE = "GlideRegMovingRegions"
_BINARY = "Binary labelmap"
#: The golden ratio: hues of neighboring numbers lie far apart, however many there are.
_TURN = 0.618034


@dataclass
class RegionFiles:
    """The worker's label maps, LPS of the world, and the similarity of each number."""

    fixed: sitk.Image
    moving: sitk.Image
    similarities: dict[int, float]


def readRegions(folder: Path) -> RegionFiles | None:
    """Reads the paired regions of a run, None when it has none, in any thread.

    Raises OSError, RuntimeError or ValueError.
    """
    table = folder / "regions.csv"
    if not table.is_file():
        return None
    with table.open(newline="", encoding="utf-8") as stream:
        rows = {int(row["region"]): float(row["similarity"]) for row in csv.DictReader(stream)}
    names = ("regions_fixed", "regions_moving")
    images = (sitk.ReadImage(str(folder / f"{name}.mha")) for name in names)
    return RegionFiles(*images, rows)


def addRegions(files: RegionFiles, fixedVolume, movingVolume, created: CreatedNodes) -> tuple:
    """(fixed, moving) segmentation nodes. The moving one is hidden at first: it lies on another
    image."""
    nodes = []
    for image, volume in ((files.fixed, fixedVolume), (files.moving, movingVolume)):
        name = f"Paired regions {volume.GetName()}"
        node = created.add("vtkMRMLSegmentationNode", name, unique=True)
        node.CreateDefaultDisplayNodes()
        segmentation = node.GetSegmentation()
        segmentation.SetSourceRepresentationName(_BINARY)
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        voxels = orientedImage(image)
        for number, similarity in files.similarities.items():
            segment = slicer.vtkSegment()
            segment.SetName(f"Region {number} ({similarity:.2f})")
            segment.SetColor(*regionColor(number))
            segment.SetLabelValue(number)
            segment.AddRepresentation(_BINARY, voxels)
            segmentation.AddSegment(segment, f"region-{number}")
        nodes.append(node)
    if nodes[1].GetDisplayNode() is not None:
        nodes[1].GetDisplayNode().SetVisibility(False)
    return tuple(nodes)


def regionColor(number: int) -> tuple[float, float, float]:
    """Red, green, blue of a region's number, 0 to 1."""
    return colorsys.hsv_to_rgb(number * _TURN % 1, 0.55 + 0.15 * (number % 3), 0.95)
