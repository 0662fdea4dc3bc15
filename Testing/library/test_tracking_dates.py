"""Days between two scans from their DICOM headers: used, printed, and no date is kept."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nodule_scene import SHIFT, STAYS, scene, write_small_pair

from GlideRegLib.cli import main
from GlideRegLib.tracking.dates import days_between, scan_date
from GlideRegLib.tracking.files import read_tracking
from GlideRegLib.volume import Volume


def write_series(folder: Path, volume: Volume, **dates: str) -> Path:
    """A minimal CT series; dates by the name of their tag."""
    tags = {"acquisition": "0008|0022", "series": "0008|0021", "study": "0008|0020"}
    folder.mkdir(parents=True)
    image = sitk.Cast(volume.to_sitk(), sitk.sitkInt16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetSize()[2]):
        part, uid = image[:, :, k], "1.2.826.0.1.3680043.2.1125.7"
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        entries = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0020|000d": f"{uid}.1",
            "0020|000e": f"{uid}.2",
            "0008|0018": f"{uid}.3.{k + 1}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.6f}" for v in place),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "0",
            "0028|1053": "1",
            **{tags[name]: value for name, value in dates.items()},
        }
        for key, value in entries.items():
            part.SetMetaData(key, value)
        part.SetSpacing(volume.grid.spacing[:2])
        writer.SetFileName(str(folder / f"{k:03d}.dcm"))
        writer.Execute(part)
    return folder


def tiny(folder: Path, **dates: str) -> Path:
    volume = scene({}, np.zeros(3))
    return write_series(
        folder, volume.resampled(volume.grid.padded((0, 0, 0), (0, 0, -60))), **dates
    )


@pytest.mark.parametrize(
    ("dates", "day"),
    [
        ({"acquisition": "20240131", "study": "20230101"}, datetime.date(2024, 1, 31)),
        ({"series": "20240201", "study": "20230101"}, datetime.date(2024, 2, 1)),
        ({"study": "20230101"}, datetime.date(2023, 1, 1)),
        ({"acquisition": "2024.01.31"}, datetime.date(2024, 1, 31)),
        ({"acquisition": "00000000", "study": "20230101"}, datetime.date(2023, 1, 1)),
        ({"study": "00000000"}, None),  # what writes these files adds a study date where none is
    ],
)
def test_the_date_is_that_of_the_acquisition_if_there_is_one(
    tmp_path: Path, dates: dict, day: datetime.date | None
) -> None:
    assert scan_date(tiny(tmp_path / "d", **dates)) == day


def test_what_is_no_dicom_folder_has_no_date(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    assert scan_date(tmp_path / "scan.nii.gz") is None
    assert scan_date(tmp_path) is None
    assert days_between(tmp_path, tmp_path) == (None, "")


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small pair, whose scans are DICOM folders 200 days apart."""
    folder = tmp_path_factory.mktemp("dicom")
    current, prior = scene({STAYS: 4.0}, np.zeros(3)), scene({STAYS: 4.0}, SHIFT)
    paths = write_small_pair(folder)
    paths["fixed"] = write_series(folder / "current", current, acquisition="20240818")
    paths["moving"] = write_series(folder / "prior", prior, acquisition="20240131")
    return paths


def arguments(small: dict, output: Path, *options: str) -> list[str]:
    chosen = ["track", str(small["fixed"]), str(small["moving"]), "-o", str(output), *options]
    chosen += ["--moving-nodules", str(small["before"]), "--fixed-nodules", str(small["now"])]
    return [*chosen, "--transform", str(small["shift"]), "--segment"]


def test_the_days_come_from_the_headers_and_the_dates_stay_there(
    small: dict, tmp_path: Path
) -> None:
    assert main(arguments(small, tmp_path)) == 0
    found = read_tracking(tmp_path / "nodules.json")
    assert found.days == found.rows[0].growth.days == 200
    assert "The scans are 200 days apart." in (tmp_path / "report.html").read_text("utf-8")
    for name in ("nodules.json", "nodules.csv", "report.html"):
        text = (tmp_path / name).read_text("utf-8")
        assert "20240131" not in text and "2024-01-31" not in text


def test_days_that_are_given_go_before_those_of_the_headers(small: dict, tmp_path: Path) -> None:
    assert main(arguments(small, tmp_path, "--days", "90")) == 0
    assert read_tracking(tmp_path / "nodules.json").days == 90


def test_a_prior_that_is_later_gives_no_days_and_says_so(
    small: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments(small, tmp_path, "--prior", "fixed")) == 0
    assert read_tracking(tmp_path / "nodules.json").days is None
    assert "not made after the prior one" in " ".join(capsys.readouterr().out.split())
