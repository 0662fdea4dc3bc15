"""SAMConvex: coarse-to-fine decoupled convex optimization over a correlation pyramid.

Li, Tian, Mok, Bai, Wang, Ge, Zhou, Lu, Ye, Yan and Jin, "SAMConvex: Fast Discrete Optimization for
CT Registration Using Self-supervised Anatomical Embedding and Correlation Pyramid", MICCAI 2023.
Search radii 2, 3, 3 at a quarter, a half and the whole of the image's resolution, on features at
half the resolution of each; similarity is the dot product of normalized global and local
embeddings; after each level the moving image is warped and its features are extracted again; then
instance optimization, 50 iterations, dot product and diffusion.

What is not the paper's: its embedding network ("SAM" is self-supervised anatomical embedding, not
Segment Anything) has no weights that may be shipped. Global embeddings are those of our encoder,
whitened by PCA; local ones are MIND-SSC without its mean over channels. With ``encoder`` "none" the
local ones are alone. Displacements are in voxels, not in units of the image's half width: the
coupling coefficients are the same numbers on another scale (there they couple about 1000 times
less, and three box filters a pass make up for it), and so is the learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..features.mind import mind_ssc
from ..field import DisplacementField
from ..optimize.adam import descend, diffusion
from ..optimize.convex import COEFFICIENTS, coupled_convex
from ..optimize.cost_volume import cost_volume
from ..optimize.warping import box_filter, compose, pool, resize_displacement, warp
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .encoding import PairEncoder
from .frame import Problem, Solution, run

if TYPE_CHECKING:
    from ..features.encoders import Encoder


@dataclass(frozen=True)
class Options:
    """``levels``: (pooling of the working grid, search radius in pooled voxels), coarse to fine;
    the paper's for a working grid of 2 mm (preset fast). ``smoothing``: box filters after a level.
    ``encode_again``: warp the moving image and encode it again before each level, as in the paper;
    else its features are warped, in a third of the time. ``iterations`` of the instance
    optimization (0: none), its ``learning_rate`` in voxels of the last level, and ``smoothness``,
    the weight of the diffusion regularizer for displacements in those voxels."""

    levels: tuple[tuple[int, int], ...] = ((8, 2), (4, 3), (2, 3))
    smoothing: int = 3
    encode_again: bool = True
    iterations: int = 50
    learning_rate: float = 0.2
    smoothness: float = 0.6

    def problems(self) -> list[str]:
        found = [] if self.levels else ["levels needs at least one pair"]
        for pooling, radius in self.levels:
            if pooling not in (1, 2, 4, 8, 16):
                found.append(f"a level pools by 1, 2, 4, 8 or 16, not {pooling}")
            if not 1 <= radius <= 10:
                found.append(f"a search radius must be 1 to 10, not {radius}")
        limits = {
            "smoothing": (0, 20),
            "iterations": (0, 10_000),
            "learning_rate": (1e-4, 10),
            "smoothness": (0, 1e6),
        }
        return found + out_of_range(self, limits)


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

    levels = find(settings.method).options(settings.method_options).levels
    multiple = math.lcm(*(2 * pooling for pooling, _ in levels))
    masks = (fixed_mask, moving_mask)
    return run(_solve, (fixed, moving), settings, progress, masks, multiple)


@torch.no_grad()
def _solve(problem: Problem) -> Solution:
    embeddings = _Embeddings(problem)
    options, displacement = problem.options, None
    for number, (pooling, radius) in enumerate(options.levels):
        problem.progress.update(0.7 * number / len(options.levels))
        displacement = _level(problem, embeddings, displacement, pooling, radius)
    pooling = options.levels[-1][0]
    if options.iterations:
        displacement = _instance(problem, embeddings, displacement, pooling)
    field = DisplacementField.from_voxels(displacement, problem.prepared.grid.pooled(pooling))
    return Solution(field, embeddings.encoder)


def _level(
    problem: Problem,
    embeddings: _Embeddings,
    displacement: torch.Tensor | None,
    pooling: int,
    radius: int,
) -> torch.Tensor:
    """One level of the pyramid on the moving image as warped so far; displacement (3, Z, Y, X) in
    voxels of the working grid pooled by ``pooling``."""
    options, check = problem.options, problem.progress.check
    fixed, moving = embeddings.pair(pooling, displacement)
    if displacement is not None:
        displacement = resize_displacement(displacement, fixed.shape[1:])
    weight = _weight(problem, pooling, displacement)
    # Of unit vectors half the squared distance is 1 - dot product: the same order of candidates.
    scale = 0.5**0.5
    # Half precision: it is the largest thing in memory, and 0.001 of a cost changes nothing.
    costs = cost_volume(
        fixed * scale, moving * scale, radius, weight, _smoothing(problem), check, torch.float16
    )
    found = box_filter(coupled_convex(costs, radius, COEFFICIENTS), options.smoothing)
    return found if displacement is None else compose(displacement, found)


def _weight(problem: Problem, pooling: int, displacement: torch.Tensor | None) -> torch.Tensor:
    """Where both images count, (Z, Y, X) on the pooled grid, 0 to 1."""
    fixed, moving = (pool(trust[None], pooling) for trust in problem.trust)
    if displacement is not None:
        moving = warp(moving, displacement)
    return (fixed * moving)[0]


def _instance(
    problem: Problem, embeddings: _Embeddings, displacement: torch.Tensor, pooling: int
) -> torch.Tensor:
    """Instance optimization: the dot product of the embeddings and the diffusion of the field."""
    options = problem.options
    fixed, moving = embeddings.pair(pooling, None)
    weight = _weight(problem, pooling, displacement)

    def loss(u: torch.Tensor) -> torch.Tensor:
        similarity = ((warp(moving, u) * fixed).sum(dim=0) * weight).mean()
        return diffusion(u, options.smoothness) - similarity

    def smooth(values: torch.Tensor) -> torch.Tensor:
        return box_filter(values, 3)

    steps = (options.iterations, options.learning_rate, problem.progress, 0.7)
    return descend(displacement, loss, smooth, *steps)


class _Embeddings:
    """Normalized local and global embeddings of the pair, the moving one warped."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._global = None
        settings = problem.settings.features
        if settings.encoder != "none" and settings.use != "local":
            self._global = PairEncoder(problem, channels=24)

    @property
    def encoder(self) -> Encoder | None:
        return None if self._global is None else self._global.encoder

    def pair(
        self, pooling: int, displacement: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(fixed, moving) embeddings (C, Z, Y, X) on the working grid pooled by ``pooling``; the
        moving ones after ``displacement`` (voxels of any pooled grid)."""
        prepared = self._problem.prepared
        moving = prepared.moving
        if displacement is not None:
            moving = warp(moving[None], resize_displacement(displacement, moving.shape))[0]
        images = (prepared.fixed, moving)
        parts = [[self._local(image, pooling)] for image in images]
        if self._global is not None:
            again = self._problem.options.encode_again
            found = self._global.pair(pooling, displacement, moving if again else None)
            for part, features in zip(parts, found, strict=True):
                part.append(F.normalize(features, dim=0))
        fixed, warped = (torch.cat(part) for part in parts)
        return fixed, warped

    def _local(self, image: torch.Tensor, pooling: int) -> torch.Tensor:
        """MIND-SSC at half the resolution of the level's image, centered, of unit length."""
        half = max(1, pooling // 2)
        chosen = self._problem.settings.features
        features = mind_ssc(
            pool(image[None], half)[0],
            chosen.mind_radius,
            chosen.mind_dilation,
            pooling // half,
            self._problem.progress.check,
        )
        return F.normalize(features - features.mean(dim=0), dim=0)


def _smoothing(problem: Problem) -> int:
    """Box filters over the costs: none, as published; but under a user's mask what counts must
    speak for what does not, or the smallest motion stands there and holds its surroundings back."""
    return 2 if problem.masked else 0
