"""The quality assurance on a known pair: what it says of a registration whose truth is known."""

from __future__ import annotations

from dataclasses import replace

from ..assurance.assess import PLAN, assess
from ..assurance.catalog import KINDS
from ..assurance.profile import Profile
from ..assurance.records import Assessment
from ..assurance.subject import Subject
from ..errors import SettingsError
from ..progress import Progress
from ..result import Result
from .cases import LUNGS, KnownCase

_NOTE = "There and back is not asked here: the truth itself is known."


def asked_profile(name: str) -> Profile:
    """The profile of this name (or file) without what needs a second registration: where the truth
    is known, there and back would say less than it.

    Raises :class:`SettingsError` with one sentence, also when nothing is left.
    """
    profile = Profile.named(name)
    kept = tuple(c for c in profile.criteria if KINDS[c.measure].group != "consistency")
    kept = tuple(c for c in kept if c.measure != "structure_consistency_p95")
    if not kept:
        raise SettingsError(
            f"The profile '{name}' asks for consistency only, which commissioning does not measure."
        )
    return replace(profile, criteria=kept)


def assess_case(
    case: KnownCase, result: Result, profile: Profile, progress: Progress | None = None
) -> Assessment:
    """Everything that ``glidereg assess`` measures, on a known pair: the lungs (Dice, distances,
    centroid shift, volume change, Jacobian), landmarks in them, the deformation, the intensities.

    Both contours and both landmarks of a pair belong together by the truth. What a case lacks is
    "not verified". Raises a :class:`GlideRegError`.
    """
    progress = progress or Progress()
    progress.set_plan(PLAN)
    has_landmarks = case.landmarks is not None and len(case.landmarks[0]) > 0
    subject = Subject(
        case.fixed,
        case.moving,
        result.to_sitk(),
        landmarks=case.landmarks if has_landmarks else None,
        labels=case.labels,
        names={1: LUNGS},
    )
    assessment, _ = assess(subject, profile, progress)
    return replace(assessment, notes=(*assessment.notes, _NOTE))
