"""Jacobian, folds and energies: analytic fields, planted folds, SimpleITK's own filter."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from assurance_scenes import (
    affine,
    as_transform,
    foreign_composite,
    points_of,
    subject_of,
    tilted_grid,
)
from scipy import ndimage

from GlideRegLib.assurance.deformation import (
    largest_fold,
    learn2reg_sd_log_jacobian,
    regularity_measures,
    survey,
)
from GlideRegLib.assurance.grading import grade
from GlideRegLib.assurance.profile import Criterion, Limit, Profile
from GlideRegLib.assurance.records import Verdict
from GlideRegLib.assurance.structures import structure_measures
from GlideRegLib.geometry import Grid
from GlideRegLib.volume import Volume

MATRIX = np.array([[1.1, 0.05, 0.0], [-0.02, 0.9, 0.04], [0.03, 0.0, 1.2]])


def test_an_affine_transform_has_its_determinant_everywhere_and_does_not_bend() -> None:
    found = survey(subject_of(affine(MATRIX, (3.0, -2.0, 5.0))))
    np.testing.assert_allclose(found.jacobian, np.linalg.det(MATRIX), atol=2e-4)
    assert found.harmonic == pytest.approx(((MATRIX - np.eye(3)) ** 2).sum(), rel=1e-3)
    assert found.bending < 1e-9


def test_bending_energy_of_polynomials_is_that_of_the_formula() -> None:
    grid = tilted_grid()
    x, y, z = points_of(grid) - grid.center[:, None, None, None]
    a, b = 2e-3, 1e-3  # u_x = a x² + b y z: second derivatives 2a, and b twice
    field = np.stack((a * x**2 + b * y * z, np.zeros_like(x), np.zeros_like(x)))
    found = survey(subject_of(as_transform(field, grid), grid))
    assert found.bending == pytest.approx((2 * a) ** 2 + 2 * b**2, rel=1e-2)


def test_the_jacobian_is_that_of_simpleitks_filter_over_all_slabs() -> None:
    grid = tilted_grid()
    transform = foreign_composite(grid)
    found = survey(subject_of(transform, grid))
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing, grid.direction
    )
    # ITK's filter takes no notice of the direction: it gets the vectors along the grid's own axes.
    along = sitk.GetArrayFromImage(field) @ grid.direction_matrix
    plain = sitk.GetImageFromArray(along, isVector=True)
    plain.SetSpacing(grid.spacing)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(plain))
    inner = (slice(1, -1),) * 3
    assert found.jacobian.std() > 0.02
    np.testing.assert_allclose(found.jacobian[inner], theirs[inner], atol=1e-3)


def planted(grid: Grid, center: tuple[int, int, int], half: int, rows: int) -> np.ndarray:
    """A tent u_x = -1.2 (x - x0) within ``half`` voxels, in a square of 2 * rows + 1 voxels in y
    and z: in 2 half cells along x J is -0.2, and (2 half + 1) (2 rows + 1)² voxels touch them;
    central differences see (2 half - 1) along x."""
    field = np.zeros((3, *grid.shape))
    x, y, z = center
    offsets = np.arange(-half, half + 1)
    block = (slice(z - rows, z + rows + 1), slice(y - rows, y + rows + 1), x + offsets)
    field[0][block] = -1.2 * offsets * grid.spacing[0]
    return field


def test_a_planted_fold_is_found_with_its_size_and_place() -> None:
    grid = Grid((40, 36, 60), (1.5, 2.0, 2.5), (-30.0, 40.0, 100.0))
    field = planted(grid, (20, 18, 24), 3, 2) + planted(grid, (8, 10, 40), 2, 1)
    found = survey(subject_of(as_transform(field, grid), grid))
    large, small = 7 * 25, 5 * 9
    assert int((found.jacobian <= 0).sum()) == large + small
    assert int((found.central <= 0).sum()) == 5 * 25 + 3 * 9
    fold = largest_fold(found.jacobian, grid)
    assert fold.n == large
    assert fold.value == pytest.approx(large * 1.5 * 2.0 * 2.5)
    assert fold.place == pytest.approx((-30 + 20 * 1.5, 40 + 18 * 2.0, 100 + 24 * 2.5))
    subject = subject_of(as_transform(field, grid), grid)
    measures = {(m.key, m.region): m.value for m in regularity_measures(subject, found)}
    voxels = int(np.prod(grid.shape))
    assert measures["folding", "grid"] == pytest.approx(100 * (large + small) / voxels)
    assert measures["folding_central", "grid"] == pytest.approx(100 * (5 * 25 + 3 * 9) / voxels)
    body = subject.body
    assert measures["folding", "body"] == pytest.approx(
        100 * (found.jacobian[body] <= 0).sum() / body.sum()
    )
    assert measures["jacobian_min", "body"] == pytest.approx(-0.2, abs=1e-3)


def test_a_fold_outside_the_body_counts_in_the_grid_only() -> None:
    grid = Grid((40, 36, 60), (1.5, 2.0, 2.5), (-30.0, 40.0, 100.0))
    subject = subject_of(as_transform(planted(grid, (20, 1, 30), 2, 0), grid), grid)
    assert not subject.body[:, 1].any()
    measures = {(m.key, m.region): m for m in regularity_measures(subject, survey(subject))}
    assert measures["folding", "body"].value == 0
    assert measures["folding", "grid"].value > 0
    assert measures["folding", "grid"].text != "0 %"
    assert measures["largest_fold", "grid"].n == 5


def test_folds_that_touch_at_a_corner_are_one_cluster() -> None:
    jacobian = np.ones((9, 9, 9), np.float32)
    jacobian[3, 3, 3] = jacobian[4, 4, 4] = jacobian[5, 5, 5] = 0.0
    jacobian[7:9, 0, 0] = -1.0
    assert largest_fold(jacobian, tilted_grid((9, 9, 9))).n == 3


def test_the_displacement_is_that_of_the_body_over_all_slabs() -> None:
    grid = tilted_grid()
    field = np.zeros((3, *grid.shape))
    field[0], field[1] = 3.0, 4.0
    field[0, 10, 18, 20], field[1, 10, 18, 20] = 0.0, 12.0
    field[2, 0] = 500.0  # air, outside the body
    subject = subject_of(as_transform(field, grid), grid)
    found = survey(subject)
    assert found.max_mm == pytest.approx(12.0)
    assert found.mean_mm == pytest.approx(5 + 7 / subject.body.sum())


def test_without_folds_there_is_no_largest_one() -> None:
    fold = largest_fold(np.ones((5, 6, 7), np.float32), tilted_grid((7, 6, 5)))
    assert (fold.value, fold.n, fold.place) == (0.0, 0, None)


def literal_learn2reg(displacement: np.ndarray) -> float:
    """The challenge's own code (MDL-UzL/L2R), line by line: displacement (1, 3, H, W, D)."""
    gradx = np.array([-0.5, 0, 0.5]).reshape(1, 3, 1, 1)
    grady = np.array([-0.5, 0, 0.5]).reshape(1, 1, 3, 1)
    gradz = np.array([-0.5, 0, 0.5]).reshape(1, 1, 1, 3)
    grads = []
    for kernel in (gradx, grady, gradz):
        rows = [
            ndimage.correlate(displacement[:, c], kernel, mode="constant", cval=0.0)
            for c in range(3)
        ]
        grads.append(np.stack(rows, axis=1))
    jacobian = np.concatenate(grads, 0) + np.eye(3, 3).reshape(3, 3, 1, 1, 1)
    jacobian = jacobian[:, :, 2:-2, 2:-2, 2:-2]
    determinant = (
        jacobian[0, 0] * (jacobian[1, 1] * jacobian[2, 2] - jacobian[1, 2] * jacobian[2, 1])
        - jacobian[1, 0] * (jacobian[0, 1] * jacobian[2, 2] - jacobian[0, 2] * jacobian[2, 1])
        + jacobian[2, 0] * (jacobian[0, 1] * jacobian[1, 2] - jacobian[0, 2] * jacobian[1, 1])
    )
    return float(np.log((determinant + 3).clip(0.000000001, 1000000000)).std())


def test_learn2reg_sdlogj_is_exactly_that_of_the_challenge() -> None:
    grid = tilted_grid()
    voxels = np.random.default_rng(5).normal(0, 3, (3, *grid.shape))
    voxels = ndimage.gaussian_filter(voxels, (0, 2, 2, 2)) * 8
    matrix = grid.matrix[:3, :3]
    transform = as_transform(np.einsum("ij,jzyx->izyx", matrix, voxels), grid)
    jacobian = survey(subject_of(transform, grid)).central
    # Theirs is indexed (H, W, D) = (x, y, z), ours (Z, Y, X).
    theirs = literal_learn2reg(voxels.transpose(0, 3, 2, 1)[None])
    assert learn2reg_sd_log_jacobian(jacobian) == pytest.approx(theirs, rel=1e-3)
    assert (jacobian <= 0).any()  # which that number does not tell


def test_learn2reg_sdlogj_needs_five_slices() -> None:
    assert learn2reg_sd_log_jacobian(np.ones((4, 9, 9), np.float32)) is None


def test_what_is_not_finite_is_not_measured_and_never_called_unfolded() -> None:
    """One NaN in the body, between the points that other checks look at; one inside a structure."""
    grid = tilted_grid()
    field = np.zeros((3, *grid.shape))
    field[0, 30, 18, 21] = np.nan
    labels = np.zeros(grid.shape, np.uint8)
    labels[28:33, 16:21, 19:24], labels[10:14, 10:14, 10:14] = 1, 2
    pair = (Volume(labels, grid),) * 2
    subject = subject_of(as_transform(field, grid), grid, labels=pair)
    assert subject.body[30, 18, 21]
    found = survey(subject)
    measures = [*regularity_measures(subject, found), *structure_measures(subject, found)]
    profile = own_profile("folding", "structure_folding", "largest_fold", "jacobian_min")
    for measure in grade(measures, profile, 2.5):
        if measure.verdict is not Verdict.INFORMATION:
            clean = measure.region == "label 2"
            assert measure.verdict is (Verdict.COMPLIANT if clean else Verdict.NOT_VERIFIED), (
                measure
            )
    shown = {(m.key, m.region): m.text for m in measures}
    assert shown["displacement_max", "body"] == "not measured"


def own_profile(*keys: str) -> Profile:
    criteria = []
    for key in keys:
        criteria += [Criterion(key, Limit(0.0)), Criterion(key, Limit(0.0), regions=("grid",))]
    return Profile("Ours", "d", "s", tuple(criteria))
