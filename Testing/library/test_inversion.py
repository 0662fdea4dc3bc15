"""The fast ways of field algebra against the literal ones."""

from __future__ import annotations

import numpy as np
import torch

from GlideRegLib.field import INVERSE_TOLERANCE_MM, DisplacementField, jacobian_determinant
from GlideRegLib.geometry import Grid
from GlideRegLib.inversion import invert_lattice, invert_points

GRID = Grid((46, 40, 38), (3.0, 3.5, 4.0), (-60.0, -70.0, 10.0))


def wavy(grid: Grid, amplitude: float = 6.0, length: float = 70.0) -> DisplacementField:
    """A smooth motion of that many mm; 6 mm over 70 mm do not fold."""
    x, y, z = torch.from_numpy(grid.to_physical(all_indices(grid)).T * (2 * np.pi / length))
    u = torch.stack((torch.sin(y) * torch.cos(z), torch.sin(z + x), torch.cos(x - y)))
    return DisplacementField((amplitude * u).float().reshape(3, *grid.shape), grid)


def all_indices(grid: Grid) -> np.ndarray:
    return grid.index_tensor().reshape(3, -1).T.double().numpy()


def test_from_coarse_to_fine_and_point_by_point_find_the_same_inverse() -> None:
    field = wavy(GRID).with_zero_border()
    u, limit = field.to_voxels(), INVERSE_TOLERANCE_MM / 4
    index = field.grid.index_tensor().reshape(3, -1)
    points = invert_points(u, index, limit).view_as(u)
    torch.testing.assert_close(invert_lattice(u, limit), points, atol=2e-3, rtol=0)


def test_the_residual_is_within_the_tolerance_at_every_node() -> None:
    for field in (wavy(GRID), wavy(GRID).with_zero_border()):
        inner = slice(6, -6)  # beyond the faces nothing comes from
        residual = field.inverse_residual(field.inverse())[inner, inner, inner]
        assert float(residual.max()) < 1.5 * INVERSE_TOLERANCE_MM


def test_an_inverse_near_some_points_is_the_whole_one_there_and_zero_elsewhere() -> None:
    field = wavy(GRID).with_zero_border()
    points = np.random.default_rng(0).uniform((-40, -50, 30), (50, 40, 130), (60, 3))
    near, whole = field.inverse(near=points), field.inverse()
    np.testing.assert_allclose(near.sample(points), whole.sample(points), atol=5e-3)
    known = near.vectors.any(dim=0)
    assert 0 < int(known.sum()) <= 8 * len(points)


def test_the_residual_does_not_tell_of_folds_and_the_determinant_does() -> None:
    k = 2 * np.pi / 60
    x = torch.from_numpy(GRID.to_physical(all_indices(GRID))[:, 0]).float()
    vectors = torch.zeros(3, *GRID.shape)
    vectors[0] = (-1.5 / k * torch.sin(k * x)).reshape(GRID.shape)
    fold = DisplacementField(vectors, GRID).with_zero_border()
    folded = fold.jacobian_determinant() < 0
    residual = fold.inverse_residual(fold.inverse())
    assert float(folded.float().mean()) > 0.03
    assert float((residual[folded] < 0.01).float().mean()) > 0.5


def test_parallel_grids_are_sampled_as_any_others() -> None:
    field = wavy(GRID)
    grid = Grid((31, 57, 20), (4.1, 2.3, 6.6), (-70.0, -65.0, 5.0))
    assert GRID.interpolation_weights(grid) is not None
    slow = field._sample_index(GRID.index_of(grid))
    torch.testing.assert_close(field.sample_grid(grid), slow, atol=1e-3, rtol=0)
    turned = Grid(
        grid.size, grid.spacing, grid.origin, (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    )
    assert GRID.interpolation_weights(turned) is None


def test_the_determinant_by_slabs_is_the_literal_one() -> None:
    field = wavy(GRID)
    gradient = np.stack(
        [
            np.stack(np.gradient(c, *GRID.spacing[::-1]))[::-1]
            for c in field.vectors.double().numpy()
        ]
    )
    literal = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
    found = jacobian_determinant(field.vectors, GRID).numpy()
    np.testing.assert_allclose(found, literal, atol=1e-4)
