"""Files for challenges, read back by readers written here from the challenges' own conventions."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from GlideRegLib.benchmark import exports
from GlideRegLib.cli import main
from GlideRegLib.field import affine_to_sitk
from GlideRegLib.geometry import Grid

FIXED = Grid((12, 10, 8), (1.0, 1.5, 2.0), (5.0, -3.0, 40.0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
MOVING = Grid((14, 9, 11), (0.8, 1.2, 2.5), (-4.0, 6.0, 20.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
AFFINE = np.array(
    [[1.1, 0.05, 0.0, 3.0], [0.0, 0.9, 0.1, -2.0], [0.02, 0.0, 1.05, 7.0], [0, 0, 0, 1]]
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The transform and both images as files, named as Learn2Reg names them."""
    rng = np.random.default_rng(0)
    paths = {"transform": tmp_path / "T.tfm"}
    sitk.WriteTransform(affine_to_sitk(AFFINE), str(paths["transform"]))
    for number, (role, grid) in enumerate((("fixed", FIXED), ("moving", MOVING))):
        paths[role] = tmp_path / f"Toy_0104_000{number}.nii.gz"
        image = sitk.GetImageFromArray(rng.integers(-1000, 100, grid.shape).astype(np.int16))
        sitk.WriteImage(grid.copy_to_sitk(image), str(paths[role]))
    return {name: str(path) for name, path in paths.items()}


def run_export(files: dict[str, str], kind: str, output: Path, *more: str) -> None:
    images = ["--fixed", files["fixed"], "--moving", files["moving"]]
    arguments = ["export", files["transform"], *images, "--format", kind, "-o", str(output)]
    assert main([*arguments, *more]) == 0


def true_moving_index(index: np.ndarray) -> np.ndarray:
    """Where the fixed voxels (N, 3) land, through 4x4 matrices only."""
    matrix = np.linalg.inv(MOVING.matrix) @ AFFINE @ FIXED.matrix
    return index @ matrix[:3, :3].T + matrix[:3, 3]


def every_index(grid: Grid) -> np.ndarray:
    """(X, Y, Z, 3)"""
    return np.stack(np.meshgrid(*map(np.arange, grid.size), indexing="ij"), axis=-1)


def read_nifti_array(path: Path) -> np.ndarray:
    """The array of a NIfTI-1 file as nibabel gives it: first index fastest."""
    data = gzip.decompress(path.read_bytes())
    dimensions = struct.unpack("<8h", data[40:56])
    (code,) = struct.unpack("<h", data[70:72])
    (offset,) = struct.unpack("<f", data[108:112])
    kind = {16: "<f4", 64: "<f8"}[code]
    shape = dimensions[1 : dimensions[0] + 1]
    return np.frombuffer(data, kind, offset=int(offset)).reshape(shape, order="F")


def read_mhd(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """(X, Y, Z) and the header of a MetaImage with a raw file beside it."""
    lines = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
    header = {name.strip(): value.strip() for name, value in lines}
    size = tuple(map(int, header["DimSize"].split()))
    kind = {"MET_FLOAT": "<f4", "MET_DOUBLE": "<f8"}[header["ElementType"]]
    raw = np.fromfile(path.with_name(header["ElementDataFile"]), kind)
    return raw.reshape(size, order="F"), header


def test_learn2reg_displacement_leads_to_the_moving_voxel(
    files: dict[str, str], tmp_path: Path
) -> None:
    run_export(files, "learn2reg", tmp_path / "out")
    displacement = read_nifti_array(tmp_path / "out" / "disp_0104_0104.nii.gz")
    assert displacement.shape == (*FIXED.size, 3)
    index = every_index(FIXED)
    expected = true_moving_index(index.reshape(-1, 3)).reshape(index.shape)
    np.testing.assert_allclose(index + displacement, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("fixed", "moving", "name"),
    [
        ("NLST_0101_0000.nii.gz", "NLST_0101_0001.nii.gz", "disp_0101_0101.nii.gz"),
        ("OASIS_0438_0000.nii.gz", "OASIS_0439_0000.nii.gz", "disp_0438_0000_0439_0000.nii.gz"),
        ("A_0009_0001.nii.gz", "A_0009_0000.nii.gz", "disp_0009_0001_0009_0000.nii.gz"),
    ],
)
def test_learn2reg_names(fixed: str, moving: str, name: str) -> None:
    assert exports.learn2reg_name(f"/some/where/{fixed}", moving) == name


def test_learn2reg_folder_needs_its_names(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other.nii.gz"
    other.write_bytes(Path(files["fixed"]).read_bytes())
    arguments = ["--fixed", str(other), "--moving", files["moving"], "--format", "learn2reg"]
    assert main(["export", files["transform"], *arguments, "-o", str(tmp_path / "out")]) == 2
    assert "whole name of the output file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lung250m_rows_are_fixed_and_moving_voxels(files: dict[str, str], tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    index = np.array([[0.0, 0, 0], [3, 7, 2], [11, 9, 7]])
    rows = [",".join(map(str, p)) for p in FIXED.to_physical(index)]
    points.write_text("\n".join(["x_lps,y_lps,z_lps", *rows]))
    run_export(files, "lung250m", tmp_path / "case_104.csv", "--points", str(points))
    text = (tmp_path / "case_104.csv").read_text(encoding="utf-8")
    assert re.fullmatch(r"((-?\d+\.\d{3},){5}-?\d+\.\d{3}\n){3}", text)
    written = np.loadtxt(tmp_path / "case_104.csv", delimiter=",")
    np.testing.assert_allclose(written[:, :3], index, atol=1e-3)
    np.testing.assert_allclose(written[:, 3:], true_moving_index(index), atol=2e-3)


def test_lung250m_lattice_stays_in_the_mask(files: dict[str, str], tmp_path: Path) -> None:
    inside = np.zeros(FIXED.shape, np.uint8)
    inside[2:6, 3:8, 4:11] = 1
    mask = tmp_path / "mask.nii.gz"
    sitk.WriteImage(FIXED.copy_to_sitk(sitk.GetImageFromArray(inside)), str(mask))
    run_export(files, "lung250m", tmp_path / "case_104.csv", "--mask", str(mask))
    written = np.loadtxt(tmp_path / "case_104.csv", delimiter=",")
    x, y, z = np.rint(written[:, :3]).astype(int).T
    assert len(written) == inside.sum()  # fewer voxels than points that are wanted: all of them
    assert inside[z, y, x].all()
    np.testing.assert_allclose(written[:, 3:], true_moving_index(written[:, :3]), atol=2e-3)


def test_empire10_fields_lead_from_millimeters_to_millimeters(
    files: dict[str, str], tmp_path: Path
) -> None:
    """Its own words: voxel times spacing is the place, place plus def the place in the other."""
    run_export(files, "empire10", tmp_path / "01")
    read = [read_mhd(tmp_path / "01" / f"def{axis}.mhd") for axis in "XYZ"]
    index = every_index(FIXED)
    expected = true_moving_index(index.reshape(-1, 3)).reshape(index.shape)
    for axis, (values, header) in enumerate(read):
        assert list(map(float, header["ElementSpacing"].split())) == list(FIXED.spacing)
        place = index[..., axis] * FIXED.spacing[axis] + values
        np.testing.assert_allclose(place / MOVING.spacing[axis], expected[..., axis], atol=1e-3)


def test_a_wrong_ending_for_lung250m_is_one_sentence(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = ["--fixed", files["fixed"], "--moving", files["moving"]]
    arguments = ["export", files["transform"], *images, "--format", "lung250m"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert "case_104.csv" in capsys.readouterr().err
