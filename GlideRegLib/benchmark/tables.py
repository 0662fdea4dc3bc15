"""The tables of the GLIDE-Reg paper (2, 3 and 4) in its own layout, from records of runs.

What was not measured says so; nothing stands for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..quality import CPM_THRESHOLDS_MM, points_within
from . import statistics as st
from .baselines import title_of
from .structures import SIX

NOT_MEASURED = "not measured"
_ABLATION = ("glide", "glide-pca", "glide-static", "glide-global", "glide-local")


@dataclass(frozen=True)
class Table:
    """A table as text: ``groups`` are (heading, number of columns) above ``columns``; the first
    column names the row."""

    key: str
    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def all_tables(records: Sequence[dict], reference: str) -> list[Table]:
    """Tables 2, 3 and 4; the structures one by one; what a run costs; what went wrong."""
    comparisons = st.compare(records, reference)
    made = [
        main_table(records, comparisons, reference),
        ablation_table(records),
        cpm_table(records, "nodules"),
        cpm_table(records, "landmarks"),
        structure_table(records),
        cost_table(records),
        problem_table(records),
    ]
    return [table for table in made if table is not None]


def main_table(
    records: Sequence[dict], comparisons: Sequence[st.Comparison], reference: str
) -> Table:
    """Table 2: per data set TRE, nodule TRE where there are nodules, DSC, folding and run time."""
    marks = {(c.dataset, c.method, c.measure): c for c in comparisons}
    datasets = st.in_order(records, "dataset_name")
    plan = [(name, _columns_of(records, name)) for name in datasets]
    rows = []
    for method in st.in_order(records, "method"):
        cells = [title_of(method)]
        for dataset, measures in plan:
            for measure in measures:
                mark = marks.get((dataset, method, measure.name))
                cells.append(_cell(records, dataset, method, measure) + _star(mark))
        rows.append(tuple(cells))
    return Table(
        "table2",
        "Table 2: accuracy, overlap, plausibility and run time",
        (("", 1), *((f"{name} ({_pairs(records, name)})", len(m)) for name, m in plan)),
        ("method", *(measure.name for _, measures in plan for measure in measures)),
        tuple(rows),
        _notes(records, comparisons, reference),
    )


def _columns_of(records: Sequence[dict], dataset: str) -> list[st.Measure]:
    """Nodules only where the data set has them; everything else always."""
    own = [r for r in records if r["dataset_name"] == dataset and not r["problem"]]
    nodules = any(r["measures"]["nodules"] for r in own)
    points = [st.NODULE_TRE] if nodules else []
    return [st.TRE, st.TRE_MEDIAN, *points, st.DICE, st.FOLDS, st.SECONDS]


def _pairs(records: Sequence[dict], dataset: str) -> str:
    count = len({r["pair"] for r in records if r["dataset_name"] == dataset})
    return f"{count} pair" if count == 1 else f"{count} pairs"


def _cell(records: Sequence[dict], dataset: str, method: str, measure: st.Measure) -> str:
    found = st.spread(st.values(records, dataset, method, measure).values())
    if found is None:
        return _absent(records, dataset, method)
    if method == "none" and measure in (st.FOLDS, st.SECONDS):
        return "–"  # there is nothing to fold, and nothing ran
    digits = {st.DICE.name: 3, st.FOLDS.name: 3, st.SECONDS.name: 1}.get(measure.name, 2)
    text = f"{found.mean:.{digits}f}"
    if measure is st.FOLDS and 0 < found.mean < 0.001:
        text = "< 0.001"
    if found.std is not None and measure not in (st.FOLDS, st.SECONDS):
        text += f" ± {found.std:.{digits}f}"
    return text + st.failed_note(records, dataset, method)


def _absent(records: Sequence[dict], dataset: str, method: str) -> str:
    """What stands where there is no number."""
    failed, runs = st.failures(records, dataset, method)
    return "failed" if failed and failed == runs else NOT_MEASURED


def _star(comparison: st.Comparison | None) -> str:
    """* where a method differs from the reference: + in its favor, - against it."""
    if comparison is None or not comparison.significant:
        return ""
    return " *+" if comparison.better else " *-"


def _notes(
    records: Sequence[dict], comparisons: Sequence[st.Comparison], reference: str
) -> tuple[str, ...]:
    tested = [c for c in comparisons if c.p is not None]
    notes = [
        "TRE: mean over a pair's landmarks (median: their median), then mean ± standard deviation "
        "over pairs; not snapped to voxels. %|J|≤0: of the fixed image's whole grid, central "
        "differences, two outer layers left out. Run time: the registration alone.",
        dice_note(records),
        *_jobs_notes(records),
    ]
    if tested:
        notes.append(
            f"* differs from {title_of(reference)} (+ better, - worse, by ranks): Wilcoxon "
            "signed-rank test over pairs, Benjamini-Hochberg over "
            f"{len(tested)} tests at {st.ALPHA}."
        )
    if len(tested) < len(comparisons):
        notes.append(
            f"Where fewer than {st.MINIMUM_PAIRS} pairs are common to two methods nothing was "
            "tested."
        )
    return tuple(note for note in notes if note)


def dice_note(records: Sequence[dict]) -> str:
    """What the DSC of each data set is a mean over."""
    parts = []
    for dataset in st.in_order(records, "dataset_name"):
        names = st.structures_of([r for r in records if r["dataset_name"] == dataset])
        if names:
            six = all(name in SIX for name in names)
            what = f"{len(names)} of the six structures" if six else "the pair's own labels"
            parts.append(f"{dataset}: {what} ({', '.join(names)})")
    return "DSC is a mean. " + "; ".join(parts) + "." if parts else ""


def ablation_table(records: Sequence[dict]) -> Table | None:
    """Table 3: the variants of our method; None when there are fewer than two."""
    methods = st.in_order(records, "method")
    chosen = [name for name in _ABLATION if name in methods]
    if len(chosen) < 2:
        return None
    datasets = st.in_order(records, "dataset_name")
    measures = (st.TRE, st.DICE, st.SECONDS)
    rows = [
        (title_of(m), *(_cell(records, d, m, measure) for d in datasets for measure in measures))
        for m in chosen
    ]
    return Table(
        "table3",
        "Table 3: ablation",
        (("", 1), *((name, len(measures)) for name in datasets)),
        ("variant", *(measure.name for _ in datasets for measure in measures)),
        tuple(rows),
    )


def cpm_table(records: Sequence[dict], kind: str) -> Table | None:
    """Table 4: percent of nodules (or of landmarks) within so many mm, pooled over the pairs."""
    datasets = [
        name
        for name in st.in_order(records, "dataset_name")
        if any(
            r["dataset_name"] == name and not r["problem"] and r["measures"][kind] for r in records
        )
    ]
    if not datasets:
        return None
    limits = tuple(f"{limit:g} mm" for limit in CPM_THRESHOLDS_MM)
    rows = []
    for method in st.in_order(records, "method"):
        cells = [title_of(method)]
        for dataset in datasets:
            errors = st.pooled_errors(records, dataset, method, kind)
            note = st.failed_note(records, dataset, method)
            if len(errors):
                cells += [f"{share:.0f}{note}" for share in points_within(errors).values()]
            else:
                cells += [_absent(records, dataset, method)] * len(limits)
        rows.append(tuple(cells))
    counts = {d: _point_count(records, d, kind) for d in datasets}
    return Table(
        "table4" if kind == "nodules" else "table4_landmarks",
        f"Table 4: {kind} within a distance, %" + ("" if kind == "nodules" else " (stand-ins)"),
        (("", 1), *((f"{name} (n = {counts[name]})", len(limits)) for name in datasets)),
        ("method", *limits * len(datasets)),
        tuple(rows),
        (
            "All points of a data set together, each counted once; those of failed runs are left "
            "out, so compare such rows with care.",
        ),
    )


def _point_count(records: Sequence[dict], dataset: str, kind: str) -> int:
    return max(
        len(st.pooled_errors(records, dataset, method, kind))
        for method in st.in_order(records, "method")
    )


def structure_table(records: Sequence[dict]) -> Table | None:
    """Dice of every structure, the six in the paper's order."""
    names = st.structures_of(records)
    if not names:
        return None
    groups, rows = [], []
    datasets = st.in_order(records, "dataset_name")
    for dataset in datasets:
        own = st.structures_of([r for r in records if r["dataset_name"] == dataset])
        if own:
            groups.append((dataset, own))
    for method in st.in_order(records, "method"):
        cells = [title_of(method)]
        for dataset, own in groups:
            for name in own:
                cells.append(_structure_cell(records, dataset, method, name))
        rows.append(tuple(cells))
    return Table(
        "structures",
        "Dice of each structure",
        (("", 1), *((dataset, len(own)) for dataset, own in groups)),
        ("method", *(name for _, own in groups for name in own)),
        tuple(rows),
    )


def _structure_cell(records: Sequence[dict], dataset: str, method: str, name: str) -> str:
    def read(record: dict) -> float | None:
        found = (record["measures"]["structures"] or {}).get(name)
        return None if found is None else found["after"]

    return _cell(records, dataset, method, st.Measure(st.DICE.name, read, False))


def cost_table(records: Sequence[dict]) -> Table:
    """Seconds, CPU seconds and memory: mean over all pairs of a data set."""
    datasets = st.in_order(records, "dataset_name")
    measures = (st.SECONDS, st.CPU_SECONDS, st.MEMORY)
    rows = []
    for method in st.in_order(records, "method"):
        cells = [title_of(method)]
        for dataset in datasets:
            for measure in measures:
                found = st.spread(st.values(records, dataset, method, measure).values())
                digits = 0 if measure is st.MEMORY else 1
                if found is None:
                    cells.append(_absent(records, dataset, method))
                else:
                    note = st.failed_note(records, dataset, method)
                    cells.append(f"{found.mean:.{digits}f}{note}")
        rows.append(tuple(cells))
    return Table(
        "cost",
        "Cost of a run",
        (("", 1), *((name, len(measures)) for name in datasets)),
        ("method", *(measure.name for _ in datasets for measure in measures)),
        tuple(rows),
        (f"Devices: {', '.join(_devices(records)) or NOT_MEASURED}.", *_jobs_notes(records)),
    )


def _jobs_notes(records: Sequence[dict]) -> list[str]:
    """A warning where runs shared the machine."""
    most = max((record.get("jobs", 1) for record in records if not record["problem"]), default=1)
    if most == 1:
        return []
    return [f"Up to {most} runs went at the same time: run times are longer than of one alone."]


def _devices(records: Sequence[dict]) -> list[str]:
    return sorted({record["device"] for record in records if not record["problem"]})


def problem_table(records: Sequence[dict]) -> Table | None:
    """What did not run, and why."""
    rows = list(
        dict.fromkeys(
            (title_of(r["method"]), f"{r['dataset_name']}, {r['pair']}", r["problem"])
            for r in records
            if r["problem"]
        )
    )
    if not rows:
        return None
    columns = ("method", "pair", "why")
    return Table("problems", "Runs that failed or were left out", (), columns, tuple(rows))
