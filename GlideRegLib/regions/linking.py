"""From the masks of slices to regions in 3-D, and what describes a region: its prototype."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..geometry import Grid


@dataclass
class Region:
    """A region: one mask (H, W), bool, in each of some slices that follow each other.

    ``first`` is the number of the first slice, ``prototype`` (C,) the mean of the features in it,
    ``center`` (3,) its centroid in LPS mm."""

    first: int
    masks: list[Tensor]
    prototype: Tensor = field(default_factory=lambda: torch.zeros(0))
    center: np.ndarray = field(default_factory=lambda: np.zeros(3))


def link_slices(slices: list[Tensor], overlap: float, at_least: int) -> list[Region]:
    """Regions of masks (N, H, W) that overlap from slice to slice by an IoU of ``overlap`` or more.

    Between neighboring slices the masks are assigned one to one, so that the IoUs' sum is largest.
    Regions of fewer than ``at_least`` slices are left out.
    """
    regions: list[Region] = []
    open_: dict[int, Region] = {}
    for number, masks in enumerate(slices):
        before = list(open_.items())
        pairs = _best_pairs([r.masks[-1] for _, r in before], masks, overlap)
        following: dict[int, Region] = {}
        for j in range(len(masks)):
            if j in pairs:
                region = before[pairs[j]][1]
                region.masks.append(masks[j])
            else:
                region = Region(number, [masks[j]])
                regions.append(region)
            following[j] = region
        open_ = following
    return [region for region in regions if len(region.masks) >= at_least]


def _best_pairs(before: list[Tensor], masks: Tensor, overlap: float) -> dict[int, int]:
    """Number of the mask now -> number of the mask before."""
    if not before or not len(masks):
        return {}
    old, new = torch.stack(before).flatten(1).float(), masks.flatten(1).float()
    both = new @ old.T
    iou = (both / (new.sum(1)[:, None] + old.sum(1)[None] - both).clamp(min=1)).cpu().numpy()
    now, then = linear_sum_assignment(iou, maximize=True)
    return {int(j): int(i) for j, i in zip(now, then, strict=True) if iou[j, i] >= overlap}


def describe(regions: list[Region], features: Tensor, mean: Tensor, pixels: Grid) -> None:
    """Fills in the prototypes and the centers.

    ``features`` (C, Z, h, w) on cells of a whole number of ``pixels``, the grid of the masks;
    ``mean`` (C,) is taken off them (zeros: nothing is).
    """
    factor = pixels.size[1] // features.shape[2]
    for region in regions:
        total, weight = mean.new_zeros(mean.shape), 0.0
        points = []
        for z, mask in enumerate(region.masks, start=region.first):
            share = F.avg_pool2d(mask[None].float(), factor)[0]
            slice_ = features[:, z].to(mask.device, torch.float32)
            total = total + torch.einsum("chw,hw->c", slice_, share).to(total.device)
            weight += float(share.sum())
            y, x = torch.nonzero(mask).float().cpu().numpy().T
            points.append(np.stack([x, y, np.full_like(x, z)], axis=1))
        region.prototype = total / weight - mean
        region.center = pixels.to_physical(np.concatenate(points).mean(axis=0)[None])[0]


def fill(region: Region, pixels: Grid, index: Tensor) -> Tensor:
    """A region as a bool mask (Z, Y, X) on a grid with the same axes, whose index on ``pixels`` is
    ``index`` (3, Z, Y, X).

    Between the slices it is interpolated by the distance to its border; it ends half a slice beyond
    its first and last ones.
    """
    low, high = max(0, region.first - 1), region.first + len(region.masks) + 1
    distance = torch.full((min(high, pixels.size[2]) - low, *region.masks[0].shape), -1e3)
    for z, mask in enumerate(region.masks, start=region.first):
        inside = mask.cpu().numpy()
        outer = distance_transform_edt(~inside) if not inside.all() else 0
        # Half a pixel: the border lies between two pixels' centers.
        signed = np.where(inside, distance_transform_edt(inside) - 0.5, 0.5 - outer)
        distance[z - low] = torch.from_numpy(signed).float()
    for end, neighbor in ((region.first - 1, region.first), (high - 1, high - 2)):
        if low <= end < pixels.size[2] and end != neighbor:
            distance[end - low] = -distance[neighbor - low].abs()
    part = pixels.padded((0, 0, -low), (0, 0, low + len(distance) - pixels.size[2]))
    # The two grids have the same axes, so whole slices lie outside.
    height = index[2, :, 0, 0] - low
    near = (height > -0.5) & (height < len(distance) - 0.5)
    shifted = index[:, near].clone()
    shifted[2] -= low
    filled = torch.zeros(index.shape[1:], dtype=torch.bool, device=index.device)
    filled[near] = part.sample(distance[None].to(index.device), shifted)[0] > 0
    return filled
