"""The result: one object, the same motion in every form, and files that are whole or absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_scenes import centered_grid, draw, rotation, shifted, textured_body, voxel_centers

from GlideRegLib.errors import Cancelled, OutputError
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.result import TOTAL_BORDER_MM, Result
from GlideRegLib.volume import Volume

FIXED = centered_grid((34, 32, 30), (3.0, 3.0, 3.5), rotation((8.0, -6.0, 15.0)), (10.0, 5.0, 80.0))
MOVING = centered_grid((36, 36, 36), (3.0, 3.0, 3.0), rotation((0, 0, 30.0)), (40.0, -20.0, 130.0))
FILES = {
    "displacement.nii.gz",
    "inverse_transform.h5",
    "result.json",
    "transform.h5",
    "warped.nii.gz",
}


def motion(p: np.ndarray) -> np.ndarray:
    """u(p), LPS mm: smooth and of about 8 mm."""
    x, y, z = ((p - FIXED.center) / 40.0).T
    return 6.0 * np.stack((np.sin(y) + 0.5, np.cos(z + x), np.sin(x - 1)), axis=1)


def initial_matrix() -> np.ndarray:
    """A turn of 25 degrees about the fixed center, then a large shift: it does not commute."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((5.0, 0.0, 25.0)) @ np.diag([1.05, 0.95, 1.0])
    matrix[:3, 3] = MOVING.center - matrix[:3, :3] @ FIXED.center
    return matrix


@pytest.fixture(scope="module")
def result() -> Result:
    lattice = centered_grid(
        (24, 24, 24), (5.0, 5.0, 5.0), FIXED.direction_matrix, tuple(FIXED.center)
    )
    u = motion(voxel_centers(lattice)).T.reshape(3, *lattice.shape)
    field = DisplacementField(torch.from_numpy(u.copy()).float(), lattice).with_zero_border(FIXED)
    body = (np.linalg.norm(voxel_centers(FIXED) - FIXED.center, axis=1) < 40).reshape(FIXED.shape)
    report = {"schema": "glidereg-result-1", "quality": {"tre_mm": None}}
    return Result(field, initial_matrix(), FIXED, body, "ct", -1024.0, report)


@pytest.fixture(scope="module")
def moving() -> Volume:
    scene = textured_body(center=tuple(MOVING.center), radii=(45.0, 40.0, 42.0))
    return draw(scene, MOVING)


def some_points(count: int = 150) -> np.ndarray:
    random = np.random.default_rng(2)
    return FIXED.to_physical(random.uniform(2, np.array(FIXED.size) - 3, (count, 3)))


def apply(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    return np.array([transform.TransformPoint(p) for p in points.tolist()])


def expected_points(points: np.ndarray) -> np.ndarray:
    matrix = initial_matrix()
    return (points + motion(points)) @ matrix[:3, :3].T + matrix[:3, 3]


# --- one motion in many forms ---------------------------------------------------------------------


def test_a_fixed_point_goes_through_the_field_first_and_then_through_the_initial_transform(
    result: Result,
) -> None:
    points = some_points()
    matrix = initial_matrix()
    turned = points @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.linalg.norm(turned + motion(points) - expected_points(points), axis=1).max() > 3
    found = result.transform_points(points)
    assert np.linalg.norm(found - expected_points(points), axis=1).max() < 0.2  # lattice of 5 mm


def test_the_itk_composite_is_the_same_map(result: Result) -> None:
    points = some_points()
    found = apply(result.to_sitk(), points)
    np.testing.assert_allclose(found, result.transform_points(points), atol=1e-3)


def test_the_total_field_alone_is_the_same_map_inside_its_lattice(result: Result) -> None:
    points = some_points()
    transform = sitk.DisplacementFieldTransform(result.total_field().to_sitk())
    np.testing.assert_allclose(apply(transform, points), apply(result.to_sitk(), points), atol=1e-3)
    far = FIXED.corners()  # the lattice covers the whole fixed image
    np.testing.assert_allclose(apply(transform, far), apply(result.to_sitk(), far), atol=1e-3)


def test_the_inverse_brings_moving_points_back(result: Result) -> None:
    points = some_points()
    there = result.transform_points(points)
    np.testing.assert_allclose(result.inverse_points(there), points, atol=0.01)
    by_itk = apply(result.inverse_to_sitk(), there)
    assert np.linalg.norm(by_itk - points, axis=1).max() < 0.3  # interpolated between the nodes
    assert np.linalg.norm(by_itk - points, axis=1).mean() < 0.1


def test_the_warped_image_is_what_simpleitk_resamples(result: Result, moving: Volume) -> None:
    expected = sitk.Resample(
        moving.to_sitk(),
        FIXED.copy_to_sitk(sitk.Image(FIXED.size, sitk.sitkFloat32)),
        result.to_sitk(),
        sitk.sitkLinear,
        -1024.0,
    )
    warped = result.warp(moving)
    np.testing.assert_array_equal(warped.array, sitk.GetArrayFromImage(expected))
    assert warped.grid.is_close(FIXED)
    assert (warped.array > -500).sum() > 1000


def test_warped_labels_stay_labels(result: Result, moving: Volume) -> None:
    labels = Volume((moving.array > -400).astype(np.uint8) * 7, MOVING)
    warped = result.warp(labels, labels=True)
    assert warped.array.dtype == np.uint8
    assert set(np.unique(warped.array)) == {0, 7}


def test_the_jacobian_is_that_of_the_total_map(result: Result) -> None:
    jacobian = result.jacobian()
    assert jacobian.grid == FIXED
    index = np.array([[15.0, 14.0, 13.0]])
    p = FIXED.to_physical(index)[0]
    columns = [
        (expected_points((p + e)[None]) - expected_points((p - e)[None]))[0] / 2 for e in np.eye(3)
    ]
    expected = np.linalg.det(np.stack(columns, axis=1))
    assert jacobian.array[13, 14, 15] == pytest.approx(expected, abs=0.02)


# --- measures -------------------------------------------------------------------------------------


def test_landmark_quality_is_measured_before_after_the_start_and_after_all(result: Result) -> None:
    fixed = some_points(40)
    errors = np.random.default_rng(3).normal(0, 0.5, (40, 3))
    moving = result.transform_points(fixed) + errors
    found = result.landmark_quality(fixed, moving)
    matrix = initial_matrix()
    start = fixed @ matrix[:3, :3].T + matrix[:3, 3]
    for name, mapped in (("before", fixed), ("initial", start), ("after", moving - errors)):
        expected = np.linalg.norm(mapped - moving, axis=1)
        assert found["tre_mm"][name]["mean"] == pytest.approx(expected.mean())
        assert found["tre_mm"][name]["n"] == 40
    within = 100 * np.mean(np.linalg.norm(errors, axis=1) <= 1.0)
    assert found["cpm_percent"]["after"]["1"] == pytest.approx(within)


def test_label_quality_compares_on_the_fixed_grid_before_and_after(result: Result) -> None:
    """Labels drawn with the true map agree after it, and hardly before."""
    center = np.array(FIXED.center) + np.array((5.0, 0.0, 0.0))

    def ball(points: np.ndarray) -> np.ndarray:
        return (np.linalg.norm(points - center, axis=1) < 20).astype(np.uint8)

    points = voxel_centers(MOVING)
    moving_labels = Volume(ball(result.inverse_points(points)).reshape(MOVING.shape), MOVING)
    fine = centered_grid((60, 60, 60), (1.5, 1.5, 1.5), center=tuple(FIXED.center))
    fixed_labels = Volume(ball(voxel_centers(fine)).reshape(fine.shape), fine)  # another grid
    found = result.label_quality(fixed_labels, moving_labels)
    assert found["labels"]["1"]["after"]["dice"] > 0.93
    assert found["labels"]["1"]["after"]["mean_distance_mm"] < 1.5
    assert found["mean_dice"]["before"] < 0.5


def test_without_fixed_labels_in_the_grid_there_is_no_mean_dice(result: Result) -> None:
    """A mean over nothing would be nan, which JSON does not know."""
    empty = Volume(np.zeros(FIXED.shape, np.uint8), FIXED)
    labels = Volume(np.ones(MOVING.shape, np.uint8), MOVING)
    found = result.label_quality(empty, labels)
    assert "mean_dice" not in found
    json.dumps(found, allow_nan=False)


def test_field_quality_reports_folding_motion_and_consistency(result: Result) -> None:
    found = result.field_quality()
    assert found["folding_percent"] == {"body": 0.0, "grid": 0.0}
    assert found["folding_percent_one_sided"] == {"body": 0.0, "grid": 0.0}
    index = np.argwhere(result.body)[:, ::-1].astype(float)
    points = FIXED.to_physical(index)
    moved = np.linalg.norm(expected_points(points) - points, axis=1)
    assert found["displacement_mm"]["mean"] == pytest.approx(moved.mean(), rel=0.02)
    assert found["displacement_mm"]["max"] == pytest.approx(moved.max(), rel=0.02)
    assert found["inverse_consistency_mm"]["mean"] < 0.1
    assert 0 < found["lattice_jacobian_min"] < 1
    json.dumps(found, allow_nan=False)


def test_a_folding_field_is_reported_as_folding(result: Result) -> None:
    vectors = result.field.vectors.clone()
    k = 2 * np.pi / 40
    x = torch.from_numpy(voxel_centers(result.field.grid)[:, 0]).float()
    vectors[0] = (-2 / k * torch.sin(k * x)).reshape(result.field.grid.shape)
    folding = replace(result, field=DisplacementField(vectors, result.field.grid))
    found = folding.field_quality()
    # 1 - 2 cos <= 0 for a third of all phases
    assert found["folding_percent"]["body"] == pytest.approx(33.3, abs=6)
    assert 100 >= found["folding_percent_one_sided"]["body"] > found["folding_percent"]["body"]
    assert found["lattice_jacobian_min"] < 0


# --- files ----------------------------------------------------------------------------------------


def test_the_saved_files_are_read_back_by_simpleitk_as_the_same_map(
    result: Result, moving: Volume, tmp_path: Path
) -> None:
    result.save(tmp_path / "new" / "folder", moving, extra={"report.html": "<html></html>"})
    folder = tmp_path / "new" / "folder"
    assert {p.name for p in folder.iterdir()} == FILES | {"report.html"}
    points = some_points()
    expected = result.transform_points(points)
    transform = sitk.ReadTransform(str(folder / "transform.h5"))
    assert transform.GetName() == "CompositeTransform"
    np.testing.assert_allclose(apply(transform, points), expected, atol=1e-3)
    image = sitk.ReadImage(str(folder / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    by_image = apply(sitk.DisplacementFieldTransform(image), points)
    np.testing.assert_allclose(by_image, expected, atol=1e-3)
    inverse = sitk.ReadTransform(str(folder / "inverse_transform.h5"))
    expected_back = apply(result.inverse_to_sitk(), expected)
    np.testing.assert_allclose(apply(inverse, expected), expected_back, atol=1e-3)
    warped = sitk.ReadImage(str(folder / "warped.nii.gz"))
    assert warped.GetPixelID() == sitk.sitkInt16
    assert Grid.from_sitk(warped).is_close(FIXED, 1e-3)
    difference = sitk.GetArrayFromImage(warped) - result.warp(moving).array
    assert np.abs(difference).max() <= 0.5
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == result.report


def test_fractional_mr_intensities_are_not_rounded(
    result: Result, moving: Volume, tmp_path: Path
) -> None:
    mr = replace(result, modality="mr", background=0.0)
    mr.save(tmp_path, Volume((moving.array + 1024) / 1000, MOVING))
    warped = sitk.ReadImage(str(tmp_path / "warped.nii.gz"))
    assert warped.GetPixelID() == sitk.sitkFloat32
    assert sitk.GetArrayFromImage(warped).max() < 3


def break_after(count: int):
    """A ``check`` that raises at its n-th call."""
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == count:
            raise Cancelled("stop")

    return check


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_cancelled_save_leaves_nothing_not_even_the_folders(
    result: Result, moving: Volume, tmp_path: Path, count: int
) -> None:
    with pytest.raises(Cancelled):
        result.save(tmp_path / "a" / "b", moving, check=break_after(count))
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_in_the_middle_leaves_the_old_files_as_they_were(
    result: Result, moving: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("transform.h5", "warped.nii.gz", "notes.txt"):
        (tmp_path / name).write_text("old")
    written = []
    write = sitk.WriteTransform

    def full_disk(transform: sitk.Transform, path: str) -> None:
        written.append(path)
        if len(written) == 2:
            Path(path).write_text("half", encoding="utf-8")
            raise RuntimeError("no space left on device")
        write(transform, path)

    monkeypatch.setattr(sitk, "WriteTransform", full_disk)
    with pytest.raises(OutputError, match="no space left"):
        result.save(tmp_path, moving)
    assert {p.name for p in tmp_path.iterdir()} == {"transform.h5", "warped.nii.gz", "notes.txt"}
    assert all(p.read_text(encoding="utf-8") == "old" for p in tmp_path.iterdir())


def test_a_name_that_is_taken_by_a_folder_stops_the_save_before_any_file_appears(
    result: Result, moving: Volume, tmp_path: Path
) -> None:
    """transform.h5 comes late in the order: what was moved before it goes back."""
    (tmp_path / "transform.h5").mkdir()
    (tmp_path / "transform.h5" / "kept.txt").write_text("mine")
    (tmp_path / "displacement.nii.gz").write_text("old")
    with pytest.raises(OutputError, match=r"transform\.h5"):
        result.save(tmp_path, moving)
    assert {p.name for p in tmp_path.iterdir()} == {"transform.h5", "displacement.nii.gz"}
    assert (tmp_path / "displacement.nii.gz").read_text(encoding="utf-8") == "old"
    assert (tmp_path / "transform.h5" / "kept.txt").read_text(encoding="utf-8") == "mine"


def test_a_second_save_replaces_the_files_of_the_first(
    result: Result, moving: Volume, tmp_path: Path
) -> None:
    result.save(tmp_path, moving)
    other = replace(result, report={"schema": "glidereg-result-1", "run": 2})
    other.save(tmp_path, moving)
    assert {p.name for p in tmp_path.iterdir()} == FILES
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["run"] == 2


def test_a_folder_that_cannot_be_made_gives_a_sentence(
    result: Result, moving: Volume, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot be written.*\.$"):
        result.save(tmp_path / "file" / "out", moving)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


def test_the_shifted_scene_is_warped_onto_the_fixed_one() -> None:
    """A result made by hand: u = t exactly; the warped image is the fixed scene."""
    scene = textured_body()
    grid = centered_grid((50, 46, 48), (3.0, 3.0, 3.0))
    shift = (9.0, -6.0, 3.0)
    u = torch.tensor(shift).view(3, 1, 1, 1).expand(3, *grid.shape).clone()
    field = DisplacementField(u, grid).with_zero_border(grid)
    made = Result(field, np.eye(4), grid, np.ones(grid.shape, bool), "ct", -1024.0)
    warped = made.warp(draw(shifted(scene, shift), grid))
    inner = (slice(4, -4),) * 3
    np.testing.assert_allclose(warped.array[inner], draw(scene, grid).array[inner], atol=0.5)


# --- the total field around the fixed image, and the determinant at its own resolution ------------


def test_the_total_field_ends_in_zeros_so_that_all_programs_agree_outside(result: Result) -> None:
    vectors = result.total_field().vectors.numpy()
    for axis in (1, 2, 3):
        for face in (0, -1):
            assert not vectors.take(face, axis=axis).any()
    assert np.linalg.norm(vectors, axis=0).max() > 10  # the start moves more than a centimeter


def test_the_total_field_stays_small_whatever_the_start() -> None:
    far = np.eye(4)
    far[:3, 3] = (250.0, -300.0, 400.0)
    field = DisplacementField.zeros(FIXED.pooled(2)).with_zero_border(FIXED)
    body = np.ones(FIXED.shape, bool)
    total = Result(field, far, FIXED, body, "ct", -1024.0).total_field()
    beyond = (np.asarray(total.grid.size) - np.asarray(FIXED.pooled(2).size)).max()
    assert beyond < 2 * TOTAL_BORDER_MM / min(total.grid.spacing) + 10  # nodes
    middle = total.sample(FIXED.center[None])
    np.testing.assert_allclose(middle, [[250.0, -300.0, 400.0]], atol=1e-3)


def test_the_coarse_determinant_is_the_fine_one_at_the_same_places(result: Result) -> None:
    coarse, fine = result.coarse_jacobian(), result.jacobian()
    assert coarse.array.size < fine.array.size
    assert coarse.grid.contains(FIXED.corners() * 0.98 + FIXED.center * 0.02).all()
    inside = voxel_centers(coarse.grid)
    chosen = np.linalg.norm(inside - FIXED.center, axis=1) < 25
    by_fine = sitk.Resample(
        fine.to_sitk(),
        coarse.grid.copy_to_sitk(sitk.Image(coarse.grid.size, sitk.sitkFloat32)),
        sitk.Transform(),
        sitk.sitkLinear,
    )
    values = sitk.GetArrayFromImage(by_fine).ravel()[chosen]
    assert np.abs(values - coarse.array.ravel()[chosen]).mean() < 0.02


def test_the_determinant_is_saved_when_it_is_asked_for(
    result: Result, moving: Volume, tmp_path: Path
) -> None:
    result.save(tmp_path / "plain", moving)
    assert not (tmp_path / "plain" / "jacobian.nii.gz").exists()
    result.save(tmp_path / "more", moving, jacobian=True)
    saved = sitk.ReadImage(str(tmp_path / "more" / "jacobian.nii.gz"))
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(saved), result.coarse_jacobian().array, atol=1e-5
    )
