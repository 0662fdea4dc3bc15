"""Measures a transform between two volumes and grades it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from .._version import __version__
from ..progress import Progress
from ..redaction import without_names, without_names_in
from ..volume import Volume
from .deformation import Survey, regularity_measures, survey
from .grading import grade
from .intensity import intensity_measures
from .points import consistency_measures, landmark_errors, landmark_measures
from .profile import Profile
from .records import Assessment, Measure, Spot, Verdict
from .structures import structure_measures
from .subject import Subject, as_place

#: Shares of the stages in the time.
PLAN = {"field": 3.0, "structures": 3.0, "consistency": 3.0, "intensities": 2.0}
#: Landmarks that are named as places to look at.
_WORST_LANDMARKS = 3
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
        measures += consistency_measures(subject, progress.update)
    with progress.stage("intensities"):
        grid, background = subject.fixed.grid, subject.background
        warped = subject.moving.resampled(grid, subject.transform, background)
        progress.update(0.3)
        measures += intensity_measures(subject, warped)
    graded = grade(measures, profile, subject.voxel_mm)
    whole = Assessment(graded, profile, (), _notes(subject), _provenance(subject, progress))
    spots = _spots(whole, subject, errors)
    return Assessment(graded, profile, spots, whole.notes, whole.provenance), Evidence(
        found, warped, errors
    )


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
    lowest = assessment.find("jacobian_min", "body")
    if fold is not None and fold.place is None and lowest is not None:
        why = f"lowest Jacobian in the body, {lowest.text}"
        spots.append(Spot("lowest Jacobian", lowest.place, why))
    return tuple(spots)


def _notes(subject: Subject) -> tuple[str, ...]:
    """What a reader must know about how it was measured."""
    notes = [
        "'Before' compares both images as their coordinates stand in the files.",
        "Jacobian: central differences of the transform at every voxel of the fixed image.",
        "There and back is a sanity check; it says nothing about accuracy.",
    ]
    share = 100 * (1 - len(subject.body_points(2000)) / max(_body_count(subject, 2000), 1))
    if share > 1:
        notes.append(
            f"{share:.0f} % of the fixed body has no partner in the moving image: there the "
            "transform is a guess."
        )
    for role, volume in (("fixed", subject.fixed), ("moving", subject.moving)):
        notes += [f"{role} image: {without_names(note)}" for note in volume.notes]
    return tuple(notes)


def _body_count(subject: Subject, count: int) -> int:
    flat = int(subject.body.sum())
    step = max(1, flat // count) | 1
    return len(range(0, flat, step))


def _provenance(subject: Subject, progress: Progress) -> dict:
    """Versions, hashes and geometry; roles instead of names."""
    volumes = {"fixed": subject.fixed, "moving": subject.moving}
    if subject.labels is not None:
        volumes.update(zip(("fixed_labels", "moving_labels"), subject.labels, strict=True))
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


__all__ = ["PLAN", "Evidence", "Measure", "Verdict", "assess"]
