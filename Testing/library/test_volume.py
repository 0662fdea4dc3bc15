"""Volumes: axis order, geometry, resampling and files, with SimpleITK as the oracle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from known_scenes import centered_grid, draw, rotation, shifted, voxel_centers, waves

from GlideRegLib.errors import InputError, OutputError
from GlideRegLib.field import affine_to_sitk
from GlideRegLib.geometry import Grid
from GlideRegLib.volume import (
    Volume,
    content_hash,
    read_labels,
    read_volume,
    replace_whole,
    write_volume,
)

OBLIQUE = rotation((15.0, -20.0, 35.0))
GRIDS = {
    "anisotropic": centered_grid((20, 18, 12), (1.0, 1.2, 3.0), center=(10.0, -30.0, 400.0)),
    "oblique": centered_grid((20, 18, 12), (1.0, 1.2, 3.0), OBLIQUE, (10.0, -30.0, 400.0)),
    "flipped": centered_grid((20, 18, 12), (1.0, 1.2, 3.0), np.diag([-1.0, -1.0, 1.0])),
    "left handed": centered_grid((20, 18, 12), (1.0, 1.2, 3.0), np.diag([1.0, 1.0, -1.0])),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
TEXTURE = waves(3)


def hounsfield(grid: Grid) -> Volume:
    return draw(lambda p: np.round(300 * TEXTURE(p)), grid)


def write_dicom_series(
    folder: Path, volume: Volume, uid: str = "1.2.826.0.1.3680043.2.1125.1", skip: tuple = ()
) -> None:
    """A minimal CT series: one file a slice, positions along the normal, in shuffled names."""
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.Cast(volume.to_sitk(), sitk.sitkInt16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    depth = image.GetSize()[2]
    for k in range(depth):
        if k in skip:
            continue
        part = image[:, :, k]
        position = image.TransformIndexToPhysicalPoint((0, 0, k))
        orientation = np.array(volume.grid.direction).reshape(3, 3)[:, :2].T.ravel()
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0020|000d": uid + ".1",
            "0020|000e": uid + ".2",
            "0008|0018": f"{uid}.3.{k + 1}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.6f}" for v in position),
            "0020|0037": "\\".join(f"{v:.9f}" for v in orientation),
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            part.SetMetaData(key, value)
        part.SetSpacing(volume.grid.spacing[:2])
        writer.SetFileName(str(folder / f"{(k * 7) % depth:03d}-{uid[-3:]}.dcm"))
        writer.Execute(part)


@every_grid
def test_the_value_at_a_voxel_is_the_value_at_its_physical_point(grid: Grid) -> None:
    """Arrays are Z, Y, X: the voxel (x, y, z) of the image is array[z, y, x]."""
    volume = hounsfield(grid)
    image = volume.to_sitk()
    for x, y, z in ((0, 0, 0), (19, 0, 0), (3, 17, 0), (5, 6, 11)):
        point = image.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(grid.to_physical(np.array([[x, y, z]], float))[0], point)
        assert image.GetPixel(x, y, z) == volume.array[z, y, x]
        assert volume.array[z, y, x] == np.round(300 * TEXTURE(np.array([point])))[0]


@every_grid
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii", "v.nrrd", "v.mha", "v.mhd"])
def test_a_volume_survives_a_file(grid: Grid, name: str, tmp_path: Path) -> None:
    volume = hounsfield(grid)
    write_volume(tmp_path / name, volume, np.int16)
    by_itk = sitk.ReadImage(str(tmp_path / name))
    assert by_itk.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(by_itk), volume.array)
    back = read_volume(tmp_path / name)
    assert back.array.dtype == np.float32
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.grid.is_close(grid, 1e-3)
    assert Grid.from_sitk(by_itk).is_close(grid, 1e-3)


@every_grid
def test_resampling_on_the_own_grid_changes_nothing(grid: Grid) -> None:
    volume = hounsfield(grid)
    np.testing.assert_allclose(volume.resampled(grid).array, volume.array, atol=1e-2)


@every_grid
def test_resampling_finds_the_scene_again_on_another_grid(grid: Grid) -> None:
    """Oblique, flipped and anisotropic images of one scene agree on one common grid."""
    smooth = waves(4, shortest=30.0, longest=60.0)
    target = centered_grid((9, 8, 7), (1.5, 1.5, 1.5), center=tuple(grid.center))
    found = draw(smooth, grid).resampled(target, background=-7.0)
    assert found.grid.is_close(target)
    np.testing.assert_allclose(found.array, draw(smooth, target).array, atol=0.1)


def test_resampling_takes_output_points_through_the_transform_into_the_image() -> None:
    """With q = A p, the resampled image at p is the image at A p, and outside the background."""
    smooth = waves(4, shortest=30.0, longest=60.0)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((10.0, 0.0, 0.0)) @ np.diag([1.1, 0.9, 1.0])
    matrix[:3, 3] = (4.0, -3.0, 5.0)
    grid = centered_grid((40, 40, 40), (1.5, 1.5, 1.5))
    target = centered_grid((60, 20, 20), (2.0, 2.0, 2.0), OBLIQUE)
    found = draw(smooth, grid).resampled(target, affine_to_sitk(matrix), background=-999.0)
    points = voxel_centers(target) @ matrix[:3, :3].T + matrix[:3, 3]
    inside = grid.contains(points).reshape(target.shape)
    expected = smooth(points).reshape(target.shape)
    assert 0.2 < inside.mean() < 0.9
    np.testing.assert_array_equal(found.array == -999.0, ~inside)
    index = grid.to_index(points)  # in the outer half voxel ITK repeats the border
    surrounded = ((index >= 0) & (index <= 39)).all(axis=1).reshape(target.shape)
    np.testing.assert_allclose(found.array[surrounded], expected[surrounded], atol=0.03)


def test_without_a_background_an_image_goes_on_as_it_ended() -> None:
    grid = centered_grid((12, 10, 8), (2.0, 2.0, 2.0))
    array = np.random.default_rng(1).normal(size=grid.shape).astype(np.float32)
    wide = centered_grid((18, 14, 16), (2.0, 2.0, 2.0))
    found = Volume(array, grid).resampled(wide, background=None)
    np.testing.assert_allclose(found.array, np.pad(array, ((4, 4), (2, 2), (3, 3)), "edge"))


def test_labels_are_resampled_by_the_nearest_neighbor() -> None:
    grid = centered_grid((12, 12, 12), (2.0, 2.0, 2.0))
    labels = Volume(
        np.random.default_rng(0).choice([0, 3, 200], (12, 12, 12)).astype(np.uint8), grid
    )
    fine = centered_grid((24, 24, 24), (1.0, 1.0, 1.0))
    found = labels.resampled(fine, labels=True)
    assert found.array.dtype == np.uint8
    expected = labels.array.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(found.array, expected)


def test_a_shift_moves_the_content_where_itk_says() -> None:
    """The moving image of a scene shifted by t, resampled through +t, is the fixed image."""
    grid = centered_grid((40, 40, 40), (2.0, 2.0, 2.0))
    smooth = waves(4, shortest=30.0, longest=60.0)
    shift = (6.0, -4.0, 8.0)
    moving = draw(shifted(smooth, shift), grid)
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    back = moving.resampled(grid, affine_to_sitk(matrix)).array
    inner = (slice(5, -5),) * 3
    np.testing.assert_allclose(back[inner], draw(smooth, grid).array[inner], atol=1e-3)


def test_an_array_that_does_not_fit_its_grid_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        Volume(np.zeros((20, 18, 12), np.float32), GRIDS["oblique"])


def test_a_dicom_folder_is_read_in_the_order_of_positions_with_its_geometry(
    tmp_path: Path,
) -> None:
    for name in ("anisotropic", "oblique"):
        volume = hounsfield(GRIDS[name])
        write_dicom_series(tmp_path / name, volume)
        found = read_volume(tmp_path / name)
        assert found.grid.is_close(volume.grid, 1e-2)
        np.testing.assert_array_equal(found.array, volume.array)
        assert found.notes == ()


def test_of_several_dicom_series_the_largest_is_taken_and_named_in_the_notes(
    tmp_path: Path,
) -> None:
    large, small = (
        hounsfield(GRIDS["anisotropic"]),
        draw(TEXTURE, centered_grid((20, 18, 9), (1, 1, 1))),
    )
    write_dicom_series(tmp_path, small, "1.2.826.0.1.3680043.2.1125.7")
    write_dicom_series(tmp_path, large)
    found = read_volume(tmp_path)
    assert found.grid.size == large.grid.size
    assert "2 series" in found.notes[0]


def test_a_dicom_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, hounsfield(GRIDS["anisotropic"]), skip=(5,))
    with pytest.raises(InputError, match="missing or unevenly spaced"):
        read_volume(tmp_path)


def test_a_single_frame_stored_as_4d_is_a_volume(tmp_path: Path) -> None:
    volume = hounsfield(GRIDS["anisotropic"])
    sitk.WriteImage(sitk.JoinSeries([volume.to_sitk()]), str(tmp_path / "one.nii.gz"))
    found = read_volume(tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(found.array, volume.array)
    assert found.grid.is_close(volume.grid, 1e-3)


def test_labels_keep_their_numbers(tmp_path: Path) -> None:
    grid = GRIDS["oblique"]
    array = np.random.default_rng(0).choice([0, 1, 7, 300], grid.shape)
    for dtype in (np.int16, np.uint16, np.float32):
        sitk_image = Volume(array.astype(dtype), grid).to_sitk()
        sitk.WriteImage(sitk_image, str(tmp_path / "labels.nrrd"))
        found = read_labels(tmp_path / "labels.nrrd")
        assert found.array.dtype.kind in "iu"
        np.testing.assert_array_equal(found.array, array)


@pytest.mark.parametrize("bad", [np.full((8, 8, 8), 0.5), -np.ones((8, 8, 8)), np.zeros((8, 8, 8))])
def test_what_is_no_label_map_is_refused(bad: np.ndarray, tmp_path: Path) -> None:
    grid = centered_grid((8, 8, 8), (1.0, 1.0, 1.0))
    sitk.WriteImage(Volume(bad.astype(np.float32), grid).to_sitk(), str(tmp_path / "labels.nrrd"))
    with pytest.raises(InputError, match=r"labels\.nrrd"):
        read_labels(tmp_path / "labels.nrrd")


def test_the_hash_identifies_the_content_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    volume = hounsfield(GRIDS["oblique"])
    for name in ("a.nrrd", "b.nrrd"):
        write_volume(tmp_path / name, volume)
    expected = hashlib.sha256((tmp_path / "a.nrrd").read_bytes()).hexdigest()
    assert read_volume(tmp_path / "a.nrrd").sha256 == expected
    assert content_hash(tmp_path / "b.nrrd") == expected
    folder = content_hash(tmp_path)
    assert folder == content_hash(tmp_path)
    (tmp_path / "b.nrrd").write_bytes(b"other")
    assert content_hash(tmp_path) != folder


def test_rounding_on_writing_clips_instead_of_wrapping_around(tmp_path: Path) -> None:
    grid = centered_grid((8, 8, 8), (1.0, 1.0, 1.0))
    array = np.zeros((8, 8, 8), np.float32)
    array[0, 0, :4] = (40000.0, -40000.0, 1.6, -1.6)
    write_volume(tmp_path / "v.nrrd", Volume(array, grid), np.int16)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "v.nrrd")))
    assert found[0, 0, :4].tolist() == [32767, -32768, 2, -2]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "v.nrrd"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        replace_whole(path, fail)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_format_that_cannot_be_written_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"v\.xyz"):
        write_volume(tmp_path / "v.xyz", hounsfield(GRIDS["oblique"]))
    assert not list(tmp_path.iterdir())
