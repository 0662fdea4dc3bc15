"""The section of the report on nodules, and the page that holds it alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from .. import __version__
from ..redaction import without_names
from ..result import NOTICE
from ..tracking.growth import THRESHOLDS_VERSION
from ..tracking.records import Tracking, TrackRow
from .content import number

_DASH = "–"


def nodule_section(tracking: Tracking, pictures: Sequence[bytes]) -> dict:
    """What the template writes about nodules, as strings; ``pictures`` are JPEGs, one per row (or
    none at all). Names of nodules are those of the user; names of files are taken out."""
    sheets: list[bytes | None] = list(pictures) or [None] * len(tracking)
    rows = [_row(row, sheet) for row, sheet in zip(tracking, sheets, strict=True)]
    shown = [state for state, count in tracking.counts().items() if count]
    return {
        "rows": rows,
        "days": _days(tracking.days),
        "uncertain": any(row.uncertainty_mm is not None for row in tracking),
        "greyed": any(row["greyed"] for row in rows),
        "states": [(state, text) for state, text in _meanings(tracking).items() if state in shown],
        "remarks": _remarks(tracking),
        "flags": [_flags(row) for row in tracking if row.growth and row.growth.flags],
        "flags_version": THRESHOLDS_VERSION,
        "quality": _quality_rows(tracking.quality),
    }


def nodule_page(section: dict) -> str:
    """A self-contained page with the section alone, for a transform that was given."""
    from . import page_template

    page = page_template("nodules_page.html.j2")
    return page.render(nodules=section, notice=NOTICE, version=__version__)


def _meanings(tracking: Tracking) -> dict[str, str]:
    """What each state says, with the gates of this run."""
    gates = tracking.settings.get("gates") or {}
    near, far, doubt = (gates.get(k, 0) for k in ("matched_mm", "review_mm", "uncertain_mm"))
    return {
        "matched": f"the only marked nodule nearby, within {near:g} mm of the predicted place",
        "review": f"{near:g} to {far:g} mm away, or the field is uncertain by more than {doubt:g} "
        "mm there: look",
        "ambiguous": "more than one nodule could be meant: decide",
        "new": f"no nodule of the prior scan is predicted within {far:g} mm",
        "resolved": f"nothing was marked within {far:g} mm of the predicted place",
        "outside field of view": "the other scan does not show the place",
        "predicted": "where the nodule should be; nothing was marked to compare with",
    }


def _row(row: TrackRow, sheet: bytes | None) -> dict:
    measured = (row.moving_measurement, row.fixed_measurement)
    diameters = [number(m and m.mean_diameter_mm, 1) for m in measured]
    volumes = [number(m and m.volume_mm3, 0) for m in measured]
    change = row.growth
    picture = "" if sheet is None else base64.b64encode(sheet).decode()
    return {
        "name": without_names(row.name),
        "state": row.state,
        "distance": number(row.distance_mm),
        "uncertainty": number(row.uncertainty_mm, 1),
        "measures": [*diameters, *volumes],
        "change": f"{change.volume_change_text} %" if change else _DASH,
        "doubling": (change and change.doubling_time_text) or _DASH,
        "greyed": "; ".join(change.greyed) if change else "",
        "picture": f"data:image/jpeg;base64,{picture}" if picture else "",
    }


def _flags(row: TrackRow) -> dict:
    said = {True: "reached", False: "not reached", None: "does not apply"}
    flags, everywhere = row.growth.flags, row.growth.greyed
    reasons = list(everywhere)
    for flag in flags:
        reasons += [f"{flag.name}: {reason}" for reason in flag.greyed if reason not in everywhere]
    return {
        "name": without_names(row.name),
        "titles": [f"{flag.name}: {flag.text}" for flag in flags],
        "cells": [{"text": said[f.reached], "greyed": bool(f.greyed)} for f in flags],
        "greyed": "; ".join(reasons),
    }


def _remarks(tracking: Tracking) -> list[str]:
    found = list(tracking.notes)
    for k, row in enumerate(tracking, start=1):
        found += [f"Nodule {k}. {remark}" for remark in row.remarks]
    return [without_names(text) for text in found]


def _quality_rows(quality: dict) -> list[list[str]]:
    titles = {"field": "by the field", "predicted": "after local refinement"}
    rows = []
    for key, title in titles.items():
        errors = (quality.get("tre_mm") or {}).get(key)
        if errors:
            shares = quality["cpm_percent"][key]
            cells = [number(errors[name]) for name in ("mean", "median", "p95", "max")]
            cells += [f"{number(shares[t], 0)} %" for t in ("0.5", "1", "2", "5")]
            rows.append([title, *cells, str(errors["n"])])
    return rows


def _days(days: float | None) -> str:
    if days is None:
        return "The days between the scans were not given, so no doubling times are stated."
    return f"The scans are {days:.0f} days apart."
