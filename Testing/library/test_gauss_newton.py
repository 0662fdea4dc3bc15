"""Gauss-Newton: its operators against dense algebra, and known deformations found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_scenes import waves
from scipy import ndimage

from GlideRegLib.errors import Cancelled
from GlideRegLib.field import jacobian_determinant
from GlideRegLib.geometry import Grid, index_tensor
from GlideRegLib.optimize import data_term
from GlideRegLib.optimize.data_term import UPPER
from GlideRegLib.optimize.energy import (
    MEMBRANE,
    FeaturePair,
    energy,
    laplacian,
    roughness,
)
from GlideRegLib.optimize.gauss_newton import (
    DAMPING,
    GaussNewton,
)
from GlideRegLib.optimize.lookup import Lookup, Table
from GlideRegLib.optimize.normal_equations import NormalEquations, _Preconditioner
from GlideRegLib.optimize.warping import (
    doubled,
    pool,
    resize_displacement,
    summed_by_two,
    warp,
)

TINY = (4, 3, 5)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- operators ------------------------------------------------------------------------------------


def dense_laplacian(shape: tuple[int, int, int]) -> np.ndarray:
    """Graph Laplacian of the voxel lattice: number of neighbors minus the sum over them."""
    paths = []
    for n in shape:
        path = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
        path[0, 0] = path[-1, -1] = 1 if n > 1 else 0
        paths.append(path)
    z, y, x = (np.eye(n) for n in shape)
    return (
        np.kron(np.kron(paths[0], y), x)
        + np.kron(np.kron(z, paths[1]), x)
        + np.kron(np.kron(z, y), paths[2])
    )


def dense_system(equations: NormalEquations) -> np.ndarray:
    """The same equations as one matrix over all voxels and components (x, y, z slowest)."""
    shape = tuple(equations.right.shape[1:])
    voxels = int(np.prod(shape))
    first = dense_laplacian(shape)
    system = np.kron(np.eye(3), equations.bending * (first @ first + MEMBRANE * first))
    for entry, (i, j) in zip(equations.matrix.double().numpy(), UPPER, strict=True):
        for a, b in {(i, j), (j, i)}:
            block = slice(a * voxels, (a + 1) * voxels), slice(b * voxels, (b + 1) * voxels)
            system[block] += np.diag(entry.ravel())
    return system


def random_equations(shape: tuple[int, int, int] = TINY, bending: float = 0.4) -> NormalEquations:
    gradients = noise(4, 3, *shape)
    matrix = torch.stack([(gradients[:, i] * gradients[:, j]).sum(0) for i, j in UPPER])
    matrix[[0, 3, 5]] += DAMPING
    return NormalEquations(matrix, noise(3, *shape, seed=1), bending)


@pytest.mark.parametrize("shape", [TINY, (1, 4, 5), (2, 2, 2)])
def test_the_laplacian_is_the_graph_laplacian_with_free_borders(shape: tuple) -> None:
    values = noise(3, *shape)
    expected = values.reshape(3, -1).numpy() @ dense_laplacian(shape)
    np.testing.assert_allclose(laplacian(values).reshape(3, -1).numpy(), expected, atol=1e-5)


def test_the_roughness_is_the_gradient_of_half_the_regularizer() -> None:
    u = noise(3, 6, 5, 7).double().requires_grad_(True)
    slopes = sum(u.diff(dim=dim).square().sum() for dim in (1, 2, 3))
    (0.5 * (laplacian(u).square().sum() + MEMBRANE * slopes)).backward()
    torch.testing.assert_close(roughness(u.detach()), u.grad)


def test_a_translation_bends_nothing() -> None:
    assert not laplacian(torch.full((3, 5, 6, 7), 4.5)).any()


def test_multiplying_equals_the_dense_matrix() -> None:
    equations = random_equations()
    z = noise(3, *TINY, seed=2)
    expected = dense_system(equations) @ z.reshape(-1).double().numpy()
    np.testing.assert_allclose(equations.multiply(z).reshape(-1).numpy(), expected, atol=1e-4)


def test_the_normal_equations_are_symmetric_and_positive_definite() -> None:
    equations = random_equations()
    system = dense_system(equations)
    np.testing.assert_allclose(system, system.T)
    assert np.linalg.eigvalsh(system).min() > 0.5 * DAMPING
    for seed in range(5):
        a, b = noise(3, *TINY, seed=10 + seed), noise(3, *TINY, seed=20 + seed)
        left = float((a * equations.multiply(b)).sum())
        assert left == pytest.approx(float((equations.multiply(a) * b).sum()), rel=1e-4, abs=1e-4)
        assert float((a * equations.multiply(a)).sum()) > 0


@pytest.mark.parametrize("bending", [1e-3, 0.4, 20.0])
def test_enough_conjugate_gradient_steps_solve_the_dense_system(bending: float) -> None:
    equations = random_equations(bending=bending)
    expected = np.linalg.solve(
        dense_system(equations), equations.right.reshape(-1).double().numpy()
    )
    found = equations.solve(400, tolerance=1e-12).reshape(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_more_conjugate_gradient_steps_come_nearer() -> None:
    equations = random_equations((8, 8, 8), 5.0)
    exact = np.linalg.solve(dense_system(equations), equations.right.reshape(-1).double().numpy())
    errors = [
        np.linalg.norm(equations.solve(n, 0.0).reshape(-1).numpy() - exact) for n in (1, 4, 12, 40)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 24, 16), (8, 7, 8)])
def test_the_preconditioner_is_symmetric_and_positive_definite(shape: tuple) -> None:
    diagonal = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) + DAMPING
    apply = _Preconditioner(diagonal, 0.4).apply
    for seed in range(5):
        a, b = noise(3, *shape, seed=10 + seed), noise(3, *shape, seed=20 + seed)
        left, right = float((a * apply(b)).sum()), float((apply(a) * b).sum())
        assert left == pytest.approx(right, rel=1e-3, abs=1e-2)
        assert float((a * apply(a)).sum()) > 0


def test_coarse_grids_settle_smooth_motion_in_a_few_steps() -> None:
    """A force that varies slowly, on features that hold the field weakly."""
    shape = (32, 32, 32)
    matrix = torch.zeros(6, *shape)
    matrix[[0, 3, 5]] = 2 * DAMPING
    z, y, x = torch.meshgrid(*(torch.linspace(0, 3, n) for n in shape), indexing="ij")
    equations = NormalEquations(matrix, torch.stack((x.cos(), y.sin(), (z + x).cos())), 0.4)
    exact = equations.solve(500, 0.0)
    few = equations.solve(8, 0.0)
    assert float((few - exact).norm() / exact.norm()) < 0.1


def test_doubling_is_trilinear_interpolation_and_summing_its_transpose() -> None:
    coarse, fine = noise(3, 4, 5, 6), noise(3, 8, 10, 12, seed=1)
    expected = torch.nn.functional.interpolate(
        coarse[None], scale_factor=2, mode="trilinear", align_corners=False
    )[0]
    torch.testing.assert_close(doubled(coarse), expected)
    left, right = (expected * fine).sum(), (coarse * summed_by_two(fine)).sum()
    torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-5)


def test_no_force_gives_no_step() -> None:
    equations = random_equations()
    assert not NormalEquations(equations.matrix, torch.zeros(3, *TINY), 0.4).solve(12).any()


@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 7, 8), (6, 1, 8), (6, 7, 1), (2, 2, 2)])
@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_looking_up_is_linear_interpolation_with_replicated_borders(
    shape: tuple, scale: float
) -> None:
    values, u = noise(3, *shape), scale * noise(3, *shape, seed=1)
    found = Table(values).sample(Lookup(u, 0, shape))
    position = (index_tensor(shape) + u).flip(0).numpy()
    for channel in range(3):
        expected = ndimage.map_coordinates(
            values[channel].numpy(), position, order=1, mode="nearest"
        )
        np.testing.assert_allclose(found[channel].numpy(), expected, atol=2e-5)
    torch.testing.assert_close(found, warp(values, u), atol=2e-5, rtol=0)


def test_looking_up_a_slab_is_a_part_of_looking_up_all() -> None:
    shape = (9, 5, 6)
    table, u = Table(noise(2, *shape)), noise(3, *shape, seed=1)
    whole = table.sample(Lookup(u, 0, shape))
    part = table.sample(Lookup(u[:, 3:7], 3, shape))
    torch.testing.assert_close(part, whole[:, 3:7])


@pytest.mark.parametrize("slices", [1, 2, 4, 10, 20])
def test_the_equations_of_a_step_equal_their_definition_for_any_slabs(
    slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A = sum a w g g' + damping, right = -(sum a w g r + lambda B u); g is the mean of the central
    differences of the fixed and the warped features; w is 0 where x + u(x) leaves the grid."""
    shape = (11, 6, 7)  # not a multiple of the slab
    monkeypatch.setitem(data_term._SLAB_VOXELS, "cpu", slices * 6 * 7)
    pairs = [
        FeaturePair(noise(2, *shape, seed=1), noise(2, *shape, seed=2), 0.7),
        FeaturePair(noise(3, *shape, seed=3), noise(3, *shape, seed=4), 2.0),
    ]
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    moving_weight = torch.rand(shape, generator=torch.Generator().manual_seed(6))
    u = noise(3, *shape, seed=7)
    found = GaussNewton(pairs, 0.3, weight, moving_weight)._assemble(u)
    position = (index_tensor(shape) + u).numpy()
    size = np.array(shape[::-1]).reshape(3, 1, 1, 1)
    inside = ((position >= -0.5) & (position <= size - 0.5)).all(axis=0)
    assert 0.5 < inside.mean() < 0.9
    trust = (weight * warp(moving_weight[None], u)[0]).numpy() * inside
    matrix, right = np.zeros((3, 3, *shape)), np.zeros((3, *shape))
    for pair in pairs:
        warped = warp(pair.moving, u).numpy()
        for fixed_channel, warped_channel in zip(pair.fixed.numpy(), warped, strict=True):
            gradient = np.stack(np.gradient(0.5 * (fixed_channel + warped_channel))[::-1])
            residual = warped_channel - fixed_channel
            right -= pair.weight * trust * gradient * residual
            matrix += pair.weight * trust * gradient[:, None] * gradient[None]
    right -= 0.3 * roughness(u).numpy()
    for entry, (i, j) in zip(found.matrix.numpy(), UPPER, strict=True):
        np.testing.assert_allclose(entry, matrix[i, j] + (DAMPING if i == j else 0), atol=1e-4)
    np.testing.assert_allclose(found.right.numpy(), right, atol=1e-4)
    assert found.bending == 0.3


def test_the_energy_is_what_its_formula_says() -> None:
    shape = (5, 6, 7)
    pairs = [
        FeaturePair(noise(2, *shape, seed=1), noise(2, *shape, seed=2), 0.7),
        FeaturePair(noise(3, *shape, seed=3), noise(3, *shape, seed=4), 2.0),
    ]
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    u = noise(3, *shape, seed=7)
    data, bending = energy(pairs, u, 0.3, weight)
    expected = 0.0
    for pair in pairs:
        for fixed, moving in zip(pair.fixed.numpy(), pair.moving.numpy(), strict=True):
            position = (index_tensor(shape) + u).flip(0).numpy()
            warped = ndimage.map_coordinates(moving, position, order=1, mode="nearest")
            expected += pair.weight * (weight.numpy() * (warped - fixed) ** 2).mean()
    assert data == pytest.approx(expected, rel=1e-4)
    flat, matrix = u.reshape(3, -1).numpy(), dense_laplacian(shape)
    rough = np.square(flat @ matrix) + MEMBRANE * flat * (flat @ matrix)
    assert bending == pytest.approx(0.3 * rough.sum(axis=0).mean(), rel=1e-4)


# --- steps ----------------------------------------------------------------------------------------

SHAPE = (30, 32, 34)
CHANNELS = [waves(seed, 24, 9.0, 25.0) for seed in range(4)]


def features_at(positions: torch.Tensor) -> torch.Tensor:
    """Band-limited features (4, Z, Y, X), evaluated exactly at positions (3, Z, Y, X)."""
    points = positions.reshape(3, -1).T.numpy()
    values = np.stack([channel(points) for channel in CHANNELS])
    return torch.from_numpy(values.reshape(4, *positions.shape[1:]))


def known_deformation(amplitude: float = 2.0) -> torch.Tensor:
    """A smooth displacement in voxels, different in each component."""
    x, y, z = index_tensor(SHAPE) * (2 * np.pi / 40)
    u = torch.stack((torch.sin(y + 1) * torch.cos(z), torch.sin(z + x), torch.cos(x - y + 2)))
    return amplitude * u


def solve(
    pairs: list[FeaturePair], iterations: int = 12, bending: float = 0.1, **kwargs: object
) -> torch.Tensor:
    solver = GaussNewton(pairs, bending, **kwargs)
    u = torch.zeros(3, *pairs[0].fixed.shape[1:])
    for _ in range(iterations):
        u, _ = solver.step(u)
    return u


def inner(values: torch.Tensor, margin: int = 4) -> torch.Tensor:
    return values[..., margin:-margin, margin:-margin, margin:-margin]


@pytest.fixture(scope="module")
def known_pair() -> FeaturePair:
    """Moving features, and fixed ones with F(x) = M(x + u(x)) for the known u."""
    positions = index_tensor(SHAPE)
    return FeaturePair(features_at(positions + known_deformation()), features_at(positions))


def test_a_known_smooth_deformation_is_found_to_a_twentieth_of_a_voxel(
    known_pair: FeaturePair,
) -> None:
    truth = known_deformation()
    found = solve([known_pair])
    error = inner(found - truth).norm(dim=0)
    assert float(inner(truth).norm(dim=0).mean()) > 1.5
    assert float(error.mean()) < 0.05
    assert float(error.max()) < 0.3


def test_the_steps_lower_the_energy_until_they_settle(known_pair: FeaturePair) -> None:
    solver = GaussNewton([known_pair], 0.1)
    u = torch.zeros(3, *SHAPE)
    energies, lengths = [sum(energy([known_pair], u, 0.1))], []
    for _ in range(15):
        u, length = solver.step(u)
        energies.append(sum(energy([known_pair], u, 0.1)))
        lengths.append(length)
    assert energies[:3] == sorted(energies[:3], reverse=True)
    assert energies[2] < 0.05 * energies[0]
    assert energies[-1] < 1.1 * min(energies)
    assert lengths[-1] < 0.02 * lengths[0]


def test_voxels_that_leave_the_grid_are_not_driven_further_out() -> None:
    """The border, repeated outside, looks like a poor match that still more motion could mend."""
    positions = index_tensor(SHAPE)
    truth = torch.zeros(3, *SHAPE)
    truth[0] = 6.0
    pair = FeaturePair(features_at(positions + truth), features_at(positions))
    found = truth.clone()
    solver = GaussNewton([pair], 0.1)
    for _ in range(10):
        found, _ = solver.step(found)
    assert float((found - truth).norm(dim=0).max()) < 0.5


def test_a_step_reports_its_mean_length_and_never_exceeds_the_limit(
    known_pair: FeaturePair,
) -> None:
    u, length = GaussNewton([known_pair], 0.1, max_step=0.25).step(torch.zeros(3, *SHAPE))
    assert float(u.norm(dim=0).max()) <= 0.26
    assert length == pytest.approx(float(u.norm(dim=0).mean()), rel=0.02)


def test_the_found_deformation_does_not_fold(known_pair: FeaturePair) -> None:
    unit = Grid(SHAPE[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert float(jacobian_determinant(solve([known_pair]), unit).min()) > 0.6


def test_nothing_folds_even_when_the_features_do_not_correspond() -> None:
    """Two different textures pull in all directions, by several voxels."""
    positions = index_tensor(SHAPE)
    pair = FeaturePair(0.3 * features_at(positions), 0.3 * features_at(positions + 40.0))
    found = solve([pair], 8, bending=0.4)
    unit = Grid(SHAPE[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert float(found.norm(dim=0).max()) > 3.0
    assert float(jacobian_determinant(found, unit).min()) > 0


def test_voxels_of_weight_zero_are_ignored(known_pair: FeaturePair) -> None:
    """Whatever the fixed features hold there (beyond the reach of a central difference)."""
    weight = torch.ones(SHAPE)
    weight[10:20, 10:20, 10:20] = 0
    spoiled = known_pair.fixed.clone()
    spoiled[:, 11:19, 11:19, 11:19] = 50.0
    expected = solve([known_pair], 4, weight=weight)
    found = solve([FeaturePair(spoiled, known_pair.moving)], 4, weight=weight)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    unmasked = solve([FeaturePair(spoiled, known_pair.moving)], 4)
    assert float((unmasked - expected).abs().max()) > 0.2


def test_the_weight_of_the_moving_voxels_is_looked_up_where_they_are_displaced_to() -> None:
    """Moving voxels of weight 0 do not count, although the fixed ones there do."""
    shift = 4
    positions = index_tensor(SHAPE)
    moved = positions.clone()
    moved[0] += shift
    fixed, moving = features_at(moved), features_at(positions)
    moving_weight = torch.ones(SHAPE)
    moving_weight[:, :, :12] = 0
    spoiled = moving.clone()
    spoiled[:, :, :, :11] = 50.0
    start = torch.zeros(3, *SHAPE)
    start[0] = shift
    expected, _ = GaussNewton([FeaturePair(fixed, moving)], 0.1, None, moving_weight).step(start)
    found, _ = GaussNewton([FeaturePair(fixed, spoiled)], 0.1, None, moving_weight).step(start)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    plain, _ = GaussNewton([FeaturePair(fixed, spoiled)], 0.1).step(start)
    assert float((plain - expected).abs().max()) > 0.2


def test_a_group_of_weight_zero_is_ignored_and_groups_add_up(known_pair: FeaturePair) -> None:
    misleading = FeaturePair(noise(2, *SHAPE), noise(2, *SHAPE, seed=1), 0.0)
    expected = solve([known_pair], 2)
    torch.testing.assert_close(solve([known_pair, misleading], 2), expected)
    halves = [FeaturePair(known_pair.fixed, known_pair.moving, 0.5)] * 2
    torch.testing.assert_close(solve(halves, 2), expected, atol=1e-3, rtol=0)


def test_replaced_features_are_the_ones_that_count(known_pair: FeaturePair) -> None:
    solver = GaussNewton([FeaturePair(noise(4, *SHAPE), noise(4, *SHAPE, seed=1), 3.0)], 0.1)
    solver.replace(0, known_pair)
    found, _ = solver.step(torch.zeros(3, *SHAPE))
    torch.testing.assert_close(found, solve([known_pair], 1))


def test_strong_bending_leaves_only_a_translation(known_pair: FeaturePair) -> None:
    soft = solve([known_pair], 4, bending=0.1)
    stiff = solve([known_pair], 4, bending=1e4, cg_iterations=60)
    roughness = [float(laplacian(u).norm()) for u in (soft, stiff)]
    assert roughness[1] < 0.02 * roughness[0]


def test_a_wish_to_cancel_is_heard_inside_a_step(known_pair: FeaturePair) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        GaussNewton([known_pair], 0.1, check=check).step(torch.zeros(3, *SHAPE))


# --- features finer than the field ----------------------------------------------------------------


@pytest.mark.parametrize("slices", [2, 4, 8, 20])
def test_finer_features_give_each_field_voxel_the_mean_of_their_equations(
    slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The energy is a mean over voxels; one field voxel of motion is two of the features'."""
    shape, field = (12, 8, 10), (6, 4, 5)
    monkeypatch.setitem(data_term._SLAB_VOXELS, "cpu", slices * 8 * 10)
    pair = FeaturePair(noise(3, *shape, seed=1), noise(3, *shape, seed=2), 0.7)
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    u = 0.3 * noise(3, *field, seed=7)
    found = GaussNewton([pair], 0.3, weight, finer=2)._assemble(u)
    assert found.matrix.shape == (6, *field)
    fine = GaussNewton([pair], 0.0, weight)._assemble(resize_displacement(u, shape))
    damping = torch.tensor([DAMPING, 0, 0, DAMPING, 0, DAMPING]).view(6, 1, 1, 1)
    expected = 4 * pool(fine.matrix - damping, 2) + damping
    torch.testing.assert_close(found.matrix, expected, atol=1e-4, rtol=1e-4)
    right = 2 * pool(fine.right, 2) - 0.3 * roughness(u)
    torch.testing.assert_close(found.right, right, atol=1e-4, rtol=1e-4)


def test_a_known_deformation_is_found_on_half_as_fine_a_field(known_pair: FeaturePair) -> None:
    truth = known_deformation()
    half = tuple(n // 2 for n in SHAPE)
    solver = GaussNewton([known_pair], 0.1, finer=2)
    u = torch.zeros(3, *half)
    for _ in range(12):
        u, _ = solver.step(u)
    error = inner(resize_displacement(u, SHAPE) - truth).norm(dim=0)
    assert float(error.mean()) < 0.08
    assert float(error.max()) < 0.4


def test_half_precision_features_give_the_same_step(known_pair: FeaturePair) -> None:
    start = 0.5 * known_deformation()
    half = FeaturePair(known_pair.fixed.half(), known_pair.moving.half())
    expected, _ = GaussNewton([known_pair], 0.1).step(start)
    found, _ = GaussNewton([half], 0.1).step(start)
    assert float((found - expected).abs().max()) < 0.02
    assert found.dtype == torch.float32
