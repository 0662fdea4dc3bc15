"""Continuous refinement of the displacement, and the reduction that learns along."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..features.pyramid import FeaturePyramid
from ..progress import Progress
from ..settings import Level, RefineSettings
from .energy import MINIMUM_GAIN, FeaturePair, energy, laplacian
from .gauss_newton import GaussNewton
from .initial import Starts
from .sliding import Sliding, SoftEdges
from .warping import box_filter, resize_displacement, warp

#: Mean step (voxels) under which a level is finished.
_FINISHED = 0.01
#: The field's grid is the working grid pooled by this, or coarser. Finer features still pull at it:
#: the field is smooth between such nodes, and the equations are eight times fewer (README).
FINEST_FIELD = 2
#: Fields that slide are steep: between the nodes they may fold where the nodes themselves do not.
SLIDING_DETERMINANT = 0.2
#: Local-only iterations after those that the global features guided.
_POLISH = 4


def refine(
    pyramid: FeaturePyramid,
    starts: Starts,
    settings: RefineSettings,
    use_global: bool,
    use_local: bool,
    progress: Progress,
) -> tuple[torch.Tensor, int]:
    """Refines the start (or the better of two), level by level.

    Returns the displacement (3, Z, Y, X) in voxels of the last field grid, and the pooling factor
    of that grid.
    """
    if settings.solver == "adam":
        start = starts.best_informed
        result = _adam(pyramid, start, settings, use_global, use_local, progress)
        return result, settings.adam_pooling
    levels = effective_levels(settings.levels, use_global, use_local)
    work = [level.iterations / level.pooling**3 for level in levels]
    shares = [cost / max(sum(work), 1e-9) for cost in work]
    done = shares[0]
    if starts.local is not None and starts.guided is not None:
        displacement = _better_of_two(pyramid, starts, levels[0], settings, progress, done)
    else:
        displacement = _level(
            pyramid, starts.best_informed, levels[0], settings, progress, (0.0, done)
        )
    for level, share in zip(levels[1:], shares[1:], strict=True):
        displacement = _level(pyramid, displacement, level, settings, progress, (done, share))
        done += share
    return displacement, field_pooling(levels[-1])


def effective_levels(levels: tuple[Level, ...], use_global: bool, use_local: bool) -> list[Level]:
    """The levels with the weights of the feature sets in use.

    Alone, the global features carry every level but the one at full resolution (a cell is many
    voxels wide); with local features they take part where ``alpha`` says.
    """
    if use_local:
        return [replace(v, alpha=v.alpha if use_global else 0.0) for v in levels]
    alpha = max(level.alpha for level in levels) or 0.15
    kept = [level for level in levels if level.pooling > 1] or list(levels)
    return [replace(v, alpha=alpha, beta=0.0) for v in kept]


def finest_pooling(settings: RefineSettings) -> int:
    """Pooling factor of the finest features that the refinement asks for."""
    if settings.solver == "adam":
        return settings.adam_pooling
    return min(level.pooling for level in settings.levels)


def field_pooling(level: Level) -> int:
    """Pooling factor of the grid on which a level's field lives."""
    return max(level.pooling, FINEST_FIELD)


def _better_of_two(
    pyramid: FeaturePyramid,
    starts: Starts,
    level: Level,
    settings: RefineSettings,
    progress: Progress,
    share: float,
) -> torch.Tensor:
    """The first level from both starts; the global features must earn their place.

    One chain is guided by the global features from the start on and then polished by the local
    ones; the other never sees them. The guided one is kept when it beats the other by a clear
    margin of local energy: what a foundation model sees helps in some pairs, misleads in others.
    """
    local = replace(level, alpha=0.0)
    first, second = (0.0, share / 2), (share / 2, share / 2)
    guided = _level(pyramid, starts.guided, level, settings, progress, first)
    polish = replace(local, iterations=_POLISH)
    guided = _level(pyramid, guided, polish, settings, progress, first)
    plain = _level(pyramid, starts.local, local, settings, progress, second)
    energies = [_local_energy(pyramid, u, level) for u in (guided, plain)]
    helped = energies[0] < (1 - MINIMUM_GAIN) * energies[1]
    progress.message(
        f"The global features {'helped' if helped else 'did not help'} "
        f"(local energy {energies[0]:.4f} with them, {energies[1]:.4f} without)."
    )
    return guided if helped else plain


def _local_energy(pyramid: FeaturePyramid, displacement: torch.Tensor, level: Level) -> float:
    """Mean local energy over the tissue that stays inside the moving image.

    What leaves the field of view counts neither for nor against: there is nothing to compare.
    """
    seen = warp(pyramid.trust_at(level.pooling)[1][None], displacement)[0]
    weight = pyramid.tissue_at(level.pooling) * seen
    weight = weight / weight.mean().clamp_min(1e-6)
    data, bending = energy(
        [pyramid.local(level.pooling, level.beta)], displacement, level.bending, weight
    )
    return data + bending


def _level(
    pyramid: FeaturePyramid,
    displacement: torch.Tensor,
    level: Level,
    settings: RefineSettings,
    progress: Progress,
    share: tuple[float, float],
) -> torch.Tensor:
    """Gauss-Newton on one level; ``share`` is (begin, length) of the stage's progress."""
    on_field = field_pooling(level)
    displacement = resize_displacement(displacement, pyramid.grid_at(on_field).shape)
    solver = GaussNewton(
        _pairs(pyramid, level.pooling, level.alpha, level.beta),
        level.bending,
        *pyramid.trust_at(level.pooling),
        level.cg_iterations,
        settings.max_step,
        progress.check,
        pyramid.points_at(on_field),
        on_field // level.pooling,
        _sliding(pyramid, on_field, settings),
    )
    learns = level.alpha > 0 and pyramid.reduced is not None and pyramid.reduced.learns
    iterations = level.iterations
    if _yields(pyramid, settings):
        iterations += iterations // 2  # the edges are weighed anew each time, and settle later
    for iteration in range(iterations):
        progress.update(share[0] + share[1] * iteration / iterations)
        if learns and iteration > 0:
            _learn(pyramid, displacement, level.pooling)
            pyramid.refresh()
            solver.replace(0, pyramid.global_(level.pooling, level.alpha))
        displacement, step = solver.step(displacement)
        if step < _FINISHED:
            break
    return displacement


def _sliding(pyramid: FeaturePyramid, pooling: int, settings: RefineSettings) -> Sliding:
    """Where the field on the pooled grid may slide."""
    labels = pyramid.compartments_at(pooling)
    borders = None if labels is None else SoftEdges.between(labels, settings.border_stiffness)
    return Sliding(settings.shear_limit if _yields(pyramid, settings) else 0.0, borders)


def _yields(pyramid: FeaturePyramid, settings: RefineSettings) -> bool:
    return settings.yields == "always" or (settings.yields == "auto" and pyramid.modality == "mr")


def repair_threshold(pyramid: FeaturePyramid, settings: RefineSettings) -> float:
    """Determinant below which the field is repaired; 0: never."""
    slides = _yields(pyramid, settings) or pyramid.has_compartments
    if settings.repair_below == 0 or settings.solver == "adam" or not slides:
        return settings.repair_below
    return max(settings.repair_below, SLIDING_DETERMINANT)


def _pairs(pyramid: FeaturePyramid, pooling: int, alpha: float, beta: float) -> list[FeaturePair]:
    """The feature groups with a weight above zero, global first."""
    pairs = []
    if alpha > 0 and pyramid.reduced is not None:
        pairs.append(pyramid.global_(pooling, alpha))
    if beta > 0:
        pairs.append(pyramid.local(pooling, beta))
    return pairs


def _learn(pyramid: FeaturePyramid, displacement: torch.Tensor, pooling: int) -> None:
    """The reduction's turn: the field is constant, the VAE takes its training steps."""
    grid, cells = pyramid.grid_at(pooling), pyramid.reduced.cells
    on_cells = grid.sample(
        grid.voxels_to_mm(displacement), grid.index_of(cells, displacement.device)
    )
    pyramid.reduced.update(cells.mm_to_voxels(on_cells))


def _adam(
    pyramid: FeaturePyramid,
    displacement: torch.Tensor,
    settings: RefineSettings,
    use_global: bool,
    use_local: bool,
    progress: Progress,
) -> torch.Tensor:
    """The paper's way: Adam on a field smoothed by three box filters, VAE updated along.

    Loss: sums over channels, means over voxels; bending lambda on the mean over voxels and
    components of |laplacian u|^2 (voxels of the half-resolution grid).
    """
    pooling = settings.adam_pooling
    alpha = settings.adam_alpha if use_global else 0.0
    pairs = _pairs(pyramid, pooling, alpha, settings.adam_beta if use_local else 0.0)
    trust_fixed, trust_moving = pyramid.trust_at(pooling)
    points = pyramid.points_at(pooling)
    control = resize_displacement(displacement, trust_fixed.shape).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([control], lr=settings.adam_learning_rate)
    learns = alpha > 0 and pyramid.reduced is not None and pyramid.reduced.learns
    for iteration in range(settings.adam_iterations):
        progress.update(iteration / settings.adam_iterations)
        field = _smooth(control)
        if learns and iteration > 0:
            _learn(pyramid, field.detach(), pooling)
            if iteration % settings.adam_refresh == 0:
                pyramid.refresh()
                pairs[0] = pyramid.global_(pooling, alpha)
        trust = trust_fixed * warp(trust_moving[None], field.detach())[0]
        loss = settings.adam_bending * laplacian(field).square().mean()
        for pair in pairs:
            squared = (warp(pair.moving, field) - pair.fixed).square().sum(dim=0)
            loss = loss + pair.weight * (squared * trust).mean()
        if points is not None:  # in units of one data term of weight 1 that is summed over voxels
            weight = sum(pair.weight for pair in pairs)
            loss = loss + weight * points.energy(field) / trust.numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return _smooth(control.detach())


def _smooth(control: torch.Tensor) -> torch.Tensor:
    """Three 3^3 box filters: close to a quadratic B-spline; differentiable."""
    if not control.requires_grad:
        return box_filter(control, 3)
    padded = control[None]
    for _ in range(3):
        padded = torch.nn.functional.pad(padded, (1,) * 6, mode="replicate")
        padded = torch.nn.functional.avg_pool3d(padded, 3, stride=1)
    return padded[0]
