"""Cost volume and coupled convex optimization against brute force on tiny volumes."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from GlideRegLib.errors import Cancelled
from GlideRegLib.geometry import Grid
from GlideRegLib.optimize.convex import (
    COEFFICIENTS,
    TIE_BREAK,
    convex_displacement,
    coupled_convex,
)
from GlideRegLib.optimize.cost_volume import cost_volume, displacement_mesh
from GlideRegLib.optimize.energy import FeaturePair
from GlideRegLib.optimize.initial import initial_displacements
from GlideRegLib.optimize.refine import refine
from GlideRegLib.optimize.warping import box_filter, compose, pool, resize_displacement, warp
from GlideRegLib.progress import Progress
from GlideRegLib.settings import ConvexSettings, Level, RefineSettings

SHAPE = (4, 5, 6)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def displacements(radius: int) -> list[tuple[int, int, int]]:
    """(x, y, z) of every candidate; x runs fastest."""
    steps = range(-radius, radius + 1)
    return [(x, y, z) for z, y, x in product(steps, steps, steps)]


def mean_filter(values: np.ndarray, times: int = 1) -> np.ndarray:
    for _ in range(times):
        values = ndimage.uniform_filter(values, 3, mode="nearest")
    return values


def brute_costs(
    fixed: np.ndarray, moving: np.ndarray, radius: int, weight: np.ndarray, smoothing: int
) -> np.ndarray:
    """Voxel by voxel: w(x) sum_c (F_c(x) - M_c(x + d))^2, then the mean filters."""
    _, depth, height, width = fixed.shape
    costs = []
    for dx, dy, dz in displacements(radius):
        plane = np.zeros((depth, height, width))
        for z, y, x in product(range(depth), range(height), range(width)):
            other = moving[
                :,
                min(max(z + dz, 0), depth - 1),
                min(max(y + dy, 0), height - 1),
                min(max(x + dx, 0), width - 1),
            ]
            plane[z, y, x] = weight[z, y, x] * ((fixed[:, z, y, x] - other) ** 2).sum()
        costs.append(mean_filter(plane, smoothing))
    return np.stack(costs)


def brute_coupled(costs: np.ndarray, radius: int, coefficients: tuple) -> np.ndarray:
    """Voxel by voxel: argmin_d cost + c |d - s|^2 (+ a little |d|^2), then s = mean filter of d."""
    shape = costs.shape[1:]
    candidates = displacements(radius)
    smooth = np.zeros((3, *shape))
    for c in (0.0, *coefficients):
        best = np.zeros((3, *shape))
        for voxel in product(*map(range, shape)):
            s = smooth[(slice(None), *voxel)]
            values = [
                costs[(k, *voxel)]
                + c * np.square(np.array(d) - s).sum()
                + TIE_BREAK * np.square(d).sum()
                for k, d in enumerate(candidates)
            ]
            best[(slice(None), *voxel)] = candidates[int(np.argmin(values))]
        smooth = np.stack([mean_filter(component) for component in best])
    return smooth


def test_the_candidates_are_all_steps_of_the_window_with_x_fastest() -> None:
    assert displacement_mesh(2).T.tolist() == [list(d) for d in displacements(2)]


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("smoothing", [0, 1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_cost_volume_equals_brute_force(radius: int, smoothing: int, weighted: bool) -> None:
    fixed, moving = noise(3, *SHAPE), noise(3, *SHAPE, seed=1)
    weight = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) if weighted else None
    found = cost_volume(fixed, moving, radius, weight, smoothing)
    expected = brute_costs(
        fixed.numpy().astype(float),
        moving.numpy().astype(float),
        radius,
        np.ones(SHAPE) if weight is None else weight.numpy(),
        smoothing,
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_the_cost_volume_leaves_its_inputs_alone() -> None:
    fixed, moving = noise(3, *SHAPE), noise(3, *SHAPE, seed=1)
    copies = fixed.clone(), moving.clone()
    cost_volume(fixed, moving, 1)
    assert torch.equal(fixed, copies[0])
    assert torch.equal(moving, copies[1])


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("coefficients", [(), (0.1,), COEFFICIENTS])
def test_coupled_convex_equals_brute_force(radius: int, coefficients: tuple) -> None:
    costs = 3 * torch.rand(
        (2 * radius + 1) ** 3, *SHAPE, generator=torch.Generator().manual_seed(radius)
    )
    found = coupled_convex(costs, radius, coefficients)
    expected = brute_coupled(costs.numpy().astype(float), radius, coefficients)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_coupled_convex_equals_brute_force_on_the_costs_of_real_features() -> None:
    moving = box_filter(noise(3, *SHAPE, seed=1))
    fixed = warp(moving, torch.ones(3, *SHAPE))
    costs = cost_volume(fixed, moving, 2)
    found = coupled_convex(costs, 2)
    np.testing.assert_allclose(
        found.numpy(), brute_coupled(costs.numpy().astype(float), 2, COEFFICIENTS), atol=1e-5
    )


def test_the_coupling_pulls_outliers_to_their_neighbors() -> None:
    """One voxel prefers (-1, 0, 0) slightly, all others (1, 0, 0) strongly."""
    costs = torch.ones(27, 7, 7, 7)
    candidates = displacements(1)
    costs[candidates.index((1, 0, 0))] = 0.0
    costs[candidates.index((1, 0, 0)), 3, 3, 3] = 0.05
    costs[candidates.index((-1, 0, 0)), 3, 3, 3] = 0.0
    alone, coupled = coupled_convex(costs, 1, ()), coupled_convex(costs, 1)
    assert float(alone[0].min()) < 0.95
    torch.testing.assert_close(coupled[0], torch.ones(7, 7, 7))


def test_between_equal_costs_the_smallest_motion_wins() -> None:
    costs = torch.ones(125, *SHAPE)
    assert not coupled_convex(costs, 2).any()
    candidates = displacements(2)
    costs[candidates.index((2, 0, 0))] = 0.0
    costs[candidates.index((0, 1, 0))] = 0.0
    found = coupled_convex(costs, 2)
    expected = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1).expand(3, *SHAPE)
    torch.testing.assert_close(found, expected)


def test_more_voxels_than_one_chunk_are_treated_alike() -> None:
    costs = torch.rand(27, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    assert costs[0].numel() > 4096
    candidates = torch.tensor(displacements(1), dtype=torch.float32)
    lengths = TIE_BREAK * candidates.square().sum(dim=1).view(-1, 1, 1, 1)
    best = candidates[(costs + lengths).argmin(dim=0)].permute(3, 0, 1, 2)
    torch.testing.assert_close(coupled_convex(costs, 1, ()), box_filter(best))


@pytest.mark.parametrize("steps", [0, 15])
@pytest.mark.parametrize("shift", [(2, 0, 0), (0, -3, 0), (0, 0, 1), (2, -1, 3)])
def test_an_integer_shift_is_found_with_its_sign(shift: tuple, steps: int) -> None:
    """M(x + d) = F(x): a fixed voxel x corresponds to x + d in the moving features."""
    dx, dy, dz = shift
    large = noise(4, 24, 24, 24)
    fixed = large[:, 4:20, 4:20, 4:20]
    moving = large[:, 4 - dz : 20 - dz, 4 - dy : 20 - dy, 4 - dx : 20 - dx]
    found = convex_displacement(fixed, moving, 3, consistency_steps=steps)
    center = found[:, 6:10, 6:10, 6:10]
    expected = torch.tensor(shift, dtype=torch.float32).view(3, 1, 1, 1).expand_as(center)
    torch.testing.assert_close(center, expected, atol=0.02, rtol=0)


def test_voxels_of_weight_zero_do_not_decide() -> None:
    """Half of the fixed features are replaced by what suggests another shift; weight 0 there."""
    large = noise(4, 20, 20, 24)
    fixed = large[:, 2:18, 2:18, 4:20].clone()
    moving = large[:, 2:18, 2:18, 3:19]  # x + 1
    weight = torch.ones(16, 16, 16)
    fixed[:, :, :, 8:] = large[:, 2:18, 2:18, 10:18]  # would be x - 1
    weight[:, :, 8:] = 0
    masked = convex_displacement(fixed, moving, 2, weight)
    plain = convex_displacement(fixed, moving, 2)
    assert float((masked[0, 4:12, 4:12, 2:8] - 1).abs().max()) < 0.1
    assert float(masked[0, 4:12, 4:12, 8:12].min()) > -0.01
    assert float(plain[0, 4:12, 4:12, 9:13].mean()) < -0.5


def test_forward_and_backward_displacements_of_a_consistent_stage_agree() -> None:
    large = box_filter(noise(4, 24, 24, 24))
    fixed, moving = large[:, 4:20, 4:20, 4:20], large[:, 4:20, 3:19, 5:21]
    there = convex_displacement(fixed, moving, 2)
    back = convex_displacement(moving, fixed, 2)
    residual = compose(back, there)[:, 4:-4, 4:-4, 4:-4]
    assert float(residual.abs().max()) < 0.05


def test_a_wish_to_cancel_is_heard_in_the_convex_stage() -> None:
    def check() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        convex_displacement(noise(2, *SHAPE), noise(2, *SHAPE), 1, check=check)


# --- the whole convex stage -----------------------------------------------------------------------


class Features:
    """Stands in for the pyramid: the same kind of features from two full-resolution volumes."""

    def __init__(self, local: tuple, global_: tuple | None = None) -> None:
        self._local, self._global = local, global_ or local
        self.reduced = SimpleNamespace(learns=False)

    def local(self, pooling: int, weight: float = 1.0) -> FeaturePair:
        return FeaturePair(*(pool(v, pooling) for v in self._local), weight)

    def global_(self, pooling: int, weight: float = 1.0) -> FeaturePair:
        return FeaturePair(*(pool(v, pooling) for v in self._global), weight)

    def grid_at(self, pooling: int) -> Grid:
        depth, height, width = (n // pooling for n in self._local[0].shape[1:])
        return Grid((width, height, depth), (1.0,) * 3, (0.0,) * 3)

    def tissue_at(self, pooling: int) -> torch.Tensor:
        return self.trust_at(pooling)[0]

    def points_at(self, pooling: int) -> None:
        return None

    modality, has_compartments = "ct", False

    def compartments_at(self, pooling: int) -> None:
        return None

    def trust_at(self, pooling: int, label: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        shape = tuple(n // pooling for n in self._local[0].shape[1:])
        return torch.ones(shape), torch.ones(shape)


def moved_pair(shift: tuple[int, int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features with structure at every scale, 48^3, and the same moved by ``shift`` (x, y, z)."""
    large = sum(
        s
        * torch.from_numpy(
            ndimage.gaussian_filter(noise(4, 80, 80, 80, seed=seed + s), (0, s, s, s))
        )
        * s**0.5
        for s in (1, 3)
    )
    part = [slice(16 - d, 64 - d) for d in (*shift[::-1],)]
    return large[:, 16:64, 16:64, 16:64], large[(slice(None), *part)]


SETTINGS = ConvexSettings(global_levels=((4, 3),), local_levels=((4, 3), (2, 2)))


def center_of(displacement: torch.Tensor) -> np.ndarray:
    """Mean displacement at the center in full-resolution voxels."""
    full = resize_displacement(displacement, (48, 48, 48))
    return full[:, 20:28, 20:28, 20:28].mean(dim=(1, 2, 3)).numpy()


@pytest.mark.parametrize("use_global", [False, True])
def test_levels_from_coarse_to_fine_add_up_to_the_whole_shift(use_global: bool) -> None:
    """The finer level sees the moving features warped by the coarser, and is composed with it."""
    shift = (9, -6, 3)
    features = Features(moved_pair(shift, 1))
    starts = initial_displacements(features, SETTINGS, use_global, True, Progress())
    found = starts.best_informed
    assert found.shape == (3, 24, 24, 24)
    np.testing.assert_allclose(center_of(found), shift, atol=0.6)


def test_the_printed_composition_counts_the_motion_twice() -> None:
    """Why the local stage works on warped features: the documented switch shows the trap."""
    shift = (8, 0, 0)
    features = Features(moved_pair(shift, 1))
    literal = ConvexSettings(
        global_levels=((4, 3),), local_levels=((4, 3),), literal_composition=True
    )
    found = initial_displacements(features, literal, True, True, Progress()).best_informed
    np.testing.assert_allclose(center_of(found), (16, 0, 0), atol=1.2)


def test_global_features_that_mislead_lose_against_the_local_ones() -> None:
    shift = (5, 0, -4)
    misleading = moved_pair((-8, 8, 8), 7)
    progress = Progress()
    features = Features(moved_pair(shift, 1), misleading)
    starts = initial_displacements(features, SETTINGS, True, True, progress)
    np.testing.assert_allclose(center_of(starts.local), shift, atol=0.6)
    settings = RefineSettings(levels=(Level(2, 4, 0.5, 1.0, 0.4),))
    found, _ = refine(features, starts, settings, True, True, progress)
    np.testing.assert_allclose(center_of(found), shift, atol=0.6)


def test_global_features_that_see_further_give_the_start() -> None:
    """The motion is beyond the reach of the local search, but not of the global one."""
    shift = (10, -10, 10)
    pair, progress = moved_pair(shift, 1), Progress()
    near = ConvexSettings(global_levels=((4, 4),), local_levels=((2, 2),))
    features = Features(pair, pair)
    starts = initial_displacements(features, near, True, True, progress)
    settings = RefineSettings(levels=(Level(2, 4, 0.5, 1.0, 0.4),))
    found, _ = refine(features, starts, settings, True, True, progress)
    np.testing.assert_allclose(center_of(found), shift, atol=0.8)
    assert "features helped" in progress.messages[-1][1]


def test_global_features_alone_give_the_start_when_local_ones_are_switched_off() -> None:
    features = Features(moved_pair((0, 0, 0), 3), moved_pair((8, -4, 0), 1))
    starts = initial_displacements(features, SETTINGS, True, False, Progress())
    assert starts.local is None
    np.testing.assert_allclose(center_of(starts.guided), (8, -4, 0), atol=1.0)
