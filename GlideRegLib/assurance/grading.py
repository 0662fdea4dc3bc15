"""Verdicts: measures held against the criteria of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .catalog import KINDS
from .profile import Criterion, Limit, Profile
from .records import NO_STRUCTURE, Measure, Verdict

#: What an unmeasured criterion is measured on, and what was lacking, by group.
_LACKING = {
    "landmarks": ("landmarks", "no landmarks were given"),
    "structures": (NO_STRUCTURE, "measured on no structure"),
    "regularity": ("body", "not measured"),
    "consistency": ("body", "no backward transform was given"),
}
_TRIANGLE = "no transforms to a third image were given"


def grade(measures: Sequence[Measure], profile: Profile, voxel_mm: float) -> tuple[Measure, ...]:
    """The measures with criterion and verdict; what the profile asks for and nobody measured is
    added as "not verified". ``voxel_mm`` is the largest voxel side of the images."""
    graded = [_grade_one(m, _criterion_of(m, profile), voxel_mm) for m in measures]
    missing = []
    for criterion in profile.criteria:
        for region in criterion.regions or (None,):
            if not any(_is_about(m, criterion, region) for m in measures):
                missing.append(_unmeasured(criterion, region, voxel_mm))
    return (*graded, *missing)


def _is_about(measure: Measure, criterion: Criterion, region: str | None) -> bool:
    if measure.key != criterion.measure:
        return False
    return criterion.applies_to(measure.region) if region is None else measure.region == region


def _criterion_of(measure: Measure, profile: Profile) -> Criterion | None:
    """The criterion for a measure; one that names the region goes before one that does not."""
    found = [
        c for c in profile.criteria if c.measure == measure.key and c.applies_to(measure.region)
    ]
    return max(found, key=lambda c: bool(c.regions), default=None)


def _unmeasured(criterion: Criterion, region: str | None, voxel_mm: float) -> Measure:
    usual, reason = _LACKING.get(KINDS[criterion.measure].group, ("body", "not measured"))
    if criterion.measure.startswith("transitivity"):
        reason = _TRIANGLE
    measure = Measure(criterion.measure, region or usual, None, note=reason)
    return _grade_one(measure, criterion, voxel_mm)


def _grade_one(measure: Measure, criterion: Criterion | None, voxel_mm: float) -> Measure:
    if criterion is None:
        return measure
    verdict = _verdict(measure.value, criterion, voxel_mm)
    note = measure.note
    few = criterion.minimum_n is not None and (measure.n or 0) < criterion.minimum_n
    if few and verdict is Verdict.COMPLIANT:
        verdict = Verdict.REVIEW
        note = f"{note}; fewer than {criterion.minimum_n} samples".removeprefix("; ")
    if measure.doubtful and verdict is Verdict.COMPLIANT:
        verdict = Verdict.REVIEW
    text = criterion_text(criterion, voxel_mm)
    return replace(measure, criterion=text, verdict=verdict, note=note)


def _verdict(value: float | None, criterion: Criterion, voxel_mm: float) -> Verdict:
    if value is None or value != value:
        return Verdict.NOT_VERIFIED
    sign = -1.0 if KINDS[criterion.measure].better == "more" else 1.0
    if sign * value <= sign * criterion.compliant.of(voxel_mm):
        return Verdict.COMPLIANT
    if criterion.only_review:
        return Verdict.REVIEW
    if criterion.review is not None and sign * value <= sign * criterion.review.of(voxel_mm):
        return Verdict.REVIEW
    return Verdict.NOT_COMPLIANT


def criterion_text(criterion: Criterion, voxel_mm: float) -> str:
    """The limits as a reader sees them, such as "≤ 2.5 mm (largest voxel side), review ≤ 3 mm"."""
    kind = KINDS[criterion.measure]
    sign = "≥" if kind.better == "more" else "≤"

    def said(limit: Limit) -> str:
        value = limit.of(voxel_mm)
        text = f"{sign} {value:.3g} {kind.unit}".strip()
        is_voxel = limit.voxels == 1 and value == voxel_mm
        return text + (" (largest voxel side)" if is_voxel else "")

    text = said(criterion.compliant)
    if criterion.only_review:
        return f"{text}, else review"
    if criterion.review is None or criterion.review.of(voxel_mm) == criterion.compliant.of(
        voxel_mm
    ):
        return text
    return f"{text}, review {said(criterion.review)}"
