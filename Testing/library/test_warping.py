"""Sampling, composing, exponentiating, resizing and smoothing displacements in voxel units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_scenes import centered_grid, rotation, voxel_centers
from scipy import ndimage
from scipy.linalg import expm

from GlideRegLib.field import DisplacementField, jacobian_determinant
from GlideRegLib.folding import folded_voxels
from GlideRegLib.geometry import Grid, index_tensor
from GlideRegLib.optimize.refine import _smooth
from GlideRegLib.optimize.repair import repair_folds
from GlideRegLib.optimize.warping import (
    box_filter,
    compose,
    exponentiate,
    pool,
    resize_displacement,
    symmetrize,
    warp,
)

SHAPE = (17, 19, 21)  # Z, Y, X
CENTER = np.array([10.0, 9.0, 8.0])  # x, y, z
TURN = rotation((0.0, 0.0, 25.0)) - np.eye(3)
SHEAR = np.array([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(matrix: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """u(x) = matrix (x - center) in voxels, components x, y, z."""
    offset = index_tensor(shape) - torch.from_numpy(CENTER).float().view(3, 1, 1, 1)
    return torch.einsum("ij,jzyx->izyx", torch.from_numpy(matrix).float(), offset)


def smooth_field(shape: tuple[int, int, int], size: float, sigma: float, seed: int = 0):
    """A random smooth displacement whose largest component is ``size`` voxels."""
    u = ndimage.gaussian_filter(noise(3, *shape, seed=seed).numpy(), (0, sigma, sigma, sigma))
    return torch.from_numpy(u * (size / np.abs(u).max())).float()


def unit_jacobian(u: torch.Tensor) -> torch.Tensor:
    return jacobian_determinant(u, Grid(tuple(u.shape[:0:-1]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))


def near_center(u: torch.Tensor, half: int = 3) -> torch.Tensor:
    x, y, z = (int(c) for c in CENTER)
    return u[:, z - half : z + half, y - half : y + half, x - half : x + half]


def test_warping_is_scipys_linear_interpolation_with_replicated_borders() -> None:
    values, u = noise(2, *SHAPE), 3 * noise(3, *SHAPE, seed=1)
    position = (index_tensor(SHAPE) + u).flip(0).numpy()  # z, y, x
    found = warp(values, u)
    for channel in range(2):
        expected = ndimage.map_coordinates(
            values[channel].numpy(), position, order=1, mode="nearest"
        )
        np.testing.assert_allclose(found[channel].numpy(), expected, atol=1e-4)


def test_a_positive_x_displacement_fetches_what_lies_at_larger_x() -> None:
    u = torch.zeros(3, *SHAPE)
    u[0] = 2.0
    found = warp(index_tensor(SHAPE), u)
    torch.testing.assert_close(found[0, :, :, :-2], index_tensor(SHAPE)[0, :, :, :-2] + 2)
    torch.testing.assert_close(found[1:], index_tensor(SHAPE)[1:])


def test_composition_takes_a_voxel_through_the_second_argument_first() -> None:
    """The order once and for all: compose(later, first) is x -> later(first(x)).

    Displacement matrices of a turn R - I and a shear S: turn after shear is (R)(I + S) - I.
    """
    identity = np.eye(3)
    turn_after_shear = (identity + TURN) @ (identity + SHEAR) - identity
    shear_after_turn = (identity + SHEAR) @ (identity + TURN) - identity
    assert np.abs(turn_after_shear - shear_after_turn).max() > 0.1
    found = compose(linear(TURN), linear(SHEAR))
    torch.testing.assert_close(
        near_center(found), near_center(linear(turn_after_shear)), atol=1e-4, rtol=0
    )
    found = compose(linear(SHEAR), linear(TURN))
    torch.testing.assert_close(
        near_center(found), near_center(linear(shear_after_turn)), atol=1e-4, rtol=0
    )


def test_composition_in_voxels_and_in_mm_is_the_same_motion() -> None:
    grid = centered_grid((21, 19, 17), (2.0, 3.0, 1.5), rotation((10.0, 20.0, -30.0)))
    later, first = smooth_field(SHAPE, 2.0, 3.0, 1), smooth_field(SHAPE, 2.0, 3.0, 2)
    in_mm = DisplacementField.from_voxels(later, grid).compose(
        DisplacementField.from_voxels(first, grid)
    )
    in_voxels = DisplacementField.from_voxels(compose(later, first), grid)
    inner = (slice(None), *(slice(3, -3),) * 3)  # at the end of the grid the field in mm is zero
    torch.testing.assert_close(in_mm.vectors[inner], in_voxels.vectors[inner], atol=1e-4, rtol=0)


def test_warping_by_a_composition_is_warping_twice() -> None:
    """M(x + compose(g, u)(x)) = (M warped by g) warped by u: u was estimated on the warped M."""
    moving = index_tensor(SHAPE)
    g = linear(TURN)
    u = torch.tensor([2.0, -1.0, 1.0]).view(3, 1, 1, 1).expand(3, *SHAPE)
    twice = near_center(warp(warp(moving, g), u))
    torch.testing.assert_close(near_center(warp(moving, compose(g, u))), twice)
    assert float((near_center(warp(moving, compose(u, g))) - twice).abs().max()) > 0.5


@pytest.mark.parametrize("squarings", [4, 7])
def test_the_exponential_of_a_linear_velocity_is_the_matrix_exponential(squarings: int) -> None:
    velocity = 0.5 * TURN + 0.5 * SHEAR + np.diag([0.1, -0.1, 0.05])
    found = near_center(exponentiate(linear(velocity), squarings))
    steps = 2**squarings
    exact_steps = np.linalg.matrix_power(np.eye(3) + velocity / steps, steps) - np.eye(3)
    torch.testing.assert_close(found, near_center(linear(exact_steps)), atol=1e-4, rtol=0)
    limit = near_center(linear(expm(velocity) - np.eye(3)))
    assert float((found - limit).abs().max()) < 0.5 / steps


def test_the_exponential_of_the_negative_velocity_is_the_inverse() -> None:
    v = smooth_field(SHAPE, 1.5, 3.0)
    residual = compose(exponentiate(v), exponentiate(-v))
    assert float(residual[:, 3:-3, 3:-3, 3:-3].abs().max()) < 0.03
    assert float(exponentiate(v).abs().max()) > 1.0


def test_the_exponential_does_not_fold_where_the_velocity_itself_does() -> None:
    v = smooth_field((24, 24, 24), 6.0, 2.0)
    assert float(unit_jacobian(v).min()) < -0.5
    assert float(unit_jacobian(exponentiate(v, 7)).min()) > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8, 8), (16, 16, 16)), ((16, 12, 8), (8, 6, 4)), ((6, 7, 8), (12, 7, 20))],
)
def test_a_resized_displacement_is_the_same_motion_in_mm(
    old: tuple[int, int, int], new: tuple[int, int, int]
) -> None:
    direction = rotation((20.0, -10.0, 30.0))
    extent = np.array([40.0, 50.0, 60.0])
    grids = [
        centered_grid(s[::-1], tuple(extent / s[::-1]), direction, (5.0, 6.0, 7.0))
        for s in (old, new)
    ]
    matrix = np.array([[0.1, 0.05, 0.0], [0.0, -0.1, 0.1], [0.05, 0.0, 0.2]])
    motions = [
        torch.from_numpy((voxel_centers(g) @ matrix.T).T.reshape(3, *g.shape).copy()).float()
        for g in grids
    ]
    resized = resize_displacement(grids[0].mm_to_voxels(motions[0]), new)
    found = grids[1].voxels_to_mm(resized)
    # in the outer half of an old voxel the border is repeated
    low, high = -0.5 + 0.5, np.array(old[::-1]) - 1
    index = grids[0].index_of(grids[1]).movedim(0, -1).numpy()
    inner = ((index >= low - 1e-4) & (index <= high + 1e-4)).all(axis=-1)
    assert inner.mean() > 0.3
    np.testing.assert_allclose(found.numpy()[:, inner], motions[1].numpy()[:, inner], atol=1e-3)


def test_resizing_to_the_same_shape_changes_nothing() -> None:
    u = noise(3, *SHAPE)
    torch.testing.assert_close(resize_displacement(u, SHAPE), u, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_pooling_is_the_mean_over_blocks(factor: int) -> None:
    values = noise(2, 12, 24, 12)
    f = factor
    expected = values.numpy().reshape(2, 12 // f, f, 24 // f, f, 12 // f, f).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(pool(values, factor).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 3, 4), (1, 5, 5), (4, 1, 2)])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_box_filter_is_scipys_uniform_filter(shape: tuple, times: int) -> None:
    values = noise(2, *shape)
    before = values.clone()
    expected = values.numpy()
    for _ in range(times):
        expected = np.stack([ndimage.uniform_filter(e, 3, mode="nearest") for e in expected])
    np.testing.assert_allclose(box_filter(values, times).numpy(), expected, atol=1e-5)
    assert torch.equal(values, before)


def test_the_differentiable_smoothing_of_adam_is_three_box_filters() -> None:
    control = noise(3, 6, 7, 8)
    expected = box_filter(control, 3)
    torch.testing.assert_close(_smooth(control), expected)
    torch.testing.assert_close(_smooth(control.requires_grad_(True)).detach(), expected)


def test_symmetrizing_leaves_fields_alone_that_are_inverses_already() -> None:
    forward = linear(expm(0.3 * TURN) - np.eye(3))
    backward = linear(expm(-0.3 * TURN) - np.eye(3))
    found = symmetrize(forward, backward)
    for a, b in zip(found, (forward, backward), strict=True):
        torch.testing.assert_close(near_center(a), near_center(b), atol=1e-3, rtol=0)


def test_symmetrizing_makes_two_fields_inverse_to_each_other() -> None:
    forward, noisy = smooth_field(SHAPE, 2.0, 3.0, 1), smooth_field(SHAPE, 0.7, 2.0, 5)
    backward = -warp(forward, -forward) + noisy
    before = compose(backward, forward).norm(dim=0)
    after = compose(*symmetrize(forward, backward)[::-1]).norm(dim=0)
    inner = (slice(3, -3),) * 3
    assert float(after[inner].mean()) < 0.1 * float(before[inner].mean())


def test_repair_removes_folds_and_leaves_the_rest_of_the_field_alone() -> None:
    u = smooth_field((32, 32, 32), 1.0, 5.0)
    u[0, 14:18, 14:18, 14] += 3.0  # a few torn nodes
    assert float(unit_jacobian(u).min()) < 0
    bad = unit_jacobian(u) < 0.1
    grid = Grid((32, 32, 32), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    bad.view(-1)[folded_voxels(u, grid)[0]] = True
    repaired, count = repair_folds(u, 0.1)
    assert count == int(bad.sum())
    assert float(unit_jacobian(repaired).min()) >= 0.1
    far = torch.ones(32, 32, 32, dtype=torch.bool)
    far[4:28, 4:28, 4:28] = False
    assert torch.equal(repaired[:, far], u[:, far])


def test_repair_removes_folds_that_central_differences_do_not_see() -> None:
    u = smooth_field((32, 32, 32), 1.0, 3.0)
    u[0, :, 10:20, 10:20:2] += 1.5  # to and fro from node to node
    grid = Grid((32, 32, 32), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert float(unit_jacobian(u)[2:-2, 12:18, 12:18].min()) > 0.1
    folded = len(folded_voxels(u, grid)[0])
    repaired, count = repair_folds(u, 0.05)
    assert folded > 100
    assert count >= folded
    assert len(folded_voxels(repaired, grid)[0]) == 0
    assert torch.equal(repaired[..., 24:], u[..., 24:])


def test_repair_returns_a_field_without_folds_as_it_is() -> None:
    u = smooth_field((16, 16, 16), 1.0, 4.0)
    repaired, count = repair_folds(u, 0.05)
    assert count == 0
    assert torch.equal(repaired, u)
