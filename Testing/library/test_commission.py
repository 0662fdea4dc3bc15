"""Commissioning: known fields on a CT, registered back, judged against the truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_scenes import rotation

from GlideRegLib.assurance.records import Assessment, Verdict
from GlideRegLib.cli import main
from GlideRegLib.commission.assurance import asked_profile, assess_case
from GlideRegLib.commission.cases import KnownCase, make_case, usable_ct
from GlideRegLib.commission.job import CommissionJob
from GlideRegLib.commission.measures import (
    Limits,
    add_assessment,
    error_map,
    judge,
    overall,
    summarize_case,
)
from GlideRegLib.errors import InputError, SettingsError
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.result import Result
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, read_volume, write_volume

GRID = Grid((40, 36, 32), (3.0, 3.0, 3.0), (-58.5, -52.5, -46.5))


@pytest.fixture(scope="module")
def ct(small_pair: PhantomPair) -> Volume:
    """The phantom's moving image: a chest of 4 mm voxels with lungs, spine and vessels."""
    return small_pair.moving


# --- measures on a result whose error is known ------------------------------------------------


def known_case(shift: tuple[float, float, float]) -> KnownCase:
    """A body of 0 HU in every voxel that moved by ``shift`` mm."""
    body = Volume(np.zeros(GRID.shape, np.float32), GRID)
    truth = np.empty((3, *GRID.shape), np.float32)
    truth[:] = np.reshape(shift, (3, 1, 1, 1))
    return KnownCase("made up", "a shift", body, body, truth, 1.0)


def result_with(vectors: np.ndarray, grid: Grid = GRID) -> Result:
    field = DisplacementField(torch.from_numpy(vectors.astype(np.float32)), grid)
    result = Result(field, np.eye(4), grid, np.ones(grid.shape, bool), "ct", -1024.0)
    result.report.update(
        quality={
            "folding_percent": {"body": 0.0, "grid": 0.0},
            "jacobian": {"min": 0.9},
            "inverse_consistency_mm": {"mean": 0.0, "p95": 0.0, "max": 0.0},
        },
        cost={},
    )
    return result


def test_the_error_is_the_distance_from_the_truth() -> None:
    """True 6 mm along x; found 6, 3 and 4 mm along all axes: 5 mm off everywhere."""
    case = known_case((6.0, 0.0, 0.0))
    found = case.displacement + np.reshape((0.0, 3.0, 4.0), (3, 1, 1, 1))
    errors, regions = error_map(case, result_with(found))
    assert np.allclose(errors, 5.0, atol=1e-4)
    # The last two voxels along x leave the moving image.
    assert regions["body"][:, :, :-2].all() and not regions["body"][:, :, -2:].any()
    inner = np.argwhere(regions["away from the ends"])
    assert inner.min(axis=0).tolist() == [5, 5, 5]
    assert inner.max(axis=0).tolist() == [26, 30, 32]  # 15 mm, and 2 voxels more along x


def test_the_table_holds_every_share(tmp_path: Path) -> None:
    """A tenth of the slices is 4 mm off, the rest exact; motion of 3 and 12 mm."""
    case = known_case((3.0, 0.0, 0.0))
    case.displacement[0, :, :18] = -12.0
    found = case.displacement.copy()
    found[2, :16] += 4.0
    summary, errors = summarize_case(case, result_with(found), Limits())
    body = summary["error_mm"]["body"]
    assert body["mean"] == pytest.approx(2.0, abs=1e-3)
    assert body["max"] == pytest.approx(4.0, abs=1e-3)
    assert summary["within_percent"]["body"] == {"1": 50.0, "2": 50.0, "3": 50.0}
    rows = {row["from_mm"]: row for row in summary["by_motion"]}
    assert set(rows) == {2.0, 10.0}
    assert sum(row["n"] for row in rows.values()) == body["n"]
    assert rows[2.0]["n"] == 32 * 18 * 39 and rows[10.0]["n"] == 32 * 18 * 36
    assert summary["share_within_tenths_percent"][39] == pytest.approx(50.0)
    assert summary["share_within_tenths_percent"][41] == pytest.approx(100.0)
    assert errors[0].max() == 4.0 and errors[20].max() == 0
    assert (
        summary["worst_point_lps_mm"]["body"][2] <= GRID.to_physical(np.array([[0, 0, 15.0]]))[0, 2]
    )
    assert summary["verdict"] == "not compliant"


def test_air_is_not_compared_and_does_not_read_as_no_error() -> None:
    """A slice of air in the patient, and partners beyond the moving image: -1, not 0 mm."""
    case = known_case((6.0, 0.0, 0.0))
    case.fixed.array[10:16] = -1000.0
    summary, errors = summarize_case(case, result_with(case.displacement), Limits())
    assert set(np.unique(errors)) == {-1.0, 0.0}
    assert (errors[12] == -1).all() and (errors[:, :, -2:] == -1).all()
    assert np.count_nonzero(errors == 0) == summary["error_mm"]["body"]["n"]
    share = 100 * np.count_nonzero(errors == 0) / errors.size
    assert summary["compared_percent"] == pytest.approx(share)


def judged(errors: np.ndarray, folds: float = 0.0) -> list[str]:
    summary = {"folding_percent": {"body": folds}}
    return [row["status"] for row in judge(summary, errors, Limits())]


def test_limits_are_those_that_are_stated() -> None:
    good = np.full(1000, 0.5)
    assert judged(good) == ["compliant"] * 3
    some = good.copy()
    some[:50] = 2.5  # exactly 95 % within 2 mm
    assert judged(some) == ["compliant"] * 3
    some[50] = 2.5
    assert judged(some) == ["not compliant", "compliant", "compliant"]
    some = good.copy()
    some[0] = 5.0
    assert judged(some) == ["compliant", "not compliant", "compliant"]
    assert judged(good, folds=0.001) == ["compliant", "compliant", "not compliant"]


def test_what_was_not_measured_is_not_verified() -> None:
    assert judged(np.zeros(0)) == ["not verified"]
    assert overall([]) == "not verified"
    verdicts = [{"verdict": "compliant"}, {"verdict": "not verified"}]
    assert overall(verdicts) == "not verified"
    assert overall([*verdicts, {"verdict": "not compliant"}]) == "not compliant"


def test_a_case_that_was_not_run_is_not_verified() -> None:
    """One of four was run and is good: that says nothing about the others."""
    good = [{"verdict": "compliant"}]
    assert overall(good) == "compliant"
    assert overall(good, ["medium", "large"]) == "not verified"
    assert overall([{"verdict": "not compliant"}], ["large"]) == "not compliant"


def test_limits_looser_than_those_of_tg132_are_named() -> None:
    assert Limits().looser_than_tg132() == ""
    assert Limits(99.0, 1.0, 3.0).looser_than_tg132() == ""
    said = Limits(5.0, 30.0, 60.0).looser_than_tg132()
    assert "looser than those of AAPM TG-132" in said
    assert all(f"{value} for" in said for value in ("5 %", "30 mm", "60 mm"))
    assert "share" not in Limits(95.0, 2.5, 5.0).looser_than_tg132()


# --- the known pairs --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rigid", "small"])
def test_contours_and_landmarks_belong_together_by_the_truth(ct: Volume, name: str) -> None:
    """The truth itself passes every criterion; 9 mm off along the body it fails, by 9 mm."""
    case = make_case(name, ct)
    profile = asked_profile("tg132")
    found = assess_case(case, result_with(case.displacement, case.fixed.grid), profile)
    assert found.verdict is Verdict.COMPLIANT
    assert not any("inverse" in m.key for m in found.graded())
    assert found.find("dice", "lungs").value > 0.99 > found.find("dice", "lungs").before
    assert found.find("mean_distance", "lungs").value < 0.2
    tre = found.find("tre_mean")
    assert tre.n > 50 and tre.value < 0.5 and tre.before > 2
    if name == "rigid":
        change = found.find("volume_change_jacobian", "lungs")
        assert change.value == pytest.approx(0, abs=0.2)

    wrong = case.displacement + np.reshape((0.0, 0.0, 9.0), (3, 1, 1, 1))
    found = assess_case(case, result_with(wrong, case.fixed.grid), profile)
    assert found.verdict is Verdict.NOT_COMPLIANT
    assert found.find("tre_mean").value == pytest.approx(9, abs=0.7)
    # What lies 9 mm higher in the moving image was taken, so the carried lungs lie 9 mm lower; both
    # scans cut some of it off.
    assert found.find("centroid_si", "lungs").value == pytest.approx(-9, abs=1.5)
    assert abs(found.find("centroid_lr", "lungs").value) < 0.5
    assert found.find("mean_distance", "lungs").value > 2
    summary = {"verdict": "compliant"}
    add_assessment(summary, found)
    assert summary["verdict"] == "not compliant"


def test_a_rigid_case_needs_no_lungs_but_they_are_not_verified_then() -> None:
    z, y, x = np.indices(GRID.shape)
    ball = (z - 16) ** 2 + (y - 18) ** 2 + (x - 20) ** 2 < 9**2
    rng = np.random.default_rng(0)
    array = np.where(ball, 40 + rng.normal(0, 20, GRID.shape), -1000.0)
    case = make_case("rigid", usable_ct(Volume(array.astype(np.float32), GRID))[0])
    assert case.labels is None and case.landmarks is None and case.lungs is None
    grid = case.fixed.grid
    found = assess_case(case, result_with(case.displacement, grid), asked_profile("tg132"))
    assert found.verdict is Verdict.NOT_VERIFIED
    lacking = {m.key for m in found.graded() if m.verdict is Verdict.NOT_VERIFIED}
    assert {"dice", "mean_distance", "tre_mean"} <= lacking


def test_a_profile_that_asks_for_consistency_only_gets_a_sentence(tmp_path: Path) -> None:
    about = {"schema": "glidereg-profile-1", "name": "x", "description": "x", "source": "x"}
    criteria = [{"measure": "inverse_consistency_p95", "compliant": 1}]
    (tmp_path / "p.json").write_text(json.dumps({**about, "criteria": criteria}))
    with pytest.raises(SettingsError, match="asks for consistency only"):
        asked_profile(str(tmp_path / "p.json"))


def at(volume: Volume, points: np.ndarray) -> np.ndarray:
    image = volume.to_sitk()
    return np.array([image.EvaluateAtPhysicalPoint(p, sitk.sitkLinear) for p in points.tolist()])


@pytest.mark.parametrize("name", ["rigid", "small"])
def test_fixed_and_moving_belong_together_by_the_truth(ct: Volume, name: str) -> None:
    """Fixed values are moving values at the partners, but for noise, density and sampling."""
    case = make_case(name, ct)
    z, y, x = (np.array([0.35, 0.5, 0.65]) * n for n in case.fixed.grid.shape)
    index = np.rint(np.stack(np.meshgrid(x, y, z), axis=-1).reshape(-1, 3)).astype(int)
    points = case.fixed.grid.to_physical(index.astype(float))
    shift = case.displacement[:, index[:, 2], index[:, 1], index[:, 0]].T
    fixed, partner = at(case.fixed, points), at(case.moving, points + shift)
    unmoved = at(case.moving, points)
    assert np.median(np.abs(fixed - partner)) < 60
    assert np.mean(np.abs(fixed - partner)) < 0.7 * np.mean(np.abs(fixed - unmoved))
    assert np.linalg.norm(shift, axis=1).max() > 3


def test_the_rigid_case_is_rigid(ct: Volume) -> None:
    case = make_case("rigid", ct)
    gradient = [np.gradient(case.displacement, axis=axis)[:, 5, 5, 5] for axis in (3, 2, 1)]
    turn = np.eye(3) + np.stack(gradient, axis=1) / np.asarray(case.fixed.grid.spacing)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-4)
    degrees = np.degrees(np.arccos((np.trace(turn) - 1) / 2))
    assert degrees == pytest.approx(3.5, abs=0.02)  # as its description says


def test_flipped_axes_are_put_in_order(ct: Volume) -> None:
    flipped = Volume.from_sitk(sitk.DICOMOrient(ct.to_sitk(), "RAS"))
    turned, notes = usable_ct(replace(flipped, sha256="x"))
    assert not notes and turned.sha256 == "x"
    assert turned.grid.is_close(ct.grid) and np.array_equal(turned.array, ct.array)


def test_tilted_scans_are_resampled_and_it_is_said(ct: Volume) -> None:
    tilted = replace(ct.grid, direction=tuple(rotation((5, 0, 0)).ravel().tolist()))
    turned, notes = usable_ct(Volume(ct.array, tilted))
    assert "tilted" in notes[0]
    assert np.allclose(turned.grid.direction_matrix, np.eye(3))
    steps = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    inside = tilted.center + steps
    difference = at(turned, inside) - at(Volume(ct.array, tilted), inside)
    assert np.median(np.abs(difference)) < 20


def test_mr_gets_a_sentence() -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.uniform(0, 900, GRID.shape).astype(np.float32), GRID)
    with pytest.raises(InputError, match="Commissioning needs a CT"):
        usable_ct(image)


def test_a_ct_without_lungs_gets_a_sentence() -> None:
    z, y, x = np.indices(GRID.shape)
    ball = (z - 16) ** 2 + (y - 18) ** 2 + (x - 20) ** 2 < 12**2
    image = Volume(np.where(ball, 40.0, -1000.0).astype(np.float32), GRID)
    with pytest.raises(InputError, match="No lungs were found"):
        make_case("small", usable_ct(image)[0])


def test_unknown_cases_get_a_sentence(ct: Volume) -> None:
    with pytest.raises(SettingsError, match="choose from rigid, small, medium, large"):
        make_case("huge", ct)


@pytest.mark.parametrize("limits", [(0, 2, 5), (101, 2, 5), (95, 0, 5), (95, 6, 5)])
def test_senseless_limits_get_a_sentence(limits: tuple) -> None:
    with pytest.raises(SettingsError, match="The limits need"):
        Limits(*limits)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run on the phantom: two cases, a coarse grid, local features."""
    folder = tmp_path_factory.mktemp("commission")
    write_volume(folder / "Doe_Jane.nii.gz", ct, np.int16)
    (folder / "s.json").write_text(json.dumps({"grid": {"spacing_mm": 4.0}}))
    arguments = ["commission", str(folder / "Doe_Jane.nii.gz"), "--preset", "fast"]
    arguments += ["--encoder", "none", "--threads", "1", "--settings", str(folder / "s.json")]
    arguments += ["--cases", "small", "--cases", "rigid", "-o", str(folder / "out")]
    arguments += ["--share", "5", "--within-mm", "30", "--largest-mm", "60"]
    assert main(arguments) == 0
    return folder / "out"


def test_everything_is_written(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        *("commission.json", "report.html"),
        *("error_rigid.nii.gz", "error_small.nii.gz"),
    }
    text = (run / "commission.json").read_text(encoding="utf-8")
    # Embedded pictures may hold any letters, but no underscore.
    assert "Doe_Jane" not in text and "Doe_Jane" not in (run / "report.html").read_text(
        encoding="utf-8"
    )
    report = json.loads(text)
    assert [case["name"] for case in report["cases"]] == ["rigid", "small"]
    assert report["not_run"] == ["medium", "large"]
    assert report["verdict"] != "compliant"
    assert len(report["provenance"]["image"]["sha256"]) == 64


def test_the_registration_is_better_than_none(run: Path) -> None:
    for case in json.loads((run / "commission.json").read_text(encoding="utf-8"))["cases"]:
        inner = "away from the ends"
        body, motion = case["error_mm"]["body"], case["motion_mm"]["body"]
        assert case["error_mm"][inner]["mean"] < 0.5 * motion["mean"], case["name"]
        assert body["n"] > 10_000 and motion["max"] > 5


def test_the_quality_assurance_is_part_of_it(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    for case in json.loads((run / "commission.json").read_text(encoding="utf-8"))["cases"]:
        found = Assessment.from_dict(case["assessment"])
        for key in ("dice", "mean_distance", "hd95", "centroid_shift", "structure_jacobian_min"):
            measure = found.find(key, "lungs")
            assert measure.value is not None, key
        dice, tre = found.find("dice", "lungs"), found.find("tre_mean")
        assert dice.value > dice.before and dice.verdict is not Verdict.INFORMATION
        assert tre.value < tre.before
        assert tre.value == pytest.approx(case["tre_mm"]["after"]["mean"], abs=0.01)
        worst = max((found.verdict, Verdict(case["verdict"])), key=lambda v: v.severity)
        assert case["verdict"] == worst.value
        assert dice.text in page and tre.text in page
    assert page.count("Quality assurance, profile TG-132") == 2


def test_the_map_holds_what_the_table_says(run: Path) -> None:
    for case in json.loads((run / "commission.json").read_text(encoding="utf-8"))["cases"]:
        image = read_volume(run / f"error_{case['name']}.nii.gz")
        body = case["error_mm"]["body"]
        assert image.array.max() == pytest.approx(body["max"], abs=0.006)
        compared = image.array >= 0
        assert np.count_nonzero(compared) == body["n"]
        assert image.array[compared].mean(dtype=float) == pytest.approx(body["mean"], abs=0.006)
        # Air around the patient is no place without an error.
        assert np.unique(image.array[~compared]).tolist() == [-1.0] and not compared[:, 0, 0].any()
        place = np.array([case["worst_point_lps_mm"]["body"]])
        worst = image.grid.to_index(place)[0].round().astype(int)
        assert image.array[tuple(worst[::-1])] == image.array.max()


def test_the_report_says_verdicts_limits_and_what_was_not_run(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    report = json.loads((run / "commission.json").read_text(encoding="utf-8"))
    assert "Research use only" in page and "TG-132" in page and "not verified" in page
    assert "What this test cannot show" in page and "Verdict of the physicist" in page
    assert f"<b>{report['verdict']}</b>" in page
    assert "not run: medium, large" in page
    assert "20 HU of noise" in page and "air below -950 HU" in page
    assert "-1 where nothing was compared" in page
    assert report["limits_note"] in page and "limits looser than TG-132" in page
    assert page.count("data:image/jpeg;base64,") == 4 and "http" not in page.split("base64")[0]
    for case in report["cases"]:
        for row in case["criteria"]:
            assert row["value"] in page


def test_mr_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    write_volume(tmp_path / "mr.nii.gz", Volume(rng.uniform(0, 900, GRID.shape), GRID), np.int16)
    assert main(["commission", str(tmp_path / "mr.nii.gz"), "-o", str(tmp_path / "out")]) == 2
    assert "needs a CT" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_worker_commissions_without_a_page_where_its_packages_are_missing(
    ct: Volume, tmp_path: Path
) -> None:
    """As 3D Slicer may run it; a wrong job is one sentence."""
    write_volume(tmp_path / "ct.mha", ct, np.int16)
    changes = {"features": {"encoder": "none"}, "grid": {"spacing_mm": 6.0}, "threads": 1}
    job = CommissionJob(
        str(tmp_path / "ct.mha"),
        str(tmp_path / "out"),
        with_changes(Settings.preset("fast"), **changes),
        ("rigid",),
        Limits(90.0, 3.0, 6.0),
        report=False,
    )
    assert CommissionJob.from_json(job.to_json()) == job
    for text, said in (
        (job.to_json().replace('"within_mm"', '"near_mm"'), "share_percent, within_mm, largest_mm"),
        (job.to_json().replace('"rigid"', '"rigid", "huge"'), "no case 'huge'"),
    ):
        with pytest.raises(SettingsError, match=said):
            CommissionJob.from_json(text).check()
    (tmp_path / "job.json").write_text(job.to_json())
    # A package that cannot be imported, put before the real one.
    (tmp_path / "without").mkdir()
    for name in ("jinja2", "matplotlib"):
        (tmp_path / "without" / f"{name}.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "GlideRegLib.worker", str(tmp_path / "job.json")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "without")},
    )
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout.splitlines()[-1])
    report = json.loads((tmp_path / "out" / "commission.json").read_text(encoding="utf-8"))
    assert event["verdict"] == report["verdict"]
    assert report["limits"] == {"share_percent": 90.0, "within_mm": 3.0, "largest_mm": 6.0}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"commission.json", "error_rigid.nii.gz"}
