"""From records of single runs to what the tables say: values per pair, spreads, tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .structures import SIX

#: Level of the tests, after Benjamini and Hochberg.
ALPHA = 0.05
#: With fewer pairs no Wilcoxon test can reach 0.05 on both sides.
MINIMUM_PAIRS = 6


@dataclass(frozen=True)
class Measure:
    """One number per run: its name, how it is read from a record (None: not measured), and whether
    less is better."""

    name: str
    read: Callable[[dict], float | None]
    less_is_better: bool = True


@dataclass(frozen=True)
class Spread:
    """A measure over pairs: mean, standard deviation (n - 1), median, n."""

    mean: float
    std: float | None
    median: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """A method against the reference on one data set and measure, pair by pair.

    ``p`` is Wilcoxon's (two-sided), ``adjusted`` after Benjamini and Hochberg over all comparisons
    made together; None where there are too few pairs. ``better``: the side that has more of the
    test's ranks, so that a mark never says the contrary of the test (the mean may, for an outlier).
    """

    dataset: str
    method: str
    measure: str
    n: int
    better: bool
    p: float | None
    adjusted: float | None = None

    @property
    def significant(self) -> bool:
        return self.adjusted is not None and self.adjusted <= ALPHA


def _points(kind: str, what: str) -> Callable[[dict], float | None]:
    def read(record: dict) -> float | None:
        found = record["measures"][kind]
        return None if found is None else found["after"][what]

    return read


def dice(record: dict) -> float | None:
    """Mean Dice over the six structures, of those that the pair has; over its own labels when it
    has none of the six."""
    found = record["measures"]["structures"]
    if not found:
        return None
    six = [name for name in SIX if name in found]
    return float(np.mean([found[name]["after"] for name in six or found]))


def structures_of(records: Sequence[dict]) -> list[str]:
    """The names of the structures in the records: the six in the paper's order, else sorted."""
    found = {
        name for r in records if not r["problem"] for name in r["measures"]["structures"] or ()
    }
    return [name for name in SIX if name in found] or sorted(found)


TRE = Measure("TRE, mm", _points("landmarks", "mean"))
TRE_MEDIAN = Measure("TRE median, mm", _points("landmarks", "median"))
NODULE_TRE = Measure("nodule TRE, mm", _points("nodules", "mean"))
DICE = Measure("DSC", dice, less_is_better=False)
FOLDS = Measure("%|J|≤0", lambda r: r["measures"]["folding_percent"]["grid"])
FOLDS_BODY = Measure("%|J|≤0 in the body", lambda r: r["measures"]["folding_percent"]["body"])
SECONDS = Measure("run time, s", lambda r: r["cost"]["seconds"])
CPU_SECONDS = Measure("CPU time, s", lambda r: r["cost"]["cpu_seconds"])
MEMORY = Measure("peak memory, MB", lambda r: r["cost"]["peak_memory_mb"])
#: What is tested for significance.
TESTED = (TRE, NODULE_TRE, DICE, FOLDS)
ALL = (TRE, TRE_MEDIAN, NODULE_TRE, DICE, FOLDS, FOLDS_BODY, SECONDS, CPU_SECONDS, MEMORY)


def values(records: Sequence[dict], dataset: str, method: str, measure: Measure) -> dict:
    """Pair -> value of the runs that ended well and have it."""
    return {
        record["pair"]: value
        for record in records
        if (record["dataset_name"], record["method"]) == (dataset, method)
        and not record["problem"]
        and (value := measure.read(record)) is not None
    }


def failures(records: Sequence[dict], dataset: str, method: str) -> tuple[int, int]:
    """How many runs failed, and how many there are."""
    own = [r for r in records if (r["dataset_name"], r["method"]) == (dataset, method)]
    return sum(bool(r["problem"]) for r in own), len(own)


def failed_note(records: Sequence[dict], dataset: str, method: str) -> str:
    """ " (2 failed)", or nothing: numbers without those runs must not look like the others."""
    failed, _ = failures(records, dataset, method)
    return f" ({failed} failed)" if failed else ""


def spread(numbers: Sequence[float]) -> Spread | None:
    """None without numbers; the deviation is None for a single one."""
    found = np.asarray(list(numbers), dtype=float)
    if len(found) == 0:
        return None
    std = float(found.std(ddof=1)) if len(found) > 1 else None
    return Spread(float(found.mean()), std, float(np.median(found)), len(found))


def compare(
    records: Sequence[dict], reference: str, measures: Sequence[Measure] = TESTED
) -> list[Comparison]:
    """Every other method against the reference on every data set, on the pairs that both have.

    Images as they stand have nothing that could fold, so that is not tested for "none".
    """
    made = []
    for dataset in in_order(records, "dataset_name"):
        for method in in_order(records, "method"):
            for measure in measures:
                still = measure is FOLDS and "none" in (method, reference)
                if method != reference and not still:
                    made += _compare(records, dataset, method, reference, measure)
    tested = [c for c in made if c.p is not None]
    if tested:
        adjusted = stats.false_discovery_control([c.p for c in tested], method="bh")
        by_test = dict(zip(map(id, tested), adjusted, strict=True))
        made = [
            Comparison(**{**vars(c), "adjusted": float(by_test[id(c)])}) if id(c) in by_test else c
            for c in made
        ]
    return made


def _compare(
    records: Sequence[dict], dataset: str, method: str, reference: str, measure: Measure
) -> list[Comparison]:
    ours, theirs = (values(records, dataset, m, measure) for m in (method, reference))
    common = [pair for pair in ours if pair in theirs]
    if not common:
        return []
    difference = np.array([ours[pair] - theirs[pair] for pair in common])
    balance = signed_rank_balance(difference)
    better = balance < 0 if measure.less_is_better else balance > 0
    p = None
    if len(common) >= MINIMUM_PAIRS:
        p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return [Comparison(dataset, method, measure.name, len(common), better, p)]


def signed_rank_balance(difference: np.ndarray) -> float:
    """Wilcoxon's rank sum of the positive differences (N,) minus that of the negative ones; zeros
    are dropped before ranking, as in the test."""
    some = difference[difference != 0]
    return float((np.sign(some) * stats.rankdata(np.abs(some))).sum())


def in_order(records: Sequence[dict], name: str) -> list[str]:
    """The different values of a field, as they come."""
    return list(dict.fromkeys(record[name] for record in records))


def pooled_errors(
    records: Sequence[dict], dataset: str, method: str, kind: str = "landmarks"
) -> np.ndarray:
    """All errors (N,) in mm of the points of a data set after registration."""
    found = [
        record["measures"][kind]["after"]["errors_mm"]
        for record in records
        if (record["dataset_name"], record["method"]) == (dataset, method)
        and not record["problem"]
        and record["measures"][kind] is not None
    ]
    return np.concatenate([np.asarray(part, dtype=float) for part in found] or [np.zeros(0)])
