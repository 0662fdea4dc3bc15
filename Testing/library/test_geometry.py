"""Grids: index, physical, normalized coordinates and axis order, with SimpleITK as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_scenes import centered_grid, rotation

from GlideRegLib.errors import InputError
from GlideRegLib.geometry import (
    Grid,
    flip_lps_ras,
    flip_lps_ras_matrix,
    index_tensor,
    normalized_coordinates,
    transform_points,
)

OBLIQUE = rotation((17.0, -31.0, 48.0))
GRIDS = {
    "plain": Grid((7, 6, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    "anisotropic": Grid((7, 6, 5), (0.7, 0.9, 5.0), (-12.5, 33.0, -801.25)),
    "oblique": Grid((7, 6, 5), (0.7, 1.9, 3.0), (10.0, -20.0, 30.0), tuple(OBLIQUE.ravel())),
    "flipped": Grid((7, 6, 5), (1.5, 1.0, 2.0), (90.0, 80.0, -7.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1)),
    "left handed": Grid((7, 6, 5), (1.5, 1.0, 2.0), (9.0, 8.0, 7.0), (1, 0, 0, 0, 1, 0, 0, 0, -1)),
    "coronal": Grid((7, 6, 5), (1.5, 1.0, 2.0), (9.0, 8.0, 7.0), (1, 0, 0, 0, 0, 1, 0, -1, 0)),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def itk_image(grid: Grid, array: np.ndarray | None = None) -> sitk.Image:
    """An image on the grid, its header written by the test, not by the library."""
    values = np.zeros(grid.size[::-1], np.float32) if array is None else array
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def random_indices(grid: Grid, count: int = 50, beyond: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(3)
    return random.uniform(-beyond, np.asarray(grid.size) - 1 + beyond, (count, 3))


@every_grid
def test_continuous_indices_become_the_physical_points_that_simpleitk_gives(grid: Grid) -> None:
    index = random_indices(grid)
    image = itk_image(grid)
    expected = [image.TransformContinuousIndexToPhysicalPoint(i) for i in index.tolist()]
    np.testing.assert_allclose(grid.to_physical(index), expected, atol=1e-9)


@every_grid
def test_physical_points_become_the_continuous_indices_that_simpleitk_gives(grid: Grid) -> None:
    points = grid.to_physical(random_indices(grid)) + 0.37
    image = itk_image(grid)
    expected = [image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()]
    np.testing.assert_allclose(grid.to_index(points), expected, atol=1e-9)


@every_grid
def test_a_grid_survives_the_way_into_a_simpleitk_image_and_back(grid: Grid) -> None:
    assert Grid.from_sitk(grid.copy_to_sitk(itk_image(Grid(grid.size, (1, 1, 1), (0, 0, 0))))) == (
        Grid.from_sitk(itk_image(grid))
    )
    assert Grid.from_sitk(itk_image(grid)).is_close(grid, 1e-9)
    assert grid.shape == tuple(sitk.GetArrayFromImage(itk_image(grid)).shape)


@every_grid
def test_a_grid_survives_json(grid: Grid) -> None:
    assert Grid.from_dict(grid.to_dict()).is_close(grid, 0.0)


@every_grid
def test_the_center_is_the_mean_of_the_corners_and_of_all_voxels(grid: Grid) -> None:
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    voxels = grid.to_physical(np.stack((x, y, z), -1).reshape(-1, 3))
    np.testing.assert_allclose(grid.center, voxels.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(grid.corners().mean(axis=0), grid.center, atol=1e-9)


@every_grid
def test_the_corners_are_the_outer_faces_not_the_outer_voxel_centers(grid: Grid) -> None:
    corners = grid.corners()
    np.testing.assert_allclose(
        np.linalg.norm(corners[0] - corners[7]), np.linalg.norm(grid.extent), atol=1e-9
    )
    np.testing.assert_allclose(grid.extent, np.array(grid.size) * grid.spacing)
    assert len({tuple(np.round(c, 6)) for c in corners}) == 8


@every_grid
def test_contains_agrees_with_simpleitk_about_the_outer_faces(grid: Grid) -> None:
    """A linear interpolation of ITK has a value exactly inside the outer faces."""
    index = np.concatenate(
        [
            random_indices(grid, 200, 1.0),
            [
                [-0.49, 0, 0],
                [-0.51, 0, 0],
                [grid.size[0] - 0.51, 0, 0],
                [0, 0, grid.size[2] - 0.49],
            ],
        ]
    )
    image = itk_image(grid, np.ones(grid.shape, np.float32))
    points = grid.to_physical(index)
    inside = []
    for point in points.tolist():
        try:
            inside.append(image.EvaluateAtPhysicalPoint(point, sitk.sitkLinear) > 0)
        except RuntimeError:
            inside.append(False)
    assert 20 < sum(inside) < 190
    np.testing.assert_array_equal(grid.contains(points), inside)


@every_grid
def test_index_tensor_counts_x_fastest_and_names_components_x_y_z(grid: Grid) -> None:
    index = grid.index_tensor()
    assert index.shape == (3, 5, 6, 7)
    assert index[:, 4, 2, 3].tolist() == [3, 2, 4]
    assert torch.equal(index, index_tensor(grid.shape))


def test_index_of_gives_where_another_grids_voxels_lie() -> None:
    own, other = GRIDS["oblique"], GRIDS["coronal"]
    found = own.index_of(other).reshape(3, -1).T.numpy()
    voxels = other.to_physical(other.index_tensor().reshape(3, -1).T.numpy())
    np.testing.assert_allclose(found, own.to_index(voxels), atol=1e-4)


def test_normalized_coordinates_put_minus_one_and_one_on_the_outer_faces() -> None:
    shape = (5, 6, 7)
    faces = torch.tensor([[-0.5, 6.5, 3.0], [-0.5, 5.5, 2.5], [-0.5, 4.5, 2.0]])  # (3, N), x y z
    expected = torch.tensor([[-1.0] * 3, [1.0] * 3, [0.0] * 3])
    torch.testing.assert_close(normalized_coordinates(faces, shape), expected)


def test_normalized_coordinates_of_the_voxels_give_the_voxels_back_in_grid_sample() -> None:
    values = torch.randn(1, 2, 5, 6, 7, generator=torch.Generator().manual_seed(1))
    coordinates = normalized_coordinates(index_tensor((5, 6, 7)), (5, 6, 7))[None]
    sampled = torch.nn.functional.grid_sample(values, coordinates, align_corners=False)
    torch.testing.assert_close(sampled, values, atol=1e-5, rtol=0)


@every_grid
def test_sample_is_the_linear_interpolation_of_simpleitk(grid: Grid) -> None:
    random = np.random.default_rng(5)
    array = random.normal(size=(2, *grid.shape)).astype(np.float32)
    index = random.uniform(0, np.asarray(grid.size) - 1, (60, 3))
    found = grid.sample(
        torch.from_numpy(array).double(), torch.from_numpy(index.T).reshape(3, 60, 1, 1)
    )
    points = grid.to_physical(index)
    for channel in range(2):
        image = itk_image(grid, array[channel])
        expected = [image.EvaluateAtPhysicalPoint(p, sitk.sitkLinear) for p in points.tolist()]
        np.testing.assert_allclose(found[channel].flatten().numpy(), expected, atol=1e-5)


def test_sample_replicates_the_border() -> None:
    grid = GRIDS["anisotropic"]
    values = torch.arange(grid.voxel_count, dtype=torch.float32).reshape(1, *grid.shape)
    index = torch.tensor([-3.0, 2.0, 11.0]).reshape(3, 1, 1, 1)
    assert grid.sample(values, index).item() == values[0, 4, 2, 0].item()


@every_grid
def test_voxel_vectors_become_mm_by_spacing_and_direction_and_come_back(grid: Grid) -> None:
    voxels = torch.randn(3, 2, 3, 4, generator=torch.Generator().manual_seed(2)).double()
    mm = grid.voxels_to_mm(voxels)
    image = itk_image(grid)
    start = np.array(image.TransformContinuousIndexToPhysicalPoint((1.0, 2.0, 3.0)))
    vector = voxels[:, 1, 2, 3].numpy()
    end = np.array(
        image.TransformContinuousIndexToPhysicalPoint((np.array([1.0, 2.0, 3.0]) + vector).tolist())
    )
    np.testing.assert_allclose(mm[:, 1, 2, 3].numpy(), end - start, atol=1e-9)
    torch.testing.assert_close(grid.mm_to_voxels(mm), voxels)


@every_grid
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_pooled_voxel_lies_at_the_mean_of_the_voxels_it_was_made_of(
    grid: Grid, factor: int
) -> None:
    big = Grid((13, 12, 9), grid.spacing, grid.origin, grid.direction)
    pooled = big.pooled(factor)
    assert pooled.size == tuple(n // factor for n in big.size)
    positions = big.to_physical(big.index_tensor().reshape(3, -1).T.numpy())
    positions = torch.from_numpy(positions.T.reshape(3, *big.shape))
    expected = torch.nn.functional.avg_pool3d(positions[None], factor)[0]
    found = pooled.to_physical(pooled.index_tensor().reshape(3, -1).T.numpy())
    np.testing.assert_allclose(found, expected.reshape(3, -1).T.numpy(), atol=1e-9)


def test_pooling_keeps_the_extent_when_it_divides_the_size() -> None:
    grid = Grid((16, 8, 24), (0.7, 1.9, 3.0), (1.0, 2.0, 3.0), tuple(OBLIQUE.ravel()))
    np.testing.assert_allclose(grid.pooled(4).corners(), grid.corners(), atol=1e-9)
    assert grid.pooled(2).pooled(2).is_close(grid.pooled(4), 1e-9)


@every_grid
def test_padding_adds_voxels_on_the_same_lattice(grid: Grid) -> None:
    padded = grid.padded((2, 0, 1), (3, 4, 0))
    assert padded.size == (grid.size[0] + 5, grid.size[1] + 4, grid.size[2] + 1)
    np.testing.assert_allclose(
        padded.to_physical(np.array([[2.0, 0.0, 1.0]])), grid.to_physical(np.zeros((1, 3)))
    )
    assert padded.padded((-2, 0, -1), (-3, -4, 0)).is_close(grid, 1e-9)


@every_grid
@pytest.mark.parametrize("multiple", [1, 16])
def test_the_covering_box_covers_is_isotropic_centered_and_of_the_right_multiple(
    grid: Grid, multiple: int
) -> None:
    random = np.random.default_rng(8)
    points = random.uniform(-60, 90, (40, 3))
    box = grid.covering_box(points, 2.5, multiple)
    assert box.spacing == (2.5, 2.5, 2.5)
    assert all(n % multiple == 0 for n in box.size)
    assert box.direction == grid.direction
    index = box.to_index(points)
    assert (index.min(axis=0) >= -0.5 - 1e-9).all()
    assert (index.max(axis=0) <= np.array(box.size) - 0.5 + 1e-9).all()
    # shared out evenly, and no larger than the multiple demands
    before = index.min(axis=0) + 0.5
    behind = np.array(box.size) - 0.5 - index.max(axis=0)
    np.testing.assert_allclose(before, behind, atol=1e-9)
    assert (before + behind < multiple).all()


def test_a_covering_box_of_a_grid_of_exact_size_adds_nothing() -> None:
    grid = centered_grid((32, 16, 48), (2.0, 2.0, 2.0), OBLIQUE, (5.0, 6.0, 7.0))
    assert grid.covering_box(grid.corners(), 2.0, 16).is_close(grid, 1e-6)


def test_lps_and_ras_differ_by_the_sign_of_the_first_two_axes() -> None:
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]])
    np.testing.assert_array_equal(flip_lps_ras(points), [[-1, -2, 3], [4, -5, -6]])
    np.testing.assert_array_equal(flip_lps_ras(flip_lps_ras(points)), points)


def test_a_matrix_in_ras_moves_ras_points_where_its_lps_twin_moves_lps_points() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = OBLIQUE @ np.diag([1.1, 0.9, 1.2])
    matrix[:3, 3] = (10.0, -20.0, 30.0)
    points = np.random.default_rng(1).normal(size=(20, 3)) * 50
    in_ras = transform_points(flip_lps_ras_matrix(matrix), flip_lps_ras(points))
    np.testing.assert_allclose(flip_lps_ras(in_ras), transform_points(matrix, points), atol=1e-9)


def test_transform_points_applies_a_matrix_to_column_vectors() -> None:
    matrix = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    np.testing.assert_array_equal(transform_points(matrix, [[1.0, 2.0, 3.0]]), [[3, 7, 13]])


def test_grids_that_differ_by_more_than_the_tolerance_are_not_close() -> None:
    grid = GRIDS["oblique"]
    moved = Grid(grid.size, grid.spacing, (10.0, -20.0, 30.01), grid.direction)
    stretched = Grid(grid.size, (0.7, 1.9, 3.01), grid.origin, grid.direction)
    larger = grid.padded((0, 0, 0), (1, 0, 0))
    assert not grid.is_close(moved, 1e-3)
    assert grid.is_close(moved, 2e-2)
    assert not grid.is_close(stretched, 1e-3)
    assert not grid.is_close(larger, 1e3)


@pytest.mark.parametrize(
    ("size", "spacing", "direction"),
    [
        ((0, 5, 5), (1, 1, 1), np.eye(3)),
        ((5, 5), (1, 1, 1), np.eye(3)),
        ((5, 5, 5), (1, -1, 1), np.eye(3)),
        ((5, 5, 5), (1, 0, 1), np.eye(3)),
        ((5, 5, 5), (1, float("nan"), 1), np.eye(3)),
        ((5, 5, 5), (1, 1, 1), np.zeros((3, 3))),
        ((5, 5, 5), (1, 1, 1), np.ones((3, 3))),
    ],
)
def test_an_impossible_grid_is_refused_with_a_sentence(
    size: tuple, spacing: tuple, direction: np.ndarray
) -> None:
    with pytest.raises(InputError, match=r"\.$"):
        Grid(size, spacing, (0.0, 0.0, 0.0), tuple(np.asarray(direction, dtype=float).ravel()))
