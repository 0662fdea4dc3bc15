"""The words and numbers of a report, from the plain values of ``result.json``.

What was not measured is called so; nothing is called good.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from ..redaction import without_names, without_names_in

NOT_MEASURED = "not measured"
_DASH = "–"
#: Stages as a reader who does not know the code would call them.
_STAGES = {
    "read": "reading files",
    "prepare": "preparing images",
    "align": "initial alignment",
    "encode": "encoding slices",
    "reduce": "reducing features",
    "convex": "discrete search",
    "refine": "refinement",
    "measure": "measuring the field",
}


@dataclass(frozen=True)
class Card:
    """One number of the headline: ``value`` large, ``details`` small; ``caution`` marks it."""

    title: str
    value: str
    details: tuple[str, ...] = ()
    caution: str = ""


def number(value: object, digits: int = 2) -> str:
    """A number with fixed digits, or a dash for what is missing or not a number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return _DASH
    return f"{value:.{digits}f}"


def page_content(report: dict) -> dict:
    """Everything that the template writes, as strings, from the report of a run."""
    quality = report.get("quality") or {}
    return {
        "subtitle": _subtitle(report),
        "cards": [
            _landmark_card(quality.get("tre_mm")),
            _dice_card(quality.get("mean_dice")),
            _folding_card(quality.get("folding_percent")),
            _cost_card(report.get("cost") or {}),
            _method_card(report),
        ],
        "landmarks": _landmark_rows(quality),
        "labels": _label_rows(quality.get("labels") or {}),
        "field": _field_rows(quality),
        "stages": _stage_rows((report.get("cost") or {}).get("seconds") or {}),
        **_messages(report.get("messages") or []),
        "run": _run_rows(report),
        "provenance": _json(report.get("provenance") or {}),
        "version": (report.get("provenance") or {}).get("versions", {}).get("glidereg", ""),
    }


# --- headline ---------------------------------------------------------------------------------


def _landmark_card(tre: dict | None) -> Card:
    title = "Landmark error (TRE)"
    if not tre:
        return Card(title, NOT_MEASURED, ("no landmarks were given",))
    before, after = tre["before"], tre["after"]
    return Card(
        title,
        f"{number(before['mean'])} → {number(after['mean'])} mm",
        (
            f"mean of {after['n']} landmarks",
            f"median {number(before['median'])} → {number(after['median'])} mm",
        ),
        "larger than before" if after["mean"] > before["mean"] else "",
    )


def _dice_card(dice: dict | None) -> Card:
    title = "Overlap (Dice)"
    if not dice or number(dice.get("after")) == _DASH:
        return Card(title, NOT_MEASURED, ("no labels were given",) if not dice else ())
    before, after = dice.get("before"), dice["after"]
    worse = number(before) != _DASH and after < before
    return Card(
        title,
        f"{number(before, 3)} → {number(after, 3)}",
        ("mean over the labels",),
        "smaller than before" if worse else "",
    )


def _folding_card(folding: dict | None) -> Card:
    title = "Folded voxels, body"
    if not folding:
        return Card(title, NOT_MEASURED)
    return Card(
        title, f"{number(folding['body'], 4)} %", (f"whole grid {number(folding['grid'], 4)} %",)
    )


def _cost_card(cost: dict) -> Card:
    total = (cost.get("seconds") or {}).get("total")
    peak = cost.get("peak_memory_mb")
    memory = f"{number(peak, 0)} MB" if number(peak) != _DASH else NOT_MEASURED
    if number(total) == _DASH:
        return Card("Time", NOT_MEASURED, (f"peak memory {memory}",))
    return Card("Time", f"{number(total, 0 if total >= 10 else 1)} s", (f"peak memory {memory}",))


def _method_card(report: dict) -> Card:
    """The encoder of our own method; of another one its name, and the encoder if it has one."""
    name = str(report.get("method") or "glide")
    if name.startswith("glide"):
        return _encoder_card(report.get("encoder"))
    encoder = (report.get("encoder") or {}).get("name", "none")
    return Card("Method", name, () if encoder == "none" else (f"encoder {encoder}",))


def _encoder_card(encoder: dict | None) -> Card:
    title = "Encoder"
    if not encoder:
        return Card(title, "not recorded")
    name = str(encoder.get("name"))
    if name == "none":
        return Card(title, "none", ("local features only",))
    if not encoder.get("trained"):
        return Card(title, name, ("control experiment",), "random weights, not trained")
    digest = str(encoder.get("weights_sha256") or "")[:12]
    return Card(title, name, ("trained weights", f"sha256 {digest}…" if digest else ""))


# --- tables -----------------------------------------------------------------------------------


def _landmark_rows(quality: dict) -> list[list[str]]:
    """Rows: when, mean, 95 % interval, median, p95, max, within 1, 2, 5 mm, n."""
    tre, within = quality.get("tre_mm") or {}, quality.get("cpm_percent") or {}
    names = {
        "before": "before",
        "initial": "after the initial alignment",
        "after": "after registration",
    }
    rows = []
    for key, name in names.items():
        if key not in tre:
            continue
        entry, shares = tre[key], within.get(key) or {}
        interval = entry.get("ci95")
        rows.append(
            [
                name,
                number(entry["mean"]),
                f"{number(interval[0])} to {number(interval[1])}" if interval else _DASH,
                *(number(entry[k]) for k in ("median", "p95", "max")),
                *(
                    f"{number(shares[k], 0)} %" if k in shares else _DASH
                    for k in ("0.5", "1", "2", "5")
                ),
                str(entry["n"]),
            ]
        )
    return rows


def _label_rows(labels: dict) -> list[dict]:
    """Per label: its name, (before, after) of three measures, and whether Dice fell."""
    rows = []
    for name, entry in sorted(labels.items(), key=lambda item: _natural(item[0])):
        before, after = entry.get("before") or {}, entry.get("after") or {}
        cells = []
        for key, digits in (("dice", 3), ("hd95_mm", 2), ("mean_distance_mm", 2)):
            cells += [number(before.get(key), digits), number(after.get(key), digits)]
        known = cells[0] != _DASH and cells[1] != _DASH
        worse = known and after["dice"] < before["dice"] - 5e-4
        rows.append({"name": str(name), "cells": cells, "worse": worse})
    return rows


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if str(name).isdigit() else (1, 0, str(name))


def _field_rows(quality: dict) -> list[tuple[str, str, str]]:
    """Measure, value, what it means."""
    jacobian = quality.get("jacobian") or {}
    inverse = quality.get("inverse_consistency_mm") or {}
    moved = quality.get("displacement_mm") or {}
    expected = quality.get("uncertainty_mm") or {}
    folding = quality.get("folding_percent") or {}
    strict = quality.get("folding_percent_one_sided") or {}
    values = [
        (
            "Folded voxels: body, whole grid",
            [f"{number(folding[k], 4)} %" for k in ("body", "grid") if k in folding],
            "tissue that is turned inside out (Jacobian 0 or less by central differences, as in "
            "Learn2Reg); cannot happen in a body",
        ),
        (
            "The same by one-sided differences",
            [f"{number(strict[k], 4)} %" for k in ("body", "grid") if k in strict],
            "also between voxels and at the field's own nodes, as an assessment counts",
        ),
        (
            "Jacobian: minimum, 1 %, median, 99 %, maximum",
            [number(jacobian[k]) for k in ("min", "p1", "p50", "p99", "max") if k in jacobian],
            "volume in the moving image over volume in the fixed image; 1 is no change",
        ),
        (
            "Standard deviation of log Jacobian",
            [number(quality["sd_log_jacobian"], 3)] if "sd_log_jacobian" in quality else [],
            "how unevenly volumes change; a smaller value is a smoother field",
        ),
        (
            "Displacement in the body: mean, maximum",
            [f"{number(moved[k], 1)} mm" for k in ("mean", "max") if k in moved],
            "how far tissue is moved, the initial alignment included",
        ),
        (
            "Expected error in the body: median, 95 %",
            [f"{number(expected[k])} mm" for k in ("median", "p95") if k in expected],
            "estimated from the images alone, calibrated on known motions; blind to sliding",
        ),
        (
            "There and back: mean, 95 %, maximum",
            [f"{number(inverse[k])} mm" for k in ("mean", "p95", "max") if k in inverse],
            "checks the arithmetic of the inverse; says nothing about accuracy",
        ),
    ]
    return [(name, ", ".join(found) or NOT_MEASURED, hint) for name, found, hint in values]


def _stage_rows(seconds: dict) -> list[dict]:
    """Per stage: its name, seconds, and its share of the longest for the bar."""
    stages = {k: v for k, v in seconds.items() if k != "total" and number(v) != _DASH}
    longest = max([*stages.values(), 1e-9])
    return [
        {
            "name": _STAGES.get(name, name),
            "seconds": f"{number(value, 1)} s",
            "share": f"{100 * value / longest:.1f}",
        }
        for name, value in stages.items()
    ]


def _messages(messages: list[str]) -> dict[str, list[str]]:
    """``warnings`` and the other ``messages``, without names of files."""
    found: dict[str, list[str]] = {"warnings": [], "messages": []}
    for text in messages:
        level, _, rest = text.partition(": ")
        sentence = rest if level in ("info", "warning") else text
        found["warnings" if level == "warning" else "messages"].append(without_names(sentence))
    return found


def _run_rows(report: dict) -> list[tuple[str, str]]:
    """The settings that a reader asks for first."""
    provenance = report.get("provenance") or {}
    settings = provenance.get("settings") or {}
    features, refine = settings.get("features") or {}, settings.get("refine") or {}
    method = str(report.get("method") or "glide")
    own = [
        ("Features", {"both": "global and local"}.get(features.get("use"), features.get("use"))),
        ("Reduction of the global features", (settings.get("reduction") or {}).get("kind")),
        ("Solver", refine.get("solver")),
    ]
    if not method.startswith("glide"):
        options = settings.get("method_options") or {}
        own = [("Options", ", ".join(f"{k} {v}" for k, v in options.items()) or "as published")]
    rows = [
        ("Method", method),
        ("Preset", settings.get("preset_name")),
        ("Working grid", _millimeters((settings.get("grid") or {}).get("spacing_mm"))),
        *own,
        ("Initial alignment", settings.get("initial")),
        ("Device, threads", _joined(provenance.get("device"), provenance.get("threads"))),
        ("Seed", provenance.get("seed")),
        *_geometry_rows(provenance.get("inputs") or {}),
    ]
    if (report.get("encoder") or {}).get("name") == "none":
        rows = [row for row in rows if not row[0].startswith("Reduction")]
        rows = [("Features", "local") if row[0] == "Features" else row for row in rows]
    return [(name, without_names(str(v))) for name, v in rows if v is not None]


def _geometry_rows(inputs: dict) -> list[tuple[str, str]]:
    rows = []
    for role in ("fixed", "moving"):
        geometry = (inputs.get(role) or {}).get("geometry")
        if geometry:
            size = " × ".join(str(n) for n in geometry["size"])
            spacing = " × ".join(f"{s:.4g}" for s in geometry["spacing_mm"])
            rows.append((f"{role.capitalize()} image", f"{size} voxels of {spacing} mm"))
    return rows


def _json(data: dict) -> str:
    """JSON to read: indented, lists of numbers on one line, no names of files."""
    text = json.dumps(without_names_in(data), indent=2)
    return re.sub(
        r"\[\n\s+([^][{}\"]*?)\n\s+\]",
        lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]",
        text,
    )


def _millimeters(value: object) -> str | None:
    return None if number(value) == _DASH else f"{value:g} mm"


def _joined(*values: object) -> str | None:
    return ", ".join(str(v) for v in values if v is not None) or None


def _subtitle(report: dict) -> str:
    modality = str(report.get("modality") or "").upper()
    kind = f"{modality} pair, " if modality in ("CT", "MR") else ""
    return kind + "moving image carried onto the fixed image"
