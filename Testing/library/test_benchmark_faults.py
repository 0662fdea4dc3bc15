"""What is wrong with a pair or with options is told before anything is registered, and usefully."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from GlideRegLib.benchmark import baselines, run_one
from GlideRegLib.benchmark.plan import BenchmarkJob, plan_runs
from GlideRegLib.benchmark.runner import run_benchmark
from GlideRegLib.errors import SettingsError
from GlideRegLib.progress import Progress

COLUMNS = "id,fixed,moving,fixed_landmarks,moving_landmarks,fixed_labels,moving_labels"


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pair with everything; registering it is a failure of the test."""
    monkeypatch.setattr(baselines, "register_baseline", lambda *_: pytest.fail("it was registered"))
    image = sitk.GetImageFromArray(np.arange(512, dtype=np.int16).reshape(8, 8, 8) % 2)
    for side in ("fixed", "moving"):
        (tmp_path / f"{side}_masks").mkdir()
        for name in (f"{side}.nii.gz", f"{side}_labels.nii.gz", f"{side}_masks/liver.nii.gz"):
            sitk.WriteImage(image, str(tmp_path / name))
        (tmp_path / f"{side}.csv").write_text("x_lps,y_lps,z_lps\n1,2,3\n")
    return tmp_path


def problem(folder: Path, points: str = "", labels: str = "") -> str:
    """The sentence that a run on the pair leaves."""
    row = f"p,fixed.nii.gz,moving.nii.gz,{points or ','},{labels or ','}"
    (folder / "mine.csv").write_text(f"{COLUMNS}\n{row}\n")
    job = BenchmarkJob((str(folder / "mine.csv"),), ("none",), str(folder / "out"))
    (run,) = plan_runs(job, Progress())
    run.folder.mkdir(parents=True)
    (run.folder / "job.json").write_text(json.dumps(run.content))
    assert run_one.main(str(run.folder / "job.json")) == 2
    return (run.folder / "problem.txt").read_text(encoding="utf-8")


def test_landmarks_of_no_known_format(folder: Path) -> None:
    (folder / "Roe.doc").write_text("1 2 3")
    told = problem(folder, points="Roe.doc,moving.csv")
    assert told.startswith("(fixed landmarks) is no landmark format that is known here; use .")
    assert ".mrk.json, " in told
    assert "(file)" not in told


def test_lists_of_landmarks_that_do_not_fit(folder: Path) -> None:
    (folder / "moving.csv").write_text("x_lps,y_lps,z_lps\n1,2,3\n4,5,6\n")
    told = problem(folder, points="fixed.csv,moving.csv")
    assert "(fixed landmarks) holds 1 landmarks but (moving landmarks) holds 2" in told


def test_a_label_map_that_is_no_image(folder: Path) -> None:
    (folder / "moving_labels.nii.gz").write_text("no image")
    told = problem(folder, labels="fixed_labels.nii.gz,moving_labels.nii.gz")
    assert told.startswith("(moving labels) cannot be read")


def test_a_mask_in_a_folder_that_is_no_image(folder: Path) -> None:
    (folder / "moving_masks" / "liver.nii.gz").write_text("no image")
    told = problem(folder, labels="fixed_masks,moving_masks")
    assert told == "(moving labels) cannot be read as an image."


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("convexadam", {"no": 1}, r"convexadam .*\bno\b"),
        ("convexadam", {"scale": -1.0}, "scale"),
        ("samreg", {"overlap": "much"}, "overlap"),
        ("none", {"scale": 1.0}, "none has no options"),
    ],
)
def test_wrong_options_are_told_before_any_pair_is_read(
    tmp_path: Path, method: str, options: dict, message: str
) -> None:
    data = str(tmp_path / "not-there.csv")
    given = {"method_options": {method: options}}
    job = BenchmarkJob((data,), (method,), str(tmp_path / "out"), **given)
    with pytest.raises(SettingsError, match=message):
        run_benchmark(job)
