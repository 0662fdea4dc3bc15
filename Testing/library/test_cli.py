"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from small_pair import QUICK, as_arguments

from GlideRegLib.cli import main
from GlideRegLib.landmarks import read_landmarks

OUTPUTS = {
    "warped.nii.gz",
    "transform.h5",
    "inverse_transform.h5",
    "displacement.nii.gz",
    "uncertainty.nii.gz",
    "result.json",
    "report.html",
}


@pytest.fixture(scope="module")
def run(small_files: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one registration with landmarks and labels."""
    output = tmp_path_factory.mktemp("run") / "out"
    code = main(
        [
            "register",
            *as_arguments(small_files),
            "-o",
            str(output),
            *QUICK,
            "--fixed-landmarks",
            str(small_files["fixed_landmarks"]),
            "--moving-landmarks",
            str(small_files["moving_landmarks"]),
            "--fixed-labels",
            str(small_files["fixed_labels"]),
            "--moving-labels",
            str(small_files["moving_labels"]),
        ]
    )
    assert code == 0
    return output


def report_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


def points(path: Path) -> np.ndarray:
    return read_landmarks(path).points


def test_register_writes_every_promised_file_and_nothing_else(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == OUTPUTS


def test_the_result_holds_every_promised_key(run: Path) -> None:
    report = report_of(run)
    assert report["schema"] == "glidereg-result-1"
    assert report["method"] == "glide"
    assert set(report["encoder"]) >= {"name", "weights_sha256", "trained"}
    for when in ("before", "after"):
        assert set(report["quality"]["tre_mm"][when]) >= {"mean", "median", "p95", "max", "n"}
    assert set(report["quality"]["folding_percent"]) == {"body", "grid"}
    assert report["quality"]["labels"]
    assert report["quality"]["sd_log_jacobian"] > 0
    assert report["cost"]["seconds"]["total"] > 0
    assert report["cost"]["peak_memory_mb"] > 50
    provenance = report["provenance"]
    assert provenance["frame"] == "LPS mm, fixed to moving"
    assert len(provenance["inputs"]["fixed"]["sha256"]) == 64
    assert provenance["settings"]["grid"]["spacing_mm"] == 4.0


def test_the_registration_brings_landmarks_and_labels_together(run: Path) -> None:
    quality = report_of(run)["quality"]
    assert quality["tre_mm"]["before"]["mean"] > 5
    assert quality["tre_mm"]["after"]["mean"] < 2
    assert quality["mean_dice"]["after"] > quality["mean_dice"]["before"] + 0.1
    assert quality["folding_percent"]["body"] <= 0.05


def test_no_file_name_or_path_reaches_the_result_or_the_report(run: Path) -> None:
    for name in ("result.json", "report.html"):
        text = (run / name).read_text(encoding="utf-8")
        assert str(run) not in text
        assert ".nii" not in re.sub(r"data:image/png;base64,[^\"]*", "", text)


def test_simpleitk_reproduces_the_warped_image_from_the_transform(
    run: Path, small_files: dict
) -> None:
    fixed = sitk.ReadImage(str(small_files["fixed"]), sitk.sitkFloat32)
    moving = sitk.ReadImage(str(small_files["moving"]), sitk.sitkFloat32)
    transform = sitk.ReadTransform(str(run / "transform.h5"))
    own = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -1024.0)
    written = sitk.ReadImage(str(run / "warped.nii.gz"), sitk.sitkFloat32)
    difference = sitk.GetArrayFromImage(own) - sitk.GetArrayFromImage(written)
    assert np.abs(difference).max() <= 0.5 + 1e-3  # the file is rounded to whole HU


def test_the_displacement_image_equals_the_transform(run: Path, small_files: dict) -> None:
    fixed = points(small_files["fixed_landmarks"])
    image = sitk.ReadImage(str(run / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    field = sitk.DisplacementFieldTransform(image)
    transform = sitk.ReadTransform(str(run / "transform.h5"))
    for point in fixed.tolist():
        a, b = field.TransformPoint(point), transform.TransformPoint(point)
        assert np.abs(np.subtract(a, b)).max() < 1e-2


def test_the_inverse_transform_brings_points_back(run: Path, small_files: dict) -> None:
    forward = sitk.ReadTransform(str(run / "transform.h5"))
    inverse = sitk.ReadTransform(str(run / "inverse_transform.h5"))
    fixed = points(small_files["fixed_landmarks"])
    back = [inverse.TransformPoint(forward.TransformPoint(p)) for p in fixed.tolist()]
    errors = np.linalg.norm(np.asarray(back) - fixed, axis=1)
    assert errors.mean() < 0.25


def test_evaluate_gives_the_numbers_of_register(
    run: Path, small_files: dict, tmp_path: Path
) -> None:
    arguments = ["evaluate", "--transform", str(run / "transform.h5"), "--json"]
    arguments.append(str(tmp_path / "e.json"))
    for name in ("fixed", "moving"):
        arguments += [f"--{name}", str(small_files[name])]
        arguments += [f"--{name}-landmarks", str(small_files[f"{name}_landmarks"])]
        arguments += [f"--{name}-labels", str(small_files[f"{name}_labels"])]
    assert main(arguments) == 0
    measured = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["quality"]
    quality = report_of(run)["quality"]
    assert measured["tre_mm"]["after"]["mean"] == pytest.approx(
        quality["tre_mm"]["after"]["mean"], abs=1e-3
    )
    assert measured["mean_dice"]["after"] == pytest.approx(quality["mean_dice"]["after"], abs=1e-3)
    for key in ("folding_percent", "folding_percent_one_sided"):
        assert measured[key]["body"] == quality[key]["body"]


def test_warp_and_warp_points_follow_the_transform(
    run: Path, small_files: dict, tmp_path: Path
) -> None:
    labels, moved = tmp_path / "labels.nii.gz", tmp_path / "points.mrk.json"
    transform = ["--transform", str(run / "transform.h5")]
    reference = ["--reference", str(small_files["fixed"])]
    source = str(small_files["moving_labels"])
    assert main(["warp", source, *transform, *reference, "-o", str(labels), "--labels"]) == 0
    values = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(labels))))
    original = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(source)))
    assert set(values) <= set(original)
    fixed_file = str(small_files["fixed_landmarks"])
    assert main(["warp-points", fixed_file, *transform, "-o", str(moved)]) == 0
    errors = np.linalg.norm(points(moved) - points(small_files["moving_landmarks"]), axis=1)
    assert errors.mean() == pytest.approx(
        report_of(run)["quality"]["tre_mm"]["after"]["mean"], abs=1e-3
    )


def test_two_runs_with_one_seed_are_bit_identical(
    run: Path, small_files: dict, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert main(["register", *as_arguments(small_files), "-o", str(again), *QUICK]) == 0
    first, second = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "displacement.nii.gz")))
        for folder in (run, again)
    )
    assert np.array_equal(first, second)


def test_the_library_imports_fast_and_without_heavy_packages() -> None:
    code = (
        "import sys, GlideRegLib, GlideRegLib.cli;"
        "print([m for m in ('torch', 'SimpleITK', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


def test_weights_list_names_every_encoder(capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert "mobile_sam" in shown
    assert "lite_medsam" in shown


def test_messages_in_the_result_name_no_file(small_files: dict, tmp_path: Path) -> None:
    """A landmark file without a stated frame is noted, but not by its name."""
    plain = []
    for name in ("fixed", "moving"):
        points_file = tmp_path / f"John-Doe-{name}.csv"
        rows = points(small_files[f"{name}_landmarks"])
        points_file.write_text("\n".join(",".join(map(str, row)) for row in rows), "utf-8")
        plain += [f"--{name}-landmarks", str(points_file)]
    output = tmp_path / "out"
    assert main(["register", *as_arguments(small_files), "-o", str(output), *QUICK, *plain]) == 0
    for name in ("result.json", "report.html"):
        assert "John-Doe" not in (output / name).read_text(encoding="utf-8")
