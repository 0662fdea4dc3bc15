"""``assessment.html``: one self-contained page that says whether a registration can be trusted.

Verdicts, values, criteria, pictures, provenance, and room for the reviewer. Names of structures are
the user's; no file and no patient is named. What was not measured is called so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import __version__
from ..assurance.catalog import GROUPS, KINDS
from ..assurance.grading import criterion_text
from ..assurance.records import Assessment, Measure, Verdict
from ..redaction import without_names, without_names_in
from ..result import NOTICE
from . import page_template
from .assurance_pictures import draw_pictures

if TYPE_CHECKING:
    from ..assurance.assess import Evidence
    from ..assurance.subject import Subject

#: The template of the page.
PAGE = "assurance_page.html.j2"
_DASH = "–"
#: Columns of the table of structures: title, keys of the measures in the cell.
_COLUMNS = (
    ("Dice", "dice"),
    ("Mean distance, mm", "mean_distance"),
    ("HD95, mm", "hd95"),
    ("Centroid LR", "centroid_lr"),
    ("AP", "centroid_ap"),
    ("SI, mm", "centroid_si"),
    ("Moved LR", "displacement_lr"),
    ("AP", "displacement_ap"),
    ("SI, mm", "displacement_si"),
    ("Volume, contours %", "volume_change"),
    ("Volume, Jacobian %", "volume_change_jacobian"),
    ("There and back 95 %, mm", "structure_consistency_p95"),
    ("Jacobian min", "structure_jacobian_min"),
    ("Folded %", "structure_folding"),
)
#: Those whose value before is shown too.
_WITH_BEFORE = ("dice", "mean_distance", "hd95")


def assessment_page(
    assessment: Assessment,
    subject: Subject,
    evidence: Evidence,
    update: Callable[[float], None] = lambda share: None,
) -> str:
    """The page as HTML text; it loads nothing from anywhere.

    ``update`` is called with the share that is done, and may raise to cancel.
    """
    drawn = draw_pictures(assessment, subject, evidence, update)
    return page_template(PAGE).render(
        notice=NOTICE,
        version=__version__,
        pictures=drawn.pictures,
        spots=drawn.spots,
        window=drawn.window,
        point=drawn.point,
        folds_shown=drawn.folds_shown,
        **page_words(assessment),
    )


def page_words(assessment: Assessment) -> dict:
    """Everything that the template writes beside pictures, as strings."""
    voxel_mm = assessment.provenance.get("largest_voxel_side_mm", 0.0)
    worst = assessment.worst_structure
    return {
        "verdict": assessment.verdict.value,
        "verdict_class": css_class(assessment.verdict),
        "counts": [(k, v, css_class(Verdict(k))) for k, v in assessment.counts().items()],
        "worst": worst and _worst_sentence(assessment, worst),
        "profile": assessment.profile,
        "criteria": [
            (
                f"{KINDS[c.measure].title}{_of(c.regions)}",
                criterion_text(c, voxel_mm),
                f"at least {c.minimum_n} samples" if c.minimum_n else "",
            )
            for c in assessment.profile.criteria
        ],
        "graded": _graded_rows(assessment),
        "structures": _structure_rows(assessment),
        "columns": [title for title, _ in _COLUMNS],
        "tables": _tables(assessment),
        "notes": [without_names(note) for note in assessment.notes],
        "provenance": json.dumps(without_names_in(assessment.provenance), indent=2),
    }


def css_class(verdict: Verdict) -> str:
    """The verdict as the name of a CSS class."""
    return verdict.value.replace(" ", "-")


def _of(regions: tuple[str, ...]) -> str:
    return f" ({', '.join(without_names(r) for r in regions)})" if regions else ""


def _worst_sentence(assessment: Assessment, name: str) -> str:
    verdict = assessment.structure_verdict(name)
    found = (assessment.find(key, name) for key in ("dice", "mean_distance"))
    values = ", ".join(f"{m.title} {m.text}" for m in found if m is not None)
    return f"{without_names(name)}: {verdict.value} ({values})"


def _row(measure: Measure, of: str | None = None) -> dict:
    """One measure as cells; ``of`` replaces the name of its region."""
    interval = measure.interval
    return {
        "title": measure.title,
        "of": without_names(measure.region) if of is None else of,
        "value": measure.text,
        "measured": measure.value is not None,
        "interval": f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "",
        "n": "" if measure.n is None else f"{measure.n:,}".replace(",", "\u202f"),
        "before": "" if measure.before is None else KINDS[measure.key].show(measure.before),
        "criterion": measure.criterion,
        "verdict": measure.verdict.value,
        "class": css_class(measure.verdict),
        "note": without_names(measure.note),
        "meaning": KINDS[measure.key].meaning,
        "place": "" if measure.place is None else ", ".join(f"{v:.1f}" for v in measure.place),
    }


def _graded_rows(assessment: Assessment) -> list[dict]:
    """Graded measures, the worst first; of each kind of measure of structures only the worst."""
    rows = []
    for measure, count in assessment.headline():
        name = without_names(measure.region)
        rows.append(_row(measure, f"{name} (worst of {count})" if count > 1 else name))
    return rows


def _structure_rows(assessment: Assessment) -> list[dict]:
    """One row per structure, the worst first."""
    if not any(m.value is not None for m in assessment.measures if m.group == "structures"):
        return []
    rows = []
    for name in assessment.ranked_structures():
        verdict = assessment.structure_verdict(name)
        found = {m.key: m for m in assessment.of_structure(name)}
        notes = dict.fromkeys(m.note for m in found.values() if m.note)
        rows.append(
            {
                "name": without_names(name),
                "verdict": verdict.value,
                "class": css_class(verdict),
                "cells": [_cell(found.get(key)) for _, key in _COLUMNS],
                "note": without_names("; ".join(notes)),
            }
        )
    return rows


def _cell(measure: Measure | None) -> dict:
    """A number without its unit, the one before, and the class of its verdict."""
    if measure is None or measure.value is None:
        return {"value": _DASH, "before": "", "class": ""}
    digits = min(KINDS[measure.key].digits, 3)
    before = measure.before if measure.key in _WITH_BEFORE else None
    return {
        "value": measure.text.split()[0]
        if measure.key.endswith("folding")
        else f"{measure.value:.{digits}f}",
        "before": "" if before is None else f"{before:.{digits}f}",
        "class": css_class(measure.verdict),
    }


def _tables(assessment: Assessment) -> dict[str, list[dict]]:
    """Rows of every group but the structures."""
    found: dict[str, list[dict]] = {group: [] for group in GROUPS if group != "structures"}
    for measure in assessment.measures:
        if measure.group in found:
            found[measure.group].append(_row(measure))
    return found
