"""The cost of every displacement in a search window, for every voxel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .warping import box_filter


def displacement_mesh(radius: int, device: str | torch.device = "cpu") -> torch.Tensor:
    """The (2r+1)^3 candidate displacements in voxels: (3, K), components x, y, z; x fastest."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    return torch.stack((x, y, z)).reshape(3, -1)


def cost_volume(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    radius: int,
    weight: torch.Tensor | None = None,
    smoothing: int = 2,
    check: Callable[[], None] = lambda: None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Smoothed SSD of features for each candidate displacement (Heinrich et al. 2014).

    ``fixed`` and ``moving`` are (C, Z, Y, X); the SSD is summed over channels, multiplied by
    ``weight`` (Z, Y, X) and box-filtered ``smoothing`` times. Moving borders are replicated.
    Returns (K, Z, Y, X) with K = (2 radius + 1)^3 in the order of :func:`displacement_mesh`.
    ``check`` is called between slabs and may raise to cancel. ``dtype`` is what the costs are kept
    in (that of ``fixed`` if not given); they are computed in the features' own.
    """
    _, depth, height, width = fixed.shape
    side = 2 * radius + 1
    padded = F.pad(moving[None], (radius,) * 6, mode="replicate")[0]
    costs = fixed.new_empty((side**3, depth, height, width), dtype=dtype or fixed.dtype)
    narrow = costs.dtype != fixed.dtype
    work = fixed.new_empty((side**2, depth, height, width)) if narrow else None
    difference = torch.empty_like(fixed)
    for z in range(side):
        check()
        kept = costs[z * side**2 : (z + 1) * side**2]
        plane = kept if work is None else work
        for k in range(side**2):
            y, x = divmod(k, side)
            shifted = padded[:, z : z + depth, y : y + height, x : x + width]
            torch.sub(fixed, shifted, out=difference)
            torch.sum(difference.square_(), dim=0, out=plane[k])
        if weight is not None:
            plane.mul_(weight)
        kept.copy_(box_filter(plane, smoothing))
    return costs
