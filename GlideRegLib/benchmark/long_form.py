"""The numbers of the tables for other programs: one row each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import statistics as st


def long_rows(records: Sequence[dict], reference: str) -> list[dict]:
    """One row per data set, method and measure: numbers for other programs."""
    tests = {(c.dataset, c.method, c.measure): c for c in st.compare(records, reference)}
    rows = []
    for dataset in st.in_order(records, "dataset_name"):
        for method in st.in_order(records, "method"):
            for measure in st.ALL:
                found = st.spread(st.values(records, dataset, method, measure).values())
                test = tests.get((dataset, method, measure.name))
                rows.append(
                    {
                        "dataset": dataset,
                        "method": method,
                        "measure": measure.name,
                        "mean": found and found.mean,
                        "std": found and found.std,
                        "median": found and found.median,
                        "pairs": found.n if found else 0,
                        "failed": st.failures(records, dataset, method)[0],
                        "wilcoxon_p": test and test.p,
                        "benjamini_hochberg_p": test and test.adjusted,
                        "than_reference": _direction(test),
                    }
                )
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _direction(test: st.Comparison | None) -> str | None:
    """Where the ranks of the test lie; None without a test."""
    if test is None or test.p is None:
        return None
    return "better" if test.better else "not better"


def _plain(value: object) -> object:
    return float(value) if isinstance(value, np.floating) else value
