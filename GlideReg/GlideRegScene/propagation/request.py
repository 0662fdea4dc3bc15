"""What is to be carried, as the scene describes it, and as files for the worker."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import slicer
import vtk

from .. import transforms
from ..inputs import CollectedInputs, imageOf, isSheared, parentsOf, worldImage, worldMatrix
from ..nodes import isInScene
from ..quality.field import transformFile
from .places import MarkupsItem, ModelItem
from .segmentations import SegmentationItem
from .volumes import VolumeItem

#: What can be carried, and what carries it; the first that fits counts.
_ITEMS = (
    ("vtkMRMLSegmentationNode", SegmentationItem),
    ("vtkMRMLMarkupsNode", MarkupsItem),
    ("vtkMRMLModelNode", ModelItem),
    ("vtkMRMLScalarVolumeNode", VolumeItem),
)


@dataclass
class PropagateRequest:
    """One propagation. ``fixedVolume`` and ``movingVolume`` are those of the registration.

    ``transform``: fixed to moving, as a registration leaves it. ``nodes`` belong to the moving
    image and go to the fixed one; with ``back`` the other way round. ``smooth``: segments without
    steps. ``doses``: volumes among the nodes that are dose, beside those that SlicerRT marks.
    """

    nodes: list
    transform: object
    fixedVolume: object = None
    movingVolume: object = None
    back: bool = False
    smooth: bool = False
    doses: tuple = ()

    @property
    def source(self):
        """The volume that the nodes belong to; it may be unknown."""
        return self.fixedVolume if self.back else self.movingVolume

    @property
    def target(self):
        """The volume to which they go; segmentations and volumes get its voxels."""
        return self.movingVolume if self.back else self.fixedVolume

    def problem(self) -> str:
        """What is missing or contradictory, as one sentence; "" when it can be run."""
        if self.transform is None:
            return "Register the volumes first, or choose a transform."
        if not isInScene(self.target):
            return f"Choose the {'moving' if self.back else 'fixed'} volume under Inputs."
        if self.target.GetImageData() is None:
            return "The volume to which they go is empty; load or choose one with voxels."
        if self.transform in parentsOf(self.target):
            return f"'{self.target.GetName()}' is under the transform; take it out from under it."
        linear = self.transform.IsTransformToWorldLinear()
        if self.fixedVolume is None and not (linear or transforms.isOurs(self.transform)):
            return "Choose the fixed volume too: this transform was not made by GlideReg."
        if not self.nodes:
            return "Tick what is to be carried."
        problems = (nodeProblem(node, self.transform) for node in self.nodes)
        return next((problem for problem in problems if problem), "")


def nodeProblem(node, transform=None) -> str:
    """Why a node cannot be carried, as one sentence; "" when it can."""
    name = node.GetName()
    kind = _kindOf(node)
    if kind is None:
        return f"'{name}' is a {node.GetNodeTagName()}, which cannot be carried."
    if transform is not None and transform in parentsOf(node):
        return (
            f"'{name}' is under the transform and lies on the other image already; take it out "
            "from under it, or harden it."
        )
    return kind.problem(node)


def _kindOf(node):
    return next((kind for name, kind in _ITEMS if node.IsA(name)), None)


# --- files ----------------------------------------------------------------------------------------


@dataclass
class CollectedPropagation(CollectedInputs):
    """The files of a propagation. ``items``: what belongs to each node of the request, in order.
    ``note``: in how far the file of the transform is not the node itself; mostly ""."""

    items: list = field(default_factory=list)
    note: str = ""
    writeTransform: Callable[[Callable[[], bool]], None] = lambda goOn: None

    def write(self, goOn: Callable[[], bool] = lambda: True) -> None:
        super().write(goOn)
        if goOn():
            self.writeTransform(goOn)


def collectPropagation(request: PropagateRequest, folder: Path) -> CollectedPropagation:
    """Nodes, grids and the transform, to be written into ``folder``.

    Raises the library's InputError with one sentence when a node cannot be used.
    """
    job: dict = {"task": "propagate", "back": request.back, "smooth": request.smooth}
    job["compress"] = False
    collected = CollectedPropagation(job, None)
    path, collected.writeTransform, collected.note = transformFile(
        request.transform, request.fixedVolume, folder, "transform"
    )
    job["transform"] = path
    for role, grid in _grids(request).items():
        job[role] = str(folder / f"{role}.json")
        text = json.dumps(grid.to_dict())
        collected._writers.append(partial(Path(job[role]).write_text, text, encoding="utf-8"))
    for number, node in enumerate(request.nodes, start=1):
        item = _kindOf(node)(node, f"item-{number}", request)
        collected.items.append(item)
        for file in item.files:
            path = folder / file.name
            job.setdefault(file.kind, []).append(str(path))
            collected._writers.append(partial(file.write, path))
    if not any(item.files for item in collected.items):
        from GlideRegLib.errors import InputError

        raise InputError("There is nothing to carry: the segmentations are empty.")
    return collected


def _grids(request: PropagateRequest) -> dict:
    """The library's grids of both images. One that nobody knows is that of the transform, or of
    the other image: it matters only for the way back of a field."""
    from GlideRegLib.geometry import Grid

    target = gridOf(request.target)
    source, transform = request.source, request.transform
    if isInScene(source) and source.GetImageData() is not None:
        outside = transform not in parentsOf(source)
        known = gridOf(source) if outside else Grid.from_sitk(_unmoved(source))
    elif transforms.isOurs(transform):
        known = Grid.from_sitk(transforms.displacementImage(transform))
    else:
        known = target
    fixed, moving = (known, target) if request.back else (target, known)
    return {"fixed": fixed, "moving": moving}


def gridOf(volume):
    """The library's grid of a volume node as it stands in the world, LPS mm."""
    from GlideRegLib.geometry import Grid

    warped = any(not parent.IsTransformToWorldLinear() for parent in parentsOf(volume))
    matrix = worldMatrix(volume)
    regular = not warped and not isSheared(matrix)
    return Grid.from_sitk(_emptyImage(volume, matrix) if regular else worldImage(volume)[0])


def _unmoved(volume):
    """The image of a volume that was put under the registration: where it stands without it."""
    ijkToRas = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(ijkToRas)
    return _emptyImage(volume, slicer.util.arrayFromVTKMatrix(ijkToRas))


def _emptyImage(volume, matrix: np.ndarray):
    size = volume.GetImageData().GetDimensions()
    return imageOf(np.zeros(size[::-1], np.uint8), matrix)
