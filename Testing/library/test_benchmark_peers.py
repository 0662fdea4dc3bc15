"""The benchmark of peers: tables, our own adapter, missing peers. Needs no peer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import pairs, peers, scaling
from benchmarks.images import COMMON, displacement_image
from benchmarks.measure import measure
from benchmarks.methods import METHODS
from benchmarks.table import summarize, write_table
from GlideRegLib.sample_data.phantom import PhantomPair

HEAD = {
    "run": {
        "date": "2026-01-01 00:00 UTC",
        "commit": "abc",
        "machine": {
            "system": "Linux",
            "cpu": "C",
            "cores": 2,
            "memory_gib": 24.0,
            "gpu": "no GPU",
        },
        "threads": 2,
        "python": "3.11",
        "packages": {"torch": "2"},
    },
    "command": "python -m benchmarks.peers",
    "pairs": {"lung": "a pair"},
    "methods": {"ours": "a method"},
    "missing": ["ants is missing: …"],
}


def a_run(method: str, tre: float, cpu: float, **changes: object) -> dict:
    measures = {"tre_mean": tre, "tre_median": tre, "tre_p95": tre, "landmarks": 5}
    costs = {"wall_s": cpu / 2, "cpu_s": cpu, "peak_mb": 10 * cpu, "load": 1.0}
    run = {"pair": "lung", "method": method, "peer": method != "ours", **measures, **costs}
    return {**run, "folding_body": 0.0, "folding_grid": 0.0, **changes}


def test_ratios_compare_with_the_best_peer_and_with_convexadam() -> None:
    runs = [a_run("ours", 1.0, 10), a_run("convexadam", 1.5, 200), a_run("ants", 1.25, 40)]
    ours = summarize(runs)[0]
    assert ours["tre_to_best_peer"] == pytest.approx(0.8)
    assert ours["tre_to_convexadam"] == pytest.approx(2 / 3)
    assert ours["cpu_convexadam_to_this"] == pytest.approx(20)
    assert ours["cpu_best_peer_to_this"] == pytest.approx(4)
    assert ours["memory_to_convexadam"] == pytest.approx(0.05)


def test_repetitions_become_medians_and_failures_stay_out() -> None:
    bad = {"pair": "lung", "method": "ants", "peer": True, "problem": "failed: x | y", "load": 1.0}
    runs = [a_run("ours", 1.0, cpu) for cpu in (10, 30, 20)] + [bad]
    rows = summarize(runs)
    assert rows[0]["cpu_s"] == 20 and rows[0]["repetitions"] == 3
    assert rows[0]["tre_to_best_peer"] is None
    assert rows[1]["problem"] and rows[1]["tre_to_best_peer"] is None


def test_the_table_is_written_as_markdown_and_json(tmp_path: Path) -> None:
    start = a_run("(affine start)", 5.0, 1.0, peer=False, wall_s=None, cpu_s=None, peak_mb=None)
    path = write_table(
        tmp_path, "peers", [start, a_run("ours", 1.0, 10, remarks=["info: hm"])], HEAD
    )
    text = path.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1, "every row has every column"
    assert "2026-01-01" in text and "24.0 GiB" in text and "ants is missing" in text
    assert "- lung, ours: info: hm" in text
    kept = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    assert kept["rows"][1]["method"] == "ours" and len(kept["runs"]) == 2


def test_a_missing_peer_is_a_sentence_with_the_command() -> None:
    gone = replace(METHODS["convexadam"], package="glidereg-no-such-package")
    assert "pip install" in gone.missing and gone.missing.endswith(".")
    assert METHODS["glidereg-fast"].missing == ""


def test_every_peer_has_an_adapter_file_and_a_command() -> None:
    folder = Path(peers.__file__).parent / "adapters"
    for method in METHODS.values():
        assert (folder / f"{method.adapter}.py").is_file()
        assert not method.is_peer or "pip install" in method.install


def test_our_adapter_keeps_the_contract(
    small_pair: PhantomPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "SPACING_MM", 4.0)
    points = (small_pair.fixed_landmarks, small_pair.moving_landmarks)
    pair = pairs.start_pair("tiny", small_pair.fixed, small_pair.moving, points, tmp_path)
    images = [sitk.ReadImage(str(tmp_path / name)) for name in COMMON]
    field = METHODS["glidereg-fast"].load()(*images, tmp_path, spacing_mm=4.0)
    assert field.GetNumberOfComponentsPerPixel() == 3
    assert field.GetSize() == images[0].GetSize()
    np.testing.assert_allclose(field.GetOrigin(), images[0].GetOrigin())
    before, after = measure(pair, None), measure(pair, sitk.Cast(field, sitk.sitkVectorFloat32))
    assert after["tre_mean"] < 0.6 * before["tre_mean"]
    assert after["folding_body"] == 0


def test_displacements_in_voxels_become_lps_mm() -> None:
    fixed = sitk.Image(4, 5, 6, sitk.sitkFloat32)
    fixed.SetSpacing((1.0, 2.0, 3.0))
    fixed.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    vectors = np.tile(np.float32([1, 1, 1]), (6, 5, 4, 1))
    image = displacement_image(vectors, fixed, in_voxels=True)
    assert image.GetPixel(1, 2, 3) == pytest.approx((-2, 1, 3))


def test_the_command_shown_holds_no_folder() -> None:
    assert peers.shown(["--pairs", "lung", "-o", "/home/me", "--repeat", "2"]) == [
        "--pairs",
        "lung",
        "--repeat",
        "2",
    ]


def test_linear_growth_has_exponent_one() -> None:
    rows = [
        {"megavoxels": m, "wall_s": 5 * m, "cpu_s": 8 * m, "peak_mb": 300 + 100 * m, "idle_mb": 300}
        for m in (0.5, 1.0, 2.0, 4.0)
    ]
    for fit in scaling.fits(rows).values():
        assert fit["exponent"] == pytest.approx(1) and fit["r_squared"] == pytest.approx(1)
