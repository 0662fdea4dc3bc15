"""What is to be tracked, as the scene describes it, and as files for the worker.

The library calls the earlier scan *moving* and the current one *fixed*; a registration may have
been made the other way round. So nodes are named by their time here: prior and current.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer

from .. import transforms
from ..inputs import CollectedInputs, parentsOf, segmentIds, segmentImage, worldSource
from ..inputs import startTransform as linearTransform
from ..results import UNCERTAINTY_ROLE, belongsTo
from . import tables

#: Files are named by the role of the image in the registration.
SIDES = ("moving", "fixed")


@dataclass
class TrackRequest:
    """One tracking. ``fixedVolume`` and ``movingVolume`` are those of the registration.

    ``transform``: fixed to moving, as a registration leaves it (put the moving volume under it to
    see it registered). ``prior`` says which of both is the earlier scan. Nodules are point lists,
    segmentations or label maps; ``currentNodules`` None: nothing to match against; an empty point
    list: the current scan holds none. ``days`` between the scans, None: unknown. ``table``: that of
    an earlier run. When it is about the same scans, it is filled anew and its decisions stay; when
    its current scan is the prior here, its tracks go on; else it is left alone.
    """

    fixedVolume: object
    movingVolume: object
    transform: object
    priorNodules: object
    currentNodules: object = None
    prior: str = "moving"
    segment: bool = True
    refine: bool = True
    referenceThresholds: bool = False
    days: float | None = None
    table: object = None

    @property
    def priorVolume(self):
        return self.movingVolume if self.prior == "moving" else self.fixedVolume

    @property
    def currentVolume(self):
        return self.fixedVolume if self.prior == "moving" else self.movingVolume

    def nodulesOf(self, side: str):
        """The nodules of the registration's "moving" or "fixed" image."""
        return self.priorNodules if side == self.prior else self.currentNodules

    def problem(self) -> str:
        """What is missing or contradictory, as one sentence; "" when it can be run."""
        if self.fixedVolume is None or self.movingVolume is None:
            return "Choose the fixed and the moving volume under Inputs."
        if self.transform is None:
            return "Register the volumes first, or choose a transform for the nodules."
        if transforms.isOurs(self.transform) and not belongsTo(self.transform, self):
            return "The transform registers other volumes; choose them under Inputs, or another."
        if self.priorNodules is None:
            return "Choose the nodules of the prior scan."
        if self.priorNodules is self.currentNodules:
            return "Both scans have the same nodules; choose two lists, or none for the current."
        return self._nodeProblem()

    def _nodeProblem(self) -> str:
        for when, volume in (("prior", self.priorVolume), ("current", self.currentVolume)):
            if volume.GetImageData() is None or volume.GetImageData().GetNumberOfPoints() == 0:
                return f"The {when} volume is empty; load or choose one with voxels."
        named = (
            ("prior volume is", self.priorVolume),
            ("current volume is", self.currentVolume),
            ("prior nodules are", self.priorNodules),
            ("current nodules are", self.currentNodules),
        )
        for what, node in named:
            if any(not parent.IsTransformToWorldLinear() for parent in parentsOf(node)):
                return (
                    f"The {what} under a deforming transform; take it away: nodules are marked "
                    "and measured on the native images."
                )
        if not placedPoints(self.priorNodules) and isPointList(self.priorNodules):
            return "The prior nodules hold no placed point; place one at each nodule."
        return ""


def isPointList(node) -> bool:
    """Whether nodules are given as points, one each."""
    return node is not None and node.IsA("vtkMRMLMarkupsFiducialNode")


def placedPoints(node) -> list[int]:
    """Indices of the points of a list that are placed; none for other nodes."""
    if not isPointList(node):
        return []
    placed = slicer.vtkMRMLMarkupsNode.PositionDefined
    count = node.GetNumberOfControlPoints()
    return [k for k in range(count) if node.GetNthControlPointPositionStatus(k) == placed]


# --- files ----------------------------------------------------------------------------------------


@dataclass
class CollectedNodules(CollectedInputs):
    """The files of a tracking. ``points``: ID and place (LPS mm) of each point that was given, by
    the time of its list ("prior", "current"): the way back from a place to its point."""

    points: dict[str, list[tuple[str, tuple]]] = field(default_factory=dict)


def collectNodules(request: TrackRequest, folder: Path) -> CollectedNodules:
    """Volumes, nodules and the transform, to be written into ``folder``.

    Raises the library's InputError with one sentence when a node cannot be used.
    """
    measure = {
        "segment": request.segment,
        "days": request.days,
        "reference_thresholds": request.referenceThresholds,
    }
    settings = {"refine": {"enabled": request.refine}, "measure": measure}
    job = {"task": "track", "outputs": "lists", "prior": request.prior, "settings": settings}
    collected = CollectedNodules(job, None)
    for side, volume in (("fixed", request.fixedVolume), ("moving", request.movingVolume)):
        job[side] = str(folder / f"{side}.mha")
        collected._writers.append(_imageWriter(volume, job[side]))
    for side in SIDES:
        if request.nodulesOf(side) is not None:
            _collectList(request, side, folder, collected)
    job["transform"], writer = _transformFile(request.transform, request.fixedVolume, folder)
    collected._writers.append(writer)
    uncertainty = request.transform.GetNodeReference(UNCERTAINTY_ROLE)
    if uncertainty is not None:
        job["uncertainty"] = str(folder / "uncertainty.mha")
        collected._writers.append(_imageWriter(uncertainty, job["uncertainty"]))
    return collected


def _imageWriter(volume, path: str) -> Callable[[], None]:
    source, _resampled = worldSource(volume)
    return lambda: sitk.WriteImage(source(), path)


def _collectList(
    request: TrackRequest, side: str, folder: Path, collected: CollectedNodules
) -> None:
    """The nodules of one image, with the identities that they had in the earlier run."""
    from GlideRegLib.landmarks import write_landmarks
    from GlideRegLib.tracking.nodules import NO_NODULES

    node, when = request.nodulesOf(side), "prior" if side == request.prior else "current"
    name = f"{side}_nodules"
    if isPointList(node):
        places, labels = _points(node)
        collected.points[when] = places
        collected.job[name] = str(folder / f"{side}-nodules.mrk.json") if places else NO_NODULES
        if places:
            path, points = collected.job[name], np.array([place for _, place in places])
            collected._writers.append(partial(write_landmarks, path, points, labels))
    else:
        collected.job[name] = str(folder / f"{side}-nodules.nrrd")
        volume = request.movingVolume if side == "moving" else request.fixedVolume
        image = _labels(node, volume)
        collected._writers.append(partial(sitk.WriteImage, image, collected.job[name], True))
    collected.job[f"{side}_identities"] = _known(request, when, node, collected.points.get(when))


def _known(request: TrackRequest, when: str, node, places: list | None) -> list[list]:
    """Nodules that the table knows, if it is about these volumes or about those before them."""
    prior, current = request.priorVolume, request.currentVolume
    if tables.reusable(request.table, prior, current) is not None:
        return tables.knownNodules(request.table, when, node, places)
    return tables.nodulesAfter(request.table, prior) if when == "prior" else []


def _points(node) -> tuple[list[tuple[str, tuple]], list[str]]:
    """ID and world place (LPS mm) of every placed point, and their names."""
    from GlideRegLib.geometry import flip_lps_ras

    rows = placedPoints(node)
    world = [flip_lps_ras(node.GetNthControlPointPositionWorld(k)).tolist() for k in rows]
    ids = [node.GetNthControlPointID(k) for k in rows]
    labels = [node.GetNthControlPointLabel(k) or str(k + 1) for k in rows]
    return [(key, tuple(place)) for key, place in zip(ids, world, strict=True)], labels


def _labels(node, volume) -> sitk.Image:
    """A label map, or a segmentation on the voxels of its volume, in world LPS mm, named."""
    from GlideRegLib.errors import InputError

    names = {}
    if node.IsA("vtkMRMLSegmentationNode"):
        ids = segmentIds(node, "")
        image = segmentImage(node, ids, volume)
        segmentation = node.GetSegmentation()
        names = {k: segmentation.GetSegment(i).GetName() for k, i in enumerate(ids, start=1)}
    else:
        source, _resampled = worldSource(node)
        image = source()
    if not sitk.GetArrayViewFromImage(image).any():
        raise InputError("The segmentation of the nodules is empty; mark at least one nodule.")
    image = sitk.Cast(image, sitk.sitkInt16)
    for value, name in names.items():
        image.SetMetaData(f"Segment{value - 1}_LabelValue", str(value))
        image.SetMetaData(f"Segment{value - 1}_Name", name)
    return image


# --- the transform --------------------------------------------------------------------------------


def _transformFile(node, fixedVolume, folder: Path) -> tuple[str, Callable[[], None]]:
    """Any transform node as a file, fixed to moving, LPS mm, and what writes it."""
    if node.IsTransformToWorldLinear():
        path = str(folder / "transform.tfm")
        return path, partial(sitk.WriteTransform, linearTransform(node), path)
    path = str(folder / "transform.mha")
    grid = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    exact = transforms.isOurs(node) and grid is not None and node.GetTransformNodeID() is None
    image = (
        transforms.displacementImage(node)
        if exact
        else transforms.sampledDisplacements(node, fixedVolume)
    )
    return path, partial(sitk.WriteImage, image, path)
