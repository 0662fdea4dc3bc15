"""ConvexAdam: coupled convex optimization on MIND-SSC, then Adam on a smooth field.

Siebert, Großbröhmer, Hansen and Heinrich, "ConvexAdam: Self-Configuring Dual-Optimisation-Based 3D
Multitask Medical Image Registration", IEEE TMI 2024; https://github.com/multimodallearning/convexAdam
(Apache-2.0). Built from the blocks of this library; nothing of that code is copied.

By default the result is that of the package ``convexAdam`` 0.2.0, with what is odd in it: zeros
beyond all borders, displacements that are sampled N/(N-1) times too far, and the corner of the
search window where all candidates cost the same. ``published`` False puts them right. Its masks are
not offered in its own way (they assume even sizes): a mask here says what counts in the similarity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..features.mind import PAIRS, mind_ssc
from ..field import DisplacementField
from ..geometry import index_tensor, normalized_coordinates
from ..optimize.adam import descend, diffusion
from ..optimize.convex import COEFFICIENTS, TIE_BREAK, coupled_argmin
from ..optimize.cost_volume import cost_volume, displacement_mesh
from ..optimize.warping import box_filter, pool, resize_displacement
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .frame import Problem, Solution, run


@dataclass(frozen=True)
class Options:
    """The package's defaults. ``mind_radius`` and ``mind_dilation`` in working voxels.
    ``grid_spacing`` and ``adam_spacing``: pooling of the convex and of
    the Adam stage, working voxels; ``search_radius`` in pooled voxels; ``consistency_steps``
    between both directions; ``smoothness`` weighs the diffusion regularizer; ``adam_iterations`` 0
    leaves the Adam stage out; ``published``: see the head of this file."""

    mind_radius: int = 1
    mind_dilation: int = 2
    grid_spacing: int = 6
    search_radius: int = 4
    consistency_steps: int = 15
    smoothness: float = 1.25
    adam_iterations: int = 80
    adam_spacing: int = 2
    published: bool = True

    def problems(self) -> list[str]:
        limits = {
            "mind_radius": (1, 4),
            "mind_dilation": (1, 6),
            "grid_spacing": (2, 12),
            "search_radius": (1, 8),
            "consistency_steps": (0, 1000),
            "smoothness": (0, 1e6),
            "adam_iterations": (0, 10_000),
            "adam_spacing": (1, 6),
        }
        return out_of_range(self, limits)


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    landmark_constraints: None = None,
) -> Result:
    """See :meth:`Method.register`."""
    from . import find

    options = find(settings.method).options(settings.method_options)
    multiple = math.lcm(options.grid_spacing, options.adam_spacing)
    masks = (fixed_mask, moving_mask)
    return run(_solve, (fixed, moving), settings, progress, masks, multiple)


def _solve(problem: Problem) -> Solution:
    prepared, options = problem.prepared, problem.options
    features = mind_features(problem, options)
    trust = problem.trust if problem.masked else None
    displacement, pooling = convex_adam(features, options, trust, problem.progress)
    return Solution(DisplacementField.from_voxels(displacement, prepared.grid.pooled(pooling)))


def mind_features(problem: Problem, options: Options) -> Features:
    """MIND-SSC of both images, pooled for both stages."""
    images = (problem.prepared.fixed, problem.prepared.moving)
    factors = (options.grid_spacing, options.adam_spacing)
    check = problem.progress.check
    pairs = [_pooled_mind(image, factors, options, check) for image in images]
    return Features(*((pairs[0][k], pairs[1][k]) for k in (0, 1)))


@dataclass(frozen=True)
class Features:
    """(fixed, moving) features (C, Z, Y, X) pooled for the convex and for the Adam stage."""

    coarse: tuple[torch.Tensor, torch.Tensor]
    fine: tuple[torch.Tensor, torch.Tensor]


@torch.no_grad()
def _pooled_mind(
    image: torch.Tensor, factors: tuple[int, int], options: Options, check: Callable[[], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """MIND-SSC of an image at two poolings."""
    radius, dilation = options.mind_radius, options.mind_dilation
    if not options.published:
        first, second = (mind_ssc(image, radius, dilation, f, check) for f in factors)
        return first, second
    # As ours, but for the outermost voxels: here the patch distances are what is replicated beyond
    # the border, not the intensities.
    size = image.shape
    padded = F.pad(image[None, None], (dilation,) * 6, mode="replicate")[0, 0]
    channels = image.new_empty((12, *size))
    for channel, pair in enumerate(PAIRS):
        check()
        first, second = (
            padded[tuple(slice(dilation * (1 + k), dilation * (1 + k) + n) for k, n in parts)]
            for parts in (tuple(zip(offset, size, strict=True)) for offset in pair)
        )
        squared = F.pad((first - second).square()[None], (radius,) * 6, mode="replicate")
        channels[channel] = F.avg_pool3d(squared, 2 * radius + 1, stride=1)[0]
    channels -= channels.amin(dim=0)
    variance = channels.mean(dim=0)
    mean = float(variance.mean())
    channels.div_(variance.clamp_(1e-3 * mean, 1e3 * mean)).neg_().exp_()
    first, second = (pool(channels, factor) for factor in factors)
    return first, second


@torch.no_grad()
def convex_adam(
    features: Features,
    options: Options,
    trust: tuple[torch.Tensor, torch.Tensor] | None,
    progress: Progress,
) -> tuple[torch.Tensor, int]:
    """Both stages on any features: displacement (3, Z, Y, X) in voxels of the working grid pooled
    by the second value. ``trust`` (Z, Y, X) on the working grid weighs the similarity."""
    weights = None
    if trust is not None:
        weights = tuple(pool(t[None], options.grid_spacing)[0] for t in trust)
    rules = _Rules(options.published)
    found = _convex(features.coarse, options, rules, weights, progress)
    progress.update(0.3)
    if options.adam_iterations == 0 or options.smoothness == 0:
        return found, options.grid_spacing
    # By way of the working grid, as the package does.
    full = tuple(n * options.grid_spacing for n in found.shape[1:])
    start = resize_displacement(resize_displacement(found, full), features.fine[0].shape[1:])
    if trust is not None:
        weights = tuple(pool(t[None], options.adam_spacing)[0] for t in trust)
    return _adam(features.fine, start, options, rules, weights, progress), options.adam_spacing


@dataclass(frozen=True)
class _Rules:
    """What lies beyond a border, and how far a displacement of N voxels reaches."""

    published: bool

    def box(self, values: torch.Tensor, times: int = 1) -> torch.Tensor:
        """A 3^3 mean filter; it is its own adjoint where zeros lie beyond the borders."""
        if not self.published:
            return box_filter(values, times)
        inner = (..., *[slice(1, -1)] * 3)
        for _ in range(times):
            values = box_filter(F.pad(values, (1,) * 6))[inner]
        return values.contiguous()

    def sample(self, values: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
        """values (C, Z, Y, X) at x + u(x), u (3, Z, Y, X) in voxels."""
        shape = tuple(values.shape[1:])
        if not self.published:
            index = index_tensor(shape, values.device) + displacement
            coordinates = normalized_coordinates(index, shape)[None]
            return F.grid_sample(
                values[None], coordinates, padding_mode="border", align_corners=False
            )[0]
        # To the last bit as the package does it: where a displacement is whole, rounding decides
        # which side's slope counts, and Adam makes a whole voxel of it.
        half = displacement.new_tensor([(n - 1) / 2 for n in shape[::-1]])
        identity = torch.eye(3, 4, device=values.device)[None]
        coordinates = F.affine_grid(identity, (1, 1, *shape), align_corners=False)
        coordinates = coordinates + displacement.permute(1, 2, 3, 0)[None] / half
        return F.grid_sample(values[None], coordinates, align_corners=False)[0]


def _convex(
    pair: tuple[torch.Tensor, torch.Tensor],
    options: Options,
    rules: _Rules,
    weights: tuple[torch.Tensor, torch.Tensor] | None,
    progress: Progress,
) -> torch.Tensor:
    """The discrete stage in both directions, made consistent: (3, Z, Y, X), pooled voxels."""
    # Along reversed axes the candidates come in the package's order, which decides among equals.
    pair = tuple(features.permute(0, 3, 2, 1).contiguous() for features in pair)
    weight = None if weights is None else (weights[0] * weights[1]).permute(2, 1, 0).contiguous()
    forward = _coupled(*pair, options, rules, weight, progress)
    if options.consistency_steps:
        backward = _coupled(*pair[::-1], options, rules, weight, progress)
        for _ in range(options.consistency_steps):
            forward, backward = (
                0.5 * (forward - rules.sample(backward, forward)),
                0.5 * (backward - rules.sample(forward, backward)),
            )
    return forward.flip(0).permute(0, 3, 2, 1).contiguous()


def _coupled(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    options: Options,
    rules: _Rules,
    weight: torch.Tensor | None,
    progress: Progress,
) -> torch.Tensor:
    """One direction of the discrete stage: cost volume, then cost and smoothness in turn."""
    radius, shape = options.search_radius, fixed.shape[1:]
    inner = (slice(None), *(slice(radius, radius + n) for n in shape))
    if rules.published:  # zeros lie beyond the moving features
        fixed, moving = (F.pad(f, (radius,) * 6) for f in (fixed, moving))
    costs = cost_volume(fixed, moving, radius, smoothing=0, check=progress.check)
    if rules.published:
        costs = costs[inner]
    if weight is not None:
        costs = costs * weight
    flat = torch.stack([rules.box(part, 2).flatten() for part in costs])
    mesh = displacement_mesh(radius, flat.device)
    smooth = torch.zeros(3, flat.shape[1], device=flat.device)
    # Where nothing counts all candidates cost the same, and the package takes the corner of the
    # window; the smallest motion is better, above all under a mask.
    exact = rules.published and weight is None
    pull = torch.full_like(smooth[0], 0.0 if exact else TIE_BREAK)
    for coefficient in (0.0, *COEFFICIENTS):
        progress.check()
        best = coupled_argmin(flat, mesh, smooth, coefficient, pull)
        smooth = rules.box(mesh[:, best].view(3, *shape)).view(3, -1)
    return smooth.view(3, *shape)


def _adam(
    pair: tuple[torch.Tensor, torch.Tensor],
    start: torch.Tensor,
    options: Options,
    rules: _Rules,
    weights: tuple[torch.Tensor, torch.Tensor] | None,
    progress: Progress,
) -> torch.Tensor:
    """Adam on SSD and diffusion: sums over channels, means over voxels."""
    fixed, moving = pair
    weight = None if weights is None else weights[0] * weights[1]

    def loss(displacement: torch.Tensor) -> torch.Tensor:
        squared = (rules.sample(moving, displacement) - fixed).square().sum(dim=0)
        data = (squared if weight is None else squared * weight).mean()
        return data + diffusion(displacement, options.smoothness)

    def smooth(values: torch.Tensor) -> torch.Tensor:
        return rules.box(values, 3)

    return descend(start, loss, smooth, options.adam_iterations, 1.0, progress)
