"""Removes what is left of folding: the field is smoothed locally until it has none."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..field import jacobian_determinant
from ..folding import folded_voxels
from ..geometry import Grid
from .warping import box_filter

#: No one-sided determinant may be below this: above 0, so that rounding in files makes no fold.
_LEAST_ONE_SIDED = 0.05


def repair_folds(
    displacement: torch.Tensor, threshold: float, iterations: int = 60
) -> tuple[torch.Tensor, int]:
    """Smooths locally until no determinant of central differences is below ``threshold``, and none
    of the eight combinations of one-sided differences folds.

    ``displacement`` (3, Z, Y, X) in voxels. The treated regions grow while folds remain. Returns
    the repaired displacement and the number of voxels that were treated at first.
    """
    _, depth, height, width = displacement.shape
    unit = Grid((width, height, depth), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    first = 0
    for iteration in range(iterations):
        wide = jacobian_determinant(displacement, unit) < threshold
        close = torch.zeros_like(wide)
        index = folded_voxels(displacement, unit, _LEAST_ONE_SIDED)[0]
        close.view(-1)[torch.from_numpy(index).to(close.device)] = True
        count = int((wide | close).sum())
        if iteration == 0:
            first = count
        if count == 0:
            break
        growth = 2 * (iteration // 10)
        # A jump from one node to the next needs less than a region that central differences see.
        for bad, side, radius in ((close, 1 + growth, 1), (wide, 5 + growth, 2)):
            if bad.any():
                displacement = _smoothed_around(displacement, bad, side, radius)
    return displacement, first


def _smoothed_around(
    displacement: torch.Tensor, bad: torch.Tensor, side: int, radius: int
) -> torch.Tensor:
    """The displacement, blended with its mean over a box within ``side`` voxels of bad ones."""
    near = F.max_pool3d(bad.float()[None, None], side, stride=1, padding=side // 2)[0]
    share = box_filter(near, radius)
    return displacement * (1 - share) + box_filter(displacement, radius) * share
