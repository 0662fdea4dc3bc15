"""Rows of plain values -> ratios, Markdown and JSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.cost import describe_run_in_words
from GlideRegLib.volume import replace_whole

REFERENCE = "convexadam"
_COSTS = ("wall_s", "cpu_s", "peak_mb", "load")
_HEAD = (
    "pair",
    "method",
    "TRE mean",
    "median",
    "p95",
    "folds body %",
    "folds grid %",
    "wall s",
    "CPU s",
    "peak MB",
    "TRE / best peer",
    "TRE / convexadam",
    "CPU: convexadam / this",
    "CPU: best peer / this",
    "memory / convexadam",
    "load",
)

NOTES = (
    "TRE in mm at the native landmarks, of the total map; folds: percent of voxels with J <= 0, "
    "the field sampled on the native fixed grid (body mask, whole grid).",
    "Wall and CPU seconds: the registration alone, without imports, reading of the common images "
    "and the affine start, which is found once and given to all; ours includes reading and "
    "resampling the native images to the same grid (fast: to its own 2 mm), and encoding.",
    "Peak MB: the largest resident memory of the process, its libraries included.",
    "The best peer is the one with the least mean TRE on that pair in the same session. Medians "
    "over repetitions.",
    "Load: processes that wanted a core in the minute before each run, other users' included; "
    "methods alternate within a session, so trust the ratios more than the seconds.",
)


def summarize(runs: list[dict]) -> list[dict]:
    """One row per pair and method from single runs: costs as medians over repetitions, ratios.

    A run holds pair, method, peer (bool), the measures, and the costs (None for the start); one
    that failed holds ``problem``. A row without a reference in its pair has None for that ratio.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for run in runs:
        groups.setdefault((run["pair"], run["method"]), []).append(run)
    rows = []
    for same in groups.values():
        good = [run for run in same if not run.get("problem")]
        row = dict((good or same)[0])
        row["repetitions"] = len(good)
        for name in _COSTS:
            values = [run[name] for run in good if run.get(name) is not None]
            row[name] = median(values) if values else None
        rows.append(row)
    for row in rows:
        row.update(_ratios(row, [other for other in rows if other["pair"] == row["pair"]]))
    return sorted(rows, key=lambda row: [r["pair"] for r in rows].index(row["pair"]))


def _ratios(row: dict, pair: list[dict]) -> dict[str, float | None]:
    peers = [r for r in pair if r["peer"] and not r.get("problem")]
    best = min(peers, key=lambda r: r["tre_mean"], default=None)
    reference = next((r for r in peers if r["method"] == REFERENCE), None)

    def divide(name: str, a: dict | None, b: dict | None) -> float | None:
        if a is None or b is None or a.get(name) is None or not b.get(name):
            return None
        return a[name] / b[name]

    return {
        "tre_to_best_peer": divide("tre_mean", row, best),
        "tre_to_convexadam": divide("tre_mean", row, reference),
        "cpu_convexadam_to_this": divide("cpu_s", reference, row),
        "cpu_best_peer_to_this": divide("cpu_s", best, row),
        "memory_to_convexadam": divide("peak_mb", row, reference),
    }


def markdown(rows: list[dict], head: dict) -> str:
    """The table with what it was made on. ``head``: run, command, methods, pairs, missing."""
    lines = ["# GlideReg beside its peers", "", describe_run_in_words(head["run"]), ""]
    lines += [f"Command: `{head['command']}`", ""]
    lines += ["| " + " | ".join(_HEAD) + " |", "|---|---|" + "---:|" * (len(_HEAD) - 2)]
    last = None
    for row in rows:
        lines.append(_line(row, row["pair"] if row["pair"] != last else ""))
        last = row["pair"]
    for title in ("pairs", "methods"):
        lines += ["", f"{title.capitalize()}:", ""]
        lines += [f"- {name}: {text}" for name, text in head[title].items()]
    remarks = [
        f"- {row['pair']}, {row['method']}: {text}"
        for row in rows
        for text in row.get("remarks", [])
    ]
    if remarks:
        lines += ["", "What the methods said:", "", *remarks]
    if head["missing"]:
        lines += ["", "Missing:", "", *(f"- {sentence}" for sentence in head["missing"])]
    lines += ["", "Notes:", "", *(f"- {note}" for note in NOTES)]
    return "\n".join(lines) + "\n"


def _line(row: dict, pair: str) -> str:
    cells = [pair, row["method"]]
    if row.get("problem"):
        return "| " + " | ".join([*cells, row["problem"]] + [""] * (len(_HEAD) - 3)) + " |"
    cells += [f"{row[name]:.2f}" for name in ("tre_mean", "tre_median", "tre_p95")]
    cells += [f"{row[name]:.4f}" for name in ("folding_body", "folding_grid")]
    cells += [_number(row[name], digits) for name, digits in zip(_COSTS, (1, 1, 0), strict=False)]
    ratios = ("tre_to_best_peer", "tre_to_convexadam", "cpu_convexadam_to_this")
    cells += [_number(row[name], 2) for name in ratios]
    cells += [_number(row[name], 2) for name in ("cpu_best_peer_to_this", "memory_to_convexadam")]
    return "| " + " | ".join([*cells, _number(row["load"], 1)]) + " |"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def write_table(folder: Path, stem: str, runs: list[dict], head: dict) -> Path:
    """Writes ``stem.md`` and ``stem.json`` (every single run too), whole or not at all."""
    rows = summarize(runs)
    texts = {
        "md": markdown(rows, head),
        "json": json.dumps({**head, "rows": rows, "runs": runs}, indent=1) + "\n",
    }
    for ending, text in texts.items():
        replace_whole(folder / f"{stem}.{ending}", partial(_write_text, text))
    return folder / f"{stem}.md"


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
