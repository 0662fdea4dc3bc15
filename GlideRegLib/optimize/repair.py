"""Removes what is left of folding: the field is smoothed locally until it has none."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..field import jacobian_determinant
from ..geometry import Grid
from .warping import box_filter


def repair_folds(
    displacement: torch.Tensor, threshold: float, iterations: int = 60
) -> tuple[torch.Tensor, int]:
    """Blends with a smoothed copy around voxels whose determinant is below ``threshold``.

    ``displacement`` (3, Z, Y, X) in voxels. The treated region grows while folds remain. Returns
    the repaired displacement and the number of voxels that were below the threshold at first.
    """
    _, depth, height, width = displacement.shape
    unit = Grid((width, height, depth), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    first = 0
    for iteration in range(iterations):
        bad = jacobian_determinant(displacement, unit) < threshold
        count = int(bad.sum())
        if iteration == 0:
            first = count
        if count == 0:
            break
        side = 5 + 2 * (iteration // 10)
        near = F.max_pool3d(bad.float()[None, None], side, stride=1, padding=side // 2)[0]
        share = box_filter(near, 2)
        displacement = displacement * (1 - share) + box_filter(displacement, 2) * share
    return displacement, first
