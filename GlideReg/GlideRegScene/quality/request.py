"""What is to be assessed, as the scene describes it, and as files for the worker."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from .. import transforms
from ..inputs import CollectedInputs, landmarkPairs, parentsOf, worldSource
from ..nodes import isInScene
from ..results import belongsTo
from . import structures
from .field import transformFile


@dataclass
class AssessRequest:
    """One assessment of a transform, whoever made it.

    ``transform``: fixed to moving, as a registration leaves it (put the moving volume under it to
    see it registered); ``backward``: of a registration the other way round. Landmarks are point
    lists, row k of one belongs to row k of the other. Structures are segments of the same name in
    both segmentations; without ``movingStructures`` only what needs no second contour is measured.
    ``structures``: the names that count, None for all. ``profile``: a name or a file.
    ``jacobian``: the map of the determinant, too. ``reportFolder``: where assessment.html and
    assessment.json go. ``table``: that of an earlier assessment, which is filled anew.
    """

    fixedVolume: object
    movingVolume: object
    transform: object
    backward: object = None
    fixedLandmarks: object = None
    movingLandmarks: object = None
    fixedStructures: object = None
    movingStructures: object = None
    structures: list[str] | None = None
    profile: str = "tg132"
    jacobian: bool = False
    reportFolder: Path | None = None
    table: object = None

    @property
    def chosen(self) -> list[str]:
        """The names of the structures that are measured."""
        known = structures.names(self.fixedStructures)
        return known if self.structures is None else [n for n in known if n in self.structures]

    def problem(self) -> str:
        """What is missing or contradictory, as one sentence; "" when it can be run."""
        if self.fixedVolume is None or self.movingVolume is None:
            return "Choose the fixed and the moving volume under Inputs."
        for role, node in (("fixed", self.fixedVolume), ("moving", self.movingVolume)):
            if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
                return f"The {role} volume is empty; load or choose one with voxels."
        if self.transform is None:
            return "Register the volumes first, or choose a transform to assess."
        if transforms.isOurs(self.transform) and not belongsTo(self.transform, self):
            return "The transform registers other volumes; choose them under Inputs, or another."
        if self.backward is self.transform:
            return "The transform cannot be its own way back; choose another one, or none."
        if (self.fixedLandmarks is None) != (self.movingLandmarks is None):
            lacking = "fixed" if self.fixedLandmarks is None else "moving"
            return f"Choose the {lacking} landmarks too, or none."
        return self._structureProblem() or self._parentProblem()

    def _structureProblem(self) -> str:
        if self.fixedStructures is None and self.movingStructures is not None:
            return "Choose the structures of the fixed scan too, or none."
        if self.fixedStructures is not None and not structures.names(self.fixedStructures):
            return "The fixed segmentation has no segments; draw one, or choose none."
        if self.fixedStructures is not None and not self.chosen:
            return "Tick at least one structure, or choose no segmentation."
        return ""

    def _parentProblem(self) -> str:
        named = {
            "moving volume is": self.movingVolume,
            "moving landmarks are": self.movingLandmarks,
            "moving structures are": self.movingStructures,
            "fixed volume is": self.fixedVolume,
            "fixed landmarks are": self.fixedLandmarks,
            "fixed structures are": self.fixedStructures,
        }
        for what, node in named.items():
            parents = parentsOf(node)
            if self.transform in parents:
                return f"The {what} under the transform; take it out: the way there is measured."
            if any(not parent.IsTransformToWorldLinear() for parent in parents):
                return f"The {what} under a deforming transform; take it out, or harden it."
        return ""


#: Role of a reference of the table -> name in the request.
NODES = {
    "GlideRegFixedVolume": "fixedVolume",
    "GlideRegMovingVolume": "movingVolume",
    "GlideRegTransform": "transform",
    "GlideRegBackward": "backward",
    "GlideRegFixedLandmarks": "fixedLandmarks",
    "GlideRegMovingLandmarks": "movingLandmarks",
    "GlideRegFixedStructures": "fixedStructures",
    "GlideRegMovingStructures": "movingStructures",
}
#: Attributes of the table with what is no node: which inputs there were, structures, profile.
GIVEN, STRUCTURES, PROFILE = (f"GlideReg.Assessed{n}" for n in ("Nodes", "Structures", "Profile"))


def remember(table, request: AssessRequest) -> None:
    """Notes at the table what was assessed, so that it can be done again (for a report)."""
    given = []
    for role, name in NODES.items():
        node = getattr(request, name)
        table.SetNodeReferenceID(role, node.GetID() if isInScene(node) else None)
        given += [name] if node is not None else []
    table.SetAttribute(GIVEN, " ".join(given))
    table.SetAttribute(STRUCTURES, "\n".join(request.chosen))
    table.SetAttribute(PROFILE, request.profile)


def remembered(table, **changes) -> AssessRequest:
    """The request that a table was made from, with changes.

    Raises the library's InputError when one of its inputs is no longer in the scene.
    """
    from GlideRegLib.errors import InputError

    nodes = {name: table.GetNodeReference(role) for role, name in NODES.items()}
    nodes = {name: node if isInScene(node) else None for name, node in nodes.items()}
    if any(nodes[name] is None for name in (table.GetAttribute(GIVEN) or "").split()):
        raise InputError("Something that was assessed is no longer in the scene; assess again.")
    chosen = (table.GetAttribute(STRUCTURES) or "").split("\n")
    request = AssessRequest(
        **nodes,
        structures=[name for name in chosen if name],
        profile=table.GetAttribute(PROFILE) or "tg132",
        table=table,
    )
    return replace(request, **changes)


# --- files ----------------------------------------------------------------------------------------


@dataclass
class CollectedAssessment(CollectedInputs):
    """The files of an assessment; the job's notes say how they were made."""

    _askingWriters: list[Callable] = field(default_factory=list)

    def write(self, goOn: Callable[[], bool] = lambda: True) -> None:
        super().write(goOn)
        for writer in self._askingWriters:  # long ones: they ask in between
            if goOn():
                writer(goOn)


def collectAssessment(request: AssessRequest, folder: Path) -> CollectedAssessment:
    """Volumes, transforms, landmarks and structures, to be written into ``folder``.

    Raises the library's InputError, SettingsError or OutputError with one sentence.
    """
    from GlideRegLib.assurance.profile import Profile
    from GlideRegLib.job import check_output

    profile = _profileFile(request.profile)
    Profile.named(profile)
    if request.reportFolder is not None:
        check_output(Path(request.reportFolder))
    report = request.reportFolder is not None
    job = {"task": "assess", "profile": profile, "report": report, "quick": True}
    collected = CollectedAssessment({**job, "jacobian": request.jacobian, "notes": []}, None)
    for role, volume in (("fixed", request.fixedVolume), ("moving", request.movingVolume)):
        _collectVolume(role, volume, folder, collected)
    ways = (
        ("transform", request.transform, request.fixedVolume),
        ("backward", request.backward, request.movingVolume),
    )
    for name, node, volume in ways:
        if node is not None:
            path, writer, note = transformFile(node, volume, folder, name)
            collected.job[name] = path
            collected._askingWriters.append(writer)
            collected.job["notes"] += [note] if note else []
    if request.fixedLandmarks is not None:
        _collectLandmarks(request, folder, collected)
    if request.fixedStructures is not None:
        _collectStructures(request, folder, collected)
    return collected


def _profileFile(profile: str) -> str:
    from ..library import availableProfiles

    return str(availableProfiles().get(profile, profile))


def _collectVolume(role: str, volume, folder: Path, collected: CollectedAssessment) -> None:
    path = str(folder / f"{role}.mha")
    source, resampled = worldSource(volume)
    collected.job[role] = path
    collected._writers.append(lambda: sitk.WriteImage(source(), path))
    if resampled:
        note = f"The {role} volume is sheared; a resampled copy was measured."
        collected.job["notes"].append(note)


def _collectLandmarks(request: AssessRequest, folder: Path, collected: CollectedAssessment) -> None:
    from GlideRegLib.landmarks import write_landmarks

    pairs = landmarkPairs(request.fixedLandmarks, request.movingLandmarks)
    for role, points in (("fixed", pairs.fixed), ("moving", pairs.moving)):
        path = folder / f"{role}-landmarks.csv"
        collected._writers.append(partial(write_landmarks, path, points))
        collected.job[f"{role}_landmarks"] = [str(path)]


def _collectStructures(
    request: AssessRequest, folder: Path, collected: CollectedAssessment
) -> None:
    volumes = (request.fixedVolume, request.movingVolume)
    given = (request.fixedStructures, request.movingStructures)
    files = structures.labelFiles(*given, request.chosen, volumes, folder)
    collected.job.update(files.job)
    collected._writers += files.writers
