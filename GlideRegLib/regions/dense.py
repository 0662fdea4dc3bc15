"""A dense field from pairs of regions: SAMReg's ROI-to-dense step."""

from __future__ import annotations

from torch import Tensor

from ..optimize.adam import descend, diffusion
from ..optimize.warping import box_filter, pool, resize_displacement, warp
from ..progress import Progress


def field_from_regions(
    fixed: Tensor,
    moving: Tensor,
    poolings: tuple[int, ...],
    iterations: int,
    learning_rate: float,
    smoothness: float,
    progress: Progress,
    begin: float,
) -> Tensor:
    """The displacement (3, z, y, x), in voxels of the grid pooled by the last of ``poolings``, that
    lays the ``moving`` masks on the ``fixed`` ones.

    Both are (K, Z, Y, X), 0 to 1, on the grid pooled by ``poolings[-1]``; ``poolings`` are of one
    working grid, coarse to fine. Minimized is the mean over the regions of squared difference plus
    1 - Dice, and ``smoothness`` times the squared gradient of the field. ``begin``: the share of
    the stage's progress that is done before.
    """
    displacement = None
    for number, pooling in enumerate(poolings):
        factor = pooling // poolings[-1]
        masks = pool(fixed, factor), pool(moving, factor)
        if displacement is None:
            displacement = fixed.new_zeros((3, *masks[0].shape[1:]))
        start = resize_displacement(displacement, masks[0].shape[1:])
        share = begin + (1 - begin) * number / len(poolings)
        loss = _Loss(*masks, smoothness)
        displacement = descend(start, loss, _smooth, iterations, learning_rate, progress, share)
    return displacement


class _Loss:
    def __init__(self, fixed: Tensor, moving: Tensor, smoothness: float) -> None:
        self._fixed, self._moving, self._smoothness = fixed, moving, smoothness
        self._size = fixed.flatten(1).sum(dim=1)

    def __call__(self, displacement: Tensor) -> Tensor:
        warped = warp(self._moving, displacement)
        squares = (warped - self._fixed).square().mean()
        both = (warped * self._fixed).flatten(1).sum(dim=1)
        dice = 2 * both / (warped.flatten(1).sum(dim=1) + self._size).clamp(min=1e-6)
        return squares + (1 - dice).mean() + diffusion(displacement, self._smoothness)


def _smooth(values: Tensor) -> Tensor:
    return box_filter(values, 3)
