"""Measures a transform between two volumes and grades it."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np

from .._version import __version__
from ..geometry import Grid
from ..progress import Progress
from ..redaction import without_names, without_names_in
from ..volume import Volume
from .deformation import Survey, folded_clusters, regularity_measures, survey
from .grading import grade
from .intensity import intensity_measures
from .points import (
    consistency_measures,
    landmark_errors,
    landmark_measures,
    structure_consistency,
)
from .profile import Profile
from .records import Assessment, Spot, Verdict
from .structures import structure_measures
from .subject import Subject, as_place

#: Shares of the stages in the time.
PLAN = {"field": 3.0, "structures": 3.0, "consistency": 3.0, "intensities": 2.0}
#: A displacement at the border of a field that is none, mm.
_STILL_MM = 0.01
#: Landmarks that are named as places to look at.
_WORST_LANDMARKS = 3
#: Folded clusters that are listed.
_FOLDS = 10
_PACKAGES = ("torch", "numpy", "scipy", "SimpleITK")


@dataclass(frozen=True)
class Evidence:
    """What pictures and maps need beside the numbers: the transform over the fixed image, the
    moving image on the fixed grid, and landmark errors in mm (see :func:`.landmark_errors`)."""

    survey: Survey
    warped: Volume
    errors: dict[str, np.ndarray] | None

    def jacobian(self, subject: Subject) -> Volume:
        """Jacobian determinant on the fixed grid."""
        return Volume(self.survey.jacobian, subject.fixed.grid)


def assess(
    subject: Subject, profile: Profile, progress: Progress | None = None
) -> tuple[Assessment, Evidence]:
    """All measures of a registration, graded, and what was computed on the way.

    Raises a :class:`GlideRegError` with one sentence. Nothing of ``subject`` is changed.
    """
    progress = progress or Progress()
    subject.check()
    with progress.stage("field"):
        found = survey(subject, progress.update)
        measures = regularity_measures(subject, found)
    with progress.stage("structures"):
        measures += structure_measures(subject, found, progress.update)
        errors = landmark_errors(subject)
        measures += landmark_measures(subject, errors)
    with progress.stage("consistency"):
        measures += consistency_measures(subject, lambda share: progress.update(0.5 * share))
        measures += structure_consistency(subject, lambda share: progress.update(0.5 + 0.5 * share))
    with progress.stage("intensities"):
        grid, background = subject.fixed.grid, subject.background
        warped = subject.moving.resampled(grid, subject.transform, background)
        progress.update(0.3)
        measures += intensity_measures(subject, warped)
    graded = grade(measures, profile, subject.voxel_mm)
    whole = Assessment(
        graded,
        profile,
        notes=_notes(subject),
        provenance=_provenance(subject, progress),
        folds=_folds(subject, found),
    )
    whole = replace(whole, spots=_spots(whole, subject, errors))
    return whole, Evidence(found, warped, errors)


def _folds(subject: Subject, found: Survey) -> tuple[Spot, ...]:
    """The largest folded clusters."""
    grid = subject.fixed.grid
    spots = []
    for place, count in folded_clusters(found.jacobian, grid, _FOLDS):
        i, j, k = np.round(grid.to_index(np.asarray([place]))[0]).astype(int)
        where = "in the body" if subject.body[k, j, i] else "outside the body"
        volume = count * float(np.prod(grid.spacing))
        why = f"{count} voxels, {volume:.1f} mm³, {where}"
        spots.append(Spot(f"fold {len(spots) + 1}", place, why))
    return tuple(spots)


def _spots(
    assessment: Assessment, subject: Subject, errors: dict[str, np.ndarray] | None
) -> tuple[Spot, ...]:
    """The worst landmarks, the largest fold or the lowest Jacobian, and the worst structure."""
    spots = []
    fold = assessment.find("largest_fold")
    if fold is not None and fold.place is not None:
        why = f"largest folded cluster, {fold.n} voxels, {fold.text}"
        spots.append(Spot("fold", fold.place, why))
    if errors is not None:
        order = np.argsort(-errors["after"], kind="stable")[:_WORST_LANDMARKS].tolist()
        spots += [
            Spot(
                f"landmark {k + 1}",
                as_place(subject.landmarks[0][k]),
                f"landmark {k + 1}, TRE {errors['after'][k]:.2f} mm",
            )
            for k in order
        ]
    worst = assessment.worst_structure
    measure = worst and assessment.find("mean_distance", worst)
    if measure and measure.place is not None:
        why = f"worst structure, {worst}: its surfaces are farthest apart here"
        spots.append(Spot(worst, measure.place, why))
    spots += _inconsistent(assessment)
    lowest = assessment.find("jacobian_min", "body")
    if fold is not None and fold.place is None and lowest is not None:
        why = f"lowest Jacobian in the body, {lowest.text}"
        spots.append(Spot("lowest Jacobian", lowest.place, why))
    return tuple(spots)


def _inconsistent(assessment: Assessment) -> list[Spot]:
    """The place where there and back miss each other most, when the profile minds."""
    graded = assessment.find("inverse_consistency_p95", "body")
    worst = assessment.find("inverse_consistency_max", "body")
    if graded is None or worst is None or worst.place is None:
        return []
    if graded.verdict.severity < Verdict.REVIEW.severity:
        return []
    why = f"there and back miss each other most, by {worst.text}"
    return [Spot("there and back", worst.place, why)]


def _notes(subject: Subject) -> tuple[str, ...]:
    """What a reader must know about how it was measured."""
    notes = [
        "'Before' compares both images as their coordinates stand in the files.",
        "Jacobian: central differences of the transform at every voxel of the fixed image. A voxel "
        "is folded where any determinant of one-sided differences is 0 or less, also at a field's "
        "own nodes within it; the lowest of them then stands in the map.",
        "There and back is a sanity check; it says nothing about accuracy.",
    ]
    share = 100 * (1 - subject.partner_share)
    if share > 1:
        notes.append(
            f"{share:.0f} % of the fixed body has no partner in the moving image: there the "
            "transform is a guess."
        )
    if _ends_inside(subject):
        notes.append(
            "The displacement field ends inside the fixed image. Beyond it ITK moves nothing (3D "
            "Slicer goes on with the last vector), and the jump shows as folds at its border."
        )
    if subject.names:
        notes.append(
            "Names of structures are printed as they were given: read them before you pass this "
            "on, they must name no patient."
        )
    for role, volume in (("fixed", subject.fixed), ("moving", subject.moving)):
        notes += [f"{role} image: {without_names(note)}" for note in volume.notes]
    return tuple(notes)


def _ends_inside(subject: Subject) -> bool:
    """Whether the fixed image reaches beyond the grid of a displacement field that fixed points go
    through first, and that field does not end in zeros."""
    import SimpleITK as sitk

    transform = subject.transform
    if transform.GetName() == "CompositeTransform":
        parts = sitk.CompositeTransform(transform)
        # ITK applies the transform that was added last first.
        transform = parts.GetNthTransform(parts.GetNumberOfTransforms() - 1)
    if transform.GetName() != "DisplacementFieldTransform":
        return False
    image = sitk.DisplacementFieldTransform(transform).GetDisplacementField()
    edge = sitk.GetArrayFromImage(image)
    faces = (edge[[0, -1]], edge[:, [0, -1]], edge[:, :, [0, -1]])
    if all(np.abs(face).max() < _STILL_MM for face in faces):
        return False
    # A tolerance of a thousandth of a voxel: faces of both grids often coincide.
    grid = Grid.from_sitk(image)
    index = grid.to_index(subject.fixed.grid.corners())
    return bool((index < -0.501).any() or (index > np.asarray(grid.size) - 0.499).any())


def _provenance(subject: Subject, progress: Progress) -> dict:
    """Versions, hashes and geometry; roles instead of names."""
    volumes = {"fixed": subject.fixed, "moving": subject.moving}
    for k, layer in enumerate(subject.layers):
        if layer.labels is not None:
            names = ("fixed_labels", "moving_labels")
            names = names if k == 0 else tuple(f"{name}_{k + 1}" for name in names)
            volumes.update(zip(names, layer.labels, strict=True))
    return {
        "versions": {
            "glidereg": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "system": f"{platform.system()} {platform.machine()}",
        "modality": subject.modality,
        "transform": subject.transform.GetName(),
        "largest_voxel_side_mm": subject.voxel_mm,
        "inputs": {
            role: {
                "sha256": volume.sha256,
                "geometry": volume.grid.to_dict(),
                "notes": without_names_in(list(volume.notes)),
            }
            for role, volume in volumes.items()
        },
        "seconds": {name: round(value, 3) for name, value in progress.seconds.items()},
        "units": "mm; CT intensities in HU",
        "frame": "LPS mm, fixed to moving",
    }
