"""The benchmark's numbers and tables, against counts made by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from GlideRegLib.benchmark import figures, formats, long_form, output, tables
from GlideRegLib.benchmark import statistics as st
from GlideRegLib.quality import points_within, summarize_errors

RNG = np.random.default_rng(4)


def one(method: str, pair: str, error: float | None, dataset: str = "Toy", **more: object) -> dict:
    """A record with three landmarks around a mean error (None: no landmarks)."""
    landmarks = None
    if error is not None:
        errors = [0.5 * error, error, 1.5 * error]
        summary = {
            **summarize_errors(errors),
            "within_percent": points_within(errors),
            "errors_mm": errors,
        }
        landmarks = {"before": summary, "after": summary}
    measures = {
        "landmarks": landmarks,
        "nodules": None,
        "structures": None,
        "folding_percent": {"body": 0.0, "grid": 0.0},
    }
    return {
        "dataset_name": dataset,
        "about": "toy data",
        "pair": pair,
        "method": method,
        "problem": None,
        "device": "CPU, 1 threads",
        "versions": {"torch": "2"},
        "cost": {"seconds": 1.0, "cpu_seconds": 2.0, "peak_memory_mb": 300.0},
        "measures": {**measures, **more},
    }


def failed(method: str, pair: str) -> dict:
    head = {"dataset_name": "Toy", "about": "toy data", "pair": pair, "method": method}
    return {**head, "problem": "It broke."}


def series(method: str, values: np.ndarray) -> list[dict]:
    return [one(method, f"p{k}", float(value)) for k, value in enumerate(values)]


def test_wilcoxon_and_benjamini_hochberg_are_scipys_over_all_tests() -> None:
    ours = RNG.uniform(1, 2, 10)
    worse, same = ours + RNG.uniform(0.5, 1, 10), ours + RNG.normal(0, 0.1, 10)
    records = series("glide", ours) + series("glide-local", worse) + series("affine", same)
    found = {(c.method, c.measure): c for c in st.compare(records, "glide", (st.TRE, st.FOLDS))}
    first = stats.wilcoxon(worse - ours).pvalue
    second = stats.wilcoxon(same - ours).pvalue
    assert found["glide-local", st.TRE.name].p == pytest.approx(first)
    assert found["affine", st.TRE.name].p == pytest.approx(second)
    # Folding is the same everywhere: p = 1, and it counts among the four tests.
    ordered = sorted([first, second, 1.0, 1.0])
    adjusted = {p: min(q * 4 / (k + 1) for k, q in enumerate(ordered) if q >= p) for p in ordered}
    for comparison in found.values():
        assert comparison.adjusted == pytest.approx(min(adjusted[comparison.p], 1))
    assert found["glide-local", st.TRE.name].significant
    assert not found["glide-local", st.TRE.name].better
    assert not found["affine", st.TRE.name].significant


def test_five_pairs_are_too_few_to_test() -> None:
    records = series("glide", np.ones(5)) + series("affine", np.full(5, 3.0))
    (comparison,) = st.compare(records, "glide", (st.TRE,))
    assert (comparison.n, comparison.p, comparison.significant) == (5, None, False)


def test_pairs_that_one_method_lacks_are_left_out_of_the_test() -> None:
    records = series("glide", np.ones(8)) + series("affine", np.full(8, 3.0))
    records[-1] = failed("affine", "p7")
    (comparison,) = st.compare(records, "glide", (st.TRE,))
    assert comparison.n == 7


def main_rows(records: list[dict], reference: str = "glide") -> list[tuple[str, ...]]:
    return tables.main_table(records, st.compare(records, reference), reference).rows


def test_the_main_table_has_means_over_pairs_and_marks() -> None:
    ours, theirs = np.linspace(1, 2, 8), np.linspace(2, 4, 8)
    rows = main_rows(series("glide", ours) + series("affine", theirs))
    assert rows[0][1] == f"{ours.mean():.2f} ± {ours.std(ddof=1):.2f}"
    assert rows[1][1] == f"{theirs.mean():.2f} ± {theirs.std(ddof=1):.2f} *-"
    assert rows[0][-1] == "1.0"


def test_what_was_not_measured_says_so_and_never_zero() -> None:
    rows = main_rows([one("glide", "p", None), failed("affine", "p")])
    assert rows[0][1:4] == ("not measured",) * 3  # TRE, its median, DSC
    assert set(rows[1][1:]) == {"failed"}
    partly = main_rows([one("glide", "p", 1.0), failed("glide", "q")])
    assert partly[0][1] == "1.00 (1 failed)"
    long = long_form.long_rows([one("glide", "p", None)], "glide")
    assert next(row for row in long if row["measure"] == "TRE, mm")["mean"] is None
    (problem,) = tables.problem_table([failed("affine", "p")]).rows
    assert problem == ("Affine", "Toy, p", "It broke.")


def test_mean_dice_is_over_the_six_where_there_are_any() -> None:
    both = {"before": 0.0, "after": 0.0}
    six = {"lung": {**both, "after": 0.9}, "liver": {**both, "after": 0.7}}
    record = one("glide", "p", None, structures={**six, "pancreas": {**both, "after": 0.1}})
    assert st.dice(record) == pytest.approx(0.8)
    assert st.structures_of([record]) == ["lung", "liver"]
    assert "2 of the six structures (lung, liver)" in tables.dice_note([record])
    own = one("glide", "p", None, structures={"pancreas": {**both, "after": 0.25}})
    assert st.dice(own) == 0.25
    table = tables.structure_table([record])
    assert table.columns == ("method", "lung", "liver")
    assert table.rows[0][1:] == ("0.900", "0.700")


def test_cpm_pools_the_nodules_of_all_pairs() -> None:
    records = []
    for pair, errors in (("p", [0.4, 1.5]), ("q", [0.9, 7.0])):
        summary = {**summarize_errors(errors), "errors_mm": errors}
        records.append(one("glide", pair, None, nodules={"before": summary, "after": summary}))
    table = tables.cpm_table(records, "nodules")
    assert table.columns == ("method", "0.5 mm", "1 mm", "2 mm", "5 mm")
    assert table.rows[0][1:] == ("25", "50", "75", "75")
    assert table.groups[1] == ("Toy (n = 4)", 4)
    assert tables.cpm_table(records, "landmarks") is None


def test_the_ablation_needs_two_variants() -> None:
    assert tables.ablation_table(series("glide", np.ones(2)) + series("affine", np.ones(2))) is None
    rows = tables.ablation_table(
        series("glide-local", np.ones(2)) + series("glide", np.ones(2))
    ).rows
    assert [row[1] for row in rows] == ["1.00 ± 0.00", "1.00 ± 0.00"]
    assert rows[0][0] == "GLIDE-Reg"  # in the paper's order


def test_formats_say_the_same() -> None:
    table = tables.Table(
        "t", "A & B", (("", 1), ("50 % | more", 2)), ("method", "x_1", "y"), (("a", "1 ± 2", "<3"),)
    )
    rows = list(csv.reader(io.StringIO(formats.comma_separated(table))))
    assert rows == [["method", "50 % | more: x_1", "50 % | more: y"], ["a", "1 ± 2", "<3"]]
    assert "| a | 1 ± 2 | <3 |" in formats.markdown(table)
    assert r"50 % \| more: y" in formats.markdown(table)
    text = formats.latex(table)
    assert r"\multicolumn{2}{c}{50 \% \textbar{} more}" in text
    assert r"method & x\_1 & y \\" in text
    assert r"a & 1 \ensuremath{\pm} 2 & \textless{}3 \\" in text
    assert text.count("{") == text.count("}")


def test_figures_are_pictures_and_absent_without_points() -> None:
    records = series("glide", np.linspace(0.5, 3, 6)) + series("affine", np.linspace(4, 9, 6))
    for draw in (figures.box_plots, figures.cumulative_curves):
        with Image.open(io.BytesIO(draw(records))) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
        assert draw([one("glide", "p", None)]) is None


def written(folder: Path, records: list[dict]) -> set[str]:
    output.write_benchmark(folder, records, records[0]["method"])
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("broken", [False, True])
def test_without_any_landmarks_everything_but_the_pictures_is_written(
    tmp_path: Path, broken: bool
) -> None:
    records = [failed(m, "p") if broken else one(m, "p", None) for m in ("none", "glide")]
    names = written(tmp_path, records)
    assert {"benchmark.html", "benchmark.md", "benchmark.json", "benchmark.csv"} <= names
    assert not [name for name in names if name.endswith(".png")]
    page = (tmp_path / "benchmark.html").read_text(encoding="utf-8")
    assert ("It broke." in page) is broken
    assert "<figure>" not in page


def test_nodules_have_pictures_of_their_own(tmp_path: Path) -> None:
    nodules = one("glide", "p", 2.0)["measures"]["landmarks"]
    names = written(tmp_path, [one("glide", "p", None, nodules=nodules)])
    assert {name for name in names if name.endswith(".png")} == {
        "boxplots_nodules.png",
        "cumulative_nodules.png",
    }
    page = (tmp_path / "benchmark.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 2
    assert "Errors of nodules" in page
    assert "Errors of landmarks" not in page


def test_the_mark_points_where_the_test_does_not_where_an_outlier_pulls_the_mean() -> None:
    ours = np.full(20, 5.0)
    theirs = ours - np.linspace(0.1, 2.0, 20)
    theirs[7] = 45.0
    assert theirs.mean() > ours.mean()
    records = series("glide", ours) + series("affine", theirs)
    (comparison,) = st.compare(records, "glide", (st.TRE,))
    assert comparison.significant
    assert comparison.better
    assert main_rows(records)[1][1].endswith("*+")
    (turned,) = st.compare(records, "affine", (st.TRE,))
    assert turned.significant
    assert not turned.better
    row = next(r for r in long_form.long_rows(records, "glide") if r["method"] == "affine")
    assert row["than_reference"] == "better"


def test_direction_ignores_pairs_without_a_difference() -> None:
    # scipy drops zeros before it ranks: were they ranked, two small differences could win here.
    assert st.signed_rank_balance(np.array([0, 0, 0, 0, 0, 1.0, 2.0, -4.0])) == 0
    assert st.signed_rank_balance(np.array([0, 0, 1.0, 2.0, 3.0, -4.0])) == 2
    assert st.signed_rank_balance(np.zeros(3)) == 0


@pytest.mark.parametrize("reference", ["glide", "none"])
def test_the_folding_of_no_registration_is_never_tested(reference: str) -> None:
    folds = {"folding_percent": {"body": 1.0, "grid": 1.0}}
    records = [one("glide", f"p{k}", 1.0 + k / 10, **folds) for k in range(8)]
    records += series("none", np.linspace(3, 4, 8))
    found = st.compare(records, reference)
    assert [(c.measure, c.significant) for c in found] == [(st.TRE.name, True)]
    assert found[0].adjusted == found[0].p  # one test: nothing to correct for
    assert main_rows(records, reference)[1][4] == "–"


def test_runs_that_failed_are_named_wherever_a_method_is_averaged() -> None:
    records = [one("glide", pair, 2.0) for pair in "pqr"]
    records += [one("affine", "p", 0.1), failed("affine", "q"), failed("affine", "r")]
    records += [failed("ants", pair) for pair in "pqr"]
    points = tables.cpm_table(records, "landmarks")
    assert points.rows[0][1:] == ("0", "33", "67", "100")
    assert points.rows[1][1:] == ("100 (2 failed)",) * 4
    assert points.rows[2][1:] == ("failed",) * 4
    assert any("failed" in note for note in points.notes)
    cost = tables.cost_table(records).rows
    assert cost[0][1:] == ("1.0", "2.0", "300")
    assert cost[1][1:] == ("1.0 (2 failed)", "2.0 (2 failed)", "300 (2 failed)")
    assert cost[2][1:] == ("failed",) * 3
    assert figures.names_of(records, "Toy", ["glide", "affine"]) == ["glide", "affine (2 failed)"]
    title = figures.title_of(records, "Toy", {"glide": np.ones(9), "affine": np.ones(3)})
    assert title == "Toy (n = 9)\nall failed: ants"
    found = {(r["method"], r["measure"]): r for r in long_form.long_rows(records, "glide")}
    assert found["affine", "TRE, mm"]["failed"] == 2
    assert found["affine", "TRE, mm"]["pairs"] == 1


def test_failures_show_beside_very_small_folding_and_for_none() -> None:
    small = {"folding_percent": {"body": 0.0, "grid": 0.0002}}
    rows = main_rows([one("glide", "p", 1.0, **small), failed("glide", "q"), failed("none", "p")])
    assert rows[0][4] == "< 0.001 (1 failed)"
    assert set(rows[1][1:]) == {"failed"}


def test_run_times_of_runs_that_shared_the_machine_say_so() -> None:
    records = [one("glide", "p", 1.0), {**one("affine", "p", 1.0), "jobs": 3}]
    note = "Up to 3 runs went at the same time: run times are longer than of one alone."
    assert note in tables.cost_table(records).notes
    assert note in tables.main_table(records, [], "glide").notes
    assert not [n for n in tables.cost_table([{**records[1], "jobs": 1}]).notes if "Up to" in n]
