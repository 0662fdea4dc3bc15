"""The convex stage on both feature sets: the displacement that refinement starts from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..features.pyramid import FeaturePyramid
from ..progress import Progress
from ..settings import ConvexSettings
from .convex import convex_displacement
from .energy import MINIMUM_GAIN, FeaturePair, energy
from .warping import compose, resize_displacement, warp

#: Bending weight of the comparison between two starts.
_BENDING = 0.4


def initial_displacement(
    pyramid: FeaturePyramid,
    settings: ConvexSettings,
    use_global: bool,
    use_local: bool,
    progress: Progress,
) -> torch.Tensor:
    """Global convex, then local convex on the moving features warped by it, composed.

    The local stage estimates what the global one left over: a fixed point goes through the field
    found last first. When both feature sets are in use, the local stage is also run from zero and
    the start with the lower local energy is kept: where the global features mislead, they lose.
    Returns (3, Z, Y, X) in voxels of the last local (or global) level's grid.
    """
    if settings.literal_composition and use_global and use_local:
        return _literal(pyramid, settings, progress)
    found = None
    if use_global:
        found = _chain(pyramid.global_, pyramid, settings, settings.global_levels, None, progress)
        progress.update(0.3)
    if not use_local:
        return found
    plain = _chain(pyramid.local, pyramid, settings, settings.local_levels, None, progress)
    progress.update(0.65)
    if found is None:
        return plain
    guided = _chain(pyramid.local, pyramid, settings, settings.local_levels, found, progress)
    pooling = settings.local_levels[-1][0]
    trust = pyramid.trust_at(pooling)[0]
    local = [pyramid.local(pooling)]
    energies = [sum(energy(local, u, _BENDING, trust)) for u in (plain, guided)]
    helped = energies[1] < (1 - MINIMUM_GAIN) * energies[0]
    progress.message(
        f"The start comes from {'global and local' if helped else 'local'} features "
        f"(local energy {energies[1]:.4f} with global ones, {energies[0]:.4f} without)."
    )
    return guided if helped else plain


def _chain(
    features: Callable[[int], FeaturePair],
    pyramid: FeaturePyramid,
    settings: ConvexSettings,
    levels: tuple[tuple[int, int], ...],
    start: torch.Tensor | None,
    progress: Progress,
) -> torch.Tensor:
    """Convex stages from coarse to fine, each on the moving features warped so far."""
    displacement = start
    for pooling, radius in levels:
        pair = features(pooling)
        trust = pyramid.trust_at(pooling)
        moving, moving_trust = pair.moving, trust[1]
        if displacement is not None:
            displacement = resize_displacement(displacement, pair.fixed.shape[1:])
            moving = warp(moving, displacement)
            moving_trust = warp(moving_trust[None], displacement)[0]
        found = convex_displacement(
            pair.fixed,
            moving,
            radius,
            trust[0] * moving_trust,
            settings.coefficients,
            settings.consistency_steps,
            progress.check,
        )
        displacement = found if displacement is None else compose(displacement, found)
    return displacement


def _literal(pyramid: FeaturePyramid, settings: ConvexSettings, progress: Progress) -> torch.Tensor:
    """The formula as printed, u_g(X) + u_l(X + u_g(X)), both estimated on the original pair.

    It counts the motion twice; kept for the ablation only.
    """
    found = _chain(pyramid.global_, pyramid, settings, settings.global_levels, None, progress)
    local = _chain(pyramid.local, pyramid, settings, settings.local_levels, None, progress)
    return compose(local, resize_displacement(found, local.shape[1:]))
