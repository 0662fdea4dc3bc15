"""The convex stage on both feature sets: the displacement that refinement starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..features.pyramid import FeaturePyramid
from ..progress import Progress
from ..settings import ConvexSettings
from .convex import convex_displacement
from .energy import FeaturePair, energy
from .guide import Guide
from .repair import repair_folds
from .warping import compose, resize_displacement, warp

#: Share by which a compartment's own start must fit it better than that of the whole.
CLEARLY_BETTER = 0.05
#: Where a start that was put together falls below this determinant, it is smoothed.
LEAST_DETERMINANT = 0.05


@dataclass(frozen=True)
class Starts:
    """Displacements (3, Z, Y, X) to start from, in voxels of their own level's grid: ``local`` by
    the local features alone, ``guided`` by the global ones first. None: not in use."""

    local: torch.Tensor | None
    guided: torch.Tensor | None

    @property
    def best_informed(self) -> torch.Tensor:
        """The guided start where there is one: the paper's way."""
        return self.local if self.guided is None else self.guided


def initial_displacements(
    pyramid: FeaturePyramid,
    settings: ConvexSettings,
    use_global: bool,
    use_local: bool,
    progress: Progress,
) -> Starts:
    """Global convex, then local convex on the moving features warped by it, composed.

    The local stage estimates what the global one left over: a fixed point goes through the field
    found last first. When both feature sets are in use, the local stage is also run from zero: the
    refinement decides between the two starts.
    """
    if settings.literal_composition and use_global and use_local:
        return Starts(None, _literal(pyramid, settings, progress))
    found, local = None, None
    guide = None
    if use_local:
        levels = settings.local_levels
        local, guide = _first_chain(pyramid.local, pyramid, settings, levels, progress, guide)
        progress.update(0.35)
    if use_global:
        levels = settings.global_levels
        found, guide = _first_chain(pyramid.global_, pyramid, settings, levels, progress, guide)
        progress.update(0.65)
        if use_local:
            levels = settings.local_levels
            found = _chain_in_parts(
                pyramid.local, pyramid, settings, levels, found, progress, guide
            )
    return Starts(local, found)


def _first_chain(
    features: Callable[[int], FeaturePair],
    pyramid: FeaturePyramid,
    settings: ConvexSettings,
    levels: tuple[tuple[int, int], ...],
    progress: Progress,
    guide: Guide | None,
) -> tuple[torch.Tensor, Guide | None]:
    """A chain on the original pair, and the guide when it was needed.

    The images come first. Only where they lose more landmark pairs than mistakes explain, the chain
    runs once more from a field through the pairs, and is held to it near them.
    """
    start = None if guide is None else guide.start
    found = _chain_in_parts(features, pyramid, settings, levels, start, progress, guide)
    points = pyramid.points_at(levels[-1][0])
    if guide is not None or points is None:
        return found, guide
    lost, count = points.lost(found), len(pyramid.landmarks)
    if lost <= count / 3:
        return found, None
    progress.message(
        f"The images alone miss {lost} of {count} landmark constraints; the search starts again "
        "from a field through them."
    )
    guide = Guide.through(pyramid)
    start = guide.start
    return _chain_in_parts(features, pyramid, settings, levels, start, progress, guide), guide


def _chain_in_parts(
    features: Callable[[int], FeaturePair],
    pyramid: FeaturePyramid,
    settings: ConvexSettings,
    levels: tuple[tuple[int, int], ...],
    start: torch.Tensor | None,
    progress: Progress,
    guide: Guide | None = None,
) -> torch.Tensor:
    """The chain of the whole; a compartment that one of its own fits clearly better takes that.

    Lungs that move by more than the distance of two ribs would take the chest wall along, to the
    next rib; no refinement finds back from there. Without compartments it is one chain.
    """
    whole = _chain(features, pyramid, settings, levels, start, progress, guide)
    pooling = levels[-1][0]
    labels = pyramid.compartments_at(pooling)
    if labels is None:
        return whole
    pair, found = features(pooling), whole
    for label in labels.unique().tolist():
        own = _chain(features, pyramid, settings, levels, start, progress, guide, label)
        trust = pyramid.trust_at(pooling, label)[0]
        misfits = [energy([pair], u, 0.0, trust)[0] for u in (own, whole)]
        if misfits[0] < (1 - CLEARLY_BETTER) * misfits[1]:
            found = torch.where(labels == label, own, found)
    return found if found is whole else repair_folds(found, LEAST_DETERMINANT)[0]


def _chain(
    features: Callable[[int], FeaturePair],
    pyramid: FeaturePyramid,
    settings: ConvexSettings,
    levels: tuple[tuple[int, int], ...],
    start: torch.Tensor | None,
    progress: Progress,
    guide: Guide | None = None,
    label: int | None = None,
) -> torch.Tensor:
    """Convex stages from coarse to fine, each on the moving features warped so far.

    With a ``label`` only the fixed tissue of that compartment is compared.
    """
    displacement = start
    for pooling, radius in levels:
        pair = features(pooling)
        trust = pyramid.trust_at(pooling, label)
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
            None if guide is None else guide.pull(pyramid.grid_at(pooling), pair.fixed.device),
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
