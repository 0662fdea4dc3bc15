"""Data sets of the literature: tiny copies of every layout, with their axis and offset traps.

Images are written by hand in each layout's own convention, with bright voxels at the landmarks.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from GlideRegLib import quality
from GlideRegLib.benchmark.datasets import Pair, open_dataset, with_structures
from GlideRegLib.benchmark.datasets.dirlab import COPD_GENE, FOUR_D_CT
from GlideRegLib.benchmark.structures import LabelMap, MaskFolder, structure_of
from GlideRegLib.errors import InputError
from GlideRegLib.volume import Volume

#: Index axes that do not lie along x, y, z, and are mirrored: x to the head, y to the right.
ODD_DIRECTION = (0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)


def assert_landmarks_on_bright_voxels(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Row k of both lists is the one voxel of value 1000 + k in its image."""
    volumes = pair.read_fixed(), pair.read_moving()
    points = pair.read_landmarks(*(volume.grid for volume in volumes))
    for volume, own in zip(volumes, points, strict=True):
        for number, point in enumerate(own):
            z, y, x = np.argwhere(volume.array == 1000 + number)[0]
            expected = volume.grid.to_physical(np.array([[x, y, z]]))[0]
            np.testing.assert_allclose(point, expected, atol=1e-4)
    return points


def write_nifti(path: Path, index: np.ndarray, direction: tuple, spacing: tuple) -> None:
    """A NIfTI of 24 x 20 x 16 voxels with value 1000 + k at the array index (i, j, k) of row k."""
    array = np.zeros((24, 20, 16), np.int16)  # as nibabel sees it
    for number, (i, j, k) in enumerate(index):
        array[i, j, k] = 1000 + number
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetDirection(direction)
    image.SetSpacing(spacing)
    image.SetOrigin((11.0, -7.0, 300.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


FIXED_INDEX = np.array([[3, 5, 4], [12, 9, 8], [20, 15, 13]])
MOVING_INDEX = FIXED_INDEX + np.array([2, -1, 1])


# --- Learn2Reg --------------------------------------------------------------------------------


def make_learn2reg(folder: Path, points: str = "keypoints") -> Path:
    for modality, index in (("0000", FIXED_INDEX), ("0001", MOVING_INDEX)):
        name = f"Toy_0101_{modality}"
        image = folder / "imagesTr" / f"{name}.nii.gz"
        write_nifti(image, index, ODD_DIRECTION, (1.5, 2.0, 3.0))
        (folder / f"{points}Tr").mkdir(exist_ok=True)
        csv = folder / f"{points}Tr" / f"{name}.csv"
        np.savetxt(csv, index, delimiter=",", fmt="%.3f")
    entry = {
        "fixed": "./imagesTr/Toy_0101_0000.nii.gz",
        "moving": "./imagesTr/Toy_0101_0001.nii.gz",
    }
    path = folder / "Toy_dataset.json"
    path.write_text(json.dumps({"name": "Toy", "registration_val": [entry]}))
    return path


@pytest.mark.parametrize("points", ["keypoints", "landmarks"])
def test_learn2reg_points_are_voxels_of_the_array_from_zero(tmp_path: Path, points: str) -> None:
    make_learn2reg(tmp_path, points)
    (pair,) = open_dataset(str(tmp_path)).pairs()
    fixed, moving = assert_landmarks_on_bright_voxels(pair)
    # +2 along i (to the head, 1.5 mm), -1 along j (to the right), +1 along k (to the back).
    np.testing.assert_allclose(moving - fixed, [[2.0, 3.0, 3.0]] * 3, atol=1e-4)
    assert pair.identifier == "0101_0000-0101_0001"


def test_learn2reg_says_what_is_missing(tmp_path: Path) -> None:
    path = make_learn2reg(tmp_path)
    with pytest.raises(InputError, match="lists no pairs under 'registration_test'"):
        open_dataset(str(path), "test").pairs()
    (tmp_path / "imagesTr" / "Toy_0101_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(str(path)).pairs()


# --- DIR-Lab ----------------------------------------------------------------------------------


def write_raw(path: Path, size: tuple, numbers: np.ndarray) -> None:
    """A file as DIR-Lab's: int16, x fastest, voxel numbers from 1; air 24, outside -2000."""
    values = np.memmap(path, dtype="<i2", mode="w+", shape=size[::-1])  # sparse: mostly zeros
    values[:, 0, 0] = -2000
    for number, (x, y, z) in enumerate(numbers):
        values[z - 1, y - 1, x - 1] = 1000 + number + 1024
    values.flush()


def make_dirlab(folder: Path, images: list[str], points: list[str], size: tuple) -> None:
    first = np.array([[40, 50, 3], [100, 90, 60], [200, 180, 91]])
    second = first + np.array([4, -6, 2])
    for image, text, numbers in zip(images, points, (first, second), strict=True):
        for name in (image, text):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_raw(folder / image, size, numbers)
        rows = ["\t".join(map(str, row)) + "\t" for row in numbers]
        (folder / text).write_text("\r\n".join(rows) + "\r\n")


LAYOUTS = {
    "4dct case 1": (
        ["Case1Pack/Images/case1_T00_s.img", "Case1Pack/Images/case1_T50_s.img"],
        [f"Case1Pack/ExtremePhases/Case1_300_{p}_xyz.txt" for p in ("T00", "T50")],
        ((256, 256, 94), 0.97),
    ),
    "4dct case 5, other names": (
        ["case5Deploy/Images/case5_T00-ssm.img", "case5Deploy/Images/case5_T50-ssm.img"],
        [f"case5Deploy/extremePhases/case5_dirLab300_{p}_xyz.txt" for p in ("T00", "T50")],
        ((256, 256, 106), 1.10),
    ),
    "copd 2": (
        ["copd2/copd2_iBHCT.img", "copd2/copd2_eBHCT.img"],
        [f"copd2/copd2_300_{p}BH_xyz_r1.txt" for p in "ie"],
        ((512, 512, 102), 0.645),
    ),
    "copd 9": (
        ["copd9/copd9_iBHCT.img", "copd9/copd9_eBHCT.img"],
        [f"copd9/copd9_300_{p}BH_xyz_r1.txt" for p in "ie"],
        ((512, 512, 116), 0.664),
    ),
}
#: As the data's authors print them, typed by hand: slices, and mm in the plane, of cases 1 to 10.
PUBLISHED = {
    "4dct": (
        (94, 112, 104, 99, 106, 128, 136, 128, 128, 120),
        (0.97, 1.16, 1.15, 1.13, 1.10, 0.97, 0.97, 0.97, 0.97, 0.97),
    ),
    "copd": (
        (121, 102, 126, 126, 131, 119, 112, 115, 116, 135),
        (0.625, 0.645, 0.652, 0.590, 0.647, 0.633, 0.625, 0.586, 0.664, 0.742),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dirlab_landmarks_begin_at_one_and_slices_at_the_head(tmp_path: Path, layout: str) -> None:
    images, points, (size, spacing) = LAYOUTS[layout]
    make_dirlab(tmp_path, images, points, size)
    (pair,) = open_dataset(str(tmp_path)).pairs()
    fixed, moving = assert_landmarks_on_bright_voxels(pair)
    # Two slices further down in the file is 5 mm towards the feet.
    shift = np.array([4 * spacing, -6 * spacing, -5.0])
    np.testing.assert_allclose(moving - fixed, np.tile(shift, (3, 1)), atol=1e-6)
    assert fixed[0, 2] > fixed[1, 2] > fixed[2, 2]
    volume = pair.read_fixed()
    assert volume.grid.size == size
    assert volume.array[0, 0, 0] == -1024  # outside the scanner's circle
    assert volume.array[5, 5, 5] == -1024  # a stored zero


def test_dirlab_file_of_another_size_is_refused(tmp_path: Path) -> None:
    images, points, (size, _) = LAYOUTS["4dct case 1"]
    make_dirlab(tmp_path, images, points, size)
    with (tmp_path / images[0]).open("ab") as stream:
        stream.write(b"\0\0")
    with pytest.raises(InputError, match="256 x 256 x 94"):
        open_dataset(str(tmp_path)).pairs()[0].read_fixed()


def test_a_dirlab_case_that_lacks_a_file_keeps_no_other_from_being_used(tmp_path: Path) -> None:
    images, points, (size, _) = LAYOUTS["4dct case 1"]
    make_dirlab(tmp_path, images, points, size)
    (tmp_path / "Case2Pack").mkdir()
    one, two = open_dataset(str(tmp_path)).pairs()
    assert_landmarks_on_bright_voxels(one)
    assert two.identifier == "case2"
    with pytest.raises(InputError, match="Case2Pack' lacks a file like 'case2_T00"):
        two.read_fixed()
    assert two.fingerprint() != one.fingerprint()


@pytest.mark.parametrize(("kind", "table"), [("4dct", FOUR_D_CT), ("copd", COPD_GENE)])
def test_dirlab_tables_are_the_published_ones(kind: str, table: dict) -> None:
    slices, spacings = PUBLISHED[kind]
    for case in range(1, 11):
        side = 256 if kind == "4dct" and case < 6 else 512
        assert table[case] == ((side, side, slices[case - 1]), spacings[case - 1]), case
    assert len(table) == 10


# --- Lung250M-4B ------------------------------------------------------------------------------


def make_lung250m(folder: Path) -> None:
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    for part, case in (("Ts", "104"), ("Ts", "002"), ("Tr", "001")):
        for number, index in ((1, FIXED_INDEX), (2, MOVING_INDEX)):
            for kind in ("images", "masks"):
                path = folder / f"{kind}{part}" / f"case_{case}_{number}.nii.gz"
                write_nifti(path, index, identity, (1.0, 1.0, 1.0))
    rows = np.hstack((FIXED_INDEX, MOVING_INDEX)).astype(np.float32)
    torch.save({"104": torch.from_numpy(rows)}, folder / "lms_validation.pth")
    (folder / "corrfieldTr").mkdir()
    np.savetxt(folder / "corrfieldTr" / "case_001.csv", rows, delimiter=",", fmt="%.3f")


@pytest.mark.parametrize(("split", "case"), [("test", "case_104"), ("train", "case_001")])
def test_lung250m_rows_are_fixed_and_moving_voxels(tmp_path: Path, split: str, case: str) -> None:
    make_lung250m(tmp_path)
    (pair,) = open_dataset(str(tmp_path), split).pairs()
    assert pair.identifier == case
    fixed, moving = assert_landmarks_on_bright_voxels(pair)
    np.testing.assert_allclose(moving - fixed, [[2.0, -1.0, 1.0]] * 3, atol=1e-4)
    assert [mask.array.max() > 0 for mask in pair.read_masks()] == [True, True]


def test_lung250m_without_landmarks_has_none(tmp_path: Path) -> None:
    make_lung250m(tmp_path)
    (pair,) = open_dataset(str(tmp_path), "val").pairs()
    assert (pair.identifier, pair.read_landmarks) == ("case_002", None)


# --- a manifest -------------------------------------------------------------------------------


def test_manifest_reads_everything_that_a_row_names(tmp_path: Path) -> None:
    learn2reg = make_learn2reg(tmp_path / "data")
    (known,) = open_dataset(str(learn2reg)).pairs()
    grids = known.read_fixed().grid, known.read_moving().grid
    for side, points in zip(("f", "m"), known.read_landmarks(*grids), strict=True):
        lines = ["x_lps,y_lps,z_lps", *(",".join(map(str, row)) for row in points)]
        (tmp_path / f"{side}.csv").write_text("\n".join(lines))
    images = [f"data/imagesTr/Toy_0101_000{k}.nii.gz" for k in (0, 1)]
    table = tmp_path / "mine.csv"
    head = "id,fixed,moving,fixed_landmarks,moving_landmarks,fixed_nodules,moving_nodules"
    table.write_text(f"{head}\nA,{images[0]},{images[1]},f.csv,m.csv,f.csv,m.csv\n")
    (pair,) = open_dataset(str(table)).pairs()
    assert_landmarks_on_bright_voxels(pair)
    assert len(pair.read_nodules(*grids)[0]) == 3
    before = pair.fingerprint()
    (tmp_path / "m.csv").write_text("x,y,z\n1,2,3\n")
    assert open_dataset(str(table)).pairs()[0].fingerprint() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fixed,other\na,b\n", "'fixed' and 'moving'"),
        ("fixed,moving,color\na,b,c\n", "unknown columns: color"),
        ("fixed,moving\nnot.nii.gz,there.nii.gz\n", "does not exist"),
        ("fixed,moving,fixed_mask\nmine.csv,mine.csv,mine.csv\n", "Row 1 .* moving mask"),
        ("id,fixed,moving\nA,mine.csv,mine.csv\nA,mine.csv,mine.csv\n", "one id to two pairs"),
    ],
)
def test_manifest_faults_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_dataset(str(path)).pairs()


def test_unknown_data_set_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set that is known here"):
        open_dataset(str(tmp_path))


# --- real data --------------------------------------------------------------------------------


def test_real_pairs_start_at_their_known_errors(shared_data: Path) -> None:
    """The manifest of the data states 35.3 mm for the lung pair."""
    means = {}
    for name in ("lung-followup", "liver-mr"):
        for pair in open_dataset(name, data=shared_data).pairs():
            errors = quality.landmark_errors(*pair.read_landmarks(None, None))
            means[pair.identifier] = round(float(errors.mean()), 2)
    assert means == {
        "lung": 35.27,
        "mr19-1_6": 5.52,
        "mr19-1_9": 5.01,
        "mr23-1_4": 7.68,
        "mr23-5_4": 8.23,
    }


# --- structures -------------------------------------------------------------------------------


def test_names_of_totalsegmentator_make_up_the_six() -> None:
    expected = {
        "lung_upper_lobe_left": "lung",
        "heart_atrium_left": "heart",
        "vertebrae_T5": "skeleton",
        "rib_left_3": "skeleton",
        "Trachea": "airway",
        "lung_trachea_bronchia": "airway",
        "liver": "liver",
        "lung vessels": "lung vessels",
        "lung_nodules": None,
        "esophagus": None,
        "liver_vessels": None,
    }
    assert {name: structure_of(name) for name in expected} == expected


def small_labels(values: np.ndarray) -> Volume:
    return Volume.from_sitk(sitk.GetImageFromArray(values.astype(np.uint8)))


def test_label_map_joins_lobes_and_keeps_unknown_names_apart() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[0], array[1], array[2] = 10, 13, 7
    names = {10: "lung_upper_lobe_left", 13: "lung_middle_lobe_right", 7: "pancreas"}
    (layer,) = LabelMap(small_labels(array), names).layers()
    assert layer.structures == {1: "lung"}
    assert (layer.volume.array == 1).sum() == 32
    (layer,) = LabelMap(small_labels(array), {}).layers()
    assert sorted(layer.structures.values()) == ["label 10", "label 13", "label 7"]


def test_mask_folder_joins_files_and_skips_empty_ones(tmp_path: Path) -> None:
    array = np.zeros((3, 2, 2), np.uint8)
    for slice_, name in ((0, "rib_left_1"), (1, "rib_right_1"), (2, "lung_vessels")):
        one = np.zeros_like(array)
        one[slice_] = 1
        sitk.WriteImage(sitk.GetImageFromArray(one), str(tmp_path / f"{name}.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "liver.nii.gz"))
    layers = {layer.structures[1]: layer.volume.array for layer in MaskFolder(tmp_path).layers()}
    assert sorted(layers) == ["lung vessels", "skeleton"]
    assert layers["skeleton"].sum() == 8


def test_structures_of_a_folder_are_found_by_image_name(tmp_path: Path) -> None:
    (pair,) = open_dataset(str(make_learn2reg(tmp_path / "data"))).pairs()
    folder = tmp_path / "segmentations"
    assert with_structures(pair, folder) is pair
    for name in ("Toy_0101_0000", "Toy_0101_0001"):
        (folder / name).mkdir(parents=True)
    fixed, moving = with_structures(pair, folder).read_structures()
    assert fixed.folder.name == "Toy_0101_0000"
    assert moving.folder.name == "Toy_0101_0001"
