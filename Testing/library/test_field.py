"""Displacement fields: evaluation, composition, inverse, Jacobian and files, against ITK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_scenes import centered_grid, rotation, voxel_centers

from GlideRegLib.errors import InputError
from GlideRegLib.field import (
    DisplacementField,
    affine_to_sitk,
    jacobian_determinant,
    linear_matrix,
    read_transform,
    sample_transform,
    transform_parts,
    transform_points,
)
from GlideRegLib.geometry import Grid

OBLIQUE = rotation((12.0, -25.0, 40.0))
GRIDS = {
    "plain": centered_grid((21, 20, 19), (3.0, 3.0, 3.0)),
    "oblique": centered_grid((21, 20, 19), (2.0, 3.0, 4.0), OBLIQUE, (30.0, -20.0, 100.0)),
    "flipped": centered_grid((21, 20, 19), (2.0, 3.0, 4.0), np.diag([-1.0, -1.0, 1.0])),
    "coronal": centered_grid((21, 20, 19), (2.0, 3.0, 4.0), [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
Motion = Callable[[np.ndarray], np.ndarray]


def field_of(motion: Motion, grid: Grid) -> DisplacementField:
    """The field of a displacement function of LPS points."""
    vectors = motion(voxel_centers(grid)).T.reshape(3, *grid.shape)
    return DisplacementField(torch.from_numpy(np.ascontiguousarray(vectors)).float(), grid)


def linear(matrix: np.ndarray, offset: tuple = (0.0, 0.0, 0.0), center: tuple = (0.0,) * 3):
    """u(p) = matrix (p - center) + offset."""
    return lambda p: (p - np.asarray(center)) @ np.asarray(matrix).T + np.asarray(offset)


def swirl(amplitude: float = 6.0, length: float = 60.0) -> Motion:
    """A smooth displacement that is nonlinear in every component, LPS mm."""
    k = 2 * np.pi / length

    def motion(p: np.ndarray) -> np.ndarray:
        x, y, z = p.T
        return amplitude * np.stack(
            (
                np.sin(k * y) * np.cos(k * z),
                np.sin(k * z + 1) * np.cos(k * x),
                np.sin(k * x + 2) * np.cos(k * y),
            ),
            axis=1,
        )

    return motion


def inner_points(grid: Grid, margin: float, count: int = 200) -> np.ndarray:
    """Random LPS points at least ``margin`` voxels inside the outer voxel centers."""
    random = np.random.default_rng(4)
    low, high = margin, np.asarray(grid.size) - 1 - margin
    return grid.to_physical(random.uniform(low, high, (count, 3)))


# --- evaluation -----------------------------------------------------------------------------------


@every_grid
def test_a_linear_field_is_evaluated_exactly_between_the_nodes(grid: Grid) -> None:
    motion = linear([[0.1, 0.2, 0], [-0.1, 0.05, 0], [0, 0.3, -0.2]], (3, -4, 5), (30, -20, 100))
    points = inner_points(grid, 0.0)
    np.testing.assert_allclose(field_of(motion, grid).sample(points), motion(points), atol=1e-4)


@every_grid
def test_a_field_moves_points_as_the_same_itk_transform_does_even_outside_its_grid(
    grid: Grid,
) -> None:
    field = field_of(swirl(), grid)
    points = inner_points(grid, -4.0, 400)  # up to four voxels outside
    outside = ~grid.contains(points)
    assert 50 < outside.sum() < 350
    moved = field.transform_points(points)
    np.testing.assert_allclose(moved[outside], points[outside])
    transform = sitk.DisplacementFieldTransform(itk_vector_image(field))
    expected = [transform.TransformPoint(p) for p in points.tolist()]
    np.testing.assert_allclose(moved, expected, atol=1e-3)


def itk_vector_image(field: DisplacementField) -> sitk.Image:
    """The field as a vector image, made by the test itself (components last, LPS mm)."""
    array = np.moveaxis(field.vectors.double().numpy(), 0, -1)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=True)
    image.SetSpacing(field.grid.spacing)
    image.SetOrigin(field.grid.origin)
    image.SetDirection(field.grid.direction)
    return image


@every_grid
def test_voxel_displacements_become_the_motion_of_the_voxels_in_mm(grid: Grid) -> None:
    voxels = torch.zeros(3, *grid.shape)
    voxels[0], voxels[1], voxels[2] = 1.0, -2.0, 0.5
    field = DisplacementField.from_voxels(voxels, grid)
    start = grid.to_physical(np.array([[4.0, 5.0, 6.0]]))
    end = grid.to_physical(np.array([[5.0, 3.0, 6.5]]))
    np.testing.assert_allclose(field.transform_points(start), end, atol=1e-4)
    torch.testing.assert_close(field.to_voxels(), voxels, atol=1e-5, rtol=0)


def test_a_field_resampled_on_another_grid_moves_points_alike() -> None:
    coarse = centered_grid((15, 15, 15), (8.0, 8.0, 8.0), OBLIQUE)
    fine = centered_grid((20, 18, 16), (3.0, 3.0, 3.0))
    motion = linear([[0.1, 0, 0.05], [0, -0.1, 0], [0.02, 0, 0.1]], (1, 2, 3))
    resampled = field_of(motion, coarse).resampled(fine)
    points = inner_points(fine, 0.0)
    np.testing.assert_allclose(resampled.sample(points), motion(points), atol=1e-3)


# --- composition and inverse ----------------------------------------------------------------------

TURN = linear(rotation((0, 0, 20.0)) - np.eye(3))
SHEAR = linear([[0, 0.4, 0], [0, 0, 0], [0, 0, 0]], (2.0, 0, 0))


def test_composition_takes_a_point_through_the_given_field_first() -> None:
    """The order once and for all: later.compose(first) is p -> later(first(p))."""
    large = centered_grid((41, 41, 41), (5.0, 5.0, 5.0))
    grid = centered_grid((15, 14, 13), (4.0, 4.0, 4.0), OBLIQUE)
    shear, turn = field_of(SHEAR, grid), field_of(TURN, large)
    points = inner_points(grid, 0.0)
    sheared_then_turned = (points + SHEAR(points)) + TURN(points + SHEAR(points))
    turned_then_sheared = (points + TURN(points)) + SHEAR(points + TURN(points))
    assert np.abs(sheared_then_turned - turned_then_sheared).max() > 3.0
    composed = turn.compose(shear)
    np.testing.assert_allclose(composed.transform_points(points), sheared_then_turned, atol=1e-3)
    assert composed.grid is grid


def test_composition_agrees_with_itks_composite_transform_which_applies_the_last_first() -> None:
    grid = GRIDS["oblique"]
    later, first = field_of(swirl(5.0, 90.0), grid), field_of(swirl(4.0, 130.0), grid)
    itk = sitk.CompositeTransform(
        [sitk.DisplacementFieldTransform(itk_vector_image(f)) for f in (later, first)]
    )
    points = voxel_centers(grid.padded((-3, -3, -3), (-3, -3, -3)))[::7]  # at nodes: exact
    expected = [itk.TransformPoint(p) for p in points.tolist()]
    found = later.compose(first).transform_points(points)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@every_grid
def test_the_inverse_of_a_smooth_field_brings_every_node_back_within_a_hundredth_mm(
    grid: Grid,
) -> None:
    field = field_of(swirl(), grid).with_zero_border()
    inverse = field.inverse()
    assert float(field.inverse_residual(inverse).max()) < 0.01
    # and the residual itself is what it says
    points = voxel_centers(grid)[::11]
    direct = np.linalg.norm(
        field.transform_points(inverse.transform_points(points)) - points, axis=1
    )
    assert direct.max() < 0.01


@every_grid
def test_points_are_brought_back_exactly_also_between_the_nodes(grid: Grid) -> None:
    field = field_of(swirl(4.0), grid).with_zero_border()
    points = inner_points(grid, -3.0)
    back = field.inverse_points(field.transform_points(points))
    np.testing.assert_allclose(back, points, atol=0.01)
    assert np.linalg.norm(field.sample(points), axis=1).max() > 4


@pytest.mark.parametrize("slope", [-0.85, 0.85, 3.0])
def test_strong_compression_and_expansion_are_inverted_too(slope: float) -> None:
    """Fixed-point iteration diverges where the slope of u exceeds 1."""
    grid = centered_grid((41, 15, 13), (2.0, 4.0, 4.0))

    def motion(p: np.ndarray) -> np.ndarray:
        u = np.zeros_like(p)
        u[:, 0] = slope * 8.0 * np.tanh(p[:, 0] / 8.0)  # du/dx = slope at the center
        return u

    field = field_of(motion, grid).with_zero_border()
    assert float(field.inverse_residual(field.inverse()).max()) < 0.01
    points = inner_points(grid, 0.0)
    back = field.inverse_points(field.transform_points(points))
    np.testing.assert_allclose(back, points, atol=0.02)


def test_where_a_field_folds_some_points_do_not_come_back_and_nothing_breaks() -> None:
    grid = GRIDS["plain"]
    k = 2 * np.pi / 30

    def motion(p: np.ndarray) -> np.ndarray:
        return np.stack((-2 / k * np.sin(k * p[:, 0]), 0 * p[:, 0], 0 * p[:, 0]), axis=1)

    fold = field_of(motion, grid)
    assert torch.isfinite(fold.inverse().vectors).all()
    points = inner_points(grid, 3.0)
    back = fold.inverse_points(fold.transform_points(points))
    assert np.isfinite(back).all()
    assert np.linalg.norm(back - points, axis=1).max() > 1.0


def test_the_residual_of_a_wrong_inverse_is_its_error_in_mm() -> None:
    grid = GRIDS["plain"]
    shift = field_of(lambda p: np.tile([3.0, 0.0, 4.0], (len(p), 1)), grid)
    residual = shift.inverse_residual(DisplacementField.zeros(grid))
    torch.testing.assert_close(residual, torch.full(grid.shape, 5.0))


def test_the_inverse_of_a_rotation_is_the_opposite_rotation() -> None:
    grid = centered_grid((27, 27, 27), (8.0, 8.0, 8.0))
    inverse = field_of(TURN, grid).inverse()
    points = np.random.default_rng(2).uniform(-50, 50, (100, 3))
    expected = points @ rotation((0, 0, -20.0)).T
    np.testing.assert_allclose(inverse.transform_points(points), expected, atol=0.01)


# --- Jacobian -------------------------------------------------------------------------------------


@every_grid
def test_the_jacobian_of_a_linear_field_is_its_determinant_everywhere(grid: Grid) -> None:
    matrix = np.array([[0.1, 0.2, 0], [-0.1, 0.05, 0.3], [0.05, 0.3, -0.2]])
    expected = np.linalg.det(np.eye(3) + matrix)
    found = field_of(linear(matrix, (1, 2, 3)), grid).jacobian_determinant()
    assert found.shape == grid.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


@every_grid
def test_the_jacobian_of_a_quadratic_field_is_exact_inside(grid: Grid) -> None:
    """Central differences are exact for quadratics: u_x = a (x - c)^2 + b x y, J = 1 + du/dx."""
    a, b, c = 0.004, 0.002, grid.center[0]

    def motion(p: np.ndarray) -> np.ndarray:
        u = np.zeros_like(p)
        u[:, 0] = a * (p[:, 0] - c) ** 2 + b * p[:, 0] * p[:, 1]
        return u

    p = voxel_centers(grid)
    expected = (1 + 2 * a * (p[:, 0] - c) + b * p[:, 1]).reshape(grid.shape)
    found = field_of(motion, grid).jacobian_determinant().numpy()
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)


@every_grid
def test_the_jacobian_is_negative_exactly_where_a_field_folds(grid: Grid) -> None:
    """u_x = -A sin(k x): J = 1 - A k cos(k x), with A k = 2, folds where cos > 1/2."""
    k = 2 * np.pi / 40

    def motion(p: np.ndarray) -> np.ndarray:
        return np.stack((-2 / k * np.sin(k * p[:, 0]), 0 * p[:, 0], 0 * p[:, 0]), axis=1)

    cosine = np.cos(k * voxel_centers(grid)[:, 0]).reshape(grid.shape)
    found = field_of(motion, grid).jacobian_determinant().numpy()
    inner = (slice(1, -1),) * 3
    folds, clear = found[inner] <= 0, np.abs(cosine[inner] - 0.5) > 0.15
    np.testing.assert_array_equal(folds[clear], (cosine[inner] > 0.5)[clear])
    assert 0.2 < folds.mean() < 0.5


@every_grid
def test_the_jacobian_agrees_with_itks_own_filter(grid: Grid) -> None:
    """ITK's filter works in the index frame with spacing only, so it is given local vectors."""
    field = field_of(swirl(), grid)
    local = torch.einsum(
        "ij,jzyx->izyx", torch.from_numpy(grid.direction_matrix.T.copy()).float(), field.vectors
    )
    straight = Grid(grid.size, grid.spacing, (0.0, 0.0, 0.0))
    image = itk_vector_image(DisplacementField(local, straight))
    expected = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))
    found = field.jacobian_determinant().numpy()
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-3)


def test_the_jacobian_of_a_mirror_is_minus_one_and_of_nothing_is_one() -> None:
    grid = GRIDS["oblique"]
    mirror = field_of(linear(np.diag([-2.0, 0, 0])), grid).jacobian_determinant()
    np.testing.assert_allclose(mirror.numpy(), -1, atol=2e-3)
    np.testing.assert_allclose(DisplacementField.zeros(grid).jacobian_determinant().numpy(), 1)


def test_the_jacobian_of_a_single_slice_has_no_derivative_across_it() -> None:
    grid = Grid((6, 5, 1), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    vectors = torch.zeros(3, 1, 5, 6)
    vectors[0] = torch.arange(6.0) * 0.2  # du/dx = 0.1 per mm
    torch.testing.assert_close(jacobian_determinant(vectors, grid), torch.full((1, 5, 6), 1.1))


# --- the zero border ------------------------------------------------------------------------------


@pytest.mark.parametrize("amplitude", [0.5, 6.0, 30.0])
@every_grid
def test_a_zero_border_ends_in_zeros_keeps_the_inside_and_adds_no_folds(
    grid: Grid, amplitude: float
) -> None:
    # the same strain at each amplitude: only the size of the edge vectors grows
    field = field_of(swirl(amplitude, 20.0 * max(amplitude, 3.0)), grid)
    bordered = field.with_zero_border()
    vectors, outer = bordered.vectors, bordered.grid
    for dim in (1, 2, 3):
        for end in (0, -1):
            assert not vectors.select(dim, end).any()
    first = np.round(outer.to_index(grid.to_physical(np.zeros((1, 3))))[0]).astype(int)
    inside = tuple(slice(f, f + n) for f, n in zip(first[::-1], grid.shape, strict=True))
    torch.testing.assert_close(vectors[(slice(None), *inside)], field.vectors, atol=0, rtol=0)
    kept = outer.to_physical(first[None].astype(float))
    np.testing.assert_allclose(kept, grid.to_physical(np.zeros((1, 3))), atol=1e-6)
    assert float(bordered.jacobian_determinant().min()) > 0.2
    assert float(field.jacobian_determinant().min()) > 0.2


def test_the_border_of_a_plain_shift_fades_without_halving_any_volume() -> None:
    grid = GRIDS["oblique"]
    shift = field_of(lambda p: np.tile([20.0, -10.0, 5.0], (len(p), 1)), grid)
    jacobian = shift.with_zero_border().jacobian_determinant()
    assert 0.45 < float(jacobian.min()) < 0.9
    assert float(jacobian.max()) < 1.55


def test_the_bordered_lattice_covers_what_it_was_asked_to_cover() -> None:
    grid = GRIDS["plain"]
    cover = centered_grid((40, 8, 30), (5.0, 5.0, 5.0), OBLIQUE, (60.0, 0.0, -40.0))
    bordered = field_of(swirl(), grid).with_zero_border(cover)
    assert bordered.grid.contains(cover.corners()).all()
    assert not bordered.vectors[:, :, :, -1].any()
    points = inner_points(grid, 0.0)
    np.testing.assert_allclose(
        bordered.sample(points), field_of(swirl(), grid).sample(points), atol=1e-4
    )


def test_with_a_zero_border_the_field_has_no_jump_at_its_end_in_itk() -> None:
    """ITK is zero outside a grid: along a line that leaves it, the displacement is continuous."""
    grid = GRIDS["flipped"]
    plain = field_of(lambda p: np.tile([12.0, 0.0, -9.0], (len(p), 1)), grid)
    line = grid.center + np.linspace(0, 150, 1500)[:, None] * np.array([[0.6, 0.0, 0.8]])
    jumps = []
    for field in (plain, plain.with_zero_border()):
        transform = sitk.DisplacementFieldTransform(itk_vector_image(field))
        moved = np.array([transform.TransformPoint(p) for p in line.tolist()]) - line
        jumps.append(np.linalg.norm(np.diff(moved, axis=0), axis=1).max())
        np.testing.assert_allclose(moved[-1], 0)
    assert jumps[0] > 14.9
    assert jumps[1] < 0.1


# --- ITK and files --------------------------------------------------------------------------------


@every_grid
def test_the_itk_image_of_a_field_holds_lps_vectors_fixed_to_moving(grid: Grid) -> None:
    field = field_of(swirl(), grid)
    image = field.to_sitk()
    expected = itk_vector_image(field)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    assert Grid.from_sitk(image).is_close(grid, 1e-9)
    back = DisplacementField.from_sitk(image)
    torch.testing.assert_close(back.vectors, field.vectors)
    assert back.grid.is_close(grid, 1e-9)


@every_grid
@pytest.mark.parametrize("name", ["u.h5", "u.tfm", "u.nii.gz", "u.nrrd", "u.mha"])
def test_a_field_written_to_a_file_moves_points_alike_after_simpleitk_read_it(
    grid: Grid, name: str, tmp_path: Path
) -> None:
    small = Grid((9, 8, 7), grid.spacing, grid.origin, grid.direction)
    field = field_of(swirl(), small)
    path = tmp_path / name
    if path.suffix in (".h5", ".tfm"):
        sitk.WriteTransform(field.to_sitk_transform(), str(path))
        read_by_itk = sitk.ReadTransform(str(path))
    else:
        sitk.WriteImage(field.to_sitk(), str(path))
        image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
        read_by_itk = sitk.DisplacementFieldTransform(image)
    points = inner_points(small, 0.0, 60)
    expected = field.transform_points(points)
    by_itk = [read_by_itk.TransformPoint(p) for p in points.tolist()]
    np.testing.assert_allclose(by_itk, expected, atol=1e-3)
    by_us = transform_points(read_transform(path), points)
    np.testing.assert_allclose(by_us, expected, atol=1e-3)


def some_affine() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = OBLIQUE @ np.diag([1.1, 0.9, 1.05])
    matrix[:3, 3] = (7.0, -8.0, 35.0)
    return matrix


@pytest.mark.parametrize("name", ["a.h5", "a.tfm", "a.txt", "a.mat"])
def test_an_affine_matrix_passes_through_itk_and_its_files(name: str, tmp_path: Path) -> None:
    matrix = some_affine()
    path = tmp_path / name
    sitk.WriteTransform(affine_to_sitk(matrix), str(path))
    points = np.random.default_rng(1).normal(size=(30, 3)) * 100
    expected = points @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(transform_points(affine_to_sitk(matrix), points), expected)
    np.testing.assert_allclose(transform_points(read_transform(path), points), expected, atol=1e-6)
    np.testing.assert_allclose(linear_matrix(read_transform(path)), matrix, atol=1e-9)


def test_the_matrix_of_a_linear_itk_transform_includes_its_center() -> None:
    euler = sitk.Euler3DTransform((10.0, 20.0, 30.0), 0.1, -0.2, 0.3, (4.0, 5.0, 6.0))
    composite = sitk.CompositeTransform([euler, sitk.TranslationTransform(3, (1.0, 2.0, 3.0))])
    for transform in (euler, composite):
        point = np.array([[-7.0, 80.0, 9.0]])
        matrix = linear_matrix(transform)
        expected = transform.TransformPoint(point[0].tolist())
        np.testing.assert_allclose((matrix[:3, :3] @ point[0]) + matrix[:3, 3], expected)


def test_a_deformable_transform_has_no_matrix() -> None:
    transform = field_of(swirl(), GRIDS["plain"]).to_sitk_transform()
    with pytest.raises(InputError, match="not linear"):
        linear_matrix(transform)


def test_any_itk_transform_can_be_sampled_as_a_field() -> None:
    grid = GRIDS["oblique"]
    field = sample_transform(affine_to_sitk(some_affine()), grid)
    points = inner_points(grid, 0.0)
    matrix = some_affine()
    expected = points @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(field.transform_points(points), expected, atol=1e-3)


def test_what_is_no_transform_is_refused_with_a_sentence_that_names_the_file(
    tmp_path: Path,
) -> None:
    scalar = tmp_path / "scalar.nii.gz"
    sitk.WriteImage(sitk.Image(8, 8, 8, sitk.sitkFloat32), str(scalar))
    text = tmp_path / "text.tfm"
    text.write_text("nothing of the kind")
    flat = tmp_path / "flat.tfm"
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(flat))
    for path in (text, flat, tmp_path / "missing.h5"):
        with pytest.raises(InputError, match=path.name):
            read_transform(path)
    with pytest.raises(InputError, match="3 values per voxel"):
        read_transform(scalar)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_field_that_is_not_finite_everywhere_is_refused(bad: float, tmp_path: Path) -> None:
    """As an image, as a transform, and deep inside a composite; a linear one, too."""
    field = field_of(swirl(), GRIDS["plain"])
    field.vectors[1, 3, 4, 5] = bad
    image, transform = tmp_path / "field.mha", field.to_sitk_transform()
    sitk.WriteImage(field.to_sitk(), str(image))
    nested = sitk.CompositeTransform([affine_to_sitk(some_affine()), transform])
    linear_one = sitk.TranslationTransform(3, (0.0, bad, 0.0))
    found = [image]
    for k, one in enumerate((nested, linear_one)):
        found.append(tmp_path / f"{k}.h5")
        sitk.WriteTransform(one, str(found[-1]))
    for path in found:
        with pytest.raises(InputError, match="NaN or infinite"):
            read_transform(path)


def test_the_parts_of_a_composite_come_in_the_order_in_which_a_point_meets_them() -> None:
    first, second, third = (sitk.TranslationTransform(3, (k, 0.0, 0.0)) for k in (1.0, 2.0, 3.0))
    nested = sitk.CompositeTransform([third, sitk.CompositeTransform([second, first])])
    found = [part.GetParameters()[0] for part in transform_parts(nested)]
    assert found == [1.0, 2.0, 3.0]
    assert transform_parts(first) == [first]
