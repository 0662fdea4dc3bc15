"""The voxels that were measured, as a segmentation for each scan: what was measured can be seen.

A segment belongs to a measurement, not to a row: it follows the measurement when a decision hands
that to another row, and is hidden while no row has it. The user's own segmentations stay.
"""

from typing import TYPE_CHECKING

import slicer

from ..nodes import CreatedNodes, isInScene
from ..propagation.segmentations import orientedImage
from ..results import FOLDER
from . import tables
from .markers import TIME, TIMES

if TYPE_CHECKING:
    from GlideRegLib.tracking.measures import Measurement
    from GlideRegLib.tracking.records import Tracking

_ROLE = "GlideRegMeasured"
#: The color of the outline in the pictures of the command line.
_COLOR = (0.38, 0.85, 0.31)
_SIDES = dict(zip(TIMES, ("moving", "fixed"), strict=True))


def segmentsOf(table, time: str):
    """The segmentation of one scan ("prior", "current"), or None when nothing was measured."""
    node = table.GetNodeReference(_ROLE + time.capitalize())
    return node if isInScene(node) else None


def segmentId(measurement: "Measurement") -> str:
    """The ID of the segment of a measurement: its place and size (LPS mm, mm^3)."""
    values = (*measurement.centroid, measurement.volume_mm3)
    return "GlideReg " + " ".join(f"{value:.2f}" for value in values)


def importSegments(table, proposal: "Tracking") -> None:
    """After a run: the voxels that it measured take the place of those of earlier runs, but for
    what a decision keeps. The rows of ``proposal`` have their masks."""
    for time in TIMES:
        node = segmentsOf(table, time)
        if node is not None:
            segmentation, wanted = node.GetSegmentation(), _measured(table, time)
            for identifier in segmentation.GetSegmentIDs():
                if identifier not in wanted:
                    segmentation.RemoveSegment(identifier)
    refresh(table, proposal)


def refresh(table, tracking: "Tracking") -> None:
    """Adds the voxels that rows of ``tracking`` bring along, and names and shows all segments by
    the rows of the table."""
    with CreatedNodes(table.GetScene()) as created:
        for time in TIMES:
            for row in tracking:
                mask = getattr(row, f"{_SIDES[time]}_mask")
                if mask is not None:
                    _add(table, time, getattr(row, f"{_SIDES[time]}_measurement"), mask, created)
            _show(table, time)


def _measured(table, time: str) -> dict:
    """The rows of the table by the ID of the segment of their measurement in one scan."""
    found = {}
    for row in tables.trackingOf(table):
        measurement = getattr(row, f"{_SIDES[time]}_measurement")
        if measurement is not None:
            found[segmentId(measurement)] = row
    return found


def _add(table, time: str, measurement: "Measurement", mask, created: CreatedNodes) -> None:
    node = segmentsOf(table, time) or _made(table, time, created)
    if node.GetSegmentation().GetSegment(segmentId(measurement)) is None:
        segment = slicer.vtkSegment()
        segment.SetColor(*_COLOR)
        segment.AddRepresentation("Binary labelmap", orientedImage(mask.to_sitk()))
        node.GetSegmentation().AddSegment(segment, segmentId(measurement))


def _made(table, time: str, created: CreatedNodes):
    """A new segmentation in the folder of the table, drawn as lines."""
    name = f"Measured voxels, {time} nodules"
    node = created.add("vtkMRMLSegmentationNode", name)
    node.SetAttribute(TIME, time)
    node.SetDescription(tables.NOTICE)
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    volume = dict(zip(TIMES, tables.volumesOf(table), strict=True))[time]
    if volume is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility2DFill(False)
    table.SetNodeReferenceID(_ROLE + time.capitalize(), node.GetID())
    folder = created.folderOf(table, FOLDER)
    if folder:
        created.moveInto(folder, node)
    return node


def _show(table, time: str) -> None:
    """Names of segments are those of their rows; of rejected rows they are hidden."""
    node, rows = segmentsOf(table, time), _measured(table, time)
    if node is None:
        return
    for identifier in node.GetSegmentation().GetSegmentIDs():
        row = rows.get(identifier)
        shown = row is not None and row.decision != "rejected"
        node.GetDisplayNode().SetSegmentVisibility(identifier, shown)
        if row is not None:
            node.GetSegmentation().GetSegment(identifier).SetName(row.name)
